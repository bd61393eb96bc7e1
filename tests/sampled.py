"""Which cases of a claim the short run takes, all others being left to the long one, and the long one in shares."""

from __future__ import annotations

import re
import zlib
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


def share(text: str) -> tuple[int, int]:
    """`2/6`: the second of six shares of the tests."""
    place, shares = map(int, text.split("/"))
    if not 1 <= place <= shares:
        raise ValueError(text)
    return place, shares


def share_of(nodeid: str, shares: int) -> int:
    """Which of the shares, from 1, a test belongs to.

    Tests of one file whose cases begin with the same two words, mostly the name of a model, share compiled programs:
    they stay together.
    """
    case = re.search(r"\[(\w+-?\w*)", nodeid)
    return zlib.crc32((nodeid.partition("::")[0] + (case[1] if case else "")).encode()) % shares + 1
