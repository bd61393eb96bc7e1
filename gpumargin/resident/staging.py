"""A block before it is carried out: checked, and cut by the model of its accounts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.checks.findings import Finding
from gpumargin.pack.columns import Bools, Floats, Ints, encoded, floats, plain, positions_in, strings, texts
from gpumargin.pack.contracts import ContractSet
from gpumargin.resident.checks import (
    Found,
    find,
    find_accounts,
    find_assets,
    find_contracts,
    reject,
    zero_prices,
)
from gpumargin.resident.edits import carry_out_in_place
from gpumargin.resident.fills import (
    Fills,
    Transfers,
    closing_fills,
    settlement_values,
    with_fills,
    with_transfers,
)
from gpumargin.resident.ids import Names
from gpumargin.resident.keys import distinct, is_among
from gpumargin.resident.lane import ATTRIBUTES, Attribute, Lane, Rows, contract_payoffs, contract_terms
from gpumargin.schema import TABLES
from gpumargin.tables import Book
from gpumargin.tables.canonical import with_one_dictionary

_NO_FILLS = Fills(*(np.zeros(0, kind) for kind in (np.int64, np.int64, float, float, float)))
_NO_TRANSFERS = Transfers(*(np.zeros(0, kind) for kind in (np.int64, np.int64, float)))


@dataclass(frozen=True)
class Arrivals:
    """Rows of a block's `accounts` in one lane."""

    added: Names  # of accounts that are new, numbered on from those there are
    number: Ints  # [rows] account of each row
    table: pa.Table  # [rows]


@dataclass(frozen=True)
class Staged:
    """What a block does to one lane, in accounts and contracts by number."""

    fills: Fills = _NO_FILLS
    transfers: Transfers = _NO_TRANSFERS
    settled: Bools | None = None  # [M]
    values: Floats | None = None  # [M] at which positions are closed
    orders: Rows | None = None
    arrivals: Arrivals | None = None


@dataclass
class _Stage:
    """A block while it is checked."""

    block: Book
    lanes: Sequence[Lane]
    wrong: list[Finding] = field(default_factory=list)


def staged(
    block: Book, instruments: pa.Table, lanes: Sequence[Lane], contracts: Sequence[ContractSet], model: MarginModel
) -> list[Staged]:
    """What a block does to each lane.

    Args:
      block: cells checked.
      instruments: as they are once the block's listings have joined.
      lanes: what is resident.
      contracts: those of each lane once the block's listings have joined.
      model: of accounts that name none.

    Raises:
      InputError: GM105, GM106, GM109, GM112; nothing has been changed.
    """
    views = [_view(lane, own, instruments) for lane, own in zip(lanes, contracts, strict=True)]
    stage = _Stage(block, views)
    arrivals, added, first = _arrivals(stage, model)
    found = find_accounts(block, views, added, first)
    _check_listed(stage, instruments)
    made = [
        Staged(
            fills=_fills(stage, found.get("fills"), number),
            transfers=_transfers(stage, found.get("transfers"), number),
            orders=_orders(stage, found.get("orders"), number),
            arrivals=arrivals[number],
            **_settled(stage, number),
        )
        for number in range(len(lanes))
    ]
    reject(block, stage.wrong)
    return made


def _view(lane: Lane, contracts: ContractSet, instruments: pa.Table) -> Lane:
    """The lane as its contracts will be."""
    if contracts is lane.contracts:
        return lane
    terms, payoffs = contract_terms(contracts, instruments), contract_payoffs(contracts)
    return replace(lane, contracts=contracts, terms=terms, payoffs=payoffs)


def _label(name: object, model: MarginModel) -> str:
    return model.label if name is None else load_model(str(name)).label


