"""Fields of portfolio-margin cases as books and values of the shipped models. No formula here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.run import margin
from gpumargin.runs import Run
from gpumargin.tables import read_book

Inputs = Mapping[str, Any]
TIME = pl.Datetime("us", "UTC")
AS_OF = datetime(2026, 3, 5, 8, tzinfo=UTC)  # of cases that say no time
EXPIRY = datetime(2026, 6, 26, 8, tzinfo=UTC)  # of options that say none
ACCOUNT = "case"
NO_CAP = 1e300
_UNBOUNDED = float("inf")
_INSTRUMENTS = {
    "instrument_id": pl.String, "kind": pl.String, "underlying": pl.String, "settlement": pl.String,
    "quote": pl.String, "inverse": pl.Boolean, "contract_size": pl.Float64, "strike": pl.Float64, "expiry": TIME,
    "option_type": pl.String,
}  # fmt: skip
_MARKS = {
    "instrument_id": pl.String, "mark_price": pl.Float64, "mark_iv": pl.Float64, "delta": pl.Float64,
    "funding_rate": pl.Float64,
}  # fmt: skip
_POSITIONS = {"instrument_id": pl.String, "quantity": pl.Float64, "entry_price": pl.Float64}
# What cases call a field, in the order in which they are looked for.
_STRIKES, _VOLS = ("strike", "K"), ("mark_iv", "iv", "vol", "sigma")
_FORWARDS, _EXPIRIES = ("forward", "underlying_price", "F"), ("expiry", "expires")


def _first(given: Inputs, names: Sequence[str], default: Any = None) -> Any:
    return next((given[name] for name in names if name in given), default)


def kind_of(position: Inputs) -> str:
    """Kind of contract that a position's type names."""
    word = str(position["type"])
    if "perp" in word:
        return "perpetual"
    return "future" if "fut" in word else "option"


def instrument_of(position: Inputs, index: int) -> str:
    """Name of a position's contract, its place in the case where it has none."""
    return str(position.get("instrument", f"{position['type']}-{index}"))


def _expiry(position: Inputs) -> datetime | None:
    if kind_of(position) == "perpetual":
        return None
    given = _first(position, _EXPIRIES)
    return EXPIRY if given is None else datetime.fromisoformat(str(given).replace("Z", "+00:00"))


def _option_type(position: Inputs) -> str | None:
    words = f"{position['type']} {position.get('option_type', '')}".lower()
    return next((side for side in ("call", "put") if side in words), None)


class Contract(dict[str, Any]):
    """One contract with its mark and position; keys are columns of the book."""


def _contract(position: Inputs, index: int, *, underlying: str, **terms: Any) -> Contract:
    return Contract(
        instrument_id=instrument_of(position, index),
        kind=kind_of(position),
        underlying=underlying,
        inverse=False,
        contract_size=1.0,
        strike=_first(position, _STRIKES),
        expiry=_expiry(position),
        option_type=_option_type(position),
        mark_price=position.get("mark"),
        mark_iv=_first(position, _VOLS),
        delta=position.get("delta"),
        funding_rate=position.get("funding_rate", 0.0),
        entry_price=position.get("entry"),
        forward=_first(position, _FORWARDS),
        rate=position.get("rate", 0.0),
    ) | Contract(terms)


def run_of(
    contracts: Sequence[Contract],
    model: MarginModel,
    *,
    prices: Mapping[str, float],
    as_of: datetime = AS_OF,
    settings: Mapping[str, float] | None = None,
    cash: Mapping[str, float] | None = None,
) -> Run:
    """Margins one account that holds the contracts, and explains it.

    Args:
      contracts: with their quantities.
      model: with the case's values.
      prices: USD by asset.
      as_of: when.
      settings: numbers that the account sets.
      cash: balances by asset; none of the money by default.
    """
    owner = pl.lit(ACCOUNT).alias("account_id")
    amounts = dict(cash or {model.file.accounting_asset: 0.0})
    own = [{"name": name, "value": float(value)} for name, value in (settings or {}).items()]
    schema = {"name": pl.String, "value": pl.Float64}
    tables = {
        "instruments": pl.DataFrame([{k: c[k] for k in _INSTRUMENTS} for c in contracts], schema=_INSTRUMENTS),
        "marks": pl.DataFrame([{k: c[k] for k in _MARKS} for c in contracts], schema=_MARKS, strict=False),
        "forwards": _forwards(contracts, prices),
        "prices": pl.DataFrame({"asset": [*prices], "price": [float(p) for p in prices.values()]}),
        "positions": pl.DataFrame([{k: c[k] for k in _POSITIONS} for c in contracts], schema=_POSITIONS, strict=False),
        "balances": pl.DataFrame({"asset": [*amounts], "amount": [float(a) for a in amounts.values()]}),
        "account_parameters": pl.DataFrame(own, schema=schema),
    }
    owned = {name: tables[name].with_columns(owner) for name in ("positions", "balances", "account_parameters")}
    run = margin(read_book(**(tables | owned)), model, as_of=as_of, device="cpu")
    run.explain(ACCOUNT)
    return run


