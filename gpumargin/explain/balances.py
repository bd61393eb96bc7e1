"""What an account's balances count and are charged, and what its units' P&L counts: line by line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from gpumargin.explain.figures import Figure, evaluate, exact, total
from gpumargin.explain.market import Market, base_assets
from gpumargin.explain.requirements import UnitResult
from gpumargin.explain.settings import balance_inputs, ordered_assets
from gpumargin.explain.sources import AccountSources
from gpumargin.explain.unit import with_total
from gpumargin.modelfile import DEFAULT, ModelFile, account_expressions

if TYPE_CHECKING:
    from gpumargin_kernels.expression import Expression

Values = Mapping[str, Figure]
NOTHING = exact(0.0)
_FRACTIONS = ("confidence", "collateral_confidence")


@dataclass(frozen=True)
class Balance:
    """One balance: at full value, and what of it counts by margin type, negative for a liability."""

    asset: str
    price: float
    values: Values  # what expressions may name of it
    counted: Values
    shares: Mapping[str, float | None]  # counted / value by margin type, where that is a number
    settled: Values  # P&L that joined it by margin type, units of the asset
    owed: Values  # by margin type, what is required for it beside what counts


@dataclass(frozen=True)
class BalanceSide:
    """An account's balances and what is summed over them."""

    balances: list[Balance]
    charges: Mapping[str, Figure]
    counted: Mapping[str, Figure]  # by margin type, what counts of P&L and option value beside the balances
    tables: Mapping[str, pl.DataFrame]

    def collateral(self, margin_type: str, *, without_debt: bool) -> Figure:
        """Collateral value of a margin type."""
        counted = [balance.counted[margin_type] for balance in self.balances]
        return total([figure for figure in counted if not (without_debt and figure.amount < 0)])

    def debt(self, margin_type: str) -> Figure:
        """What liabilities count, positive."""
        counted = [balance.counted[margin_type] for balance in self.balances]
        owed = [balance.owed[margin_type] for balance in self.balances if margin_type in balance.owed]
        return total([*(Figure(-f.amount, f.gross) for f in counted if f.amount < 0), *owed])


def balance_side(sources: AccountSources, market: Market, units: list[UnitResult], scalars: Values) -> BalanceSide:
    """Every balance by the rules of its model, with what units settle into it.

    Args:
      sources: the account.
      market: prices.
      units: its units.
      scalars: values of the account and plain parameters, by name.
    """
    file = sources.file
    of_units = {name: _of_units(sources, name, units) for name in file.margin}
    settled = of_units if file.pnl_settles else {name: {} for name in file.margin}
    confidence = min((market.confidence.get(unit.unit, 1.0) for unit in units), default=1.0)
    rows = list(_rows(sources, settled).iter_rows(named=True))
    alone = dict.fromkeys(file.summed(), NOTHING)
    before = _charges(file, [_balance(sources, market, row, settled, confidence, alone) for row in rows], scalars)[0]
    sums = {name: before[name] for name in file.summed()}
    balances = [_balance(sources, market, row, settled, confidence, sums) for row in rows]
    charges, tables = _charges(file, balances, scalars)
    beside = {} if file.pnl_settles else {name: total(list(found.values())) for name, found in of_units.items()}
    return BalanceSide(balances, charges, beside, {**_counted_table(file, of_units), **tables})


def _of_units(sources: AccountSources, margin_type: str, units: list[UnitResult]) -> dict[str, Figure]:
    """What counts of P&L and option value, by settlement asset where it settles, else by unit."""
    expressions = account_expressions(sources.file).counted
    if margin_type not in expressions:
        return {}
    found: dict[str, list[Figure]] = {}
    for unit in units:
        for key, legs, is_own in _groups(sources, unit):
            values = {n: exact(v.get(unit.unit, v[DEFAULT])) for n, v in sources.file.parameters.items()}
            values |= {n: charge.figure if is_own else NOTHING for n, charge in unit.charges.items()}
            values["unrealised_pnl"] = Figure(float(legs["unrealised_pnl"].sum()), float(legs["gross_pnl"].sum()))
            values["option_value"] = Figure(float(legs["value"].sum()), float(legs["value"].abs().sum()))
            found.setdefault(key, []).append(evaluate(expressions[margin_type], values))
    return {key: total(figures) for key, figures in found.items()}


