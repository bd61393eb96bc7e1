"""What balances of many accounts count and are charged: `explain.balances` with an axis of accounts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from gpumargin.explain.balances import asset_numbers, asset_values, tables_of
from gpumargin.modelfile import DEFAULT, account_expressions
from gpumargin.modelfile.balances import ORDER_NAMES, ParsedCharge
from gpumargin.verification.aggregation import Unit
from gpumargin.verification.contracts import Contracts
from gpumargin.verification.figures import NOTHING, Array, Figures, evaluate, given, total
from gpumargin.verification.holdings import Holdings

Values = Mapping[str, Figures]


@dataclass(frozen=True)
class Asset:
    """Balances in one asset.

    Attributes:
      name: the asset.
      account: `[B]` whose they are.
      values: `[B]` each, what expressions may name of them.
    """

    name: str
    account: Array
    values: dict[str, Figures]

    def sums(self, figures: Figures, accounts: int) -> Figures:
        """Figures of balances as figures of accounts, `[B]` to `[A]`."""
        size = len(self.account)
        parts = (np.broadcast_to(np.asarray(part, np.float64), (size,)) for part in figures)
        return Figures(*(np.bincount(self.account, part, accounts) for part in parts))

    @property
    def is_empty(self) -> Array:
        """Which balances are nothing and have no open orders, `[B]`."""
        orders = self.values["orders"].amount if "orders" in self.values else 0.0
        return np.asarray((self.values["amount"].amount == 0) & (orders == 0))


class _Counted(NamedTuple):
    """What counts of balances, of those that are no debt, and what is owed for them, `[B]` each."""

    counted: Figures
    owed: Figures
    positive: Figures


@dataclass(frozen=True)
class BalanceSide:
    """What is summed over the balances of accounts, `[A]` each, and by margin type where it differs by that."""

    collateral: dict[str, Figures]
    debt: dict[str, Figures]
    charges: dict[str, Figures]
    counted: dict[str, Figures]  # what counts of P&L and option value beside the balances


def balance_side(contracts: Contracts, held: Holdings, units: Sequence[Unit], scalars: Values) -> BalanceSide:
    """Every balance by the rules of its model, with what units settle into it.

    Args:
      contracts: of the model.
      held: the accounts.
      units: their units.
      scalars: figures of the accounts and plain parameters, by name.
    """
    file, accounts = contracts.file, held.accounts
    of_units = {name: _of_units(contracts, name, units, accounts) for name in file.margin}
    settled = of_units if file.pnl_settles else {}
    assets = list(_assets(contracts, held, settled, _confidence(contracts, units, accounts)))
    sums = _charges(contracts, assets, scalars, accounts)
    summed = {name: sums[name] for name in file.summed()}
    collateral, debt = {}, {}
    for name in file.margin:
        own = [_counted(contracts, held, asset, name, settled.get(name, {}), summed) for asset in assets]
        parts = list(zip(assets, own, strict=True))
        is_required = file.debt == "requirement"
        collateral[name] = total([a.sums(c.positive if is_required else c.counted, accounts) for a, c in parts])
        debt[name] = total([asset.sums(counts.owed, accounts) for asset, counts in parts])
    beside = {} if file.pnl_settles else {name: total(list(found.values())) for name, found in of_units.items()}
    return BalanceSide(collateral, debt, sums, beside)


def full_value(contracts: Contracts, held: Holdings) -> Figures:
    """Balances at their price as collateral, `[A]`."""
    price = held.balances["asset"].replace_strict(
        contracts.market.collateral, default=float("nan"), return_dtype=pl.Float64
    )
    value = held.balances["amount"].to_numpy() * price.to_numpy() / contracts.market.accounting
    account = held.balances["account"].to_numpy()
    return Figures(*(np.bincount(account, part, held.accounts) for part in (value, np.abs(value))))


def _confidence(contracts: Contracts, units: Sequence[Unit], accounts: int) -> Array:
    """Least confidence of the index prices of each account's units, 1 without any, `[A]`."""
    found = np.ones(accounts)
    for unit in units:
        own = contracts.market.confidence.get(unit.unit, 1.0)
        found[unit.rows.account] = np.minimum(found[unit.rows.account], own)
    return found


