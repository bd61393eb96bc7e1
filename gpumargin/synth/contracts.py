"""The contracts of a market as packed arrays: what accounts draw from and what their funding is measured with."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gpumargin.synth.market import Market

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_YEAR = 365.0 * 86_400.0
_DAY = 86_400.0 / _YEAR
_FALLBACK_VOL = 0.7

# Spot level and vol direction of each scenario; the first is today. The grid is that of Derive's PMRM since 2025-02.
_INNER = tuple((move, way) for move in (1.0, 1.135, 1.09, 1.045, 0.955, 0.91, 0.865) for way in (0, 1, -1))
SCENARIOS: tuple[tuple[float, int], ...] = (*_INNER, (1.18, 1), (0.82, 1))
BASIS_UP, BASIS_DOWN = SCENARIOS.index((1.045, 0)), SCENARIOS.index((0.955, 0))


@dataclass(frozen=True)
class Contracts:
    """`M` contracts sorted by unit, expiry, strike, type; `G` expiries of units, `K` strikes of expiries, `U` units.

    A unit is an underlying with its settlement asset. Money is in the settlement asset unless it says USD.

    Attributes:
      ids: `[M]` instrument ids.
      unit, expiry, strike_level: `[M]` codes, rising: unit, expiry within unit (a perpetual is one of its own), strike.
      is_option, is_call: `[M]`.
      lots_per_unit: `[M]` lots in one contract.
      notional: `[M]` USD of one lot.
      mark: `[M]` what an entry price of today would be; `inverse`: `[M]` P&L of futures runs in 1 / price.
      size: `[M]` contract_size.
      value: `[M, S]` value of one contract in each scenario of `SCENARIOS`; futures: gain since today.
      popularity: `[M]` weight in drawing, >= 0.
      open_lots: `[M]` open interest in lots, or zeros when it is still to be made up.
      twin, later, hedge: `[M]` index of the other type at the strike, the same strike one expiry on, the unit's
        most popular perpetual or future; -1 for none.
      expiry_discount, expiry_years: `[G]`; expiry_unit: `[G]`.
      unit_settlement: `[U]` index into `settlements`; unit_spot: `[U]` price in the settlement asset, USD if a coin.
      unit_coin: `[U]` underlyings' asset names where the coin can be posted as collateral, else empty.
      settlements: settlement assets; settlement_price: USD of each.
    """

    ids: pl.Series
    unit: Ints
    expiry: Ints
    strike_level: Ints
    is_option: Bools
    is_call: Bools
    inverse: Bools
    lots_per_unit: Ints
    size: Floats
    notional: Floats
    mark: Floats
    value: Floats
    popularity: Floats
    open_lots: Ints
    twin: Ints
    later: Ints
    hedge: Ints
    expiry_unit: Ints
    expiry_years: Floats
    expiry_discount: Floats
    unit_settlement: Ints
    unit_spot: Floats
    unit_coin: list[str]
    settlements: list[str]
    settlement_price: Floats

    @property
    def bounds(self) -> Ints:
        """`[U + 1]` first contract of each unit, then `M`."""
        return np.searchsorted(self.unit, np.arange(len(self.unit_coin) + 1))


def pack_contracts(market: Market) -> Contracts:
    """`Contracts` of the tables of `market`, without spot instruments, which nobody can hold a position in."""
    frame = _joined(market)
    units = frame.group_by("unit", maintain_order=True).first()
    expiries = frame.group_by("expiry_code", maintain_order=True).first()
    settlements = units["settlement"].unique().sort().to_list()
    years = _array(frame, "years")
    popularity = _array(frame, "popularity")
    is_option = frame["kind"].to_numpy() == "option"
    unit = frame["unit"].to_numpy().astype(np.int64)
    return Contracts(
        ids=frame["instrument_id"],
        unit=unit,
        expiry=frame["expiry_code"].to_numpy().astype(np.int64),
        strike_level=frame["strike_code"].to_numpy().astype(np.int64),
        is_option=is_option,
        is_call=frame["is_call"].to_numpy(),
        inverse=frame["inverse"].to_numpy(),
        lots_per_unit=frame["lots_per_unit"].to_numpy(),
        size=_array(frame, "contract_size"),
        notional=_array(frame, "notional"),
        mark=_marks(frame, years),
        value=_values(frame, years),
        popularity=popularity,
        open_lots=np.rint(_array(frame, "open_interest") * _array(frame, "lots_per_unit")).astype(np.int64),
        twin=_linked(frame, popularity, ("expiry_code", "strike"), ("is_call",)),
        later=_linked(frame, popularity, ("unit", "strike", "is_call"), ("years",)),
        hedge=_hedges(unit, is_option, popularity),
        expiry_unit=expiries["unit"].to_numpy().astype(np.int64),
        expiry_years=_array(expiries, "years"),
        expiry_discount=_discounts(expiries),
        unit_settlement=np.array([settlements.index(name) for name in units["settlement"]], dtype=np.int64),
        unit_spot=np.where(units["inverse"].to_numpy(), 1.0, _array(units, "spot") / _array(units, "settlement_price")),
        unit_coin=[_coin(*row) for row in units.select("underlying", "settlement", "priced").iter_rows()],
        settlements=settlements,
        settlement_price=np.array([_first_price(units, name) for name in settlements]),
    )


def restrict(contracts: Contracts, *, most: int) -> Contracts:
    """The same contracts with popularity and links only for the `most` popular ones."""
    order = np.argsort(-contracts.popularity, kind="stable")
    popularity = contracts.popularity.copy()
    popularity[order[most:]] = 0.0
    return replace(
        contracts,
        popularity=popularity,
        twin=_live(contracts.twin, popularity),
        later=_live(contracts.later, popularity),
        hedge=_live(contracts.hedge, popularity),
    )


def option_price(forward: Floats, strike: Floats, deviation: Floats, *, is_call: Bools) -> Floats:
    """Undiscounted Black-76 price; `deviation` = vol * sqrt(years); at zero deviation intrinsic value.

    Source: Black, "The pricing of commodity contracts", 1976.
    """
    sign = np.where(is_call, 1.0, -1.0)
    intrinsic = np.maximum(sign * (forward - strike), 0.0)
    regular = (deviation > 1e-9) & (strike > 0.0) & (forward > 0.0)
    safe = np.where(regular, deviation, 1.0)
    upper = np.log(np.where(regular, forward / np.where(strike > 0.0, strike, 1.0), 1.0)) / safe + safe / 2.0
    price = sign * (forward * _normal(sign * upper) - strike * _normal(sign * (upper - safe)))
    return np.where(regular, np.maximum(price, 0.0), intrinsic)


def _normal(x: Floats) -> Floats:
    """Normal distribution function; element by element, since only contracts times scenarios pass here."""
    values: Floats = np.frompyfunc(lambda value: 0.5 * math.erfc(-value * math.sqrt(0.5)), 1, 1)(x).astype(np.float64)
    return values


def _joined(market: Market) -> pl.DataFrame:
    """One row per contract in canonical order with all that the arrays are made of."""
    prices = market.tables["prices"].select("asset", pl.col("price").cast(pl.Float64))
    forwards = _columns(market.tables["forwards"], forward=pl.Float64, rate=pl.Float64, expiry=pl.Datetime("us", "UTC"))
    forwards = forwards.select("underlying", "expiry", "forward", "rate").unique(("underlying", "expiry"), keep="first")
    marks = _columns(market.tables["marks"], mark_price=pl.Float64, mark_iv=pl.Float64)
    frame = (
        _instruments(market)
        .join(marks.select("instrument_id", "mark_price", "mark_iv"), on="instrument_id", how="left")
        .join(forwards, on=("underlying", "expiry"), how="left")
        .join(prices.rename({"asset": "underlying", "price": "spot"}), on="underlying", how="left")
        .join(prices.rename({"asset": "settlement", "price": "settlement_price"}), on="settlement", how="left")
    )
    return _coded(_completed(frame, _as_of(market)))


def _instruments(market: Market) -> pl.DataFrame:
    """Instruments that can be held, with the defaults of the contract and how much each is traded."""
    kinds = {"settlement": pl.String, "inverse": pl.Boolean, "contract_size": pl.Float64, "strike": pl.Float64}
    frame = _columns(
        market.tables["instruments"], expiry=pl.Datetime("us", "UTC"), option_type=pl.String, **kinds
    ).filter(pl.col("kind") != "spot")
    trade = _columns(market.trade, popularity=pl.Float64, open_interest=pl.Float64)
    return frame.join(trade.select("instrument_id", "popularity", "open_interest", "lots_per_unit"), on="instrument_id")


def _columns(frame: pl.DataFrame, **types: pl.DataType | type[pl.DataType]) -> pl.DataFrame:
    """`frame` with each named column of the type given, null where it was absent."""
    missing = [pl.lit(None).alias(name) for name in types if name not in frame.columns]
    return frame.with_columns(*missing).with_columns(**{name: pl.col(name).cast(kind) for name, kind in types.items()})


def _completed(frame: pl.DataFrame, as_of: datetime | None) -> pl.DataFrame:
    """Fills what a table may leave out: rough stand-ins are enough to size accounts and their funding."""
    now = pl.lit(as_of, pl.Datetime("us", "UTC")) if as_of else pl.col("expiry").min()
    years = ((pl.col("expiry") - now).dt.total_microseconds() / 1e6 / _YEAR).clip(lower_bound=0.0)
    return (
        frame.with_columns(
            pl.col("inverse").fill_null(value=False),
            pl.col("contract_size").fill_null(1.0),
            pl.col("rate", "open_interest").fill_null(0.0),
            pl.col("settlement_price").fill_null(1.0),
            years=years.fill_null(0.0),
            is_call=(pl.col("option_type") == "call").fill_null(value=False),
            priced=pl.col("spot").is_not_null(),
            spot=pl.coalesce("spot", "forward", "mark_price"),
        )
        .with_columns(
            forward=pl.coalesce("forward", "spot"),
            mark_iv=pl.col("mark_iv").fill_null(_FALLBACK_VOL),
            linear_mark=pl.coalesce("mark_price", "forward", "spot"),
        )
        .with_columns(notional=_notional() / pl.col("lots_per_unit"))
        .with_columns(popularity=pl.coalesce("popularity", pl.col("open_interest") * _notional()))
    )


def _notional() -> pl.Expr:
    """USD of one contract: an inverse future is sized in quote currency already."""
    in_quote = pl.col("inverse") & (pl.col("kind") != "option")
    return pl.col("contract_size") * pl.when(in_quote).then(1.0).otherwise(pl.col("spot"))


def _coded(frame: pl.DataFrame) -> pl.DataFrame:
    """Canonical order and its dense codes."""
    frame = frame.sort("underlying", "settlement", "kind", "expiry", "strike", "option_type", "instrument_id")
    keys = {"unit": ("underlying", "settlement"), "expiry_code": ("underlying", "settlement", "kind", "expiry")}
    keys["strike_code"] = (*keys["expiry_code"], "strike")
    return frame.with_columns(**{name: pl.struct(columns).rle_id().cast(pl.Int64) for name, columns in keys.items()})


def _as_of(market: Market) -> datetime | None:
    times = [frame["timestamp"].max() for frame in market.tables.values() if "timestamp" in frame.columns]
    return max((time for time in times if isinstance(time, datetime)), default=None)


def _array(frame: pl.DataFrame, column: str) -> Floats:
    return frame[column].cast(pl.Float64).to_numpy().copy()


def _marks(frame: pl.DataFrame, years: Floats) -> Floats:
    """Price an entry of today has: of an option per unit of underlying, in coin when inverse."""
    forward = _array(frame, "forward")
    fair = option_price(
        forward, _strike(frame), _array(frame, "mark_iv") * np.sqrt(years), is_call=frame["is_call"].to_numpy()
    )
    fair = np.where(frame["inverse"].to_numpy(), fair / forward, fair)
    return np.where(frame["kind"].to_numpy() == "option", fair, _array(frame, "linear_mark"))


def _strike(frame: pl.DataFrame) -> Floats:
    return frame["strike"].fill_null(0.0).to_numpy()


def _values(frame: pl.DataFrame, years: Floats) -> Floats:
    """`[M, S]` of `Contracts.value`; vols move by a factor that shrinks with tenor, as in Derive's PMRM."""
    move = np.array([scenario[0] for scenario in SCENARIOS])
    way = np.array([scenario[1] for scenario in SCENARIOS])
    ratio = 30.0 * _DAY / np.maximum(years, _DAY)
    reach = ratio ** np.where(ratio >= 1.0, 0.3, 0.13)
    factor = np.maximum(1.0 + np.where(way > 0, 0.5, -0.275 * (way < 0)) * reach[:, None], 0.0)
    deviation = (_array(frame, "mark_iv") * np.sqrt(years))[:, None] * factor
    forward = _array(frame, "forward")[:, None] * move
    is_call = frame["is_call"].to_numpy()[:, None]
    inverse = frame["inverse"].to_numpy()[:, None]
    option = option_price(forward, _strike(frame)[:, None], deviation, is_call=is_call)
    mark = _array(frame, "linear_mark")[:, None]
    divisor = np.where(mark == 0.0, 1.0, mark)  # options have no linear mark; their gain is not used
    gain = np.where(inverse, (1.0 - 1.0 / move) / divisor, mark * (move - 1.0))
    is_option = (frame["kind"].to_numpy() == "option")[:, None]
    return _array(frame, "contract_size")[:, None] * np.where(
        is_option, np.where(inverse, option / forward, option), gain
    )


