"""Published numbers against recomputed ones, column by column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from gpumargin.explain.account import STATUSES, TOLERANCE
from gpumargin.modelfile import ModelFile
from gpumargin.verification.aggregation import Unit
from gpumargin.verification.figures import Array, Figures
from gpumargin.verification.findings import MOST_ALIKE, Finding, Ledger
from gpumargin.verification.recomputation import Recomputed, binding, leg_figures, statuses


@dataclass
class Comparison:
    """What differs so far.

    Attributes:
      tolerance: what rounding may do, relative to what was added up.
      numbers: compared.
      failed: of them.
      findings: the first of each column.
      largest: largest difference of any that passed, relative to what was added up.
    """

    tolerance: float
    numbers: int = 0
    failed: int = 0
    findings: list[Finding] = field(default_factory=list)
    largest: float = 0.0
    _alike: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def of(dtype: str) -> Comparison:
        """For runs in this precision."""
        return Comparison(TOLERANCE[dtype])

    def column(self, name: str, published: Array, figures: Figures, where: Where) -> None:
        """Compares a column; NaN and null are alike."""
        stored = np.asarray(published, np.float64)
        amount, gross = (np.broadcast_to(np.asarray(part, np.float64), stored.shape) for part in figures)
        difference = np.abs(amount - stored)
        same = (amount == stored) | (np.isnan(amount) & np.isnan(stored))
        ok = same | (difference <= self.tolerance * gross)
        self._note(name, ok, stored, amount, where)
        relative = difference[ok & ~same] / gross[ok & ~same]
        self.largest = max(self.largest, float(relative.max(initial=0.0)))

    def words(self, name: str, published: list[Any], expected: list[Any], where: Where) -> None:
        """Compares a column of words."""
        ok = np.array([a == b for a, b in zip(published, expected, strict=True)], bool)
        self._note(name, ok, published, expected, where)

    def add_to(self, ledger: Ledger, check: str, covered: str) -> None:
        """Notes what was compared as one check."""
        ledger.add(check, covered, self.numbers, self.findings, self.failed)

    def _note(self, name: str, ok: Array, stored: Any, recomputed: Any, where: Where) -> None:
        wrong = np.flatnonzero(~ok)
        self.numbers += len(ok)
        self.failed += len(wrong)
        for index in wrong[: max(MOST_ALIKE - self._alike.get(name, 0), 0)]:
            self._alike[name] = self._alike.get(name, 0) + 1
            values = [v.item() if hasattr(v := each[index], "item") else v for each in (stored, recomputed)]
            self.findings.append(Finding(name, *values, **where.place(int(index))))


@dataclass(frozen=True)
class Where:
    """Rows of a result table: file, row in it, and account."""

    frame: pl.DataFrame

    def place(self, index: int) -> dict[str, Any]:
        """Where a row stands."""
        row = self.frame.row(index, named=True)
        return {name: row[name] for name in ("file", "row", "account_id", "pool")}


def compare(
    found: Comparison, file: ModelFile, made: Recomputed, accounts: pl.DataFrame, units: pl.DataFrame | None
) -> None:
    """Compares all numbers of some accounts and of their units.

    Args:
      found: takes what differs.
      file: the model.
      made: the accounts recomputed.
      accounts: their rows of the run, with the file and row where each stands, and whether each lost a row to the
        quarantine: it shows no amount then, its units and legs what the rest comes to.
      units: their rows of the units table, likewise, with the `account` that each is of, 0 to A - 1.
    """
    where, in_doubt = Where(accounts), accounts["in_doubt"].to_numpy()
    for name, figures in made.accounts.items():
        shown = Figures(np.where(in_doubt, np.nan, figures.amount), figures.gross)
        found.column(name, floats(accounts, name), shown, where)
    found.column("num_positions", floats(accounts, "num_positions"), Figures(made.num_positions, 0.0), where)
    published = {c: floats(accounts, c) for c in accounts.columns if accounts[c].dtype.is_numeric()}
    codes = np.where(in_doubt, STATUSES.index("unknown"), statuses(file, published, made.values))
    expected = [STATUSES[code] for code in codes]
    found.words("status", accounts["status"].cast(pl.String).to_list(), expected, where)
    if units is not None:
        _compare_units(found, made, accounts, units)


def floats(frame: pl.DataFrame, name: str) -> Array:
    """A column as floats, nulls NaN; all NaN where there is none."""
    if name not in frame.columns:
        return np.full(frame.height, np.nan)
    return frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _compare_units(found: Comparison, made: Recomputed, accounts: pl.DataFrame, units: pl.DataFrame) -> None:
    by_unit = {str(key[0]): rows.sort("account") for key, rows in units.group_by("unit")}
    for unit, figures in zip(made.units, made.unit_figures, strict=True):
        rows = by_unit.pop(unit.unit, units.clear())
        expected = unit.rows.account
        if not np.array_equal(rows["account"].to_numpy(), expected):
            found.findings += _missing_rows(unit.unit, accounts, rows["account"].to_numpy(), expected)
            found.failed += 1
            continue
        where = Where(rows)
        for name, own in figures.items():
            found.column(name, floats(rows, name), own, where)
        _compare_worst(found, unit, rows, where)
    for name, rows in by_unit.items():
        found.findings += [Finding("unit", name, "no legs in it", **Where(rows).place(0))]
        found.failed += rows.height


def compare_legs(found: Comparison, made: Recomputed, legs: pl.DataFrame) -> None:
    """Compares all numbers of the legs of some accounts.

    Args:
      found: takes what differs.
      made: the accounts recomputed.
      legs: their rows of the positions table, with file, row and `account`, 0 to A - 1.
    """
    keys, left = ["account", "instrument_id"], legs
    for unit in made.units:
        own, figures = leg_figures(unit)
        both = own.with_row_index("leg").join(legs, on=keys, how="inner", maintain_order="left")
        left = left.join(own, on=keys, how="anti")
        absent = own.join(legs, on=keys, how="anti")
        for account, name in absent.head(MOST_ALIKE).iter_rows():
            found.findings.append(Finding("instrument_id", "no row", f"account {account}, {name}", "positions"))
        found.failed += absent.height + max(both.height - own.height, 0)
        if both.height > own.height:
            again = both.filter(~pl.struct(keys).is_first_distinct())
            found.findings.append(Finding("instrument_id", "a second row", "one row", **Where(again).place(0)))
        where, leg = Where(both), both["leg"].to_numpy()
        for name, of_unit in figures.items():
            found.column(name, floats(both, name), Figures(*(part[leg] for part in of_unit)), where)
    found.failed += left.height
    found.findings += [
        Finding("instrument_id", "a row", "no leg", **Where(left).place(i)) for i in range(left.height)[:9]
    ]


def _missing_rows(unit: str, accounts: pl.DataFrame, rows: Array, expected: Array) -> Iterator[Finding]:
    for index in np.setxor1d(rows, expected)[:MOST_ALIKE]:
        account = accounts.row(int(index), named=True)
        stored, made = (f"{int((side == index).sum())} rows of unit {unit}" for side in (rows, expected))
        yield Finding("unit", stored, made, "units", None, account["account_id"], account["pool"])
    if len(np.setxor1d(rows, expected)) == 0:
        yield Finding("unit", f"{len(rows)} rows of unit {unit}", f"{len(expected)} rows", "units")


def _compare_worst(found: Comparison, unit: Unit, rows: pl.DataFrame, where: Where) -> None:
    """The loss in the scenario that is called the worst must be the largest: of equal ones either may be named."""
    charges = binding(unit)
    if charges is None:
        return
    names = rows["worst_scenario"].cast(pl.String)
    place = names.replace_strict({n: i for i, n in enumerate(charges.ids)}, default=-1, return_dtype=pl.Int64)
    index = place.fill_null(-1).to_numpy()
    losses = np.take_along_axis(charges.losses, np.maximum(index, 0)[:, None], axis=1)[:, 0]
    at = Figures(np.where(index >= 0, losses, np.nan), charges.figures.gross)
    found.column("worst_loss at worst_scenario", floats(rows, "worst_loss"), at, where)