def _arrivals(stage: _Stage, model: MarginModel) -> tuple[list[Arrivals | None], Names | None, Found | None]:
    """Rows of `accounts` by lane, and names, lanes and numbers of the accounts that are new."""
    table = stage.block.tables.get("accounts")
    if table is None:
        return [None] * len(stage.lanes), None, None
    names = Names.of(table)
    known = find(names, stage.lanes)
    labels = {lane.model.label: i for i, lane in enumerate(stage.lanes)}
    words = texts(table, "model")
    of_word = {word: labels.get(_label(word, model), -1) for word in set(words.tolist())}
    asked = np.array([of_word[word] for word in words.tolist()], np.int64)
    _check_models(stage, known, asked, has_models="model" in table.column_names)
    _check_categories(stage, table, np.where(known.lane >= 0, known.lane, asked))
    is_new = known.lane < 0
    lane, number = np.where(is_new, asked, known.lane), known.account.copy()
    for index, own in enumerate(stage.lanes):
        rows = np.flatnonzero(is_new & (asked == index))
        number[rows] = len(own.ids) + np.arange(len(rows))
    new = np.flatnonzero(is_new)
    found: list[Arrivals | None] = []
    for index in range(len(stage.lanes)):
        rows = np.flatnonzero(lane == index)
        fresh = names.take(rows[is_new[rows]])
        found.append(Arrivals(fresh, number[rows], table.take(pa.array(rows))) if len(rows) else None)
    return found, names.take(new), Found(lane[new], number[new])


def _check_models(stage: _Stage, known: Found, asked: Ints, *, has_models: bool) -> None:
    where = {"code": "GM112", "table": "accounts", "column": "model"}
    remedy = "make a new ResidentBook of the changed book (in Python: of live.book)"
    absent = np.flatnonzero((asked < 0) & (has_models | (known.lane < 0)))
    if len(absent):
        message = "model {value} margins no account of the resident book yet"
        stage.wrong.append(Finding(**where, rows=absent, message=message, remedy=remedy))
    moved = np.flatnonzero((known.lane >= 0) & (asked >= 0) & (known.lane != asked) & has_models)
    if len(moved):
        message = "model {value} is not the one that margins this account"
        stage.wrong.append(Finding(**where, rows=moved, message=message, remedy=remedy))


def _check_categories(stage: _Stage, table: pa.Table, lane: Ints) -> None:
    words = texts(table, "emode")
    for index, own in enumerate(stage.lanes):
        known = own.model.file.categories
        odd = [i for i in np.flatnonzero(lane == index) if known and words[i] is not None and words[i] not in known]
        if odd:
            message = f"{own.model.label} has no category {{value}}; it has {', '.join(known)}"
            remedy = "leave emode empty for accounts without one, or add the category to the model file"
            where = {"code": "GM112", "table": "accounts", "column": "emode"}
            stage.wrong.append(Finding(**where, rows=np.array(odd, np.int64), message=message, remedy=remedy))


def _check_listed(stage: _Stage, instruments: pa.Table) -> None:
    """Orders and settlements are in instruments that some lane, or the book, lists."""
    given = [name for name in ("orders", "settlements") if name in stage.block.tables]
    if not given:
        return
    listed = plain(instruments, "instrument_id").cast(pa.string())
    for name in given:
        codes, words = encoded(stage.block.tables[name]["instrument_id"])
        rows = np.flatnonzero(positions_in(words, listed)[codes] < 0)
        if len(rows):
            message, remedy = "instrument_id {value} has no row in instruments", "list it first, or remove the row"
            where = {"code": "GM105", "table": name, "column": "instrument_id"}
            stage.wrong.append(Finding(**where, rows=rows, message=message, remedy=remedy))


def _fills(stage: _Stage, found: Found | None, number: int) -> Fills:
    if found is None:
        return _NO_FILLS
    lane, table = stage.lanes[number], stage.block.tables["fills"]
    rows = np.flatnonzero(found.lane == number)
    contract, wrong = find_contracts(stage.block, "fills", lane, rows)
    price = floats(table, "price")[rows]
    stage.wrong += [*wrong, *zero_prices("fills", lane, rows, contract, price)]
    return Fills(found.account[rows], contract, floats(table, "quantity")[rows], price, floats(table, "fee", 0.0)[rows])


