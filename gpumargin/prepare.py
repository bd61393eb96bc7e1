"""From a book to what the engine takes: checked, cut by model, packed, bound."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from gpumargin.bind import bind
from gpumargin.catalogue import MarginModel, load_model
from gpumargin.checks import require_valid, resolve_as_of
from gpumargin.clock import Clock
from gpumargin.engine import Engine, Settings
from gpumargin.model_checks import require_margined, require_usable
from gpumargin.pack.columns import Bools, encoded
from gpumargin.pack.contracts import ContractSet, contract_set
from gpumargin.pack.legs import Accounts, LegBook, find_accounts, leg_book
from gpumargin.results import Naming
from gpumargin.tables import Book
from gpumargin.totals import asset_decimals

DEFAULT_TABLES = ("accounts", "units")


@dataclass(frozen=True)
class Options:
    """What a run does beyond its book and model.

    Attributes:
      as_of: instant of valuation; None = the newest timestamp of the book.
      settings: device, precision, memory.
      tables: result tables with a row per account, unit or leg that are made; `accounts` always is.
      book_path: where the book was read from, for the manifest.
    """

    as_of: datetime | None = None
    settings: Settings = field(default_factory=Settings)
    tables: tuple[str, ...] = DEFAULT_TABLES
    book_path: str | None = None


@dataclass(frozen=True)
class Pass:
    """One model over the accounts that it margins."""

    model: MarginModel
    contracts: ContractSet
    legs: LegBook
    engine: Engine
    naming: Naming

    @property
    def money(self) -> str:
        """The accounting asset."""
        return self.model.file.accounting_asset


def _as_of_microseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1_000_000)


def _models(book: Book, default: MarginModel, accounts: Accounts) -> list[tuple[MarginModel, Bools]]:
    """Every model that a book's accounts name, with the accounts that it margins."""
    table = book.tables.get("accounts")
    if table is None or "model" not in table.column_names:
        return [(default, np.ones(len(accounts), bool))]
    codes, names = encoded(table["model"])
    of_account = np.full(len(accounts), -1)
    of_account[accounts.of_accounts] = codes
    chosen = {default.label: (default, of_account < 0)}
    for code, name in enumerate(names.to_pylist()):
        named = load_model(str(name))
        # A row that names the run's own model gets it as the run has it, overrides included.
        model, included = chosen.get(named.label, (named, np.zeros(len(accounts), bool)))
        chosen[named.label] = (model, included | (of_account == code))
    return [(model, included) for model, included in chosen.values() if included.any()]


def _prepared(
    book: Book, model: MarginModel, included: Bools, accounts: Accounts, instant: datetime, settings: Settings
) -> Pass:
    file = model.file
    contracts = contract_set(
        book.tables,
        _as_of_microseconds(instant),
        kinds=file.kinds,
        accounting=file.accounting_asset,
        base_legs=file.base_legs,
        dollar_at_par=file.dollar_at_par,
    )
    legs = leg_book(book.tables, accounts, contracts, included=included, keep_empty=file.unsettled_without_position)
    bound = bind(file, contracts.units, contracts.asset_ids, contracts.base_contract >= 0)
    decimals = asset_decimals(book)[file.accounting_asset]
    naming = Naming.of(file, model.label, contracts, decimals)
    return Pass(model, contracts, legs, Engine(bound, contracts, settings), naming)


def prepare(book: Book, model: MarginModel, options: Options, clock: Clock) -> list[Pass]:
    """Checks a book and packs it for every model that its accounts name.

    Raises:
      InputError: the book breaks the input contract, or lacks what a model needs; no kernel has run.
    """
    with clock.stage("check"):
        instant = resolve_as_of(book, options.as_of)
        accounts = find_accounts(book.tables)
        models = _models(book, model, accounts)
        require_valid(
            book,
            as_of=options.as_of,
            vol_limit=max(each.file.vol_limit for each, _ in models),
            tenor_limit_years=max(each.file.tenor_limit_years for each, _ in models),
        )
        for each, included in models:
            require_usable(each, book)
            require_margined(each, book, accounts, included)
    with clock.stage("pack"):
        return [_prepared(book, each, included, accounts, instant, options.settings) for each, included in models]
