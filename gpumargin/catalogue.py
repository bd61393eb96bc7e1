"""The margin models that can be named: built-in files, a user's own, and either with changed numbers."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gpumargin.errors import UsageError
from gpumargin.model_problems import problems, unknown_columns, unknown_paths
from gpumargin.modelfile import ModelFile


@dataclass(frozen=True)
class MarginModel:
    """A validated model file, ready to be bound to a book.

    Attributes:
      file: the validated contents.
      raw: the same as plain TOML values, overrides included.
      overrides: dotted keys that were changed, with their values.
    """

    file: ModelFile
    raw: Mapping[str, Any]
    overrides: Mapping[str, object]

    @property
    def label(self) -> str:
        """Name and date, as they select the model: `derive-pm1@2025-02-01`."""
        return f"{self.file.name}@{self.file.effective.isoformat()}"

    def replace(self, changes: Mapping[str, object] | None = None, **tables: object) -> MarginModel:
        """The same model with other values, for what-ifs.

        Args:
          changes: dotted key -> value, for example `{"parameters.im_factor": 1.3}`; a key that names a whole table
            replaces it.
          **tables: the same for keys without dots.

        Raises:
          UsageError: the changed file does not validate; the message names the key.
        """
        raw = deepcopy(dict(self.raw))
        wanted = {**(changes or {}), **tables}
        for key, value in wanted.items():
            _set(raw, key, value)
        return _validated(raw, self.label, {**self.overrides, **wanted})


def _set(raw: dict[str, Any], key: str, value: object) -> None:
    *path, last = key.split(".")
    table = raw
    for part in path:
        inner = table.setdefault(part, {})
        if isinstance(inner, (int, float)):  # a bare number becomes the default of a table by name
            inner = table[part] = {"default": inner}
        if not isinstance(inner, dict):
            message = f"{key!r}: {part!r} is not a table"
            raise UsageError(message)
        table = inner
    table[last] = value


def _validated(raw: dict[str, Any], where: str, overrides: Mapping[str, object]) -> MarginModel:
    try:
        file = ModelFile.model_validate(raw)
    except ValidationError as error:
        raise _refusal(where, problems(error.errors(), raw, ModelFile.model_json_schema())) from None
    lost = [] if overrides else [*unknown_paths(file.provenance, raw), *unknown_columns(file.requires)]
    if lost:
        raise _refusal(where, lost)
    return MarginModel(file, raw, dict(overrides))


def _refusal(where: str, found: list[str]) -> UsageError:
    listed = "\n".join(f"  {problem}" for problem in found)
    message = f"{where} is not a valid model file:\n{listed}\nsee `gpumargin models --schema` for what is allowed"
    return UsageError(message)


def _builtin() -> dict[str, dict[date, str]]:
    """Name -> effective date -> file text of every model in the package."""
    found: dict[str, dict[date, str]] = {}
    for entry in sorted(resources.files("gpumargin").joinpath("models").iterdir(), key=lambda e: e.name):
        name, _, day = entry.name.removesuffix(".toml").partition("@")
        if entry.name.endswith(".toml"):
            found.setdefault(name, {})[date.fromisoformat(day)] = entry.name
    return found


def model_dates() -> dict[str, list[date]]:
    """Names of the built-in models with the dates of their parameter sets, oldest first."""
    return {name: sorted(days) for name, days in _builtin().items()}


def _read(text: str, where: str) -> MarginModel:
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{where} is not TOML: {error}"
        raise UsageError(message) from None
    return _validated(raw, where, {})


def load_model(name: str | Path) -> MarginModel:
    """Loads a model by name, by name and date, or from a file of the user's own.

    Args:
      name: `"derive-pm1"` (its newest parameters), `"derive-pm1@2025-02-01"`, or a path ending in `.toml`.

    Returns:
      The validated model.

    Raises:
      UsageError: no such model, date or file, or the file does not validate; the message lists what there is.
    """
    if str(name).endswith(".toml"):
        return _read_file(Path(name))
    stem, _, day = str(name).partition("@")
    known = _builtin()
    if stem not in known:
        message = f"unknown model {stem!r}; built-in models: {', '.join(sorted(known))}, or give a path to a .toml file"
        raise UsageError(message)
    days = known[stem]
    chosen = {d.isoformat(): d for d in days}.get(day) if day else max(days)
    if chosen is None:
        message = f"model {stem!r} has no parameters dated {day!r}; dates: {', '.join(map(str, sorted(days)))}"
        raise UsageError(message)
    file_name = days[chosen]
    return _read(resources.files("gpumargin").joinpath("models", file_name).read_text("utf-8"), file_name)


def _read_file(path: Path) -> MarginModel:
    try:
        return _read(path.read_text("utf-8"), str(path))
    except OSError as error:
        message = f"cannot read model file {str(path)!r}: {error.strerror}"
        raise UsageError(message) from None
    except UnicodeDecodeError as error:
        message = f"model file {str(path)!r} is not UTF-8 text: {error.reason} at byte {error.start}"
        raise UsageError(message) from None
