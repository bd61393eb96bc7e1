"""Claims about every shipped model over one generated book: finite, alive in every part, and true to what it says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from gpumargin.catalogue import MarginModel, load_model, model_dates
from gpumargin.modelfile import ChargeTable
from gpumargin.pack import buckets
from gpumargin.run import margin
from gpumargin.tables import read_book
from gpumargin.verification import verify_run
from tests.books import write_book
from tests.both_sides import one_sided, watch
from tests.whole_book import EMPTY, KEYS, RICH, accepted, small, twins, whole_book

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gpumargin.runs import Run
    from tests.whole_book import Tables

FEW, MANY = 220, 100_000
LABELS = [f"{name}@{day}" for name, days in model_dates().items() for day in days]
NEWEST = [f"{name}@{max(days)}" for name, days in model_dates().items()]
# What compiles on every run of the tests: a portfolio margin and rates on positions; the others are marked slow.
SAMPLE = ("derive-pm2", "vega")
VERIFIED = ("aave-v3", "derive-pm1", "deribit-pm")  # with many accounts; with few it is every model
LEAST_ALIVE = 0.01
INITIAL, WIDER = "initial margin covers maintenance margin", "a wider grid lowers no margin"

# What a model cannot show or does not claim, and why: a component that is 0, an operand that never binds, an invariant.
UNMOVED = "one of the scenarios leaves everything where it is, so the largest loss is never negative"
UNSET = "accounts say themselves what dollar coins hedge of each other, and none of this book does"
EXEMPT: dict[tuple[str, str], str] = {
    ("aevo-pm", "max(scan, 0): 0"): UNMOVED,
    ("bybit-uta", "max(scan, 0): 0"): UNMOVED,
    ("correlated-pm", "max(scan, 0): 0"): UNMOVED,
    ("deribit-pm", "max(worst, 0): 0"): UNMOVED,
    ("okx-pm", "max(market_risk, 0): 0"): UNMOVED,
    ("span", "max(worst, 0): 0"): "what gains in every scenario, a day later included, would be an arbitrage",
    (
        "okx-pm",
        "max((abs(of_leg) * rate), ((abs(quantity) * is_option) * least)): ((abs(quantity) * is_option) * least)",
    ): "no least cost per option is published; the number is 0",
    ("okx-pm", "min(stablecoin_hedged, depeg_bound): depeg_bound"): UNSET,
    ("okx-pm", "max((stablecoin_hedged - depeg_bound), 0): (stablecoin_hedged - depeg_bound)"): UNSET,
    ("drift-v2", "max(quote, quote_twap): quote_twap"): "the book has one quote currency, whose average is the lower",
    (
        "paradex-cross",
        "max((quantity + buys), (sells - quantity), 0): 0",
    ): "bought or sold, one of the two is not negative",
    ("mango-v4", "quote_arriving"): "the book has no spot orders, which this is about",
    (
        "mango-v4",
        "min(best_ask, (price / where<(0, order_quote, order_quote, 1))): "
        "(price / where<(0, order_quote, order_quote, 1))",
    ): "the book has no spot orders, which this is about",
    ("vega", INITIAL): "what an isolated position was given is its initial margin, whatever its maintenance margin is",
}


def name_of(label: str) -> str:
    return label.partition("@")[0]


@dataclass(frozen=True)
class Case:
    """A model over the part of the book that it margins, with the twins of its accounts."""

    model: MarginModel
    own: Tables
    twin: Tables

    @cached_property
    def run(self) -> Run:
        return margin(read_book(**self.tables), self.model)

    @cached_property
    def tables(self) -> Tables:
        return self.own | {name: pl.concat([self.own[name], rows]) for name, rows in self.twin.items()}

    @property
    def name(self) -> str:
        return self.model.file.name

    def accounts(self, prefix: str = "") -> pl.DataFrame:
        """Results of the accounts themselves, or of their twins under the same names."""
        accounts = self.run.accounts.with_columns(pl.col(pl.Categorical).cast(pl.String))
        if not prefix:
            return accounts.filter(~pl.col("account_id").str.contains(f"^({RICH}|{EMPTY})"))
        return accounts.filter(pl.col("account_id").str.starts_with(prefix)).with_columns(
            pl.col("account_id").str.strip_prefix(prefix)
        )


def exempt(case: Case) -> set[str]:
    """What the model is exempt from."""
    return {text for model, text in EXEMPT if model == case.name}


def case_of(label: str, book: Tables, share: float) -> Case:
    model = load_model(label)
    own = accepted(book, model.file)
    return Case(model, own, twins(own, share))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tables]:
    """A book whose parts, however cut, have one shape: a model is compiled once for all that is claimed of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "MIN_WIDTH", 8)
        patch.setattr(buckets, "ROW_STEP", 1_024)
        yield small(whole_book(tmp_path_factory.mktemp("few") / "book", accounts=FEW))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return whole_book(tmp_path_factory.mktemp("many") / "book", accounts=MANY)