def _of_units(contracts: Contracts, margin_type: str, units: Sequence[Unit], accounts: int) -> dict[str, Figures]:
    """What counts of P&L and option value, `[A]`, by settlement asset where it settles, else by unit."""
    file, expressions = contracts.file, account_expressions(contracts.file).counted
    if margin_type not in expressions:
        return {}
    found: dict[str, list[Figures]] = {}
    for unit in units:
        rows = unit.rows
        for key, where, is_own in _groups(contracts, unit):
            values = rows.numbers(file.parameters)
            values |= {n: charges.figures if is_own else NOTHING for n, charges in rows.charges.items()}
            values["unrealised_pnl"] = rows.money("unrealised_pnl", "gross_pnl", where)
            values["option_value"] = rows.money("value", None, where)
            figures = evaluate(expressions[margin_type], values)
            dense = []
            for part in figures:
                column = np.zeros(accounts)
                column[rows.account] = part
                dense.append(column)
            found.setdefault(key, []).append(Figures(*dense))
    return {key: total(figures) for key, figures in found.items()}


def _groups(contracts: Contracts, unit: Unit) -> list[tuple[str, Array | None, bool]]:
    """Contracts that count together, and whether the unit's components count with them."""
    if not contracts.file.pnl_settles:
        return [(unit.unit, None, True)]
    settlement = np.array([word or "" for word in unit.rows.contracts.settlement])
    assets = sorted({*settlement[~unit.rows.contracts.is_base]})
    return [(asset, (settlement == asset).astype(float), len(assets) == 1) for asset in assets]


def _assets(contracts: Contracts, held: Holdings, settled: Mapping[str, Values], confidence: Array) -> Iterator[Asset]:
    """Balances by asset, and empty ones where P&L settles in."""
    wanted = {asset for found in settled.values() for asset in found}
    by_asset = {str(key[0]): rows for key, rows in held.balances.group_by("asset", maintain_order=True)}
    for asset in sorted({*by_asset} | wanted):
        rows = by_asset.get(asset, held.balances.clear())
        if asset in wanted:
            rows = _with_settled(rows, asset, held.accounts, [f[asset] for f in settled.values() if asset in f])
        if rows.height:
            yield _asset(contracts, held, asset, rows, confidence)


def _with_settled(rows: pl.DataFrame, asset: str, accounts: int, settled: list[Figures]) -> pl.DataFrame:
    """An empty balance for every account that something settles for and that has none."""
    owed = np.zeros(accounts, bool)
    for figures in settled:
        owed |= np.asarray((figures.amount != 0) | (figures.gross != 0))
    owed[rows["account"].to_numpy()] = False
    new = np.flatnonzero(owed)
    more = pl.DataFrame({"account": new, "asset": [asset] * len(new), "amount": np.zeros(len(new))})
    more = more.with_columns(is_collateral=pl.lit(True)).cast({k: rows.schema[k] for k in ("account", "amount")})
    return pl.concat([rows, more], how="diagonal")


def _asset(contracts: Contracts, held: Holdings, asset: str, rows: pl.DataFrame, confidence: Array) -> Asset:
    sources, market, file = contracts.sources, contracts.market, contracts.file
    account, price = rows["account"].to_numpy(), market.collateral.get(asset, np.nan) / market.accounting
    values = {name: Figures(*figure) for name, figure in asset_values(sources, market, asset).items()}
    amount = given(rows["amount"].to_numpy())
    values |= {"amount": amount, "value": Figures(amount.amount * price, amount.gross * abs(price))}
    values["is_collateral"] = given(rows["is_collateral"].to_numpy().astype(float))
    values["spot_confidence"] = given(confidence[account])
    for name in file.balance_inputs:
        if name in ORDER_NAMES:
            column = rows[name].fill_null(0.0).to_numpy() if name in rows.columns else np.zeros(len(account))
            values[name] = given(column)
        else:
            values[name] = given(held.setting(contracts, name, asset)[account])
    return Asset(asset, account, values)


def _with_money(contracts: Contracts, asset: Asset, settled: Values) -> dict[str, Figures]:
    """Values of balances after P&L of a margin type has joined them."""
    market, values = contracts.market, dict(asset.values)
    everything = total(list(settled.values()))
    values["settled"] = _taken(everything, asset.account)
    if contracts.file.pnl_settles:
        ratio = market.price.get(asset.name, np.nan) / market.accounting
        price = market.collateral.get(asset.name, np.nan) / market.accounting
        money = _taken(settled.get(asset.name, NOTHING), asset.account)
        own = values["amount"]
        amount = Figures(own.amount + money.amount / ratio, own.gross + money.gross / abs(ratio))
        values |= {"amount": amount, "value": Figures(amount.amount * price, amount.gross * abs(price))}
    return values


