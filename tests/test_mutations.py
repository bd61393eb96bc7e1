"""Every corrupted cell is refused, or told, or the second engine agrees on what the book then says."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gpumargin.errors import GpumarginError, InputError
from gpumargin.run import margin
from gpumargin.tables import read_book
from tests.mutations import Mutation, mutation, sound_frames
from tests.test_oracle_agreement import assert_agree, oracle_rows

if TYPE_CHECKING:
    from gpumargin.runs import Run
    from gpumargin.tables import Book

MODEL, SEED = "derive-pm1", 20_261_126
KEYS = ("account_id", "pool")


def told(run: Run, sound: Run) -> str:
    """What a run says of a book beside its numbers: empty where it says what it says of the sound one."""
    if "unknown" in run.accounts["status"].cast(str).to_list():
        return "unknown"
    if run.summary["warnings"] != sound.summary["warnings"]:
        return "odd"
    return "filled" if run.summary["filled"] != sound.summary["filled"] else ""


def fate(mutant: Mutation, sound: Run) -> str:
    """What became of a corrupted cell; fails where nobody noticed and the engines differ."""
    try:
        book = read_book(**mutant.frames)
        run = margin(book, MODEL)
    except InputError as error:
        return f"refused {error.failures['code'][0]}"
    except GpumarginError as error:
        return f"refused with {error.exit_code}"
    said = told(run, sound)
    if said:
        return f"told: {said}"
    expected = by_the_oracle(book)
    if expected is None:
        for account, pool in run.accounts.select(KEYS).iter_rows():
            run.explain(account, pool)  # fails where a figure is not what its parts add up to
        return "explained"
    # minor units are the same numbers rounded, and beyond 2^53 of them more than one lies within a rounding
    ours = run.accounts.select(name for name in run.accounts.columns if name != "model" and not name.endswith("_minor"))
    assert_agree(ours, expected, KEYS)
    return "the oracle agrees"


def by_the_oracle(book: Book) -> list[dict[str, Any]] | None:
    """Accounts by the slow engine; None where it has no rule for what the book holds."""
    prices = book.frame("prices")
    if not all((prices[name] == prices[f"collateral_{name}"]).all() for name in ("price", "confidence")):
        return None  # it knows one price of an asset, not another for collateral
    try:
        return oracle_rows(book, MODEL)["accounts"]
    except NotImplementedError:
        return None


def fates(count: int) -> Counter[str]:
    """What became of so many corrupted cells; fails with all those that nobody noticed."""
    frames, rng = sound_frames(), np.random.default_rng(SEED)
    sound, found, unnoticed = margin(read_book(**frames), MODEL), Counter[str](), list[str]()
    for _ in range(count):
        mutant = mutation(frames, rng)
        try:
            found[fate(mutant, sound)] += 1
        except Exception as error:  # noqa: BLE001  each is told below
            unnoticed.append(f"{mutant}: {type(error).__name__} {str(error)[:200]}")
    print(f"\n{count} corrupted cells: " + ", ".join(f"{n} {what}" for what, n in found.most_common()))  # noqa: T201
    assert not unnoticed, "\n".join(unnoticed)
    return found


def refused(found: Counter[str]) -> int:
    return sum(n for what, n in found.items() if what.startswith("refused"))


def test_a_corrupted_cell_is_noticed_or_means_what_the_oracle_says() -> None:
    found = fates(40)
    assert refused(found) > 13
    assert found["the oracle agrees"] > 3


@pytest.mark.slow
def test_two_thousand_corrupted_cells_are_noticed_or_mean_what_the_oracle_says() -> None:
    found = fates(2_000)
    assert refused(found) > 800
    assert {"refused GM102", "refused GM103", "refused GM105", "refused GM109", "refused GM117"} <= found.keys()
    assert found["the oracle agrees"] > 300
