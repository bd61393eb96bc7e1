"""Arrays of the engine to the result tables: accounts, units, instruments, scenarios."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.bind import scenario_rows, scenario_weights, spot_levels
from gpumargin.engine import EngineResult
from gpumargin.failures import Failure, failure_frame, input_error
from gpumargin.modelfile import ModelFile
from gpumargin.pack.columns import Bools, Floats, encoded
from gpumargin.pack.contracts import ContractSet
from gpumargin.pack.instruments import NO_EXPIRY
from gpumargin.pack.legs import LegBook
from gpumargin.selfcheck import leg_pnl
from gpumargin_kernels.account import AccountRows
from gpumargin_kernels.health import STATUSES
from gpumargin_kernels.scenario import ContractRisk
from gpumargin_kernels.units import UnitRows

_MINOR_LIMIT = 2.0**62
Columns = dict[str, pa.Array]


@dataclass(frozen=True)
class Naming:
    """Words for the codes of a run."""

    model: str  # label, name@date
    scenarios: tuple[str, ...]  # worst_scenario code -> id; components follow the scenario columns
    units: tuple[str, ...]
    decimals: int  # of the accounting asset

    @staticmethod
    def of(file: ModelFile, label: str, contracts: ContractSet, decimals: int) -> Naming:
        """Names of one model on one book."""
        return Naming(label, (*scenario_ids(file), *file.components), contracts.units, decimals)


def scenario_ids(file: ModelFile) -> list[str]:
    """Id of every scenario column; a label that several sets use carries its set's name."""
    rows = scenario_rows(file)
    labels = [row.label for _, row in rows]
    first_set = {row.label: name for name, row in reversed(rows)}
    return [
        label if first_set[label] == name else f"{name}:{label}" for label, (name, _) in zip(labels, rows, strict=True)
    ]


def coded_words(codes: np.ndarray, names: Sequence[str]) -> pa.Array:
    """Dictionary column of codes; negative codes are null."""
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(names), pa.string()))


def constant_word(word: str, rows: int) -> pa.Array:
    """Dictionary column of one word."""
    return coded_words(np.zeros(rows, np.int64), [word])


def _numbers(values: np.ndarray) -> pa.Array:
    return pa.array(np.asarray(values, np.float64))


def minor_units(values: np.ndarray, decimals: int, rounding: np.ufunc) -> pa.Array:
    """int64 minor units, each rounded once in the direction of `rounding`; null where the value is not finite.

    Raises:
      InputError: GM117, one does not fit.
    """
    exact = np.asarray(values, np.float64)
    is_known = np.isfinite(exact)
    scaled = rounding(np.where(is_known, exact, 0.0) * 10.0**decimals)
    if np.any(np.abs(scaled) >= _MINOR_LIMIT):
        largest = float(np.abs(exact[is_known]).max())
        message = f"an amount of {largest:g} does not fit int64 at {decimals} decimals of the accounting asset"
        remedy = "correct the amounts, or give the asset fewer decimals in the assets table"
        failure = Failure("GM117", "assets", "", None, "decimals", str(decimals), message, remedy)
        raise input_error(failure_frame([failure]))
    return pa.array(scaled.astype(np.int64), mask=~is_known)


def _greeks(rows: AccountRows | UnitRows) -> dict[str, Any]:
    assert rows.greeks is not None  # noqa: S101  whoever asks for columns had everything computed
    return rows.greeks._asdict()


def account_columns(
    rows: AccountRows, naming: Naming, picked: Callable[[Any], np.ndarray] = np.asarray
) -> dict[str, Callable[[], pa.Array]]:
    """Every result column of accounts, each made when it is called for.

    Args:
      rows: results, `[A]`.
      naming: words for codes.
      picked: what takes the rows wanted, in their order, out of a leaf.
    """

    def numbers(leaf: Any) -> Callable[[], pa.Array]:
        return lambda: _numbers(picked(leaf))

    def minor(leaf: Any, rounding: np.ufunc) -> Callable[[], pa.Array]:
        return lambda: minor_units(picked(leaf), naming.decimals, rounding)

    columns: dict[str, Callable[[], pa.Array]] = {
        "model": lambda: constant_word(naming.model, len(picked(rows.health.status))),
        "status": lambda: coded_words(picked(rows.health.status), STATUSES),
        "equity": numbers(rows.equity),
        "unrealised_pnl": numbers(rows.unrealised_pnl),
        "option_value": numbers(rows.option_value),
    }
    for name in rows.margin:
        columns[f"{name}_collateral_value"] = numbers(rows.collateral_value[name])
        columns[f"{name}_balance"] = numbers(rows.balance[name])
        columns[f"{name}_margin"] = numbers(rows.margin[name])
        columns[f"{name}_excess"] = numbers(rows.health.excess[name])
    return columns | {
        **{name: numbers(amount) for name, amount in rows.charges.items()},
        "health": lambda: _nullable(picked(rows.health.ratio)),
        "worst_scenario": lambda: coded_words(picked(rows.worst_scenario), naming.scenarios),
        "worst_loss": numbers(rows.worst_loss),
        **{name: numbers(value) for name, value in _greeks(rows).items()},
        "equity_minor": minor(rows.equity, np.floor),
        "initial_margin_minor": minor(rows.margin["initial"], np.ceil),
        "maintenance_margin_minor": minor(rows.margin["maintenance"], np.ceil),
    }


