"""A book of options and perpetuals on two coins as the engine's own arrays, made with numpy alone."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.workload import STANDARD, make_legs
from gpumargin.pack.contracts import ContractSet
from gpumargin.pack.instruments import NO_EXPIRY, blank_contracts
from gpumargin.pack.legs import LegBook
from gpumargin_kernels import records

UNITS, ASSETS = ("BTC", "ETH"), ("BTC", "ETH", "USDC")  # those of `frozen`
SPOT = np.array([90_000.0, 3_000.0])
EXPIRIES, STRIKES = 12, 39
BASE_ACCOUNTS = STANDARD["accounts"]  # a larger book repeats these: drawing takes longer than margining
_NO_RECORD = ("account_ids", "pools", "category", "owner", "owner_ids", "settlement", "settings", "balance_inputs")


def _of_unit(unit: int) -> dict[str, np.ndarray]:
    """Columns of one coin in canonical order: base, perpetual, options by expiry, strike, put before call."""
    expiry, strike, call = (a.ravel() for a in np.mgrid[0:EXPIRIES, 0:STRIKES, 0:2])
    days = np.array([1, 3, 7, 14, 21, 30, 60, 90, 120, 180, 270, 360.0])[expiry]
    level = SPOT[unit] * (1 + 0.0002 * days)
    moneyness = np.linspace(-2.5, 2.5, STRIKES)[strike] * 0.6 * np.sqrt(days / 365)
    vol = 0.55 + 0.1 * moneyness**2 + 0.05 * np.exp(-days / 30)
    linear = np.zeros(2)
    return {
        "unit": np.full(len(expiry) + 2, unit, np.int32),
        "expiry_group": np.concatenate([[0, 1], 2 + expiry]),
        "strike_group": np.concatenate([[0, 1], 2 + expiry * STRIKES + strike]),
        "is_base": np.arange(len(expiry) + 2) == 0,
        "is_perpetual": np.arange(len(expiry) + 2) == 1,
        "is_option": np.arange(len(expiry) + 2) >= 2,
        "is_call": np.concatenate([linear, call]) > 0,
        "strike": np.concatenate([linear, SPOT[unit] * np.exp(moneyness)]),
        "forward_variable": np.concatenate([linear, level]),
        "rate": np.concatenate([linear, np.full(len(days), 0.04)]),
        "years": np.concatenate([linear, days / 365]),
        "vol": np.concatenate([linear, vol]),
        "mark": np.concatenate([[SPOT[unit]] * 2, np.full(len(days), np.nan)]),  # options are priced
    }


def made_up_contracts() -> ContractSet:
    """Two coins with a perpetual and 936 options each, their base assets, and padding."""
    parts = [_of_unit(unit) for unit in range(len(UNITS))]
    for name in ("expiry_group", "strike_group"):
        parts[1][name] = parts[1][name] + parts[0][name].max() + 1
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    groups = {name: joined[name].astype(np.int32) for name in ("expiry_group", "strike_group")}
    count = len(joined["unit"])
    ones = dict.fromkeys(("size", "settlement_ratio", "quote_ratio", "confidence"), np.ones(count))
    own = blank_contracts(count)._replace(**joined | groups | ones)
    padding = blank_contracts(1)
    columns: dict[str, Any] = {
        name: np.concatenate([np.asarray(getattr(own, name)), np.asarray(getattr(padding, name))])
        for name in records.Contracts._fields
        if name not in ("svi", "inputs", "is_digital", "settlement_column")
    }
    svi = type(own.svi)(*(np.concatenate(pair) for pair in zip(own.svi, padding.svi, strict=True)))
    ratio = np.array([*SPOT, 1.0])
    return ContractSet(
        contracts=records.Contracts(**columns, svi=svi, inputs={}),
        market=records.UnitMarket(SPOT, np.ones(2), np.ones(2), np.ones(2)),
        assets=records.Assets(ratio, ratio, {}),
        units=UNITS,
        asset_ids=ASSETS,
        ids=pa.array([f"c{i}" for i in range(count)]),
        kinds=np.where(joined["is_option"], "option", np.where(joined["is_base"], "base", "perpetual")),
        expiry=np.where(joined["is_option"], 0, NO_EXPIRY).astype(np.int64),
        is_listed=~joined["is_base"],
        base_contract=np.array([0, count // 2, -1]),
    )


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def made_up_book(contracts: ContractSet, accounts: int, seed: int = 1) -> LegBook:
    """Skewed legs as in `workload` (1 to 200, mean 11), perpetuals with an entry price, cash that is often enough.

    A book of more than `BASE_ACCOUNTS` accounts repeats the first of them.
    """
    base, rng = min(accounts, BASE_ACCOUNTS), np.random.default_rng(seed + 1)
    listed = np.flatnonzero(contracts.is_listed)
    drawn = make_legs(accounts=base, mean_legs=11.0, contracts=len(listed), scenarios=1, seed=seed)
    unit_of = np.asarray(contracts.contracts.unit)
    size = np.where(unit_of == 0, 0.01, 0.3)
    contract = listed[drawn.contract].astype(np.int32)
    quantity = drawn.quantity * size[contract]
    owner = np.repeat(np.arange(base), np.diff(drawn.indptr))
    gross = np.bincount(owner, np.abs(quantity) * SPOT[unit_of[contract]], minlength=base)
    times = np.resize(np.arange(base), accounts)  # which drawn account each account is
    legs = np.concatenate([np.arange(len(contract))] * (accounts // base))
    legs = np.concatenate([legs, np.arange(drawn.indptr[accounts % base])])
    entry = rng.lognormal(0.0, 0.1, len(contract))
    cash = gross * rng.lognormal(-1.0, 1.0, base)
    return _assembled(contracts, np.diff(drawn.indptr)[times], contract[legs], quantity[legs], entry[legs], cash[times])


def _assembled(
    contracts: ContractSet,
    lengths: np.ndarray,
    contract: np.ndarray,
    quantity: np.ndarray,
    entry: np.ndarray,
    cash: np.ndarray,
) -> LegBook:
    accounts, c = len(lengths), contracts.contracts
    owner, unit = np.repeat(np.arange(accounts), lengths), np.asarray(c.unit)[contract]
    heads = np.flatnonzero(np.concatenate([[True], (owner[1:] != owner[:-1]) | (unit[1:] != unit[:-1])]))
    is_cash = np.asarray(c.is_perpetual)[contract]
    row_of_leg = np.repeat(np.arange(len(heads)), np.diff([*heads, len(contract)]))
    return LegBook(
        account_ids=pa.nulls(accounts, pa.string()),
        pools=pa.nulls(accounts, pa.string()),
        num_positions=lengths,
        unit_start=_starts(np.bincount(owner[heads], minlength=accounts)),
        balance_start=np.arange(accounts + 1),
        unit=unit[heads].astype(np.int32),
        leg_start=np.concatenate([heads, [len(contract)]]),
        cash_start=_starts(np.bincount(row_of_leg[is_cash], minlength=len(heads))),
        contract=contract,
        quantity=quantity,
        inputs={},
        is_cash=is_cash,
        cash_contract=contract[is_cash],
        cash_quantity=quantity[is_cash],
        entry=np.asarray(c.mark)[contract[is_cash]] * entry[is_cash],
        unsettled=np.zeros(int(is_cash.sum())),
        asset=np.full(accounts, ASSETS.index("USDC"), np.int32),
        amount=cash,
        is_collateral=np.ones(accounts, bool),
    )


def first_accounts(book: LegBook, count: int) -> LegBook:
    """The first accounts of a book as a book of their own."""
    rows = int(book.unit_start[count])
    ends = {
        "unit_start": count + 1, "balance_start": count + 1, "num_positions": count,
        "unit": rows, "leg_start": rows + 1, "cash_start": rows + 1,
    }  # fmt: skip
    for name in ("contract", "quantity", "is_cash"):
        ends[name] = int(book.leg_start[rows])
    for name in ("cash_contract", "cash_quantity", "entry", "unsettled"):
        ends[name] = int(book.cash_start[rows])
    for name in ("asset", "amount", "is_collateral"):
        ends[name] = int(book.balance_start[count])
    cut = {name: getattr(book, name)[:end] for name, end in ends.items()}
    assert {*cut, "inputs", *_NO_RECORD} == {field.name for field in fields(book)}  # noqa: S101  a new field has its cut
    return replace(book, **cut, account_ids=book.account_ids[:count], pools=book.pools[:count])
