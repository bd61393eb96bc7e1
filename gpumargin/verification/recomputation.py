"""Accounts recomputed from a run folder and its book in numpy: no kernel, no engine, nothing packed by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from gpumargin.explain.account import STATUSES, USUAL_STATUSES, identities
from gpumargin.expressions import parse_expression
from gpumargin.modelfile import ModelFile, account_expressions, account_settings
from gpumargin.verification.aggregation import Unit, aggregated, spread, with_spread_credit
from gpumargin.verification.balances import BalanceSide, balance_side, full_value
from gpumargin.verification.components import unit_margins, with_charges
from gpumargin.verification.contracts import Contracts, UnitContracts
from gpumargin.verification.figures import NOTHING, Array, Figures, evaluate, given, total
from gpumargin.verification.holdings import ORDER_WORDS, Holdings
from gpumargin.verification.unit_rows import Charges, UnitRows

_GREEKS = ("delta", "gamma", "vega", "theta")


@dataclass(frozen=True)
class Recomputed:
    """Some accounts, recomputed.

    Attributes:
      accounts: figures by column of the accounts table, `[A]` each.
      num_positions: `[A]`.
      units: one unit each of all accounts.
      unit_figures: of each of them, figures by column of the units table, `[R]` each.
      values: what predicates of statuses may name beside the columns, `[A]` each.
    """

    accounts: dict[str, Figures]
    num_positions: Array
    units: list[Unit]
    unit_figures: list[dict[str, Figures]]
    values: dict[str, Figures]


def recomputed(contracts: Contracts, held: Holdings) -> Recomputed:
    """Every number of some accounts of one model.

    Args:
      contracts: of the model.
      held: what the accounts hold.
    """
    with np.errstate(all="ignore"):
        return _recomputed(contracts, held)


def _recomputed(contracts: Contracts, held: Holdings) -> Recomputed:
    file, accounts = contracts.file, held.accounts
    rows = [with_charges(own) for own in _unit_rows(contracts, held)]
    for name, component in file.components.items():
        if component.kind == "spread_credit":
            with_spread_credit(name, component, rows, accounts)
    units = [_unit(own, accounts) for own in rows]
    values = _account_values(contracts, held, units)
    side = balance_side(contracts, held, units, values)
    figures = _account_figures(file, values, side, aggregated(file, units), accounts)
    figures |= _sums_of_units(units, accounts) | side.charges
    return Recomputed(figures, _num_positions(contracts, held), units, [_unit_figures(unit) for unit in units], values)


def _unit_rows(contracts: Contracts, held: Holdings) -> Iterator[UnitRows]:
    """Legs of every unit that some account has legs of."""
    legs = held.legs
    contract = legs["contract"].to_numpy()
    for unit in contracts.units:
        inside = (contract >= unit.first) & (contract < unit.first + unit.side.legs.height)
        if inside.any():
            own = legs.filter(pl.Series(inside))
            account, row = np.unique(own["account"].to_numpy(), return_inverse=True)
            place = own["contract"].to_numpy() - unit.first
            words = _words(contracts, unit, held, own, place)
            yield UnitRows(unit, contracts.file, account, row, place, words)


def _words(
    contracts: Contracts, unit: UnitContracts, held: Holdings, own: pl.DataFrame, place: Array
) -> dict[str, Array]:
    """What each leg says of itself, `[N]` each."""
    entry = own["entry_price"].fill_null(float("nan")).to_numpy()
    quantity, unsettled = own["quantity"].to_numpy(), own["unsettled"].to_numpy()
    found = {name: own[name].to_numpy() for name in ORDER_WORDS if name in own.columns}
    found |= {name: np.zeros(len(place)) for name in ORDER_WORDS if name not in own.columns}
    account = own["account"].to_numpy()
    found |= {n: held.setting(contracts, n, unit.unit)[account] for n in contracts.file.settable}
    found["quantity"] = quantity
    found["entry"] = np.where(np.isnan(entry), unit.column("entry")[place], entry)
    of_one, is_option = unit.column("contract_value"), unit.is_option
    found["value"] = np.where(is_option[place], quantity * of_one[place], 0.0)
    found["unrealised_pnl"], found["gross_pnl"] = _profit(unit, place, quantity, entry, unsettled)
    exposure = _exposures(contracts, unit)
    return found | {name: quantity * per_contract[place] for name, per_contract in exposure.items()}


def leg_figures(unit: Unit) -> tuple[pl.DataFrame, dict[str, Figures]]:
    """Legs of one unit: account and instrument of each, and figures by column of the positions table, `[N]` each."""
    rows, side = unit.rows, unit.rows.contracts.side
    ids = side.legs["instrument_id"].gather(rows.contract)
    keys = pl.DataFrame({"account": rows.account[rows.row], "instrument_id": ids})
    worth = rows.quantity * rows.contracts.column("contract_value")[rows.contract]
    found = {"quantity": given(rows.quantity), "value": given(worth)}
    found["unrealised_pnl"] = Figures(rows.words["unrealised_pnl"], rows.words["gross_pnl"])
    return keys, found | {name: given(rows.words[name]) for name in _GREEKS}


def _profit(unit: UnitContracts, place: Array, quantity: Array, entry: Array, unsettled: Array) -> tuple[Array, Array]:
    """P&L not yet in the balance, cash due included, and the size that its rounding is relative to."""
    inverse = unit.side.legs["inverse"].fill_null(value=False).to_numpy()[place]
    mark, ratio = unit.column("mark")[place], unit.column("ratio")[place]
    has_pnl = ~(unit.is_option | unit.is_base)[place] & ~np.isnan(entry)
    start = np.where(inverse, 1 / entry, mark)
    end = np.where(inverse, 1 / mark, entry)
    size = quantity * unit.column("contract_size")[place]
    cash = np.where(has_pnl, size * (start - end), 0.0) + unsettled
    gross = np.where(has_pnl, np.abs(size) * (np.abs(start) + np.abs(end)), 0.0) + np.abs(unsettled)
    is_base = unit.is_base[place]
    return np.where(is_base, 0.0, cash * ratio), np.where(is_base, 0.0, gross * ratio)


def _exposures(contracts: Contracts, unit: UnitContracts) -> dict[str, Array]:
    """Greeks of one long contract in money, `[M]` each: of the forward that still moves."""
    frame, forwards = unit.side.legs, contracts.sources.book["forwards"]
    keys = ["underlying", "quote", "expiry"]
    fixed = frame.select(keys).join(forwards.select(*keys, "forward_fixed"), on=keys, how="left", maintain_order="left")
    moving = unit.column("forward") - fixed["forward_fixed"].fill_null(0.0).to_numpy()
    is_option = unit.is_option
    return {
        "delta": np.where(is_option, unit.column("delta") * moving, unit.column("contract_value")),
        "gamma": np.where(is_option, unit.column("gamma") * moving**2 * 1e-4, 0.0),
        "vega": np.where(is_option, unit.column("vega") / 100, 0.0),
        "theta": np.where(is_option, unit.column("theta") / 365, 0.0),
    }


def _unit(rows: UnitRows, accounts: int) -> Unit:
    charges = {name: spread(rows.account, own.figures, accounts) for name, own in rows.charges.items()}
    margins = {name: spread(rows.account, own, accounts) for name, own in unit_margins(rows).items()}
    return Unit(rows.contracts.unit, rows, charges, margins)


def binding(unit: Unit) -> Charges | None:
    """The charge whose worst case is the unit's; None if no component has scenarios."""
    ordered = [unit.rows.charges[name] for name in unit.rows.file.components]
    return next((charges for charges in reversed(ordered) if charges.ids), None)