def accounts_table(book: LegBook, part: EngineResult, naming: Naming, unknown: Bools | None = None) -> pa.Table:
    """One row per margin account of a part, columns as in the contract; unrounded float64 beside minor units.

    Args:
      book: the legs of all accounts.
      part: results of some.
      naming: words for codes.
      unknown: `[A]` accounts of which not every row was used: their status is `unknown` and every amount null, for a
        number without a part of the account would be taken for the account's.
    """
    rows = part.result.accounts
    chosen = slice(part.first_account, part.first_account + len(rows.equity))
    made = {name: make() for name, make in account_columns(rows, naming).items()}
    minor = {name: made.pop(name) for name in list(made) if name.endswith("_minor")}
    columns: Columns = {
        "account_id": book.account_ids[chosen],
        "pool": book.pools[chosen],
        **made,
        "num_positions": pa.array(book.num_positions[chosen]),
        **minor,
    }
    table = pa.table(columns)
    return table if unknown is None or not unknown[chosen].any() else _doubted(table, unknown[chosen])


def _doubted(accounts: pa.Table, unknown: Bools) -> pa.Table:
    """The table with the amounts of unknown accounts struck out."""
    said = ("account_id", "pool", "model", "num_positions")
    columns: Columns = {name: accounts[name] for name in accounts.column_names}
    for name in (name for name in columns if name not in said):
        columns[name] = pc.if_else(pa.array(unknown), pa.scalar(None, columns[name].type), columns[name])
    status, words = encoded(accounts["status"])
    columns["status"] = coded_words(np.where(unknown, STATUSES.index("unknown"), status), words.to_pylist())
    return pa.table(columns)


def units_table(book: LegBook, part: EngineResult, naming: Naming) -> pa.Table:
    """One row per margin account and risk unit, a column per component of the model."""
    rows = part.result.units
    accounts = slice(part.first_account, part.first_account + len(part.result.accounts.equity))
    held = np.diff(book.unit_start)[accounts]
    owner = pa.array(np.repeat(np.arange(accounts.start, accounts.stop), held))
    columns: Columns = {
        "account_id": book.account_ids.take(owner),
        "pool": book.pools.take(owner),
        "unit": coded_words(rows.unit, naming.units),
        **{name: _numbers(amount) for name, amount in rows.charges.items()},
        "worst_scenario": coded_words(rows.worst_scenario, naming.scenarios),
        "worst_loss": _numbers(rows.worst_loss),
        **{f"{name}_margin": _numbers(amount) for name, amount in rows.margin.items()},
        "option_value": _numbers(rows.option_value),
        "unrealised_pnl": _numbers(part.result.unit_unrealised_pnl),
        **{name: _numbers(value) for name, value in _greeks(rows).items()},
    }
    return pa.table(columns)


def _nullable(values: np.ndarray) -> pa.Array:
    exact = np.asarray(values, np.float64)
    return pa.array(exact, mask=np.isnan(exact))


def contract_value(contracts: ContractSet, risk: ContractRisk) -> Floats:
    """Market value of one long contract: of an option its price, of anything else its notional, `[M]`."""
    count = contracts.padding
    is_option = contracts.contracts.is_option[:count]
    return np.asarray(np.where(is_option, risk.value, risk.exposure), np.float64)


