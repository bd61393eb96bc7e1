"""From a book to what the engine takes: checked, cut by model, packed, bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from gpumargin.bind import bind
from gpumargin.bind.account import category_codes
from gpumargin.catalogue import MarginModel, load_model
from gpumargin.checks import BookChecks, CheckOptions, Sifted, resolve_as_of
from gpumargin.checks.fills import UnfilledError
from gpumargin.checks.policy import OnBadRows
from gpumargin.checks.quarantine import is_among
from gpumargin.clock import Clock
from gpumargin.engine import Engine, Settings
from gpumargin.errors import InputError
from gpumargin.failures import input_error
from gpumargin.filling import Filling, fill_market
from gpumargin.frames import microseconds
from gpumargin.model_checks import require_margined, require_usable
from gpumargin.modelfile import ModelFile, account_settings
from gpumargin.pack.accounts import Accounts, find_accounts
from gpumargin.pack.columns import Bools, encoded, texts
from gpumargin.pack.contracts import ContractSet, contract_set
from gpumargin.pack.filled import FilledOptions, with_filled
from gpumargin.pack.legs import LegBook, leg_book
from gpumargin.pack.ordering import Ordering
from gpumargin.results import Naming
from gpumargin.selfcheck import Expected, plain_types
from gpumargin.tables import Book
from gpumargin.totals import asset_decimals

DEFAULT_TABLES = ("accounts", "units")
_EXAMPLES = 20
_KIND = ("code", "table", "column", "remedy")


@dataclass(frozen=True)
class Options:
    """What a run does beyond its book and model.

    Attributes:
      as_of: instant of valuation; None = the newest timestamp of the book.
      settings: device, precision, memory.
      tables: result tables with a row per account, unit or leg that are made; `accounts` always is.
      book_path: where the book was read from, for the manifest.
      on_bad_rows: whether a row that breaks the contract ends the run, or goes into quarantine.
      max_age: how old marks in use, forwards and prices may be at that instant; None = any age.
      models: models that accounts may name, looked up before those that can be loaded.
      closed_book: whether a contract whose longs and shorts differ ends the run.
    """

    as_of: datetime | None = None
    settings: Settings = field(default_factory=Settings)
    tables: tuple[str, ...] = DEFAULT_TABLES
    book_path: str | None = None
    on_bad_rows: OnBadRows = "fail"
    max_age: timedelta | None = None
    models: Mapping[str, MarginModel] = field(default_factory=dict)
    closed_book: bool = False


@dataclass(frozen=True)
class Priced:
    """One model on a market: all that does not depend on accounts."""

    model: MarginModel
    contracts: ContractSet
    engine: Engine
    naming: Naming

    @property
    def money(self) -> str:
        """The accounting asset."""
        return self.model.file.accounting_asset


@dataclass(frozen=True)
class Pass(Priced):
    """One model over the accounts that it margins, of a book or of a part of one.

    Attributes:
      unknown: `[A]` accounts that lost a row to the quarantine; None = none did.
    """

    legs: LegBook
    unknown: Bools | None = None

    @cached_property
    def expected(self) -> Expected:
        """What results are held against."""
        values = np.asarray(self.engine.contract_risk().value)
        return Expected(self.legs, self.contracts, values, self.naming.decimals, plain_types(self.model.file))


def _models(head: Book, default: MarginModel, known: Mapping[str, MarginModel]) -> dict[str | None, MarginModel]:
    """The model of each name that a book's accounts give, and of accounts that name none."""
    table = head.tables.get("accounts")
    named: dict[str | None, MarginModel] = {None: default}
    for name in encoded(table["model"])[1].to_pylist() if table is not None and "model" in table.column_names else ():
        model = known[str(name)] if str(name) in known else load_model(str(name))
        # A row that names the run's own model gets it as the run has it, overrides included.
        named[str(name)] = default if model.label == default.label else model
    return named