def _forwards(contracts: Sequence[Contract], prices: Mapping[str, float]) -> pl.DataFrame:
    """Forwards of the options' expiries, the index price where a case gives none."""
    found = {
        (c["underlying"], c["quote"], c["expiry"]): (c["forward"] or prices[c["underlying"]], c["rate"])
        for c in contracts
        if c["kind"] == "option"
    }
    rows = [(*key, float(forward), float(rate)) for key, (forward, rate) in found.items()]
    schema = {"underlying": pl.String, "quote": pl.String, "expiry": TIME, "forward": pl.Float64, "rate": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def figures(run: Run) -> dict[str, Any]:
    """The account's figures and, over them, those of its only unit."""
    return run.accounts.row(0, named=True) | run.units.row(0, named=True)


def counted(run: Run, component: str) -> list[float]:
    """P&L that counts in every scenario of a component, as the explanation shows it."""
    unit = run.units["unit"].item()
    table = run.explain(ACCOUNT).tables[f"{unit} {component}"]
    column = "counted_pnl" if "counted_pnl" in table.columns else "weighted_pnl"
    return table[column].to_list() if column in table.columns else (table["pnl"] * table["weight"]).to_list()


# Deribit

_DERIBIT_FIELDS = {
    "vol_range_up": ("vol_shock.up",),
    "vol_range_down": ("vol_shock.down",),
    "min_vol_shock_up": ("vol_shock.min_up",),
    "vega_power_short": ("vol_shock.short_power",),
    "vega_power_long": ("vol_shock.long_power",),
    "extended_table_factor": ("parameters.extended_factor",),
    "pnl_offset": ("components.standard.numbers.gain_factor", "components.extended.numbers.gain_factor"),
    "extended_dampener_usd": ("components.extended.numbers.dampener",),
    "annualised_move_risk": ("components.roll_shock.numbers.rate",),
    "min_annualised_move": ("components.roll_shock.numbers.floor",),
    "delta_shock_m_inc": ("components.delta_shock.numbers.slope",),
    "delta_shock_cap": ("components.delta_shock.numbers.cap",),
    "delta_shock_threshold_usd": ("components.delta_shock.numbers.threshold",),
    "mm_factor": ("parameters.mm_factor",),
}
_MARGINS_OF_ORDERS = ("spot_margin", "mmp_margin", "open_orders_margin")


def _deribit_cap(given: Inputs) -> float:
    words = ("max_offsetable_pnl", "max_offsetable_pnl_usd")
    cap = _first(given, words)
    return NO_CAP if cap is None else cap


def deribit_model(config: Inputs, coin: str) -> MarginModel:
    """The shipped model as the ledger of a coin, with the values of a case."""
    shipped = load_model("deribit-pm")
    each_side, vols = config["buckets_each_side"], ("down", "none", "up")
    buckets = range(-each_side, each_side + 1)
    extended = shipped.raw["scenarios"]["extended"][0]
    changes = {path: config[name] for name, paths in _DERIBIT_FIELDS.items() if name in config for path in paths}
    cap = _deribit_cap(config)
    return shipped.replace(
        {
            "accounting_asset": coin,
            "collateral.assets": {"default": 0.0, coin: 1.0},
            "scenario_range": config["price_range"],
            "scenarios.standard": [{"move": k / each_side, "vol": vol} for k in buckets for vol in vols],
            "scenarios.extended": [{**extended, "spot": 1 + move} for move in config["extended_moves"]],
            "components.standard.numbers.gain_cap": cap,
            "components.extended.numbers.gain_cap": cap,
            **changes,
        }
    )


def deribit_contracts(given: Inputs) -> list[Contract]:
    """Coin-settled contracts: options of one coin, others of one dollar, of which a position has coins times mark."""
    found = []
    for i, position in enumerate(given["positions"]):
        coin = position["instrument"].partition("-")[0]
        terms = {"settlement": coin, "quote": "USD", "inverse": True}
        contract = _contract(position, i, underlying=coin, **terms)
        contract["quantity"] = position["coin"] * (1.0 if contract["kind"] == "option" else position["mark"])
        found.append(contract)
    return found


def deribit_run(given: Inputs, config: Inputs) -> Run:
    """A ledger of one coin."""
    contracts = deribit_contracts(given)
    coin = contracts[0]["underlying"]
    as_of = datetime.fromtimestamp(given["timestamp_ms"] / 1e3, UTC) if "timestamp_ms" in given else AS_OF
    settings = {name: given[name] for name in _MARGINS_OF_ORDERS if name in given}
    model = deribit_model(config, coin)
    return run_of(contracts, model, prices={coin: given["index"]}, as_of=as_of, settings=settings)


# OKX

_OKX_FIELDS = {
    "extreme_share": "parameters.extreme_share",
    "basis_rate_floor": "components.mr4.numbers.floor",
    "basis_rate": "components.mr4.numbers.rate",
    "reduction_cost_rate": "components.mr7_raw.numbers.rate",
    "imr_multiplier": "parameters.imr_multiplier",
}


def okx_model(given: Inputs) -> MarginModel:
    """The shipped model with a case's values; vol states stay the shipped ones."""
    shipped = load_model("okx-pm")
    states = [dict(row) for row in shipped.raw["scenarios"]["stress"] if row["spot"] == 1.0]
    extreme = shipped.raw["scenarios"]["extreme"][0]
    changes: dict[str, Any] = {path: given[name] for name, path in _OKX_FIELDS.items() if name in given}
    if "grid_moves" in given:
        changes["scenarios.stress"] = [{**state, "spot": 1 + m} for m in given["grid_moves"] for state in states]
    if "extreme_move" in given:
        sides = (1 - given["extreme_move"], 1 + given["extreme_move"])
        changes["scenarios.extreme"] = [{**extreme, "spot": level} for level in sides]
    if "tiers_usd" in given:
        changes["components.mr7.tables.tiers"] = [[upper or _UNBOUNDED, rate] for upper, rate in given["tiers_usd"]]
    return shipped.replace(changes)


def okx_run(given: Inputs) -> Run:
    """A risk unit; index and marks are in the contracts' quote currency, which `usdt_usd` converts."""
    coin, rate = given["risk_unit"], given.get("usdt_usd", 1.0)
    contracts = []
    for i, position in enumerate(given["positions"]):
        word = str(position["type"])
        quote = next((q for q in ("USDT", "USDC", "USD") if q.lower() in word), "USDT")
        is_inverse = "inverse" in word
        terms = {"settlement": coin if is_inverse else quote, "quote": quote, "inverse": is_inverse}
        contract = _contract(position, i, underlying=coin, **terms)
        is_amount = is_inverse and contract["kind"] != "option"
        contract["quantity"] = position["coin"] * (position["mark"] if is_amount else 1.0)
        contracts.append(contract)
    prices = {coin: given["index"] * rate, "USDT": rate, "USDC": given.get("usdc_usd", 1.0)}
    return run_of(contracts, okx_model(given), prices=prices)


# Bybit


def bybit_run(given: Inputs) -> Run:
    """One option in cross mode."""
    of_both = {"mm_factor": "mm_factor", "liq_fee_rate": "liquidation_fee"}
    of_initial = {"im_max_factor": "im_max_factor", "im_min_factor": "im_min_factor"}
    kinds = ("maintenance", "initial")
    numbers = {f"components.options_{kind}.numbers.{of_both[n]}": given[n] for kind in kinds for n in of_both}
    numbers |= {f"components.options_initial.numbers.{ours}": given[name] for name, ours in of_initial.items()}
    contract = _contract(given, 0, underlying="X", settlement="USDT", quote="USDT")
    sign = {"short": -1, "long": 1}[given["side"]]
    contract |= {"quantity": sign * given["size"], "mark_iv": contract["mark_iv"] or 0.5}
    model = load_model("bybit-uta-cross").replace(numbers)
    return run_of([contract], model, prices={"X": given["index"], "USDT": 1.0})