def _discounts(expiries: pl.DataFrame) -> Floats:
    """What a net long expiry keeps of its value; futures keep all."""
    kept = 0.95 * np.exp(-_array(expiries, "years") * (np.maximum(_array(expiries, "rate"), 0.0) + 0.12))
    return np.where(expiries["kind"].to_numpy() == "option", kept, 1.0)


def _linked(frame: pl.DataFrame, popularity: Floats, key: tuple[str, ...], order: tuple[str, ...]) -> Ints:
    """`[M]` index of the next live row with the same key, for options; pairs point at each other."""
    rows = frame.select(*key, *order, "kind").with_row_index("row").filter(pl.col("kind") == "option")
    rows = rows.sort(*key, *order)
    step = -1 if order == ("years",) else 1
    following = rows.with_columns(next=pl.col("row").cast(pl.Int64).shift(step).over(key))
    if order == ("is_call",):
        backward = pl.col("row").cast(pl.Int64).shift(-1).over(key)
        following = following.with_columns(next=pl.coalesce("next", backward))
    result = np.full(frame.height, -1, dtype=np.int64)
    result[following["row"].to_numpy()] = following["next"].fill_null(-1).to_numpy()
    return _live(result, popularity)


def _live(links: Ints, popularity: Floats) -> Ints:
    """Links to contracts that nobody trades are cut."""
    return np.where((links >= 0) & (popularity[links] > 0.0), links, -1)


def _hedges(unit: Ints, is_option: Bools, popularity: Floats) -> Ints:
    """`[M]` the most popular perpetual or future of the contract's unit."""
    weight = np.where(is_option, 0.0, popularity)
    best = np.full(unit.max(initial=-1) + 1, -1, dtype=np.int64)
    for index in np.argsort(weight, kind="stable")[np.count_nonzero(weight <= 0.0) :]:
        best[unit[index]] = index
    return best[unit]


def _coin(underlying: str, settlement: str, priced: bool) -> str:  # noqa: FBT001 (a row of a frame, not an option)
    return underlying if priced and underlying != settlement else ""


def _first_price(units: pl.DataFrame, settlement: str) -> float:
    return float(units.filter(pl.col("settlement") == settlement)["settlement_price"][0])