def _cut(book: Book, models: dict[str | None, MarginModel], accounts: Accounts) -> list[tuple[MarginModel, Bools]]:
    """Every model with the accounts that it margins, without models that have none."""
    if len(models) == 1:
        return [(models[None], np.ones(len(accounts), bool))] if len(accounts) else []
    of_account = np.full(len(accounts), None, object)
    if "accounts" in book.tables:
        of_account[accounts.of_accounts] = texts(book.tables["accounts"], "model")
    chosen: dict[str, tuple[MarginModel, Bools]] = {}
    for name, model in models.items():
        _, before = chosen.get(model.label, (model, np.zeros(len(accounts), bool)))
        chosen[model.label] = (model, before | (of_account == name))
    return [(model, included) for model, included in chosen.values() if included.any()]


def market_contracts(
    head: Book, file: ModelFile, instant: datetime, filled: FilledOptions | None, before: Ordering | None = None
) -> ContractSet:
    """The contracts that a model margins, with the forwards and vols that were filled.

    Args:
      head: the market of a book, checked.
      file: the model.
      instant: of valuation, with a zone.
      filled: what its options lacked; None = nothing.
      before: their order at the market before, taken over if it still is.
    """
    contracts = contract_set(
        head.tables,
        head.market_rows,
        microseconds(instant),
        kinds=file.kinds,
        accounting=file.accounting_asset,
        base_legs=file.base_legs,
        dollar_at_par=file.dollar_at_par,
        inputs=file.market_inputs,
        asset_columns=file.asset_columns,
        settles=file.pnl_settles,
        before=before,
    )
    return contracts if filled is None else with_filled(contracts, filled)


def priced(head: Book, model: MarginModel, contracts: ContractSet, settings: Settings) -> Priced:
    """A model bound to a market, its contract stage computed."""
    file = model.file
    bound = bind(file, contracts.units, contracts.asset_ids, contracts.base_contract >= 0)
    naming = Naming.of(file, model.label, contracts, asset_decimals(head)[file.accounting_asset])
    return Priced(model, contracts, Engine(bound, contracts, settings), naming)


def model_legs(
    tables: Mapping[str, pa.Table], accounts: Accounts, contracts: ContractSet, file: ModelFile, included: Bools
) -> LegBook:
    """Legs and balances of the accounts that a model margins, with all that it names of them."""
    return leg_book(
        tables,
        accounts,
        contracts,
        included=included,
        keep_empty=file.unsettled_without_position,
        inputs=file.leg_inputs,
        balance_inputs=file.balance_inputs,
        categories=category_codes(file),
        settable=file.settable,
        account_settings=account_settings(file),
    )