def _groups(sources: AccountSources, unit: UnitResult) -> list[tuple[str, pl.DataFrame, bool]]:
    """Legs that count together, and whether the unit's components count with them."""
    if not sources.file.pnl_settles:
        return [(unit.unit, unit.legs, True)]
    listed = sources.instruments.filter(pl.col("unit") == unit.unit).join(
        sources.book["instruments"].select("instrument_id", "settlement"), on="instrument_id", how="inner"
    )
    assets = sorted(listed.filter(pl.col("kind") != "base")["settlement"].unique())
    return [(str(a), unit.legs.filter(pl.col("settlement") == a), len(assets) == 1) for a in assets]


def _rows(sources: AccountSources, settled: Mapping[str, Values]) -> pl.DataFrame:
    """Balances of the account, and empty ones in assets that P&L settles in."""
    held = sources.book["balances"].select("asset", "amount", "is_collateral")
    new = sorted(({a for found in settled.values() for a in found} | ordered_assets(sources)) - set(held["asset"]))
    more = pl.DataFrame({"asset": new, "amount": [0.0] * len(new), "is_collateral": [True] * len(new)}, held.schema)
    return pl.concat([held, more]).sort("asset")


def asset_values(sources: AccountSources, market: Market, asset: str) -> dict[str, Figure]:
    """Columns of the book that the model names, for one asset."""
    found: dict[str, Figure] = {}
    for name, path in sources.file.asset_columns.items():
        table, column = path.split(".")
        rows = sources.book[table].filter(pl.col("asset") == asset)
        value = rows[column][0] if rows.height else None
        usual = {"collateral_price": market.collateral, "emode_price": market.collateral, "price": market.price}
        if asset == "USD" and (column == "price" or value is None):
            value = 1.0 if table == "prices" else None
        if value is None:
            value = usual.get(column, {}).get(asset, math.nan)
        ratio = market.accounting if table == "prices" and column not in _FRACTIONS else 1.0
        found[name] = exact(float(value) / ratio)
    return found


def _category(sources: AccountSources) -> str | None:
    accounts = sources.book.get("accounts")
    if accounts is None or accounts.height == 0 or "emode" not in accounts.columns:
        return None
    word = accounts["emode"].cast(pl.String)[0]
    return None if word is None else str(word)


def _numbers(sources: AccountSources, margin_type: str, asset: str) -> dict[str, Figure]:
    return asset_numbers(sources, margin_type, asset, _category(sources))


def asset_numbers(sources: AccountSources, margin_type: str, asset: str, emode: str | None) -> dict[str, Figure]:
    """Numbers of one asset for a margin type, those of the account's category first."""
    file = sources.file
    table = file.collateral_of(margin_type)
    found = {name: values.get(asset, values[DEFAULT]) for name, values in table.leaves().items()}
    if table.base is not None and asset in base_assets(sources):
        found["assets"] = table.base
    category = file.categories.get(emode or "")
    if category is not None and asset in category.assets:
        found |= category.numbers.get(margin_type, {})
    return {name: exact(value) for name, value in found.items()}


def tables_of(tables: Mapping[str, Mapping[str, Any]], asset: str) -> dict[str, Any]:
    """Bracket tables of one asset."""
    return {name: values.get(asset, values[DEFAULT]) for name, values in tables.items()}


def _balance(
    sources: AccountSources,
    market: Market,
    row: Mapping[str, Any],
    settled: Mapping[str, Values],
    confidence: float,
    sums: Values,
) -> Balance:
    asset, file = str(row["asset"]), sources.file
    price = market.collateral.get(asset, math.nan) / market.accounting
    shared = asset_values(sources, market, asset)
    shared |= {"is_collateral": exact(float(row["is_collateral"])), "spot_confidence": exact(confidence)}
    shared |= {name: exact(value) for name, value in balance_inputs(sources, market, asset).items()}

    def of(amount: Figure) -> dict[str, Figure]:
        return {**shared, "amount": amount, "value": Figure(amount.amount * price, amount.gross * abs(price))}

    plain = of(exact(row["amount"]))
    counted: dict[str, Figure] = {}
    shares: dict[str, float | None] = {}
    joined: dict[str, Figure] = {}
    owed: dict[str, Figure] = {}
    for name in file.margin:
        values = {**plain, "settled": total(list(settled[name].values()))}
        if file.pnl_settles:
            ratio = market.price.get(asset, math.nan) / market.accounting
            money = settled[name].get(asset, NOTHING)
            joined[name] = Figure(money.amount / ratio, money.gross / abs(ratio))
            values = of(total([plain["amount"], joined[name]])) | {"settled": values["settled"]}
        values |= sums
        counted[name], shares[name] = _counted(sources, name, asset, values)
        owed |= _owed(sources, name, asset, values)
    return Balance(asset, price, plain, counted, shares, joined, owed)


