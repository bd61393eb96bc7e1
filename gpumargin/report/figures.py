"""The figures of a report: a frame of `data` to a drawing that reads on paper, light on ink, not by colour alone."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from gpumargin.printable import clean
from gpumargin.report.data import VOL_ORDER

_INK, _BLUE, _RED, _GREY, _PALE = "#333333", "#3b6ea5", "#b5403a", "#8a8a8a", "#f7e3e1"
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # an id with dollar signs is an id
    "svg.hashsalt": "gpumargin",  # the same figure, the same file
    "font.size": 9.0,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.hspace": 0.06,
}
_GAIN_LOSS = LinearSegmentedColormap.from_list("gain-loss", ["#d98880", "#ffffff", "#8fb3d9"])
_UNCOVERED = LinearSegmentedColormap.from_list("uncovered", ["#ffffff", "#d98880"])
_LONGEST_LABEL = 30
_NOISE = 1e-6  # share of what accounts lose below which P&L that sums to nothing gets no colour
_WIDTH = 7.2
_SHARED = "cross"
_FEW_COLUMNS = 11  # labels of more columns are turned
_MOST_COLUMNS = 20  # cells of more columns have no room for a text


@dataclass(frozen=True)
class Drawing:
    """A figure as files, its words and the data it was drawn from.

    Attributes:
      name: of its files.
      title: heading.
      caption: what it shows, with units, and what it leaves out.
      text: the same in words, for who cannot see it.
      data: the frame.
      svg: bytes.
      png: bytes.
    """

    name: str
    title: str
    caption: str
    text: str
    data: pl.DataFrame
    svg: bytes
    png: bytes


@contextmanager
def _styled() -> Iterator[None]:
    """The house style for a while: the settings of whoever calls stay theirs."""
    with mpl.rc_context({**mpl.rcParamsDefault, **_STYLE, "backend": mpl.rcParams["backend"]}):
        yield


def short_amount(value: float) -> str:
    """An amount in three digits: 1.23 bn, 45.6 m, 789 k, 12.3."""
    size = abs(value)
    for unit, name in ((1e9, " bn"), (1e6, " m"), (1e3, " k")):
        if size >= 0.9995 * unit:
            return f"{_three_digits(value / unit)}{name}"
    return _three_digits(value) if size >= 0.005 else "0"


def _tick(value: float) -> str:
    """An amount on an axis, without digits that say nothing."""
    number, _, unit = short_amount(value).partition(" ")
    return " ".join([f"{float(number):g}", unit]).rstrip()


def _three_digits(value: float) -> str:
    size = abs(value)
    return f"{value:.0f}" if size >= 99.95 else f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"


def short_label(text: object) -> str:
    """An id that fits beside a bar, nothing in it hidden or harmful."""
    shown = clean(text)
    return shown if len(shown) <= _LONGEST_LABEL else shown[: _LONGEST_LABEL - 1] + "…"


def _files(figure: Figure) -> tuple[bytes, bytes]:
    drawn = []
    for form, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        out = io.BytesIO()
        figure.savefig(out, format=form, metadata=metadata, dpi=150)
        drawn.append(out.getvalue())
    return drawn[0], drawn[1]


def health_figure(bins: pl.DataFrame, without: int) -> Drawing:
    """Histogram of health; `without` accounts have no requirement and therefore no health."""
    low, high, count = (bins[name].to_numpy() for name in ("health_from", "health_to", "accounts"))
    below = int(count[high <= 1 + 1e-9].sum())
    with _styled():
        figure = Figure(figsize=(_WIDTH, 2.9))
        axis = figure.subplots()
        axis.axvspan(low[0], 1.0, color=_PALE, linewidth=0)
        axis.bar(low, count, width=high - low, align="edge", color="#c9d8e8", edgecolor=_BLUE, linewidth=0.6)
        axis.axvline(1.0, color=_RED, linewidth=1.0)
        axis.set(xscale="log", xlim=(low[0], high[-1]), xlabel="health = maintenance balance / maintenance margin")
        axis.set_yscale("symlog", linthresh=1.0)
        axis.set_ylim(0, max(float(count.max()), 1.0) * 3)
        axis.set_ylabel("accounts")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        over = axis.get_xaxis_transform()  # x in data, y as a share of the axis
        axis.text(0.96, 0.96, f"below 1: {below:,}", color=_RED, ha="right", va="top", transform=over)
        svg, png = _files(figure)
    caption = (
        f"Both axes logarithmic; the first and last bar also hold what lies beyond. {without:,} accounts have no "
        "requirement and no health."
    )
    text = f"{below:,} of {int(count.sum()):,} accounts with a requirement have a health below 1."
    return Drawing("health", "Health of accounts", caption, text, bins, svg, png)


def utilisation_figure(curve: pl.DataFrame, quantiles: dict[str, float]) -> Drawing:
    """Distribution of the share of the maintenance balance that is in use, by account and by margin."""
    with _styled():
        figure = Figure(figsize=(_WIDTH, 2.9))
        axis = figure.subplots()
        axis.axvspan(1.0, float(curve["utilisation"][-1]), color=_PALE, linewidth=0)
        axis.plot(curve["utilisation"], curve["share_of_accounts"], color=_BLUE, label="of accounts")
        axis.plot(curve["utilisation"], curve["share_of_margin"], color=_INK, linestyle="--", label="of margin")
        axis.axvline(1.0, color=_RED, linewidth=1.0)
        axis.set(xlim=(0, float(curve["utilisation"][-1])), ylim=(0, 1.02))
        axis.set_xlabel("utilisation = maintenance margin / maintenance balance")
        axis.set_ylabel("share at or below")
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.grid(visible=True)
        axis.legend(loc="lower right")
        svg, png = _files(figure)
    points = ", ".join(f"{share} use at most {value:.1%}" for share, value in quantiles.items())
    caption = "Right of the line margin exceeds balance; an account without a positive balance is beyond the end."
    text = f"Of accounts with a positive balance {points}."
    return Drawing("utilisation", "Use of margin", caption, text, curve, svg, png)


def stress_figure(grid: pl.DataFrame, money: str, name: str, title: str) -> Drawing:
    """Heat maps of spot against vol: P&L of all accounts, and what is uncovered after it."""
    moves = list(dict.fromkeys(grid["move"]))
    vols = [vol for vol in VOL_ORDER if vol in set(grid["vol"])]
    vols += sorted(set(grid["vol"]) - set(vols))
    shape = (len(vols), len(moves))
    with _styled():
        figure = Figure(figsize=(_WIDTH, 1.9 + 1.1 * len(vols)))
        upper, lower = figure.subplots(2, 1)
        pnl = _placed(grid, "pnl", moves, vols)
        most = max(float(np.nanmax(np.abs(pnl))), _NOISE * float(-np.nanmin(grid["losses"].to_numpy())), 1e-9)
        _mesh(upper, pnl, _GAIN_LOSS, TwoSlopeNorm(0.0, -most, most))
        _cells(upper, moves, vols, [["" if np.isnan(value) else short_amount(value) for value in row] for row in pnl])
        upper.set_title(f"P&L of all accounts, {money}")
        owed, bankrupt = _placed(grid, "uncovered", moves, vols), _placed(grid, "bankrupt", moves, vols)
        _mesh(lower, owed, _UNCOVERED, Normalize(0.0, max(float(np.nanmax(owed)), 1e-9)))
        words = [[_owed_words(owed[i, j], bankrupt[i, j]) for j in range(shape[1])] for i in range(shape[0])]
        _cells(lower, moves, vols, words)
        lower.set_title(f"Uncovered, {money}; below it the accounts whose equity is negative")
        lower.set_xlabel("move of spot")
        svg, png = _files(figure)
    worst = grid.sort("uncovered", "losses", descending=[True, False]).row(0, named=True)
    at = worst["move"].replace("\n", " ")
    text = "Nothing is uncovered in any of these scenarios."
    if worst["uncovered"]:
        most_owed = f"{short_amount(worst['uncovered'])} {money} in {worst['bankrupt']:,} accounts"
        text = f"Most is uncovered at spot {at}, {worst['vol']}: {most_owed}."
    caption = "Scenarios of the model, before its weights and offsets; an empty place is no scenario of the model."
    return Drawing(name, title, caption, text, grid, svg, png)


def _mesh(axis: Axes, block: np.ndarray, colours: LinearSegmentedColormap, norm: Normalize) -> None:
    """Coloured cells, the first row on top; drawn as areas, so that they stay sharp at any size."""
    rows, columns = (np.arange(length + 1) - 0.5 for length in block.shape)
    axis.pcolormesh(columns, rows, block, cmap=colours, norm=norm, edgecolors="white", linewidth=1.0)
    axis.invert_yaxis()


def _placed(grid: pl.DataFrame, column: str, moves: Sequence[str], vols: Sequence[str]) -> np.ndarray:
    """Values by vol and move, NaN where there is no scenario."""
    block = np.full((len(vols), len(moves)), np.nan)
    for move, vol, value in grid.select("move", "vol", column).iter_rows():
        block[vols.index(vol), moves.index(move)] = value
    return block


def _owed_words(owed: float, bankrupt: float) -> str:
    return "" if np.isnan(owed) else f"{short_amount(owed)}\n{bankrupt:,.0f}"


def _cells(axis: Axes, moves: Sequence[str], vols: Sequence[str], words: Sequence[Sequence[str]]) -> None:
    """Labels of rows and columns, and a text in every cell."""
    is_wide = len(moves) > _FEW_COLUMNS
    axis.set_xticks(range(len(moves)), labels=[move.replace("\n", " ") if is_wide else move for move in moves])
    axis.tick_params("x", rotation=90 if is_wide else 0, labelsize=7.5)
    axis.set_yticks(range(len(vols)), labels=list(vols))
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    if len(moves) > _MOST_COLUMNS:
        return
    size = min(8.0, max(5.5, 75.0 / len(moves)))
    for row, line in enumerate(words):
        for column, word in enumerate(line):
            axis.text(column, row, word, ha="center", va="center", fontsize=size, color=_INK)


_MEASURED = {
    "account": "accounts, share of maintenance margin",
    "owner": "owners, share of maintenance margin",
    "instrument": "instruments, share of notional",
}


def _account_labels(rows: pl.DataFrame) -> list[str]:
    """Ids, with the pool where it is not the shared one."""
    pairs = rows.select("id", "pool").iter_rows()
    return [short_label(name if pool in ("", _SHARED) else f"{name} ({pool})") for name, pool in pairs]


def concentration_figure(rows: pl.DataFrame, herfindahl: Mapping[str, float], money: str, name: str) -> Drawing:
    """Bars of the ten largest accounts, owners and instruments."""
    kinds = [kind for kind in _MEASURED if kind in set(rows["kind"])]
    with _styled():
        figure = Figure(figsize=(_WIDTH, 2.3 * len(kinds)))
        axes = figure.subplots(len(kinds), 1, squeeze=False)[:, 0]
        for axis, kind in zip(axes, kinds, strict=True):
            own = rows.filter(pl.col("kind") == kind).head(10)
            axis.barh(range(own.height), own["share"].to_numpy(), color="#c9d8e8", edgecolor=_BLUE, linewidth=0.6)
            axis.set_yticks(range(own.height), labels=_account_labels(own), fontsize=7.5)
            axis.invert_yaxis()
            axis.margins(x=0.25)
            for place, (share, amount) in enumerate(own.select("share", "amount").iter_rows()):
                axis.text(share, place, f" {share:.2%}, {short_amount(amount)}", va="center", fontsize=7.5)
            axis.set_xticks([])  # every bar says its share
            axis.spines["bottom"].set_visible(False)
            axis.set_title(f"Largest {_MEASURED[kind]}; Herfindahl index {herfindahl[kind]:.2g}")
        svg, png = _files(figure)
    firsts = {kind: rows.filter(pl.col("kind") == kind).row(0, named=True) for kind in kinds}
    words = [f"largest {kind} {short_label(row['id'])} with {row['share']:.2%}" for kind, row in firsts.items()]
    text = f"L{'; '.join(words)[1:]}."
    caption = f"Amounts in {money}. The Herfindahl index, the sum of squared shares, is over all of a kind."
    return Drawing(name, f"Concentration, {money}", caption, text, rows, svg, png)


def ladder_figure(ladder: pl.DataFrame, money: str, name: str, title: str) -> Drawing:
    """What turns liquidatable as spot moves."""
    move = ladder["spot_move"].to_numpy()
    with _styled():
        figure = Figure(figsize=(_WIDTH, 4.0))
        axes = figure.subplots(2, 1, sharex=True)
        for axis, what, label in zip(axes, ("notional", "accounts"), (f"notional, {money}", "accounts"), strict=True):
            calm = ladder[f"{what}_vol_as_it_is"].to_numpy().astype(float)
            axis.plot(move, ladder[f"{what}_worst_vol"], color=_RED, marker="o", markersize=3.5, label="worst vol")
            axis.plot(move, calm, color=_BLUE, linestyle="--", marker="s", markersize=3.5, label="vol as it is")
            axis.axvline(0.0, color=_GREY, linewidth=0.8)
            axis.set_ylabel(label)
            axis.set_ylim(0, max(1.0, 1.08 * float(ladder[f"{what}_worst_vol"].max() or 0)))  # type: ignore[arg-type]
            axis.grid(visible=True)
        axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
        axes[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes[1].yaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes[0].legend(loc="best", frameon=True, facecolor="white", edgecolor="none", framealpha=1.0)
        axes[1].set_xlabel("move of spot")
        axes[1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.3g}%" if value else "0%"))
        svg, png = _files(figure)
    last = ladder.sort("notional_worst_vol", descending=True).row(0, named=True)
    text = "No account turns liquidatable in any scenario."
    if last["accounts_worst_vol"]:
        turned = f"{last['accounts_worst_vol']:,} accounts with {short_amount(last['notional_worst_vol'])} {money}"
        text = f"At spot {last['spot_move']:+.1%} and the worst vol {turned} of positions turn liquidatable."
    caption = (
        "Accounts that lose more than their maintenance excess, the requirement itself unmoved; notional of their "
        "positions, long and short added. Points are scenarios of the model, at the middle where underlyings move by "
        "different shares."
    )
    return Drawing(name, title, caption, text, ladder, svg, png)
