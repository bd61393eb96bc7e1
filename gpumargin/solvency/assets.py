"""Collateral and debt by asset: what is held and owed of each, and what of it counts after haircuts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.errors import InternalError
from gpumargin.evaluate import number_of
from gpumargin.expressions import names_in
from gpumargin.modelfile import DEFAULT, ModelFile
from gpumargin.pack.columns import Bools, Floats
from gpumargin.runs import run_table
from gpumargin.solvency.sources import Sources
from gpumargin.sums import BalanceSums
from gpumargin.totals import asset_decimals, balance_totals, decimal_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpumargin_kernels.expression import Expression

_AGREEMENT = 1e-9


def exact_totals(sources: Sources) -> dict[str, dict[str, str]]:
    """Sum of positive and of negative balances by asset, both positive, decimal strings with every digit."""
    decimals, balances = asset_decimals(sources.book), sources.book.tables["balances"]
    is_debt = pc.less(balances["amount"].cast(pa.float64()), 0)
    held, owed = (_totals(balances.filter(chosen), decimals) for chosen in (pc.invert(is_debt), is_debt))
    nothing = {asset: decimal_text(0, decimals[asset]) for asset in sorted(held.keys() | owed.keys())}
    return {
        asset: {"equity": held.get(asset, zero), "debt": owed.get(asset, zero).removeprefix("-")}
        for asset, zero in nothing.items()
    }


def _totals(balances: pa.Table, decimals: Mapping[str, int]) -> dict[str, str]:
    sums = BalanceSums()
    sums.add(balances)
    return balance_totals(sums.by_asset, decimals)


class Shares(NamedTuple):
    """Share of a balance's value that counts for one margin type, by asset."""

    asset: Floats
    liability: Floats


def fixed_shares(file: ModelFile, margin_type: str, assets: list[str], base: set[str]) -> Shares | None:
    """What counts of balances; None where that depends on more than the asset.

    Args:
      file: the model.
      margin_type: `initial` for example.
      assets: of the book.
      base: those that are legs of a unit.
    """
    table, rule = file.collateral_of(margin_type), file.rule_of(margin_type)
    fixed = [_share(expression, {*table.leaves()}) for expression in (rule.asset, rule.liability)]
    if file.pnl_settles or file.categories or rule.owed is not None or None in fixed:
        return None

    def numbers(asset: str) -> dict[str, float]:
        own = {name: values.get(asset, values[DEFAULT]) for name, values in table.leaves().items()}
        return own | ({"assets": table.base} if table.base is not None and asset in base else {})

    return Shares(*(np.array([number_of(share, numbers(asset)) for asset in assets]) for share in fixed if share))


def _share(expression: Expression, known: set[str]) -> Expression | None:
    """The x of an expression `value * x` over numbers by asset."""
    if isinstance(expression, tuple) and expression[:2] == ("*", "value") and names_in(expression[2]) <= known:
        return expression[2]
    return None


def _sums(sources: Sources, included: Bools, names: list[str]) -> pl.DataFrame:
    """Positive, negative and collateral amounts by asset of those of some accounts whose numbers are known.

    One row for each of `names`.
    """
    of_balances = sources.index.of_balances
    rows = sources.book.frame("balances").with_columns(
        pl.col("asset").cast(pl.String), pl.col("amount").cast(pl.Float64), account=pl.Series(of_balances)
    )
    is_known = sources.accounts["equity_minor"].is_not_null().to_numpy()
    own = rows.filter(pl.Series((included & is_known)[of_balances])).sort(
        "account"
    )  # the same sums for any order of rows
    amount = pl.col("amount")
    sums = own.group_by("asset", maintain_order=True).agg(
        amount=amount.filter(amount > 0).sum(),
        debt=amount.filter(amount < 0).abs().sum(),
        counted=amount.filter((amount > 0) & pl.col("is_collateral")).sum(),
    )
    return pl.DataFrame({"asset": names}).join(sums, on="asset", how="left", maintain_order="left").fill_null(0.0)


def asset_totals(sources: Sources, label: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Balances of one model's accounts by asset.

    Returns:
      Rows by asset, `haircut_value_<margin type>` null where the model's rule depends on more than the asset; and, by
      margin type, their sum beside that of the accounts' collateral values.

    Raises:
      InternalError: GM202, these two differ.
    """
    file, money = sources.file(label), sources.money(label)
    names = sorted({str(asset) for asset in sources.book.frame("balances")["asset"].unique()})
    table = _sums(sources, sources.included(label), names)
    instruments = sources.table("instruments", label)
    base = set(instruments.filter(pl.col("kind").cast(pl.String) == "base")["instrument_id"].cast(pl.String))
    price = np.array([sources.price(name, money, as_collateral=True) for name in names])
    amount, debt, counted = (table[name].to_numpy() for name in ("amount", "debt", "counted"))
    columns: dict[str, Any] = {"price": price, "value": amount * price, "debt_value": debt * price}
    checks: dict[str, Any] = {}
    for name in file.margin:
        shares = fixed_shares(file, name, names, base)
        value = np.full(len(names), np.nan) if shares is None else counted * price * shares.asset
        columns[f"haircut_value_{name}"] = pl.Series(value).fill_nan(None)
        if shares is not None:
            owed = debt * price * shares.liability if file.debt == "balance" else 0.0
            checks[name] = _check(sources, label, name, value - owed, columns["value"] + columns["debt_value"])
    made = table.drop("counted").with_columns(pl.Series(key, values) for key, values in columns.items())
    return made, checks


def _check(sources: Sources, label: str, margin_type: str, counted: Floats, gross: Floats) -> dict[str, float]:
    """The same sum over assets and over accounts.

    Raises:
      InternalError: GM202, they differ by more than rounding.
    """
    column = pl.col(f"{margin_type}_collateral_value")
    is_own = (pl.col("model").cast(pl.String) == label) & pl.col("equity_minor").is_not_null()
    own = run_table(sources.folder, "accounts").filter(is_own)
    found, expected = float(counted.sum()), float(own.select(column.sum()).collect().item())
    if not abs(found - expected) <= _AGREEMENT * (float(gross.sum()) + 1):
        message = (
            f"GM202: collateral value for {margin_type} is {expected!r} by account and {found!r} by asset; "
            "no snapshot was published"
        )
        raise InternalError(message)
    return {"by_asset": found, "by_account": expected}