def _taken(figures: Figures, account: Array) -> Figures:
    """Figures of the accounts that balances belong to, `[A]` to `[B]`."""
    return Figures(*(np.asarray(part)[account] if np.ndim(part) else part for part in figures))


def _counted(
    contracts: Contracts, held: Holdings, asset: Asset, margin_type: str, settled: Values, summed: Values
) -> _Counted:
    """What balances of one asset count towards a margin type."""
    file = contracts.file
    rule, table = file.rule_of(margin_type), file.collateral_of(margin_type)
    values = _with_money(contracts, asset, settled)
    values |= {name: _taken(figures, asset.account) for name, figures in summed.items()}
    values |= _numbers(contracts, held, asset, margin_type)
    tables = tables_of(table.tables, asset.name)
    shape = (len(asset.account),)
    is_debt = np.broadcast_to(values["amount"].amount < 0, shape)
    is_lent = np.broadcast_to(values["is_collateral"].amount == 0, shape) & ~is_debt
    gain, loss = evaluate(rule.asset, values, tables), evaluate(rule.liability, values, tables)
    amount = np.where(is_debt, loss.amount, np.where(is_lent, 0.0, gain.amount))
    counted = Figures(amount, np.where(is_debt, loss.gross, np.where(is_lent, values["value"].gross, gain.gross)))
    is_liability = amount < 0
    owed = Figures(np.where(is_liability, -amount, 0.0), np.where(is_liability, counted.gross, 0.0))
    if rule.owed is not None:
        more = evaluate(rule.owed, values, tables)
        orders = values["orders"].amount if "orders" in values else 0.0
        is_some = ~np.broadcast_to((values["amount"].amount == 0) & (orders == 0), shape)
        owed = total([owed, Figures(*(np.where(is_some, part, 0.0) for part in more))])
    positive = Figures(*(np.where(is_liability, 0.0, part) for part in counted))
    return _Counted(counted, owed, positive)


def _numbers(contracts: Contracts, held: Holdings, asset: Asset, margin_type: str) -> dict[str, Figures]:
    """Numbers of one asset for a margin type, those of each account's category first."""
    found: dict[str, Any] = {
        name: given(figure.amount)
        for name, figure in asset_numbers(contracts.sources, margin_type, asset.name, None).items()
    }
    emode = held.emode.gather(asset.account)
    for category in contracts.file.categories:
        own = (emode == category).fill_null(value=False).to_numpy()
        if not own.any():
            continue
        for name, figure in asset_numbers(contracts.sources, margin_type, asset.name, category).items():
            found[name] = given(np.where(own, figure.amount, found[name].amount))
    return found


def _charges(contracts: Contracts, assets: Sequence[Asset], scalars: Values, accounts: int) -> dict[str, Figures]:
    """Charges on balances in the order of the file, `[A]` each."""
    amounts: dict[str, Figures] = {}
    for name, parsed in account_expressions(contracts.file).charges.items():
        sums = {
            part: total([f for asset in assets for f in _charge_sum(contracts, asset, name, part, parsed, accounts)])
            for part in parsed.each
        }
        figures = evaluate(parsed.amount, {**scalars, **amounts, **sums})
        amounts[name] = Figures(*(np.broadcast_to(part, (accounts,)) for part in figures))
    return amounts


def _charge_sum(
    contracts: Contracts, asset: Asset, name: str, part: str, parsed: ParsedCharge, accounts: int
) -> Iterator[Figures]:
    """Sum over the balances in one asset that are not empty."""
    table = contracts.file.balances[name]
    numbers = {n: given(v.get(asset.name, v[DEFAULT])) for n, v in table.numbers.items()}
    figures = evaluate(parsed.each[part], {**asset.values, **numbers}, tables_of(table.tables, asset.name))
    is_some = ~asset.is_empty
    yield asset.sums(Figures(*(np.where(is_some, side, 0.0) for side in figures)), accounts)
