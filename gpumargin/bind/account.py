"""What a model file says of balances and accounts, bound to the assets of a book."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpumargin.bind.numbers import brackets_by_name, by_name
from gpumargin.expressions import names_in
from gpumargin.modelfile import DEFAULT, ModelFile, account_expressions
from gpumargin.pack.columns import Bools, Floats
from gpumargin_kernels.model import AccountModel, BalanceCharge, BalanceRule

# Of a model that says nothing of accounts.
NO_ACCOUNTS = AccountModel((), False, (), (), False, (), (), {}, {}, {})


def category_codes(file: ModelFile) -> dict[str, int]:
    """Code of every category, 0 being none."""
    return {name: code for code, name in enumerate(file.categories, start=1)}


def _collateral_numbers(file: ModelFile, margin_type: str, assets: Sequence[str], base: Bools) -> dict[str, np.ndarray]:
    """Numbers and brackets of one margin type by category and asset, `[E C, ...]`."""
    table = file.collateral_of(margin_type)
    plain = {name: by_name(values, assets) for name, values in table.leaves().items()}
    if table.base is not None:
        plain["assets"] = np.where(base, table.base, plain["assets"])
    found = {
        name: np.concatenate([values, *_overridden(file, margin_type, name, values, assets)])
        for name, values in plain.items()
    }
    copies = 1 + len(file.categories)
    return found | {
        name: np.concatenate([brackets_by_name(values, assets)] * copies) for name, values in table.tables.items()
    }


def _overridden(
    file: ModelFile, margin_type: str, name: str, values: Floats, assets: Sequence[str]
) -> list[np.ndarray]:
    """One number by asset in every category, in the order of their codes."""
    return [
        np.where(np.isin(assets, category.assets), category.numbers.get(margin_type, {}).get(name, values), values)
        for category in file.categories.values()
    ]


def _charge_numbers(file: ModelFile, assets: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    return {
        name: {number: by_name(values, assets) for number, values in table.numbers.items()}
        | {number: brackets_by_name(values, assets) for number, values in table.tables.items()}
        for name, table in file.balances.items()
    }


def bind_account(file: ModelFile, assets: Sequence[str], base: Bools) -> AccountModel:
    """What a model says of accounts, as kernels take it.

    Args:
      file: a validated model file.
      assets: `[C]` assets of the book, ascending.
      base: `[C]` whether the asset is held as a leg of a unit.
    """
    found = account_expressions(file)
    amounts = [charge.amount for charge in found.charges.values()]
    used = set().union(*map(names_in, [*amounts, *found.margins.values(), *found.statuses.values()]))
    scalars = {name: values[DEFAULT] for name, values in file.parameters.items() if name in used}
    return AccountModel(
        rules=tuple((name, BalanceRule(*file.rule_of(name))) for name in file.margin),
        summed=file.summed(),
        is_debt_required=file.debt == "requirement",
        charges=tuple(BalanceCharge(n, tuple(c.each.items()), c.amount) for n, c in found.charges.items()),
        counted=tuple(found.counted.items()),
        settles=file.pnl_settles,
        margins=tuple(found.margins.items()),
        statuses=tuple(found.statuses.items()),
        numbers={name: _collateral_numbers(file, name, assets, base) for name in file.margin},
        charge_numbers=_charge_numbers(file, assets),
        scalars={name: np.array(value) for name, value in scalars.items()},
    )
