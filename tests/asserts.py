"""Comparisons of arrays that say what went into the worst element, and the one table of tolerances."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Tolerance(NamedTuple):
    """How far a number may be off: `of_value` of itself plus `of_scale` of the natural size of its problem."""

    of_value: float
    of_scale: float
    reason: str


# Quantity -> dtype -> bound. To loosen one is a change to be reviewed; the reason says what it rests on.
TOLERANCES: dict[str, dict[str, Tolerance]] = {
    "probability": {
        "float64": Tolerance(
            4e-15, 1e-17, "erfc is good to a few ulp; a tail at 30 deviations multiplies one ulp by x^2"
        ),
        "float32": Tolerance(2e-5, 1e-8, "the same, with 2^-24"),
    },
    "option_value": {
        "float64": Tolerance(1e-12, 2e-16, "two products of size `scale` cancel: an ulp of the forward remains"),
        "float32": Tolerance(2e-5, 4e-7, "the same, with 2^-24; the measured worst is 3.7e-5 on a spot of 100"),
    },
    "greek": {
        "float64": Tolerance(1e-11, 1e-15, "density and d2 multiply relative errors of d1 by up to d1^2 (about 1,000)"),
        "float32": Tolerance(3e-4, 1e-5, "the same, with 2^-24"),
    },
    "difference": {
        "float64": Tolerance(2e-6, 1e-7, "a central difference with step h has error h^2 and rounding ulp / h"),
    },
    "derivative": {
        "float64": Tolerance(
            1e-11, 1e-14, "automatic and closed-form derivatives are the same formula, ordered otherwise"
        ),
    },
    "vol": {
        "float64": Tolerance(4e-15, 0.0, "one logarithm and two roots"),
        "float32": Tolerance(2e-6, 0.0, "the same, with 2^-24"),
    },
    "sum": {
        "float64": Tolerance(0.0, 1e-14, "n additions in one order, fused or not: n ulp of the gross amount, n <= 64"),
        "float32": Tolerance(0.0, 4e-6, "the same, with 2^-24"),
    },
    "margin": {
        "float64": Tolerance(1e-11, 1e-12, "sums over legs of option values, by another order and another erfc"),
        "float32": Tolerance(2e-4, 2e-5, "an ulp of the forward per option, up to 100 options of one row netted"),
    },
    "published_four_digits": {
        "float64": Tolerance(0.0, 5.1e-5, "the book prints four decimals"),
    },
    "upstream_literal": {
        "float64": Tolerance(0.0, 1e-12, "the origin of the case states 1e-12 absolute"),
    },
}


def dtype_name(array: Any) -> str:
    """Key of an array's dtype in `TOLERANCES`."""
    return str(np.asarray(array).dtype)


def assert_close(
    found: Any, expected: Any, quantity: str, *, scale: Any = 1.0, dtype: str | None = None, **inputs: Any
) -> None:
    """Every element within the quantity's tolerance; a failure prints all inputs of the worst element.

    Args:
      found: any shape.
      expected: broadcasts with `found`; NaN equals NaN, infinities equal themselves.
      quantity: row of `TOLERANCES`.
      scale: natural size of the problem, broadcasts with `found`.
      dtype: column of `TOLERANCES`, by default the dtype of `found`.
      inputs: whatever explains an element; broadcast with `found` where they can be.
    """
    bound = TOLERANCES[quantity][dtype or dtype_name(found)]
    got, want, size = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (found, expected, scale)))
    is_same = (got == want) | (np.isnan(got) & np.isnan(want))
    with np.errstate(invalid="ignore"):
        room = bound.of_value * np.abs(want) + bound.of_scale * np.abs(size)
        excess = np.where(is_same, -np.inf, np.abs(got - want) / np.maximum(room, np.finfo(np.float64).tiny))
    excess = np.where(np.isnan(excess), np.inf, excess)
    _fail_if(excess > 1, excess, f"{quantity}: more than {bound}", {"found": got, "expected": want, **inputs})


def assert_same_bits(found: Any, expected: Any, **inputs: Any) -> None:
    """Every element the same to the last bit, signs of zeros included; NaN equals NaN."""
    got, want = np.asarray(found), np.asarray(expected)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    differs = (got != want) & ~(_is_nan(got) & _is_nan(want))
    if got.dtype.kind == "f":
        differs |= (got == want) & (np.signbit(got) != np.signbit(want))
    _fail_if(differs, differs, "not the same bits", {"found": got, "expected": want, **inputs})


def assert_same_trees(found: Any, expected: Any) -> None:
    """Two records of arrays, the same to the last bit, named leaf by leaf."""
    import jax

    ours, theirs = (jax.tree_util.tree_leaves_with_path(tree) for tree in (found, expected))
    assert [path for path, _ in ours] == [path for path, _ in theirs]
    for (path, got), (_, want) in zip(ours, theirs, strict=True):
        assert_same_bits(got, want, leaf=jax.tree_util.keystr(path))


def _is_nan(array: np.ndarray) -> np.ndarray:
    return np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)


def _fail_if(is_wrong: np.ndarray, badness: np.ndarray, claim: str, inputs: dict[str, Any]) -> None:
    if not np.any(is_wrong):
        return
    worst = np.unravel_index(int(np.argmax(badness)), badness.shape)
    lines = [f"  {name} = {_at(value, worst, badness.shape)!r}" for name, value in inputs.items()]
    count = f"{int(np.sum(is_wrong)):,} of {is_wrong.size:,} elements"
    message = "\n".join([f"{claim}; {count}; worst at {tuple(map(int, worst))}:", *lines])
    raise AssertionError(message)


def _at(value: Any, place: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    try:
        return np.broadcast_to(np.asarray(value), shape)[place].item()
    except ValueError:  # an input of another shape is shown whole
        return value