def _unit_figures(unit: Unit) -> dict[str, Figures]:
    """Figures of one unit by their column in the units table."""
    rows, charges = unit.rows, binding(unit)
    found = {name: own.figures for name, own in rows.charges.items()}
    found |= {f"{name}_margin": Figures(*(part[rows.account] for part in own)) for name, own in unit.margins.items()}
    found |= _unit_money(rows)
    return found | ({"worst_loss": charges.figures} if charges is not None else {})


def _unit_money(rows: UnitRows) -> dict[str, Figures]:
    found = {"option_value": rows.money("value"), "unrealised_pnl": rows.money("unrealised_pnl", "gross_pnl")}
    return found | {name: rows.money(name) for name in _GREEKS}


def _sums_of_units(units: list[Unit], accounts: int) -> dict[str, Figures]:
    """Greeks and worst losses of accounts: sums over their units."""
    found: dict[str, list[Figures]] = {name: [] for name in (*_GREEKS, "worst_loss")}
    for unit in units:
        for name in _GREEKS:
            found[name].append(spread(unit.rows.account, unit.rows.money(name), accounts))
        charges = binding(unit)
        if charges is not None:
            found["worst_loss"].append(spread(unit.rows.account, charges.figures, accounts))
    return {name: total(figures) for name, figures in found.items()}


