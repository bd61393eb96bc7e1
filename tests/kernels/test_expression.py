"""Claims about requirements as expressions over named arrays."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from gpumargin_kernels.expression import OPERATORS, Expression, evaluate

VALUES = {"a": np.array([1.0, 4.0, -2.0]), "b": np.array([3.0, 2.0, 5.0])}
CASES = [
    pytest.param("a", [1.0, 4.0, -2.0], id="a name"),
    pytest.param(("+", "a", "b"), [4.0, 6.0, 3.0], id="sum"),
    pytest.param(("-", "a", 1.0), [0.0, 3.0, -3.0], id="difference with a number"),
    pytest.param(("*", "a", "b"), [3.0, 8.0, -10.0], id="product"),
    pytest.param(("/", "a", "b"), [1 / 3, 2.0, -0.4], id="quotient"),
    pytest.param(("max", "a", "b", 2.5), [3.0, 4.0, 5.0], id="largest of three"),
    pytest.param(("min", "a", "b"), [1.0, 2.0, -2.0], id="smallest"),
    pytest.param(("sqrt", ("*", "b", "b")), [3.0, 2.0, 5.0], id="root"),
    pytest.param(("abs", "a"), [1.0, 4.0, 2.0], id="absolute value"),
    pytest.param(("-", ("max", ("*", "a", 2.0), "b"), ("/", "b", 2.0)), [1.5, 7.0, 2.5], id="nested"),
]


@pytest.mark.parametrize(("expression", "expected"), CASES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_value_is_what_arithmetic_says_in_the_precision_of_the_operands(
    expression: Expression, expected: list[float], dtype: str
) -> None:
    values = {name: jax.numpy.asarray(array, dtype) for name, array in VALUES.items()}
    found = evaluate(expression, values)
    assert np.asarray(found).dtype == dtype
    np.testing.assert_allclose(found, np.array(expected, dtype), rtol=1e-6)


def test_a_number_alone_is_itself() -> None:
    assert evaluate(2.5, VALUES) == 2.5
    assert evaluate(("+", 1.0, 2.0), {}) == 3.0


@pytest.mark.parametrize("name", ["max", "min", "+", "*"])
def test_nan_operands_give_nan_also_under_max_and_min(name: str) -> None:
    for pair in ((np.nan, 1.0), (1.0, np.nan)):
        found = evaluate((name, "x", "y"), {"x": np.array([pair[0]]), "y": np.array([pair[1]])})
        assert np.isnan(found)[0]


def test_an_unknown_name_is_an_error_and_never_zero() -> None:
    with pytest.raises(KeyError, match="missing"):
        evaluate("missing", VALUES)


def test_every_operator_is_tested_here() -> None:
    assert set(OPERATORS) == {"+", "-", "*", "/", "max", "min", "sqrt", "abs"}


def test_a_requirement_has_derivatives() -> None:
    def requirement(a: jax.Array) -> jax.Array:
        return evaluate(("+", ("max", "a", 0.0), ("*", 0.5, "a")), {"a": a})

    assert jax.grad(requirement)(jax.numpy.asarray(2.0)) == 1.5
    assert jax.grad(requirement)(jax.numpy.asarray(-2.0)) == 0.5
