"""Claims about the page of a run: it runs and loads nothing, nothing of a book acts in it, it shows what was found."""

from __future__ import annotations

import base64
import json
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from gpumargin.catalogue import load_model
from gpumargin.prepare import Options
from gpumargin.report.data import health_histogram, liquidation_ladder, quantiles, stress_grid, utilisation_curve
from gpumargin.report.figures import short_amount, short_label
from gpumargin.report.page import Report, make_report
from gpumargin.report.tables import cell, exact
from gpumargin.run import margin_to_folder
from gpumargin.tables import read_book
from tests.books import tiny_book
from tests.solvency.conftest import FUNDS, Snapshot, snapshot_of

if TYPE_CHECKING:
    from collections.abc import Mapping

HOSTILE = {
    "alice": '<script>alert("x")</script>',
    "bob": '"><img src=x onerror=alert(1)>',
    "carol": "$\\frac{1}{0}$ {{ 7 * 7 }} {% raw %}",
    "dave": "=cmd|'/c calc'!A1 & <b>bold</b> </title>",
}


def renamed(book: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    return {
        name: frame.with_columns(pl.col("account_id").replace(HOSTILE)) if "account_id" in frame.columns else frame
        for name, frame in book.items()
    }


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return snapshot_of({**renamed(tiny_book()), "funds": FUNDS}, tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def report(hostile: Snapshot) -> Report:
    return make_report(hostile.run)


class Page(HTMLParser):
    """Elements with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_no_element_or_attribute_comes_from_the_book(report: Report, snapshot: Snapshot) -> None:
    hostile, plain = Page(report.html), Page(make_report(snapshot.run).html)
    assert [(tag, sorted(attributes)) for tag, attributes in hostile.elements] == [
        (tag, sorted(attributes)) for tag, attributes in plain.elements
    ]
    assert HOSTILE["alice"] in hostile.text, "the id itself is shown"
    assert "{{ 7 * 7 }}" in hostile.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", report.html)


def test_the_page_runs_nothing_and_loads_nothing(report: Report) -> None:
    page = Page(report.html)
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "form", "base", "a"}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("src") or "data:").startswith("data:")


def test_every_figure_has_words_and_is_a_picture_by_itself(report: Report) -> None:
    images = [attributes for tag, attributes in Page(report.html).elements if tag == "img"]
    assert [drawing.name for drawing in report.drawings] == [
        "health",
        "utilisation",
        "stress",
        "ladder",
        "concentration",
    ]
    for image, drawing in zip(images, report.drawings, strict=True):
        assert len(str(image["alt"])) > 20
        svg = base64.b64decode(str(image["src"]).partition("base64,")[2])
        tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(svg).iter()}  # noqa: S314  our own drawing
        assert not tags & {"script", "image", "foreignObject", "a"}
        assert drawing.png.startswith(b"\x89PNG")
        assert drawing.data.height


def test_the_same_run_gives_the_same_page(hostile: Snapshot, report: Report) -> None:
    assert make_report(hostile.run).html == report.html


def test_the_page_shows_exact_totals_checks_and_what_it_does_not_say(report: Report) -> None:
    text = " ".join(Page(report.html).text.split())
    for words in (
        "374,199.978880",
        "the commitment sums to the accounts in USDC, to the last unit: holds",
        "derive-pm1@2025-02-01",
        "no liquidation is simulated",
        "that the venue holds reserves",
        "0.82/up",
    ):
        assert words in text
    assert all(check.holds for check in report.checks)
    assert len(report.checks) == 4


def test_figures_are_written_with_their_data_beside_them(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "out" / "page.html", tmp_path / "figures")
    assert (tmp_path / "out" / "page.html").read_text("utf-8") == report.html
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"{drawing.name}{suffix}" for drawing in report.drawings for suffix in (".svg", ".png", ".parquet")
    }
    for drawing in report.drawings:
        assert pl.read_parquet(tmp_path / "figures" / f"{drawing.name}.parquet").equals(drawing.data)


def test_a_run_without_a_snapshot_says_what_is_missing(tmp_path: Path) -> None:
    run = margin_to_folder(read_book(**tiny_book()), load_model("derive-pm1"), tmp_path, Options())
    made = make_report(run)
    assert "no solvency snapshot" in made.html
    assert [drawing.name for drawing in made.drawings] == ["health", "utilisation"]


def test_totals_that_were_changed_are_seen(hostile: Snapshot, tmp_path: Path) -> None:
    run = Path(shutil.copytree(hostile.run, tmp_path / "run"))
    summary = json.loads((run / "summary.json").read_text())
    summary["by_accounting_asset"]["USDC"]["totals"]["equity"] = "374199.978881"
    (run / "summary.json").write_text(json.dumps(summary))
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "as_of": "2026-03-06T08:00:00+00:00"}))
    made = make_report(run)
    assert [check.holds for check in made.checks] == [False, False, True, True]
    assert made.html.count("DOES NOT HOLD") == 2


# --- What figures are drawn from.


def accounts(health: list[float | None], margin: list[float], balance: list[float]) -> pl.DataFrame:
    return pl.DataFrame(
        {"health": health, "maintenance_margin": margin, "maintenance_balance": balance},
        schema_overrides={"health": pl.Float64},
    )


def test_the_histogram_holds_every_account_with_a_health_and_splits_at_one() -> None:
    health = [None, -3.0, 0.05, 0.99, 1.0, 1.5, 99.0, 1e9]
    bins = health_histogram(accounts(health, [1.0] * 8, [1.0] * 8))
    assert bins["accounts"].sum() == 7
    assert bins.filter(pl.col("health_to") <= 1 + 1e-12)["accounts"].sum() == 3
    assert bins["accounts"][0] == 2
    assert bins["accounts"][-1] == 2


def test_the_utilisation_curve_counts_accounts_and_their_margin() -> None:
    curve = utilisation_curve(accounts([None] * 4, [1.0, 3.0, 4.0, 0.0], [4.0, 4.0, -1.0, 5.0]))
    rows = {round(level, 2): (a, m) for level, a, m in curve.iter_rows()}
    assert rows[0.24] == (0.0, 0.0)
    assert rows[0.25] == pytest.approx((1 / 3, 1 / 8))
    assert rows[0.75] == pytest.approx((2 / 3, 4 / 8))
    assert rows[2.0] == pytest.approx((2 / 3, 4 / 8)), "an account without a balance is beyond every share"
    assert quantiles(accounts([None], [1.0], [4.0])) == {"50%": 0.25, "90%": 0.25, "99%": 0.25}


def scenario(label: str, *moves: float, vol: str, uncovered: int = 0, group: str = "grid") -> dict[str, object]:
    return {
        "id": label, "set": group, "spot_move_from": min(moves), "spot_move_to": max(moves), "vol_rule": vol,
        "pnl_minor": -uncovered, "losses_minor": -uncovered, "uncovered_minor": uncovered, "bankrupt": uncovered,
        "turned_liquidatable": uncovered, "liquidatable_notional": float(uncovered),
    }  # fmt: skip


def test_the_grid_takes_the_largest_set_and_the_worst_of_one_place() -> None:
    rows = [
        scenario("0.9/up", -0.1, vol="up", uncovered=300),
        scenario("0.9/up*1.5", -0.1, vol="up", uncovered=700),
        scenario("1.1/none", 0.1, vol="none"),
        scenario("other:0.5/none", -0.5, vol="none", uncovered=900, group="other"),
    ]
    grid = stress_grid(pl.DataFrame(rows), 2)
    assert grid.select("move", "vol", "uncovered").rows() == [("-10%", "vol up", 7.0), ("+10%", "vol as it is", 0.0)]


def test_a_move_that_differs_by_underlying_is_given_from_least_to_greatest() -> None:
    rows = [scenario("-1/none", -0.2, -0.15, vol="none"), scenario("+1/none", 0.2, 0.15, vol="none")]
    grid = stress_grid(pl.DataFrame([*rows, scenario("0/none", 0.0, 0.0, vol="none")]), 0)
    assert grid["move"].to_list() == ["-15%\nto -20%", "0%", "+15%\nto +20%"]


def test_the_ladder_shows_calm_and_worst_vol_by_move() -> None:
    rows = [scenario("0.9/up", -0.1, vol="up", uncovered=5), scenario("0.9/none", -0.1, vol="none", uncovered=3)]
    ladder = liquidation_ladder(pl.DataFrame([*rows, scenario("x/none", 0.1, 0.3, vol="none", uncovered=9)]))
    assert ladder.rows() == [(-0.1, 3.0, 5.0, 3, 5), (0.2, 9.0, 9.0, 9, 9)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-0.06, "-0.06"), (999.4, "999"), (999_600, "1.00 m"), (-1.018e9, "-1.02 bn"), (12_345, "12.3 k")],
)
def test_amounts_on_figures_have_three_digits(value: float, text: str) -> None:
    assert short_amount(value) == text


def test_labels_and_cells_are_short_and_harmless() -> None:
    assert short_label("x" * 99) == "x" * 29 + "…"
    assert short_label("a\x1b[2Jb") == "ab"
    assert cell(-0.001, 2) == "0.00"
    assert exact("-1234567.890000") == "-1,234,567.890000"
    assert np.isfinite(float(cell(1.5)))
