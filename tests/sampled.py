"""Which cases of a claim the short run takes; all others are left to the long one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


def rest_slow(values: Sequence[Any], fast: Collection[Any]) -> list[Any]:
    """Parameters of which all but a few are marked slow, mostly since each costs its compilations.

    Args:
      values: as `pytest.mark.parametrize` takes them: a tuple holds several parameters.
      fast: those of the short run, each one of `values`.
    """
    assert all(value in values for value in fast), "what the short run takes is none of the cases"
    return [
        v if v in fast else pytest.param(*(v if isinstance(v, tuple) else (v,)), marks=pytest.mark.slow) for v in values
    ]