def _transfers(stage: _Stage, found: Found | None, number: int) -> Transfers:
    if found is None:
        return _NO_TRANSFERS
    rows = np.flatnonzero(found.lane == number)
    asset, wrong = find_assets(stage.block, stage.lanes[number], rows)
    stage.wrong += wrong
    return Transfers(found.account[rows], asset, floats(stage.block.tables["transfers"], "amount")[rows])


def _orders(stage: _Stage, found: Found | None, number: int) -> Rows | None:
    if found is None:
        return None
    rows = np.flatnonzero(found.lane == number)
    return Rows(stage.block.tables["orders"].take(pa.array(rows)), found.account[rows]) if len(rows) else None


def _settled(stage: _Stage, number: int) -> dict[str, np.ndarray]:
    """Contracts of a lane that are settled, and at what their positions are closed."""
    table, lane = stage.block.tables.get("settlements"), stage.lanes[number]
    if table is None:
        return {}
    codes, words = encoded(table["instrument_id"])
    place = positions_in(words, lane.contracts.ids)[codes].astype(np.int64)
    rows = np.flatnonzero(np.append(lane.contracts.is_listed, False)[place])
    contract, given = place[rows], floats(table, "price")[rows]
    stage.wrong += zero_prices("settlements", lane, rows, contract, given)
    price, is_settled = np.ones(lane.contracts.padding), np.zeros(lane.contracts.padding, bool)
    price[contract], is_settled[contract] = given, True
    return {"settled": is_settled, "values": settlement_values(lane.payoffs, price)}


def carry_out(lane: Lane, change: Staged, tables: Mapping[str, pa.Table]) -> None:
    """Makes a staged change of a lane: in place where trades and transfers are all that happens to an account."""
    accounts = _laid_anew(lane, change)
    fills, transfers = change.fills, change.transfers
    of_fills, of_transfers = is_among(fills.owner, accounts), is_among(transfers.owner, accounts)
    left = carry_out_in_place(lane, fills.take(~of_fills), transfers.take(~of_transfers))
    accounts = distinct(np.concatenate([accounts, left]))
    if not len(accounts):
        return
    fills = fills.take(of_fills | is_among(fills.owner, left))
    transfers = transfers.take(of_transfers | is_among(transfers.owner, left))
    held, now = lane.holdings(accounts)
    if len(fills.owner):
        now = with_fills(now, fills._replace(owner=np.searchsorted(accounts, fills.owner)), lane.terms)
    if len(transfers.owner):
        now = with_transfers(now, transfers._replace(owner=np.searchsorted(accounts, transfers.owner)))
    if change.settled is not None and change.values is not None:
        now = with_fills(now, closing_fills(now, change.settled, change.values), lane.terms)
    lane.commit(accounts, held, now, lane.packed(now, accounts, tables))


def _laid_anew(lane: Lane, change: Staged) -> Ints:
    """Gives a lane new accounts and orders; the accounts, ascending, that need more than trades and transfers do."""
    touched: list[Ints] = [np.zeros(0, np.int64)]
    if change.arrivals is not None:
        _arrive(lane, change.arrivals)
        touched.append(change.arrivals.number)
    if change.orders is not None:
        lane.about["orders"] = _upserted(lane.about.get("orders"), change.orders)
        touched.append(change.orders.account)
    if change.settled is not None and change.settled.any():
        padded = np.zeros(lane.store.parts.pad + 1, bool)
        padded[: len(change.settled)] = change.settled
        touched.append(lane.store.holders(padded))
    return distinct(np.concatenate(touched))


