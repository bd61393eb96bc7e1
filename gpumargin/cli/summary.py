"""The summary of a run on a screen: who stands where, the exact totals, and how the numbers came about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
from rich.table import Table
from rich.text import Text

from gpumargin.cli.render import STATUS_STYLES, clean, console
from gpumargin.cli.show import SHARED_POOL
from gpumargin.runs import run_json, run_table

_TOTALS = ("equity", "negative_equity", "initial_margin", "maintenance_margin")
_MOST_NAMED = 12
_LEAST_SHARE = 1e-6
_NO_BREAK = "\u00a0"


@dataclass(frozen=True)
class RunFacts:
    """A run folder's summary and manifest, and the account that lacks most."""

    folder: Path
    summary: Mapping[str, Any]
    manifest: Mapping[str, Any]
    worst: Mapping[str, Any]

    @staticmethod
    def of(folder: Path) -> RunFacts:
        """Reads a run folder."""
        return RunFacts(folder, run_json(folder, "summary"), run_json(folder, "manifest"), _under_water(folder))

    @property
    def asset(self) -> str:
        """Accounting asset, or assets."""
        return "/".join(self.summary["by_accounting_asset"])


def _under_water(folder: Path) -> dict[str, Any]:
    """Number of accounts below maintenance and the one that lacks most."""
    accounts = run_table(folder, "accounts").filter(pl.col("maintenance_excess") < 0)
    kept = accounts.select("account_id", "pool", "maintenance_excess")
    worst = kept.sort("maintenance_excess", "account_id", "pool").head(1).collect().to_dicts()
    count = accounts.select(pl.len()).collect().item()
    return {"count": count, **(worst[0] if worst else {})}


def print_summary(folder: Path, *, is_error: bool = False) -> None:
    """Prints the summary of a run to stdout, or to stderr as talk."""
    facts = RunFacts.of(folder)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, content in _lines(facts):
        grid.add_row(label, content)
    console(is_error=is_error).print(grid)


def _lines(facts: RunFacts) -> Iterator[tuple[str, Text | Table | str]]:
    summary = facts.summary
    yield "run", clean(facts.folder.name)
    yield "book", clean(facts.manifest["book"] or "in memory")
    yield "as of", _as_of(facts)
    for label, model in summary["models"].items():
        yield "model", _model(facts, label, model)
        yield "", _estimates(model["estimated"])
    yield "accounts", _statuses(summary)
    for asset, group in summary["by_accounting_asset"].items():
        yield f"totals, {clean(asset)}", _amounts({name.replace("_", " "): group["totals"][name] for name in _TOTALS})
    yield "balances", _amounts(summary["balances"])
    yield "open interest", _interest(summary["open_interest"])
    yield "under water", _worst(facts)
    yield "input", _rows(summary["rows"])
    if summary["rows"]["quarantined"]:
        yield "quarantine", _quarantine(facts)
    if odd := summary["warnings"]:
        yield "odd", Text("\n".join(clean(f"{row['code']} {row['table']}: {row['message']}") for row in odd), "yellow")
    if filled := _filled(summary.get("filled", {})):
        yield "filled", filled
    yield "computed", f"{len(summary['device'])} x {clean(facts.manifest['platform'])}, {summary['dtype']}"
    yield "seconds", _seconds(summary["seconds"])
    yield "folder", clean(facts.folder)


def _as_of(facts: RunFacts) -> str:
    instant = datetime.fromisoformat(facts.summary["as_of"])
    newest = facts.summary["marks"]["newest"]
    age = f", marks {_age(_started(facts.folder.name) - datetime.fromisoformat(newest))}" if newest else ""
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC{age}"


def _started(run_id: str) -> datetime:
    """When a run was made, as its id says."""
    return datetime.strptime(run_id.partition("-")[0], "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)


def _age(age: timedelta) -> str:
    if age < timedelta():
        return "later than the run"
    units = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}
    name, size = next((item for item in units.items() if age.total_seconds() >= 2 * item[1]), ("seconds", 1))
    return f"{age.total_seconds() / size:,.0f} {name} old at the run"


def _model(facts: RunFacts, label: str, model: Mapping[str, Any]) -> str:
    title = facts.manifest["models"][label]["title"]
    changed = "".join(f"; {key} = {value}" for key, value in model["overrides"].items())
    return clean(f"{label}  {title}{changed}")


