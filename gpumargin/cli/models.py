"""The verb `models`: which models there are, and every number of one with how far it can be trusted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpumargin.cli.options import FormatOption
from gpumargin.cli.render import Format, clean, console, emit, emit_json
from gpumargin.errors import UsageError

if TYPE_CHECKING:
    from gpumargin.catalogue import MarginModel
    from gpumargin.modelfile import ModelFile

_HEAD = ("title", "source", "effective", "accounting_asset", "kinds", "requires")
_IN_LIST = re.compile(r"(?<=\.\d)\.|(?<=\.\d\d)\.|(?<=\.\d\d\d)\.")  # what stands behind a place in a list
_WIDTHS = (15, 13, 34)  # of name, dates and title; the source has what is left
_UNSEEN_WIDTH = 120  # of lines that go elsewhere than to a terminal


def models(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="NAME, NAME@DATE or a .toml file, to print in full.", show_default=False),
    ] = None,
    *,
    schema: Annotated[bool, typer.Option("--schema", help="The JSON schema of a model file.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """The built-in models with dates and sources, or one in full with the grade of every number."""
    if schema and name:
        message = "--schema describes every model file: leave the name out"
        raise UsageError(message)
    if schema:
        from gpumargin.modelfile import ModelFile

        emit_json(ModelFile.model_json_schema())
    elif name:
        _print_model(name, form)
    else:
        _print_catalogue(form)


def _print_catalogue(form: Format) -> None:
    import polars as pl

    from gpumargin.catalogue import load_model, model_dates

    dates = model_dates()
    if form is Format.TABLE:
        _print_lines({name: load_model(name).file for name in dates}, {name: len(days) for name, days in dates.items()})
        return
    files = [load_model(f"{name}@{day.isoformat()}").file for name, days in dates.items() for day in days]
    rows = [(file.name, file.effective.isoformat(), file.title, file.source) for file in files]
    emit(pl.DataFrame(rows, schema=["name", "date", "title", "source"], orient="row"), form)


def _print_lines(files: Mapping[str, ModelFile], counts: Mapping[str, int]) -> None:
    """A line for each model; what does not fit is cut: NAME and the other formats give it whole."""
    from rich.text import Text

    target = console()
    target.width = target.width if target.is_terminal else max(target.width, _UNSEEN_WIDTH)
    for name, cells in _lines(files, counts):
        text = "  ".join(_cut(cell, width).ljust(width) for cell, width in zip(cells, _WIDTHS, strict=False))
        left = target.width - len(text) - 2
        style = "" if name else "bold"
        target.print(Text(f"{text}  {_cut(cells[-1], max(left, 1))}".rstrip(), style=style, no_wrap=True))


def _lines(files: Mapping[str, ModelFile], counts: Mapping[str, int]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name and cells of each line; the heading has no name."""
    yield "", ("name", "newest +older", "title", "source")
    for name, file in files.items():
        older = f" +{counts[name] - 1}" if counts[name] > 1 else ""
        yield name, (name, f"{file.effective.isoformat()}{older}", clean(file.title), clean(file.source))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}\N{HORIZONTAL ELLIPSIS}"


def _print_model(name: str, form: Format) -> None:
    import polars as pl

    from gpumargin.catalogue import load_model
    from gpumargin.grades import graded

    model = load_model(name)
    numbers = [{"path": p, "value": v, "grade": g} for p, v, g in graded(model)]
    document = {"name": model.file.name, **{key: model.raw.get(key) for key in _HEAD}, "margin": model.file.margin}
    if form is Format.TABLE:
        _print_head(model)
    as_text = [{**row, "value": _text(row["value"])} for row in numbers]
    rows = _compact(as_text) if form is Format.TABLE else as_text
    emit(pl.DataFrame(rows), form, document={**document, "numbers": numbers}, keys=3)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _compact(numbers: list[dict[str, str]]) -> list[dict[str, str]]:
    """What a numbered row of a list sets, a scenario for example, as one line."""
    rows = []
    for head, group in groupby(numbers, key=lambda row: _IN_LIST.split(row["path"])[0]):
        members = list(group)
        words = (f"{row['path'].removeprefix(head).lstrip('.')} {row['value']}".strip() for row in members)
        grades = dict.fromkeys(row["grade"] for row in members if row["grade"])
        rows.append({"path": head, "value": ", ".join(words), "grade": ", ".join(grades)})
    return rows


def _print_head(model: MarginModel) -> None:
    from rich.table import Table

    from gpumargin.grades import graded

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("model", model.label)
    for key in _HEAD:
        value = model.raw.get(key)
        if value:
            grid.add_row(key.replace("_", " "), clean(", ".join(value) if isinstance(value, list) else value))
    for margin_type, formula in model.file.margin.items():
        grid.add_row(f"{clean(margin_type)} margin", clean(formula))
    counts = Counter(found for _, _, found in graded(model) if found)
    grid.add_row("numbers", ", ".join(f"{count} {found}" for found, count in counts.most_common()))
    console().print(grid)
    console().print()
