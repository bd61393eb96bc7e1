"""Claims about requirements as expressions over named arrays."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from gpumargin_kernels.expression import OPERATORS, Expression, evaluate

VALUES = {
    "a": np.array([1.0, 4.0, -2.0]),
    "b": np.array([3.0, 2.0, 5.0]),
    "table": np.array([[[3.0, 2.0], [np.inf, 8.0]]] * 3),
}
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
    pytest.param(("exp", ("log", "b")), [3.0, 2.0, 5.0], id="exponential and logarithm"),
    pytest.param(("floor", ("/", "b", 2.0)), [1.0, 1.0, 2.0], id="rounded down"),
    pytest.param(("ceil", ("/", "b", 2.0)), [2.0, 1.0, 3.0], id="rounded up"),
    pytest.param(("sign", "a"), [1.0, 1.0, -1.0], id="sign"),
    pytest.param(("pow", "b", 2.0), [9.0, 4.0, 25.0], id="power"),
    pytest.param(("shrink", "a", 1.5), [0.0, 2.5, -0.5], id="moved towards zero, never through it"),
    pytest.param(("where<", "a", "b", 1.0, 2.0), [1.0, 2.0, 1.0], id="one or the other"),
    pytest.param(("where<=", "a", 4.0, 1.0, 2.0), [1.0, 1.0, 1.0], id="one or the other, equals included"),
    pytest.param(("marginal", "b", "table"), [6.0, 4.0, 22.0], id="marginal brackets"),
    pytest.param(("bracket", "b", "table"), [2.0, 2.0, 8.0], id="rate of the bracket, upper bound included"),
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
    tested = {case.values[0][0] for case in CASES if isinstance(case.values[0], tuple)} | {"log"}
    assert set(OPERATORS) == tested


@pytest.mark.parametrize("name", ["where<", "where<="])
def test_a_comparison_with_nan_is_nan_whatever_is_chosen(name: str) -> None:
    values = {"x": np.array([np.nan]), "y": np.array([1.0])}
    assert np.isnan(evaluate((name, "x", "y", 1.0, 2.0), values))[0]
    assert np.isnan(evaluate((name, "y", "x", 1.0, 2.0), values))[0]


@pytest.mark.parametrize("name", ["marginal", "bracket"])
def test_brackets_of_nan_are_nan(name: str) -> None:
    values = {"x": np.array([np.nan]), "table": VALUES["table"][:1]}
    assert np.isnan(evaluate((name, "x", "table"), values))[0]


def test_marginal_brackets_equal_rate_times_amount_minus_deduction() -> None:
    """Binance publishes deduction_n = deduction_(n-1) + lower_n (rate_n - rate_(n-1))."""
    bounds, rates = np.array([50e3, 250e3, 1e6, np.inf]), np.array([0.004, 0.005, 0.01, 0.025])
    amount = np.array([0.0, 1e4, 5e4, 6e4, 249e3, 1e6, 7e6])
    deduction = np.concatenate([[0], np.cumsum(bounds[:-1] * np.diff(rates))])
    tier = np.searchsorted(bounds, amount)
    table = np.broadcast_to(np.stack([bounds, rates], axis=1), (len(amount), 4, 2))
    found = evaluate(("marginal", "n", "table"), {"n": amount, "table": table})
    np.testing.assert_allclose(found, rates[tier] * amount - deduction[tier], rtol=1e-14)


def test_a_run_time_one_changes_no_value() -> None:
    expression: Expression = ("+", ("*", "a", "b"), ("marginal", "b", "table"))
    one = jax.numpy.ones(())
    np.testing.assert_array_equal(evaluate(expression, VALUES, one), evaluate(expression, VALUES))


def test_a_requirement_has_derivatives() -> None:
    def requirement(a: jax.Array) -> jax.Array:
        return evaluate(("+", ("max", "a", 0.0), ("*", 0.5, "a")), {"a": a})

    assert jax.grad(requirement)(jax.numpy.asarray(2.0)) == 1.5
    assert jax.grad(requirement)(jax.numpy.asarray(-2.0)) == 0.5
