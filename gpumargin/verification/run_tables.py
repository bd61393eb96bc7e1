"""Tables of a run folder: read with page checksums, held against their value hashes and the columns of their models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gpumargin.digests import ColumnDigest, combined_digest
from gpumargin.errors import RefusedError
from gpumargin.files import refuse_odd, without_metadata
from gpumargin.modelfile import ModelFile
from gpumargin.verification.findings import Finding, Ledger

KEYS = ("account_id", "pool")
_GREEKS = ("delta", "gamma", "vega", "theta")
_UNIT = ("unit", "worst_scenario", "worst_loss", "option_value", "unrealised_pnl", *_GREEKS)
_ACCOUNT = (
    "model", "status", "equity", "unrealised_pnl", "option_value", "health", "worst_scenario", "worst_loss", *_GREEKS,
    "num_positions", "equity_minor", "initial_margin_minor", "maintenance_margin_minor",
)  # fmt: skip
_POSITION = ("instrument_id", "quantity", "value", "unrealised_pnl", *_GREEKS)
_PER_TYPE = ("collateral_value", "balance", "margin", "excess")
Parts = Mapping[str, pa.Table]


def columns_of(name: str, file: ModelFile) -> list[str]:
    """Columns of a result table of one model, in no order.

    Args:
      name: accounts, units or positions.
      file: the model.
    """
    types = list(file.margin)
    own = {
        "accounts": [*_ACCOUNT, *(f"{t}_{word}" for t in types for word in _PER_TYPE), *file.balances],
        "units": [*_UNIT, *(f"{t}_margin" for t in types), *file.components],
        "positions": _POSITION,
    }
    return [*KEYS, *own[name]]


@dataclass(frozen=True)
class RunTables:
    """A run folder, read.

    Attributes:
      folder: the run.
      manifest: of the run.
      summary: of the run.
      models: by label.
      parts: of every table, its files in row order, by path within the folder.
    """

    folder: Path
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    models: Mapping[str, ModelFile]
    parts: Mapping[str, Parts]

    def frame(self, name: str, *, placed: bool = False) -> pl.DataFrame:
        """A table as one frame, words as text, if asked for with the file and row where each row stands."""
        frames = []
        for path, table in self.parts[name].items():
            frame = _frame(table)
            if placed:
                frame = frame.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64), file=pl.lit(path))
            frames.append(frame)
        return pl.concat(frames, how="diagonal_relaxed")

    def of_model(self, name: str, label: str) -> pl.DataFrame:
        """`instruments` or `scenarios` of one model; a run of several models has one for each."""
        own = f"{name}-{label}"
        return self.frame(own if own in self.parts else name)


def _frame(table: pa.Table) -> pl.DataFrame:
    found = pl.DataFrame(pl.from_arrow(table))
    return found.with_columns(pl.col(pl.Categorical).cast(pl.String))


def read_parts(folder: Path, findings: list[Finding]) -> dict[str, dict[str, pa.Table]]:
    """Every Parquet file of a run, every page held against its checksum; what cannot be read joins `findings`."""
    found: dict[str, dict[str, pa.Table]] = {}
    for path in sorted([*folder.glob("*.parquet"), *folder.glob("*/*.parquet")]):
        name = path.relative_to(folder).parts[0].removesuffix(".parquet")
        if name == "solvency":
            continue
        place = path.relative_to(folder).as_posix()
        try:
            refuse_odd([path])
            table = pq.read_table(path, page_checksum_verification=True)
            table.validate(full=True)
            found.setdefault(name, {})[place] = without_metadata(table)
        except (OSError, ValueError, RefusedError, pa.ArrowException) as error:
            findings.append(Finding("", "a Parquet file", f"cannot be read: {error}", place))
    return found


def check_values(ledger: Ledger, run: RunTables) -> bool:
    """Hashes of values, numbers of rows and columns of the tables against manifest and summary."""
    findings: list[Finding] = []
    rows, hashed, written = 0, run.manifest["results"], run.summary["rows"]["written"]
    for name in sorted({*hashed, *written, *({"accounts", "units", "positions"} & {*run.parts})}):
        parts = run.parts.get(name, {})
        number = sum(part.num_rows for part in parts.values())
        rows += number
        if number != written.get(name):
            findings.append(Finding("number of rows", written.get(name), number, name))
        if parts and not (wrong := _column_findings(name, run)):
            digest = _digest(name, run)
            if digest != hashed.get(name):
                findings.append(Finding("sha256 of the values", hashed.get(name), digest, name))
        elif parts:
            findings += wrong
    return ledger.add("value hashes", f"{', '.join(sorted(hashed))} against manifest.json", rows, findings)


def _column_findings(name: str, run: RunTables) -> list[Finding]:
    """Columns that no model of the run has, and those that are missing."""
    known = {column for file in run.models.values() for column in columns_of(name, file)}
    found = {column for part in run.parts[name].values() for column in part.column_names}
    return [
        Finding(column, "a column of the table", "no column of its models", name) for column in sorted(found - known)
    ] + [Finding(column, "no column of the table", "a column of its models", name) for column in sorted(known - found)]


def _digest(name: str, run: RunTables) -> str:
    """Hash of a table's values; rows of several models are hashed apart."""
    labels = list(run.models)
    if len(labels) == 1:
        digest = ColumnDigest()
        for part in run.parts[name].values():
            digest.add(part)
        return digest.hexdigest()
    digests = {label: ColumnDigest() for label in labels}
    model_of = _models_of_accounts(run)
    for part in run.parts[name].values():
        rows = pl.DataFrame(pl.from_arrow(part.select(KEYS))).with_columns(pl.col(KEYS).cast(pl.String))
        model = rows.join(model_of, on=KEYS, how="left", maintain_order="left")["model"].to_arrow()
        for label in labels:
            own = part.filter(pc.equal(model, label))
            if own.num_rows:
                wanted = columns_of(name, run.models[label])
                digests[label].add(own.select([column for column in own.column_names if column in wanted]))
    used = set(run.frame("accounts")["model"])
    return combined_digest({label: digest.hexdigest() for label, digest in digests.items() if label in used})


def _models_of_accounts(run: RunTables) -> pl.DataFrame:
    return run.frame("accounts").select(pl.col(*KEYS, "model").cast(pl.String)).unique(KEYS)