def _estimates(numbers: list[str]) -> Text:
    if not numbers:
        return Text("no estimated numbers", style="dim")
    if numbers == ["all"]:
        return Text("every number of this model is estimated", style="yellow")
    more = f" and {len(numbers) - _MOST_NAMED} more" if len(numbers) > _MOST_NAMED else ""
    named = ", ".join(map(clean, numbers[:_MOST_NAMED]))
    return Text(f"{len(numbers)} estimated numbers: {named}{more}", style="yellow")


def _statuses(summary: Mapping[str, Any]) -> Text:
    groups = summary["by_accounting_asset"].values()
    text = Text(f"{sum(group['accounts'] for group in groups):,}")
    for status, style in STATUS_STYLES.items():
        count = sum(group["status"].get(status, 0) for group in groups)
        words = f"{status.replace('_', ' ')} {count:,}".replace(" ", _NO_BREAK)
        text.append(f"   {words}", style=style if count else "dim")
    return text


def _amounts(amounts: Mapping[str, str]) -> Table:
    """Exact decimals, one below the other, aligned at the point."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    shown = {clean(name): f"{Decimal(amount):,f}" for name, amount in amounts.items()}
    digits = max((len(text.partition(".")[2]) for text in shown.values()), default=0)
    for name, text in shown.items():
        missing = digits - len(text.partition(".")[2]) + (1 if "." not in text and digits else 0)
        table.add_row(name, text + " " * missing)
    return table


def _interest(interest: Mapping[str, Any]) -> str:
    """Whether longs equal shorts, and where they differ most."""
    largest = interest["largest"]
    if largest is None:
        return f"longs equal shorts in {interest['contracts']:,} contracts"
    named = {name: f"{Decimal(largest[name]).normalize():,f}" for name in ("long", "short", "difference")}
    return (
        f"{interest['unbalanced']:,} of {interest['contracts']:,} contracts do not sum to zero; most: "
        f"{clean(largest['instrument_id'])}, long {named['long']}, short {named['short']}, "
        f"difference {named['difference']}"
    )


def _worst(facts: RunFacts) -> Text:
    worst = facts.worst
    if not worst["count"]:
        return Text("no account below maintenance", style="green")
    name = clean(worst["account_id"]) + ("" if worst["pool"] == SHARED_POOL else f" (pool {clean(worst['pool'])})")
    amount = f"{worst['maintenance_excess']:,.2f} {clean(facts.asset)}"
    return Text(f"{worst['count']:,} below maintenance; most: {name}, {amount}", style="red")


def _rows(rows: Mapping[str, Any]) -> str:
    read = ", ".join(f"{count:,} {name}" for name, count in rows["read"].items())
    return f"{read}; {rows['quarantined']:,} quarantined"


def _quarantine(facts: RunFacts) -> Text:
    """How many rows were not used, for which rules, and where to read of each."""
    rows = facts.summary["rows"]
    codes = ", ".join(f"{clean(code)} {count:,}" for code, count in rows["by_code"].items())
    unknown = sum(group["status"].get("unknown", 0) for group in facts.summary["by_accounting_asset"].values())
    words = f"{rows['quarantined']:,} rows were not used ({codes}): see quarantine.parquet"
    return Text(f"{words}; no total includes the {unknown:,} unknown accounts", STATUS_STYLES["unknown"])


def _filled(filled: Mapping[str, Any]) -> str:
    """From what missing forwards, vols and prices of options were filled; empty where none were missing."""
    words = []
    for name in ("forward", "vol", "price"):
        counts = {method: count for method, count in filled.get(name, {}).items() if method != "missing"}
        if counts:
            words.append(f"{name}s: " + ", ".join(f"{n:,} from {m.replace('_', ' ')}" for m, n in counts.items()))
    zero, unpriced, worst = filled.get("zero_vols"), filled.get("unpriced"), filled.get("parity", {}).get("worst")
    odd = filled.get("unexplained_prices", {}).get("count")
    words += [f"{zero:,} prices are intrinsic and say vol 0"] if zero else []
    words += [f"{odd:,} prices that no vol explains"] if odd else []
    words += [f"{unpriced:,} options that nobody uses stay unpriced"] if unpriced else []
    return "; ".join([*words, *([_parity(worst)] if worst else [])])


def _parity(worst: Mapping[str, Any]) -> str:
    """Within what share of the forward the calls and puts of the worst expiry agree on it, rounded up if tiny."""
    where = clean(f"{worst['underlying']} {worst['expiry'][:10]}")
    return f"parity holds within {100 * max(worst['share'], _LEAST_SHARE):.2g}% of the forward (least well: {where})"


def _seconds(seconds: Mapping[str, float]) -> str:
    """The whole, then the stages, which overlap."""
    stages = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items() if name != "total")
    return f"{seconds['total']:.2f}; at work {stages}"