def parameters(labels: list[str]) -> list[object]:
    """The sample, and all others marked slow."""
    marks = {label: [] if label in NEWEST and name_of(label) in SAMPLE else [pytest.mark.slow] for label in labels}
    return [pytest.param(label, marks=marks[label]) for label in labels]


@pytest.fixture(scope="module", params=parameters(NEWEST))
def case(request: pytest.FixtureRequest, few: Tables) -> Case:
    return case_of(str(request.param), few, 1.0)


@pytest.fixture(scope="module", params=LABELS)
def large(request: pytest.FixtureRequest, many: Tables) -> Case:
    return case_of(str(request.param), many, 0.05)


def numbers(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.col(pl.Float64, pl.Float32))


def check_finite(case: Case) -> None:
    """No number is none, no account's status is an alarm."""
    assert "unknown" not in case.accounts()["status"].to_list()
    for frame in (case.run.accounts, case.run.units):
        wrong = numbers(frame).select(pl.all().is_infinite().any() | pl.all().is_nan().any())
        assert not [column for column in wrong.columns if wrong[column][0]]


def held_kinds(case: Case) -> pl.DataFrame:
    """By unit row: whether each kind of leg is in it, by position or order."""
    of = case.own["instruments"].select("instrument_id", "kind", "option_type", pl.col("underlying").alias("unit"))
    held = pl.concat([case.own[name].select(*KEYS, "instrument_id") for name in ("positions", "orders")])
    held = held.join(of.with_columns(pl.col("unit", "kind", "option_type").cast(pl.String)), on="instrument_id")
    words = {word: (pl.col("kind") == word).any() for word in ("option", "future", "perpetual")}
    words |= {word: (pl.col("option_type") == word).any() for word in ("call", "put")}
    return held.group_by(*KEYS, "unit").agg(**words)


def dead_components(case: Case) -> list[str]:
    """Components that are 0 for nearly all unit rows that hold a leg which they look at."""
    units = case.run.units.with_columns(pl.col(pl.Categorical).cast(pl.String)).join(
        held_kinds(case), on=[*KEYS, "unit"]
    )
    found = []
    for name, component in case.model.file.components.items():
        kinds = [] if not isinstance(component, ChargeTable) or "base" in component.legs else component.legs
        rows = units.filter(pl.any_horizontal(kinds)) if kinds else units
        found += [name] if not rows.height or (rows[name] != 0).mean() < LEAST_ALIVE else []
    accounts = case.accounts()
    return found + [name for name in case.model.file.balances if (accounts[name] != 0).mean() < LEAST_ALIVE]


def check_alive(case: Case) -> None:
    """Every component and every charge on balances is other than 0 for one in a hundred that it looks at."""
    assert set(dead_components(case)) == exempt(case) & {*case.model.file.components, *case.model.file.balances}


def check_initial_covers_maintenance(case: Case) -> None:
    """Initial margin asks for no less than maintenance, and counts no more."""
    accounts = case.accounts()
    room = 1e-9 * (accounts["maintenance_margin"].abs() + 1)
    lower = accounts.filter(accounts["initial_margin"] < accounts["maintenance_margin"] - room)
    assert lower.is_empty() == ((case.name, INITIAL) not in EXEMPT)
    room = 1e-9 * (accounts["maintenance_collateral_value"].abs() + 1)
    assert (accounts["initial_collateral_value"] <= accounts["maintenance_collateral_value"] + room).all()


def check_more_collateral_helps(case: Case) -> None:
    """A quarter more of every asset that an account owns lowers no excess, of any margin type."""
    own, rich = case.accounts(), case.accounts(RICH)
    both = own.join(rich, on=KEYS, suffix="_rich")
    assert both.height == rich.height > 0
    for name in case.model.file.margin:
        room = 1e-9 * (both[f"{name}_margin"].abs() + both[f"{name}_collateral_value"].abs() + both["equity"].abs())
        assert (both[f"{name}_excess_rich"] >= both[f"{name}_excess"] - room).all(), name
    assert (both["equity_rich"] >= both["equity"]).all()