def instruments_table(contracts: ContractSet, risk: ContractRisk) -> pa.Table:
    """One row per contract: value, Greeks per 1.00 and per year, and the risk array; base assets included.

    Without scenarios there is no column of the risk array: neither Parquet nor polars has lists of length 0.
    """
    c, count = contracts.contracts, contracts.padding
    forward = (c.forward_fixed + c.forward_variable)[:count]
    linear = np.asarray(risk.exposure)
    price = np.where(c.is_option, 1.0, c.mark)[:count]
    has_expiry = contracts.expiry != NO_EXPIRY
    expiry = pa.array(np.where(has_expiry, contracts.expiry, 0), mask=~has_expiry).cast(pa.timestamp("us", "UTC"))
    greeks = risk.greeks
    scenario_pnl = np.asarray(risk.scenario_pnl, np.float64)
    composite = {} if risk.composite_delta is None else {"composite_delta": _nullable(risk.composite_delta)}
    table = pa.table(
        {
            "instrument_id": contracts.ids,
            "kind": pa.array(contracts.kinds).dictionary_encode(),
            "unit": coded_words(c.unit[:count], contracts.units),
            "expiry": expiry,
            "strike": pa.array(c.strike[:count], mask=~c.is_option[:count]),
            "forward": _nullable(np.where(c.is_option[:count], forward, np.nan)),
            "years": _numbers(c.years[:count]),
            "contract_size": _numbers(c.size[:count]),
            "value": _nullable(contract_value(contracts, risk)),
            "implied_vol": _nullable(np.where(c.is_option[:count], risk.implied_vol, np.nan)),
            "delta": _nullable(np.where(c.is_option[:count], greeks.delta, linear / np.where(price == 0, 1, price))),
            "gamma": _nullable(greeks.gamma),
            "vega": _nullable(greeks.vega),
            "theta": _nullable(greeks.theta),
            "rho": _nullable(0.0 - c.years[:count] * np.asarray(greeks.value)),
            "vanna": _nullable(greeks.vanna),
            "volga": _nullable(greeks.volga),
            **composite,
        }
    )
    return table.append_column("scenario_pnl", _fixed_lists(scenario_pnl)) if scenario_pnl.shape[1] else table


def _fixed_lists(block: Floats) -> pa.Array:
    """A list of one number or more per row, null where nothing is known."""
    return pa.FixedSizeListArray.from_arrays(_nullable(block.ravel()), block.shape[1])


def scenarios_table(file: ModelFile, units: Sequence[str]) -> pa.Table:
    """One row per scenario and unit, in the column order of `scenario_pnl`."""
    rows = scenario_rows(file)
    ids = scenario_ids(file)

    records = [
        {
            "id": ids[index],
            "column": index,
            "set": name,
            "unit": unit,
            "spot_move": float(spot_levels(file, row, [unit])[0]) - 1,
            "vol_rule": row.vol,
            "weight": float(scenario_weights(file, row, [unit])[0]),
            "dampening": 1.0,
        }
        for index, (name, row) in enumerate(rows)
        for unit in units
    ]
    return pa.Table.from_pylist(records) if records else pa.table({"id": pa.array([], pa.string())})


def positions_table(book: LegBook, part: EngineResult, contracts: ContractSet, risk: ContractRisk) -> pa.Table:
    """One row per leg of a part, base assets included: quantity times what one contract is worth and moves."""
    rows = len(part.result.units.unit)
    start, stop = book.leg_start[part.first_row], book.leg_start[part.first_row + rows]
    contract, quantity = book.contract[start:stop], book.quantity[start:stop]
    accounts = slice(part.first_account, part.first_account + len(part.result.accounts.equity))
    legs_of = book.leg_start[book.unit_start[accounts.start : accounts.stop + 1]]
    owner = pa.array(np.repeat(np.arange(accounts.start, accounts.stop), np.diff(legs_of)))
    c = contracts.contracts
    forward, greeks = c.forward_variable[: contracts.padding], risk.greeks

    def times_quantity(per_contract: np.ndarray) -> pa.Array:
        return _numbers(quantity * per_contract[contract])

    return pa.table(
        {
            "account_id": book.account_ids.take(owner),
            "pool": book.pools.take(owner),
            "instrument_id": contracts.ids.take(pa.array(contract)),
            "quantity": _numbers(quantity),
            "value": times_quantity(contract_value(contracts, risk)),
            "unrealised_pnl": _numbers(leg_pnl(book, contracts, slice(part.first_row, part.first_row + rows))),
            "delta": times_quantity(greeks.delta * forward + risk.exposure),
            "gamma": times_quantity(greeks.gamma * forward**2 * 1e-4),
            "vega": times_quantity(greeks.vega / 100),
            "theta": times_quantity(greeks.theta / 365),
        }
    )
