"""From a book to what the engine takes: checked, cut by model, packed, bound."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from gpumargin.bind import bind
from gpumargin.bind.account import category_codes
from gpumargin.catalogue import MarginModel, load_model
from gpumargin.checks import require_valid, resolve_as_of
from gpumargin.clock import Clock
from gpumargin.engine import Engine, Settings
from gpumargin.filling import Filling, fill_market
from gpumargin.model_checks import require_margined, require_usable
from gpumargin.modelfile import ModelFile, account_settings, asset_columns
from gpumargin.pack.accounts import Accounts, find_accounts
from gpumargin.pack.columns import Bools, encoded, texts
from gpumargin.pack.contracts import ContractSet, contract_set
from gpumargin.pack.filled import with_filled
from gpumargin.pack.legs import LegBook, leg_book
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
    filling: Filling  # the same for every pass

    @property
    def money(self) -> str:
        """The accounting asset."""
        return self.model.file.accounting_asset


def _as_of_microseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1_000_000)


def _models(book: Book, default: MarginModel) -> dict[str | None, MarginModel]:
    """The model of each name that a book's accounts give, and of accounts that name none."""
    table = book.tables.get("accounts")
    named: dict[str | None, MarginModel] = {None: default}
    for name in encoded(table["model"])[1].to_pylist() if table is not None and "model" in table.column_names else ():
        model = load_model(str(name))
        # A row that names the run's own model gets it as the run has it, overrides included.
        named[str(name)] = default if model.label == default.label else model
    return named


def _cut(book: Book, models: dict[str | None, MarginModel], accounts: Accounts) -> list[tuple[MarginModel, Bools]]:
    """Every model with the accounts that it margins, without models that have none."""
    of_account = np.full(len(accounts), None, object)
    if len(models) > 1:
        of_account[accounts.of_accounts] = texts(book.tables["accounts"], "model")
    chosen: dict[str, tuple[MarginModel, Bools]] = {}
    for name, model in models.items():
        _, before = chosen.get(model.label, (model, np.zeros(len(accounts), bool)))
        chosen[model.label] = (model, before | (of_account == name))
    return [(model, included) for model, included in chosen.values() if included.any()]


@dataclass(frozen=True)
class Market:
    """What every pass of a run shares."""

    book: Book
    instant: datetime
    filling: Filling


def contracts_of(market: Market, file: ModelFile) -> ContractSet:
    """The contracts that a model margins, with the forwards and vols that were filled."""
    contracts = contract_set(
        market.book.tables,
        _as_of_microseconds(market.instant),
        kinds=file.kinds,
        accounting=file.accounting_asset,
        base_legs=file.base_legs,
        dollar_at_par=file.dollar_at_par,
        inputs=file.market_inputs() | file.term_inputs(),
        asset_columns=asset_columns(file),
        settles=file.pnl_settles,
    )
    filled = market.filling.filled
    return contracts if filled is None else with_filled(contracts, filled)


def _prepared(market: Market, accounts: Accounts, model: MarginModel, included: Bools, settings: Settings) -> Pass:
    file, tables = model.file, market.book.tables
    contracts = contracts_of(market, file)
    legs = leg_book(
        tables,
        accounts,
        contracts,
        included=included,
        keep_empty=file.unsettled_without_position,
        inputs=file.leg_inputs(),
        balance_inputs=file.balance_inputs(),
        categories=category_codes(file),
        settable=file.settable,
        account_settings=account_settings(file),
    )
    bound = bind(file, contracts.units, contracts.asset_ids, contracts.base_contract >= 0)
    decimals = asset_decimals(market.book)[file.accounting_asset]
    naming = Naming.of(file, model.label, contracts, decimals)
    return Pass(model, contracts, legs, Engine(bound, contracts, settings), naming, market.filling)


def prepare(book: Book, model: MarginModel, options: Options, clock: Clock) -> list[Pass]:
    """Checks a book and packs it for every model that its accounts name.

    Raises:
      InputError: the book breaks the input contract, or lacks what a model needs and what cannot be filled; no account
        has been margined.
    """
    with clock.stage("check"):
        instant = resolve_as_of(book, options.as_of)
        models = _models(book, model)
        vol_limit = max(each.file.vol_limit for each in models.values())
        require_valid(
            book,
            as_of=options.as_of,
            vol_limit=vol_limit,
            tenor_limit_years=max(each.file.tenor_limit_years for each in models.values()),
        )
        accounts = find_accounts(book.tables)
        parts = _cut(book, models, accounts)
        for each, included in parts:
            require_usable(each, book)
            require_margined(each, book, accounts, included)
    with clock.stage("fill"):
        filling = fill_market(book, instant, device=options.settings.device, vol_limit=vol_limit)
    with clock.stage("pack"):
        market = Market(book, instant, filling)
        return [_prepared(market, accounts, each, included, options.settings) for each, included in parts]