class Market:
    """What every part of a book shares: made and checked once, before any account is looked at.

    Whatever is wrong is held back until `finish`, so that all parts get checked; nothing is packed any more by then.

    Args:
      head: all of the market, and at least a row for every instrument and every model in use (`tables.Parts.head`).
      model: of accounts whose row names no other.
      options: as-of, device, precision.
      clock: for the stages `check`, `fill` and `pack`.

    Attributes:
      head: what is left of it once bad rows of the market are in quarantine.
      models: every model that accounts may name, by that name; None = the default.
      priced: those that accounts do name, by label, in the order in which they turned up.

    Raises:
      InputError: GM101, ids are words in one table and integers in another; GM108, no instant of valuation.
    """

    def __init__(self, head: Book, model: MarginModel, options: Options, clock: Clock) -> None:
        self.options, self._clock = options, clock
        self.priced: dict[str, Priced] = {}
        self._misfits: list[InputError] = []
        self._unfilled: InputError | None = None
        with clock.stage("check"):
            self.models = _models(head, model, options.models)
            files = [each.file for each in self.models.values()]
            self._vol_limit = max(file.vol_limit for file in files)
            tenor = max(file.tenor_limit_years for file in files)
            limits = CheckOptions(
                as_of=options.as_of, max_age=options.max_age, vol_limit=self._vol_limit, tenor_limit_years=tenor
            )
            self.checks = BookChecks(head, options.on_bad_rows, **limits)
            self.instant = resolve_as_of(self.head, options.as_of)
            if not self.checks.has_domains:  # accounts cannot even be told apart
                raise input_error(self.checks.finished())
        self.filling = self._filled()

    @property
    def head(self) -> Book:
        """The market as it is margined."""
        return self.checks.head

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong so far."""
        return bool(self.checks) and not self._misfits and self._unfilled is None

    def _filled(self) -> Filling:
        device = self.options.settings.device
        while self.checks:
            with self._clock.stage("fill"):
                try:
                    return fill_market(self.head, self.instant, device=device, vol_limit=self._vol_limit)
                except UnfilledError as error:
                    if not self.checks.spare(error.findings):
                        self._unfilled = error
                        break
            self.instant = resolve_as_of(self.head, self.options.as_of)
        return Filling(None, pl.DataFrame(), [])  # what was found ends the run

    def sifted(self, book: Book) -> Sifted:
        """A part of the book checked, its bad rows taken out where the run puts them into quarantine.

        Args:
          book: the whole market, and every row of some accounts; or the whole book.
        """
        with self._clock.stage("check"):
            return self.checks.part(book)

    def passes(self, part: Sifted) -> list[Pass]:
        """A part packed for every model that its accounts name; nothing once something was found that ends the run."""
        book = part.book
        with self._clock.stage("check"):
            if not self.checks:
                return []
            accounts = find_accounts(book.tables)
            self.checks.cover(book, accounts)
            cuts = _cut(book, self.models, accounts)
            for model, included in cuts:
                self._check_model(model, book, accounts, included)
        if not self.is_sound:
            return []
        with self._clock.stage("pack"):
            return [self._pass(part, model, accounts, included) for model, included in cuts]

    def _check_model(self, model: MarginModel, book: Book, accounts: Accounts, included: Bools) -> None:
        try:
            if model.label not in self.priced:
                require_usable(model, self.head)
            require_margined(model, book, accounts, included)
        except InputError as error:
            self._misfits.append(error)

    def _pass(self, part: Sifted, model: MarginModel, accounts: Accounts, included: Bools) -> Pass:
        known = self._known(model)
        legs = model_legs(part.book.tables, accounts, known.contracts, model.file, included)
        unknown = None if part.unknown is None else is_among(legs.account_ids, legs.pools, part.unknown)
        return Pass(model, known.contracts, known.engine, known.naming, legs, unknown)

    def _known(self, model: MarginModel) -> Priced:
        if model.label not in self.priced:
            contracts = market_contracts(self.head, model.file, self.instant, self.filling.filled)
            self.priced[model.label] = priced(self.head, model, contracts, self.options.settings)
        return self.priced[model.label]

    def laid_aside(self) -> dict[str, Any]:
        """What another process needs to go on after the parts so far, as JSON has it."""
        return {"models": list(self.priced), "checks": self.checks.laid_aside()}

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Takes what was laid aside; the ids of each part are for `BookChecks.take_up_part`."""
        by_label = {model.label: model for model in self.models.values()}
        for label in state["models"]:
            self._known(by_label[label])
        self.checks.take_up(state["checks"])

    def finish(self) -> None:
        """Takes the verdict, after the last part.

        Raises:
          InputError: the book breaks the input contract, has what a model does not margin, or lacks what it needs and
            what cannot be filled.
        """
        with self._clock.stage("check"):
            failures = self.checks.finished()
        if not failures.is_empty():
            raise input_error(failures)
        if self._misfits:
            raise _joined(self._misfits)
        if self._unfilled is not None:
            raise self._unfilled


def _joined(errors: list[InputError]) -> InputError:
    """One error for what several parts of a book showed, the first rows of each kind."""
    if len(errors) == 1:
        return errors[0]
    failures = pl.concat([error.failures for error in errors]).unique(maintain_order=True)
    by_kind = failures.sort("file", "row", maintain_order=True).group_by(_KIND, maintain_order=True)
    return input_error(by_kind.head(_EXAMPLES).select(failures.columns))


def usable_book(book: Book, model: MarginModel, options: Options) -> Book:
    """What a run of a book uses of it: the book itself unless bad rows go into quarantine.

    Raises:
      InputError: as `prepare`.
    """
    if options.on_bad_rows == "fail":
        return book
    market = Market(book, model, options, Clock())
    used = market.sifted(book).book
    market.finish()
    return used


def prepare(book: Book, model: MarginModel, options: Options, clock: Clock) -> list[Pass]:
    """Checks a book and packs it for every model that its accounts name.

    Raises:
      InputError: the book breaks the input contract, or lacks what a model needs; no account has been margined.
    """
    market = Market(book, model, options, clock)
    passes = market.passes(market.sifted(book))
    market.finish()
    return passes
