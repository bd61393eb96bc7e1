"""Small books for cases of venues: one account, what it holds and the market it is in. No formula here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from gpumargin.run import margin
from gpumargin.tables import read_book

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpumargin.catalogue import MarginModel
    from gpumargin.runs import Run

AS_OF = datetime(2026, 3, 5, 8, tzinfo=UTC)
EXPIRY = datetime(2026, 6, 26, 8, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
ACCOUNT = "a"
_TERMS = {
    "instrument_id": pl.String, "kind": pl.String, "underlying": pl.String, "settlement": pl.String,
    "quote": pl.String, "contract_size": pl.Float64, "strike": pl.Float64, "expiry": TIME, "option_type": pl.String,
    "price_cap": pl.Float64, "inverse": pl.Boolean,
}  # fmt: skip
_MARKS = ("mark_price", "mark_iv", "delta", "open_interest", "skew", "funding_rate")


@dataclass(frozen=True, kw_only=True)
class Held:
    """One contract and what the account has of it; the contract is called after its unit unless it has a name."""

    unit: str = "X"
    quantity: float = 0.0
    mark: float | None = None
    entry: float | None = None
    unsettled: float = 0.0
    kind: str = "perpetual"
    name: str | None = None
    terms: Mapping[str, Any] | None = None  # more columns of instruments
    market: Mapping[str, float] | None = None  # more columns of marks
    spot: float | None = None  # index price of the unit; the mark where not given
    orders: Sequence[tuple[str, float, float]] = ()  # side, quantity, limit price

    @property
    def instrument(self) -> str:
        """Id of the contract."""
        return self.name or f"{self.unit}-{self.kind}"


def book_of(
    held: Sequence[Held],
    *,
    balances: Mapping[str, float] | None = None,
    prices: Mapping[str, float] | None = None,
    twaps: Mapping[str, float] | None = None,
    settings: Sequence[tuple[str | None, str, float]] = (),
    assets: Sequence[Mapping[str, Any]] = (),
    money: str = "USDC",
) -> dict[str, pl.DataFrame]:
    """The tables of a book of one account.

    Args:
      held: contracts.
      balances: amounts by asset; a little cash if there is neither a balance nor a position.
      prices: more prices, USD.
      twaps: time-weighted prices where they are not the price.
      settings: numbers that the account sets: subject, name, value.
      assets: rows of the table assets.
      money: what contracts are quoted and settled in; worth 1 unless `prices` says otherwise.
    """
    every = {money: 1.0} | {h.unit: h.spot or h.mark or 0.0 for h in held} | dict(prices or {})
    amounts = dict(balances or {}) or {money: 0.0}
    tables = {
        "instruments": pl.DataFrame([_terms(h, money) for h in held], schema=_TERMS),
        "marks": _marks(held),
        "forwards": _forwards(held),
        "prices": pl.DataFrame(
            {
                "asset": [*every],
                "price": [float(price) for price in every.values()],
                "twap": [float((twaps or {}).get(asset, price)) for asset, price in every.items()],
            }
        ),
        "positions": pl.DataFrame(
            [(h.instrument, float(h.quantity), h.entry, float(h.unsettled)) for h in held if h.quantity or h.unsettled],
            schema={"instrument_id": pl.String, **dict.fromkeys(("quantity", "entry_price", "unsettled"), pl.Float64)},
            orient="row",
        ),
        "balances": pl.DataFrame({"asset": [*amounts], "amount": [float(amount) for amount in amounts.values()]}),
        "orders": _orders(held),
    }
    if settings:
        tables["account_parameters"] = pl.DataFrame(
            [*settings], schema={"subject": pl.String, "name": pl.String, "value": pl.Float64}, orient="row"
        )
    own = {name: tables[name].with_columns(account_id=pl.lit(ACCOUNT)) for name in _OWN if name in tables}
    return tables | own | ({"assets": pl.DataFrame(list(assets))} if assets else {})


_OWN = ("positions", "balances", "orders", "account_parameters")


def _terms(held: Held, money: str) -> dict[str, Any]:
    dated = {"expiry": EXPIRY} if held.kind in {"future", "option"} else {}
    own = {"instrument_id": held.instrument, "kind": held.kind, "underlying": held.unit, "settlement": money}
    return {**dict.fromkeys(_TERMS), "quote": money, "contract_size": 1.0} | own | dated | dict(held.terms or {})


def _forwards(held: Sequence[Held]) -> pl.DataFrame:
    """Forwards of units with options: their index price."""
    level = {h.unit: h.spot or h.mark for h in held if h.kind == "option"}
    schema = {"underlying": pl.String, "forward": pl.Float64, "expiry": TIME}
    rows = [(unit, None if price is None else float(price), EXPIRY) for unit, price in level.items()]
    return pl.DataFrame(rows, schema=schema, orient="row")


def _marks(held: Sequence[Held]) -> pl.DataFrame:
    rows = [
        {"instrument_id": h.instrument, **dict.fromkeys(_MARKS), "mark_price": h.mark} | dict(h.market or {})
        for h in held
        if h.kind != "spot"
    ]
    return pl.DataFrame(rows, schema={"instrument_id": pl.String, **dict.fromkeys(_MARKS, pl.Float64)})


def _orders(held: Sequence[Held]) -> pl.DataFrame:
    rows = [(h.instrument, side, float(q), float(limit)) for h in held for side, q, limit in h.orders]
    schema = {"instrument_id": pl.String, "side": pl.String, "quantity": pl.Float64, "price": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_row_index("order_id").cast({"order_id": pl.String})


@dataclass(frozen=True)
class Result:
    """What a run says of the one account; every figure of it has been explained."""

    run: Run
    account: dict[str, Any]
    units: dict[str, dict[str, Any]]

    def total(self, column: str) -> float:
        """Sum of a component over the units."""
        return float(sum(row[column] for row in self.units.values()))


def result_of(tables: Mapping[str, pl.DataFrame], model: MarginModel) -> Result:
    """Margins the account and explains it."""
    run = margin(read_book(**tables), model, as_of=AS_OF, device="cpu")
    run.explain(ACCOUNT)
    units = {str(row["unit"]): row for row in run.units.iter_rows(named=True)}
    return Result(run, run.accounts.row(0, named=True), units)
