"""Single cells of a book corrupted at random: slips of hands, feeds and formats."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from gpumargin.schema import TABLES
from gpumargin.tables import read_book
from tests.books import tiny_book

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    Frames = Mapping[str, pl.DataFrame]

_MUTATED = ("instruments", "marks", "forwards", "prices", "assets", "positions", "balances")
_NUMBERS: dict[str, Callable[[float], float]] = {
    "negated": lambda x: -x,
    "in per cent": lambda x: 100 * x,
    "a hundredth": lambda x: x / 100,
    "in millionths": lambda x: 1e6 * x,
    "in minor units": lambda x: 1e18 * x,
    "a tick more": lambda x: x * (1 + 2**-20),
    "another number": lambda x: x + 1.5,
}
_FIXED_NUMBERS = (0.0, -0.0, 1.0, float("nan"), float("inf"), float("-inf"), 1e300, 5e-324, float(2**63 - 1))
_WORDS: dict[str, Callable[[str], str]] = {
    "in capitals": str.upper,
    "in small letters": str.lower,
    "with a space": lambda word: f"{word} ",
    "cut": lambda word: word[:-1],
    "doubled": lambda word: word + word,
    "with a control": lambda word: f"{word[:1]}\x00{word[1:]}",
    "turned round": lambda word: f"\u202e{word}",
    "in wide letters": lambda word: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in word),
}
_FIXED_WORDS = ("", "-1", "null", "\ufeff", "x" * 300)
_TIMES = {
    "a day later": timedelta(days=1),
    "an hour earlier": timedelta(hours=-1),
    "a year earlier": timedelta(days=-365),
    "a decade later": timedelta(days=3_700),
    "a microsecond later": timedelta(microseconds=1),
}


class Mutation(NamedTuple):
    """One cell of one table with another value."""

    table: str
    row: int
    column: str
    how: str
    frames: Frames

    def __str__(self) -> str:
        return f"{self.table}[{self.row}].{self.column}: {self.how}"


def sound_frames() -> dict[str, pl.DataFrame]:
    """The tiny book with every column that has a default."""
    book = read_book(**tiny_book())
    return {name: book.frame(name) for name in _MUTATED}


def mutation(frames: Frames, rng: np.random.Generator) -> Mutation:
    """A random cell with a random other value."""
    table = str(rng.choice(_MUTATED))
    frame = frames[table]
    column = str(rng.choice(frame.columns))
    row = int(rng.integers(frame.height))
    how, value = _other(frame, table, column, row, rng)
    cells = frame[column].to_list()
    cells[row] = value
    changed = pl.Series(column, cells, dtype=frame.schema[column], strict=True)
    return Mutation(table, row, column, how, {**frames, table: frame.with_columns(changed)})


def _other(frame: pl.DataFrame, table: str, column: str, row: int, rng: np.random.Generator) -> tuple[str, Any]:
    value, spec = frame[column][row], TABLES[table].by_name[column]
    if rng.random() < 0.06:
        return "null", None
    if rng.random() < 0.15:
        return "of another row", frame[column][int(rng.integers(frame.height))]
    fixed = {"number": _FIXED_NUMBERS, "amount": _FIXED_NUMBERS, "id": _FIXED_WORDS, "enum": _FIXED_WORDS}.get(
        spec.kind
    )
    if fixed is not None and rng.random() < 0.4:
        wanted = fixed[int(rng.integers(len(fixed)))]
        return f"{wanted!r:.20}", wanted
    if spec.kind in ("number", "amount"):
        name = str(rng.choice(list(_NUMBERS)))
        return name, _NUMBERS[name](0.5 if value is None else value)
    if spec.kind in ("id", "enum"):
        if spec.choices and rng.random() < 0.4:
            return "another choice", str(rng.choice(spec.choices))
        name = str(rng.choice(list(_WORDS)))
        return name, _WORDS[name](value or "word")
    if spec.kind == "time":
        name = str(rng.choice(list(_TIMES)))
        return name, None if value is None else value + _TIMES[name]
    if spec.kind == "integer":
        return "another integer", int(rng.choice([-1, 0, 1, 2, 7, 18, 19, 2**62]))
    return "negated", None if value is None else not value