def refresh(lane: Lane, tables: Mapping[str, pa.Table]) -> None:
    """Packs the accounts anew whose legs or balances carry numbers that move with prices: those with orders."""
    inputs = {*lane.model.file.leg_inputs, *lane.model.file.balance_inputs}
    if "orders" not in lane.about or not inputs & {"order_loss", "order_quote"}:
        return
    accounts = distinct(lane.about["orders"].account)
    if len(accounts):
        held, now = lane.holdings(accounts)
        lane.commit(accounts, held, now, lane.packed(now, accounts, tables))


def _arrive(lane: Lane, arrivals: Arrivals) -> None:
    """Gives a lane new accounts, and new attributes of old ones."""
    if len(arrivals.added.account):
        lane.ids = lane.ids.with_more(arrivals.added)
    named = [name for name in ATTRIBUTES if name in arrivals.table.column_names or name in lane.attributes]
    lane.attributes = {name: _attribute(lane, name, arrivals) for name in named}


def _attribute(lane: Lane, name: str, arrivals: Arrivals) -> Attribute:
    old = lane.attributes.get(name, Attribute(np.zeros(0, np.int32), pa.array([], pa.string())))
    codes = np.full(len(lane.ids), -1, np.int32)
    codes[: len(old.codes)] = old.codes
    if name not in arrivals.table.column_names:
        return Attribute(codes, old.words)
    new, words = encoded(arrivals.table[name])
    joined = pa.concat_arrays([old.words.cast(pa.string()), words.cast(pa.string())]).unique()
    moved = np.append(positions_in(words.cast(pa.string()), joined), -1)
    codes[arrivals.number] = moved[new]
    return Attribute(codes, joined)


def _upserted(old: Rows | None, new: Rows) -> Rows:
    """Orders with new ones in place of those of their account and id; those of quantity 0 are gone."""
    rows = new
    if old is not None and old.table.num_rows:
        ids = [_ids(each.table) for each in (old, new)]
        words = pa.chunked_array([column.unique() for column in ids]).unique()
        keys = [
            each.account * (len(words) + 1) + positions_in(column, words)
            for each, column in zip((old, new), ids, strict=True)
        ]
        kept = np.flatnonzero(~is_among(keys[0], np.sort(keys[1])))
        joined = pa.concat_tables([old.table.take(pa.array(kept)), new.table], promote_options="default")
        rows = Rows(joined, np.concatenate([old.account[kept], new.account]))
    open_ones = np.flatnonzero(floats(rows.table, "quantity") != 0)
    return Rows(with_one_dictionary(rows.table.take(pa.array(open_ones)).combine_chunks()), rows.account[open_ones])


def _ids(table: pa.Table) -> pa.Array:
    column = table["order_id"].combine_chunks()
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column


def changed_listings(block: Book, tables: Mapping[str, pa.Table]) -> Iterator[Finding]:
    """Listings of a block that are there already with other terms."""
    new, old = block.tables["instruments"], tables["instruments"]
    names = [strings(table, "instrument_id") for table in (new, old)]
    place = positions_in(pa.array(names[0], pa.string()), pa.array(names[1], pa.string()))
    for column in TABLES["instruments"].columns:
        if column.name not in new.column_names or column.name not in old.column_names:
            continue
        given, had = texts(new, column.name), texts(old, column.name)
        rows = np.flatnonzero((place >= 0) & _differs(given, had[place], is_derived=bool(column.derived)))
        if len(rows):
            message = f"{column.name} {{value}} of a contract that is listed already with another"
            remedy = "list the new terms under a new id"
            yield Finding(
                code="GM104", table="instruments", column=column.name, rows=rows, message=message, remedy=remedy
            )


def _differs(given: np.ndarray, had: np.ndarray, *, is_derived: bool) -> Bools:
    empty = np.array([value is None or value != value for value in given], bool)
    same = np.array([a == b for a, b in zip(given, had, strict=True)], bool)
    both = empty & np.array([value is None or value != value for value in had], bool)
    return np.asarray(~same & ~both & ~(empty & is_derived))