def _account_values(contracts: Contracts, held: Holdings, units: list[Unit]) -> dict[str, Figures]:
    """What expressions of accounts may name: plain parameters, their own numbers, equity and what it is made of."""
    file = contracts.file
    found = {n: given(v["default"]) for n, v in file.parameters.items() if set(v) == {"default"}}
    found |= {name: given(held.setting(contracts, name, None)) for name in account_settings(file)}
    found["full_value"] = full_value(contracts, held)
    for name, gross in (("unrealised_pnl", "gross_pnl"), ("option_value", None)):
        word = "value" if name == "option_value" else name
        parts = [spread(u.rows.account, u.rows.money(word, gross), held.accounts) for u in units]
        found[name] = total(parts)
    found["equity"] = total([found[name] for name in ("full_value", "unrealised_pnl", "option_value")])
    return found


def _margins(
    file: ModelFile, values: Mapping[str, Figures], side: BalanceSide, units: Mapping[str, Figures]
) -> dict[str, Figures]:
    """Requirements of accounts by margin type; later types may name earlier ones."""
    expressions = account_expressions(file).margins
    found: dict[str, Figures] = {}
    for name, of_units in units.items():
        debt = side.debt[name] if file.debt == "requirement" else NOTHING
        own = {**values, **side.charges, **found, "units": of_units, "debt": debt}
        found[name] = evaluate(expressions[name], own) if name in expressions else total([of_units, debt])
    return found


def _account_figures(
    file: ModelFile, values: Mapping[str, Figures], side: BalanceSide, units: Mapping[str, Figures], accounts: int
) -> dict[str, Figures]:
    """Figures of accounts by their column, the identities applied to sums of lines."""
    found = {name: values[name] for name in ("full_value", "unrealised_pnl", "option_value")}
    found |= {f"{name}_collateral_value": side.collateral[name] for name in file.margin}
    counted = set() if file.pnl_settles else set(file.counted)
    found |= {f"{name}_counted": side.counted[name] for name in file.margin if name in counted}
    found |= {f"{name}_margin": figures for name, figures in _margins(file, values, side, units).items()}
    for name, text in identities(file).items():
        found[name] = evaluate(parse_expression(text, found), found)
    is_idle = found["maintenance_margin"].amount == 0
    found["health"] = Figures(np.where(is_idle, np.nan, found["health"].amount), found["health"].gross)
    kept = {n: f for n, f in found.items() if n != "full_value" and not n.endswith("_counted")}
    return {n: Figures(*(np.broadcast_to(part, (accounts,)) for part in f)) for n, f in kept.items()}


def _num_positions(contracts: Contracts, held: Holdings) -> Array:
    is_base = contracts.frame["is_base"].to_numpy()[held.legs["contract"].to_numpy()]
    counts = ~is_base & (held.legs["quantity"].to_numpy() != 0)
    return np.bincount(held.legs["account"].to_numpy()[counts], minlength=held.accounts)


def statuses(file: ModelFile, published: Mapping[str, Array], values: Mapping[str, Figures]) -> Array:
    """Index of the status that published figures mean, `[A]`.

    Args:
      file: the model.
      published: columns of the accounts table.
      values: what predicates may name beside them.
    """
    known = {name: given(column) for name, column in published.items()}
    known |= {name: figures for name, figures in values.items() if name not in known}
    size = len(published["equity"])
    found = np.zeros(size, np.int64)
    with np.errstate(all="ignore"):
        for status, expression in (USUAL_STATUSES | account_expressions(file).statuses).items():
            holds = np.broadcast_to(evaluate(expression, known).amount, (size,)) > 0
            found = np.where(holds, STATUSES.index(status), found)
    decide = [published["equity"], *(published[f"{name}_excess"] for name in file.margin)]
    is_known = np.all([np.isfinite(column) for column in decide], axis=0)
    return np.where(is_known, found, STATUSES.index("unknown"))