def _is_empty(values: Values) -> bool:
    return values["amount"].amount == 0 and ("orders" not in values or values["orders"].amount == 0)


def _owed(sources: AccountSources, margin_type: str, asset: str, values: Values) -> dict[str, Figure]:
    """What a balance is required for beside what counts of it, under its margin type."""
    expression = sources.file.rule_of(margin_type).owed
    if expression is None or _is_empty(values):
        return {}
    tables = tables_of(sources.file.collateral_of(margin_type).tables, asset)
    return {margin_type: evaluate(expression, {**values, **_numbers(sources, margin_type, asset)}, tables)}


def _counted(sources: AccountSources, margin_type: str, asset: str, values: Values) -> tuple[Figure, float | None]:
    """What counts of a balance, and its share of the value."""
    table = sources.file.collateral_of(margin_type)
    rule, is_debt = sources.file.rule_of(margin_type), values["amount"].amount < 0
    expression: Expression = rule.liability if is_debt else rule.asset
    if not is_debt and values["is_collateral"].amount == 0:
        return Figure(0.0, values["value"].gross), 0.0
    named = {**values, **_numbers(sources, margin_type, asset)}
    found = evaluate(expression, named, tables_of(table.tables, asset))
    if isinstance(expression, tuple) and expression[:2] == ("*", "value"):
        return found, evaluate(expression[2], named, tables_of(table.tables, asset)).amount
    value = values["value"].amount
    return found, found.amount / value if value else None


def balance_table(file: ModelFile, side: BalanceSide) -> pl.DataFrame:
    """Every balance at full value, and what of it counts towards each margin type, with a total."""
    lines = []
    for balance in side.balances:
        amount, value = balance.values["amount"].amount, balance.values["value"].amount
        line: dict[str, Any] = {"asset": balance.asset, "amount": amount}
        line["is_collateral"] = bool(balance.values["is_collateral"].amount)
        line |= {"price": balance.price, "value": value}
        for name in file.margin:
            if file.pnl_settles:
                line[f"{name}_settled"] = balance.settled[name].amount
            line |= {f"{name}_weight": balance.shares[name], f"{name}_counted": balance.counted[name].amount}
            line |= {f"{name}_owed": balance.owed[name].amount} if name in balance.owed else {}
        lines.append(line)
    return with_total(lines, "value", *(f"{name}_counted" for name in file.margin))


def _counted_table(file: ModelFile, of_units: Mapping[str, Values]) -> dict[str, pl.DataFrame]:
    """What counts of P&L and option value by unit or settlement asset, where the model has expressions for it."""
    keys = sorted({key for found in of_units.values() for key in found})
    if not keys:
        return {}
    label = "settlement" if file.pnl_settles else "unit"
    lines = [{label: key} | {name: found.get(key, NOTHING).amount for name, found in of_units.items()} for key in keys]
    return {"counted": with_total(lines, *of_units)}


def _charges(
    file: ModelFile, balances: list[Balance], scalars: Values
) -> tuple[dict[str, Figure], dict[str, pl.DataFrame]]:
    """Charges on balances in the order of the file, and their lines."""
    amounts: dict[str, Figure] = {}
    tables: dict[str, pl.DataFrame] = {}
    for name, parsed in account_expressions(file).charges.items():
        table = file.balances[name]
        parts: dict[str, list[Figure]] = {part: [] for part in parsed.each}
        lines: list[dict[str, Any]] = []
        for balance in (b for b in balances if not _is_empty(b.values)):
            numbers = {n: exact(v.get(balance.asset, v[DEFAULT])) for n, v in table.numbers.items()}
            named, brackets = {**balance.values, **numbers}, tables_of(table.tables, balance.asset)
            found = {part: evaluate(e, named, brackets) for part, e in parsed.each.items()}
            for part, figure in found.items():
                parts[part].append(figure)
            shown = {key: balance.values[key].amount for key in ("amount", "value")}
            lines.append({"asset": balance.asset, **shown} | {part: f.amount for part, f in found.items()})
        sums = {part: total(figures) for part, figures in parts.items()}
        amounts[name] = evaluate(parsed.amount, {**scalars, **amounts, **sums})
        if lines:
            tables[f"balances {name}"] = with_total(lines, *parsed.each)
    return amounts, tables
