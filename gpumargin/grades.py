"""How far each number of a model can be trusted: its grade, and those that are estimates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpumargin.catalogue import MarginModel
from gpumargin.modelfile import Provenance

ESTIMATED = "estimated"
_UNGRADED = {"name", "provenance", "margin", "title", "source", "effective", "accounting_asset", "kinds", "requires"}


def graded(model: MarginModel) -> Iterator[tuple[str, Any, str]]:
    """Dotted path, value and grade of everything a model file sets; choices that are no numbers have no grade.

    A list of numbers, such as a row of a correlation matrix, is one value.
    """
    for path, value in _leaves({key: item for key, item in model.raw.items() if key not in _UNGRADED}, ""):
        yield path, value, grade(model.file.provenance, path) if _is_numeric(value) else ""


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        value = {str(index): item for index, item in enumerate(value)}
    if not isinstance(value, dict):
        yield path, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{path}.{key}".lstrip("."))


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_numeric, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def grade(provenance: Provenance, path: str) -> str:
    """Grade of the longest path in the provenance that covers this one, else the file's default."""
    parts = path.split(".")
    listed = {covered: name for name, paths in provenance if isinstance(paths, list) for covered in paths}
    covering = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((listed[each] for each in covering if each in listed), provenance.default)


def estimated_numbers(model: MarginModel) -> list[str]:
    """Paths of the numbers that rest on an estimate, as few as cover no other; `all` if every number does."""
    listed = sorted(model.file.provenance.estimated)
    if model.file.provenance.default != ESTIMATED:
        return listed
    found = [(path.split("."), word == ESTIMATED) for path, _, word in graded(model) if word]
    if all(is_estimated for _, is_estimated in found):
        return ["all"]
    trusted = {".".join(keys[:n]) for keys, is_estimated in found if not is_estimated for n in range(len(keys) + 1)}
    prefixes = ([".".join(keys[:n]) for n in range(1, len(keys) + 1)] for keys, is_estimated in found if is_estimated)
    return list(dict.fromkeys(next(prefix for prefix in each if prefix not in trusted) for each in prefixes))
