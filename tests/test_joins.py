"""Claims about joins: the rows that instruments get are those of the first key like theirs, and polars joins alike."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from gpumargin.frames import beside, instant
from gpumargin.pack.joins import first_rows
from gpumargin.schema import FORWARDS, MARKS
from gpumargin.tables import Book
from tests.books import AS_OF, tiny_book


def drawn(seed: int, rows: int) -> pa.Table:
    """Rows with keys of few words, so that many repeat and some are null."""
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "underlying": pa.array(rng.choice(["BTC", "ETH", "SOL"], rows)).dictionary_encode(),
            "quote": pa.array(rng.choice(np.array(["USDC", "USD", None], object), rows)),
            "expiry": pa.array(rng.choice(np.array([1, 2, None], object), rows), pa.timestamp("us", "UTC")),
        }
    )


@pytest.mark.parametrize("rows", [0, 1, 40])
def test_each_row_gets_the_first_with_its_key_and_none_where_a_part_is_null(rows: int) -> None:
    source, table = drawn(1, rows), drawn(2, 60)
    keys = [tuple(row.values()) for row in source.to_pylist()]
    first = {key: i for i, key in reversed(list(enumerate(keys))) if None not in key}
    wanted = [first.get(tuple(row.values()), -1) for row in table.to_pylist()]
    assert first_rows(source, table, FORWARDS.key).tolist() == wanted
    assert rows < 40 or len(set(wanted)) > 5


def test_an_empty_table_with_words_where_ids_are_integers_has_no_row_for_any() -> None:
    nothing = pa.table({"instrument_id": pa.array([], pa.string())})
    assert first_rows(nothing, pa.table({"instrument_id": [7, 8]}), MARKS.key).tolist() == [-1, -1]


def test_frames_beside_one_another_are_those_that_a_join_of_their_keys_gives() -> None:
    frame, other = (pl.DataFrame(pl.from_arrow(drawn(seed, 50))).with_row_index("row") for seed in (3, 4))
    row = first_rows(drawn(4, 50), drawn(3, 50), FORWARDS.key)
    joined = frame.join(
        other.unique(FORWARDS.key, keep="first", maintain_order=True),
        on=FORWARDS.key,
        how="left",
        suffix="_of_other",
        maintain_order="left",
    )
    named = other.select(row_of_other="row")
    found = beside(frame, named, row)
    assert found.equals(joined)
    assert 0 < found["row_of_other"].null_count() < found.height
    for unused in (named, named.clear()):
        nothing = beside(frame, unused, np.full(50, -1))
        assert nothing["row"].equals(frame["row"])
        assert nothing.schema == joined.schema
        assert nothing["row_of_other"].null_count() == 50


def test_instruments_of_a_book_get_their_marks_and_forwards() -> None:
    book = Book(**tiny_book())
    instruments, marks, forwards = (book.whole_frame(name) for name in ("instruments", "marks", "forwards"))
    for i, (of_mark, of_forward) in enumerate(zip(*book.market_rows, strict=True)):
        own = instruments.row(i, named=True)
        assert marks["instrument_id"][int(of_mark)] == own["instrument_id"]
        if of_forward >= 0:
            assert forwards.select(FORWARDS.key).row(int(of_forward)) == tuple(own[name] for name in FORWARDS.key)
        else:
            assert own["kind"] != "option"


def test_an_instant_is_what_polars_makes_of_it() -> None:
    known = pl.select(pl.lit(AS_OF, pl.Datetime("us", "UTC")))
    assert pl.select(instant(AS_OF)).rows() == known.rows()
    assert pl.select(instant(None)).to_series().dtype == known.to_series().dtype