def check_nothing_needs_nothing(case: Case) -> None:
    """Accounts whose every amount is 0 have no equity and no requirement, and are healthy."""
    empty = case.accounts(EMPTY)
    assert empty.height > 0
    money = [column for column in numbers(empty).columns if column.endswith(("_margin", "_excess", "_balance"))]
    assert (
        not empty.select("equity", *money, *case.model.file.balances)
        .select(pl.any_horizontal(pl.all() != 0).any())
        .item()
    )
    assert empty["status"].unique().to_list() == ["healthy"]


def check_explained(case: Case, count: int) -> None:
    """Explanations add up to what was published; one that does not raises."""
    accounts = case.run.accounts.select(KEYS).cast(pl.String)
    for account, pool in accounts[np.linspace(0, accounts.height - 1, count).astype(int)].iter_rows():
        assert case.run.explain(account, pool).checks["ok"].all()


CHECKS = (
    check_finite,
    check_alive,
    check_initial_covers_maintenance,
    check_more_collateral_helps,
    check_nothing_needs_nothing,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_few_accounts(case: Case, check: object) -> None:
    check(case)  # type: ignore[operator]


def test_few_accounts_explained(case: Case) -> None:
    check_explained(case, 12)


def check_verified(case: Case, folder: Path) -> None:
    """Every number of every account, recomputed in numpy from the published folder and the book, is the same."""
    found = verify_run(case.run.write(folder / "runs"), full=True, book=write_book(folder / "book", case.tables))
    assert found.findings.rows(named=True) == []
    assert (found.exit_code, found.is_complete) == (0, True)
    assert dict(found.checks.select("check", "count").iter_rows())["recomputation"] > 10 * case.run.accounts.height


def test_few_accounts_verified(case: Case, tmp_path: Path) -> None:
    check_verified(case, tmp_path)


def merged(case: Case, parts: tuple[Tables, Tables], table: str) -> pl.DataFrame:
    runs = [
        margin(read_book(**{n: f.sample(fraction=1, shuffle=True, seed=5) for n, f in part.items()}), case.model)
        for part in parts
    ]
    frames = [getattr(run, table).with_columns(pl.col(pl.Categorical).cast(pl.String)) for run in runs]
    return pl.concat(frames).sort(*KEYS, *(["unit"] if table == "units" else []))


@pytest.mark.parametrize("table", ["accounts", "units"])
def test_two_books_in_any_order_make_the_results_of_their_union(case: Case, table: str) -> None:
    """Bit by bit."""
    parts = (case.own, {**case.own, **case.twin})
    whole = getattr(case.run, table).with_columns(pl.col(pl.Categorical).cast(pl.String))
    whole = whole.sort(*KEYS, *(["unit"] if table == "units" else []))
    assert merged(case, parts, table).equals(whole)


def wider(model: MarginModel) -> MarginModel:
    """The model with one more scenario in every set whose largest loss counts."""
    sets = {c.scenarios for c in model.file.components.values() if c.kind == "scenario_loss"}
    row = {"spot": 1.07, "vol": "up"}
    return model.replace({f"scenarios.{name}": [*model.raw["scenarios"][name], row] for name in sets})


@pytest.mark.slow
def test_a_wider_grid_lowers_no_margin(case: Case) -> None:
    if not any(c.kind == "scenario_loss" for c in case.model.file.components.values()):
        pytest.skip("has no scenarios")
    before, after = case.run.accounts, margin(read_book(**case.tables), wider(case.model), tables=()).accounts
    for name in case.model.file.margin:
        room = 1e-9 * (before[f"{name}_margin"].abs() + 1)
        assert (after[f"{name}_margin"] >= before[f"{name}_margin"] - room).all() == ((case.name, WIDER) not in EXEMPT)


@pytest.mark.slow
def test_every_max_and_min_binds_on_either_side(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch)
    for account, pool in case.accounts().select(KEYS).iter_rows():
        case.run.explain(account, pool)
    assert set(one_sided(case.model.file, seen)) == {text for text in exempt(case) if ": " in text}


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_many_accounts(large: Case, check: object) -> None:
    check(large)  # type: ignore[operator]


@pytest.mark.slow
def test_many_accounts_explained(large: Case) -> None:
    check_explained(large, 40)


@pytest.mark.slow
@pytest.mark.parametrize("large", [label for label in NEWEST if name_of(label) in VERIFIED], indirect=True)
def test_many_accounts_verified(large: Case, tmp_path: Path) -> None:
    check_verified(large, tmp_path)
