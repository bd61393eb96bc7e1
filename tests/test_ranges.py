"""Claims about cuts by account id: every row in its part, in its order, with no more words than it uses."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumargin.tables import ranges
from gpumargin.tables.ranges import Ranges, cut

WORDS = [f"{number:03d}" for number in range(60)]
ROWS = st.lists(st.none() | st.integers(0, 59), min_size=1, max_size=40)


@pytest.mark.parametrize("is_sorted", [True, False], ids=["sorted", "in any order"])
@given(codes=ROWS, seed=st.integers(0, 9))
def test_a_cut_gives_every_row_to_its_part_with_the_words_that_it_uses(
    is_sorted: bool,
    codes: list[int | None],
    seed: int,
) -> None:
    words = WORDS if is_sorted else np.random.default_rng(seed).permutation(WORDS).tolist()
    codes = sorted(codes, key=lambda code: -1 if code is None else code) if is_sorted else codes
    ids = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(words))
    table = pa.table({"account_id": pa.chunked_array([ids]), "row": np.arange(len(codes))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "_SMALL_DICTIONARY", 0)
        pieces = list(cut(table, Ranges(pl.Series(["014", "040"]))))
    wanted: dict[int, list[int]] = {}
    for row, code in enumerate(codes):
        part = 0 if code is None else (words[code] > "014") + (words[code] > "040")
        wanted.setdefault(part, []).append(row)
    assert {part: rows.column("row").to_pylist() for part, rows, _ in pieces} == wanted
    for _, rows, at in pieces:
        own = rows.column("account_id")
        assert own.to_pylist() == [None if codes[row] is None else words[codes[row]] for row in rows["row"].to_pylist()]
        if at is not None:
            assert at.tolist() == rows["row"].to_pylist()
            used = [word for word in words if word in set(own.to_pylist())]
            assert [chunk.dictionary.to_pylist() for chunk in own.chunks] == [used]
