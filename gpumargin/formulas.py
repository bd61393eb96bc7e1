"""One formula of a model file at given values: a rate, a weight, a charge of one position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpumargin.catalogue import MarginModel
from gpumargin.errors import UsageError
from gpumargin.explain.figures import Figure, evaluate, exact
from gpumargin.expressions import parse_expression, parse_predicate
from gpumargin.modelfile import DEFAULT

_SUMS = ("net", "gross", "long", "short", "each")


def formula_value(model: MarginModel, path: str, values: Mapping[str, float], *, subject: str = DEFAULT) -> float:
    """Value of one expression of a model, the model's own numbers filled in.

    Args:
      model: from `load_model`.
      path: dotted path of the expression in the file, such as `components.initial_rates.each.required` or
        `margin.maintenance`; under `collateral` and `counted` also the model's formulas, `collateral.initial.worth`.
      values: what the expression names beside the model's numbers and its own part's expressions, by name; a value
        given here replaces a number or expression of that name.
      subject: underlying or asset whose numbers are used; default: those of unlisted ones.

    Returns:
      The value in float64, computed without JAX by the rules of `explain`; of a condition under `status` a positive
      number where it holds, else none above 0.

    Raises:
      UsageError: there is no expression at that path, or it names what is neither given nor known.
    """
    scope = _scope(model, path.split("."), values, subject)
    try:
        return scope.value(scope.texts[path.rpartition(".")[2]]).amount
    except (KeyError, ValueError) as error:
        message = f"{model.label} has no value at {path!r}: {error}; known: {sorted(scope)}"
        raise UsageError(message) from None


@dataclass(frozen=True)
class _Scope(Mapping[str, Figure]):
    """What an expression may name, computed where it is asked for."""

    given: Mapping[str, float]
    numbers: Mapping[str, Mapping[str, float]]
    texts: Mapping[str, str]
    tables: Mapping[str, Mapping[str, Any]]
    subject: str
    is_status: bool

    def __getitem__(self, name: str) -> Figure:
        if name in self.given:
            return exact(float(self.given[name]))
        if name in self.numbers:
            return exact(self.numbers[name].get(self.subject, self.numbers[name][DEFAULT]))
        return self.value(self.texts[name])

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self.given, *self.numbers, *self.texts)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def value(self, text: str) -> Figure:
        """Value of an expression in this scope."""
        tables = {name: by.get(self.subject, by[DEFAULT]) for name, by in self.tables.items()}
        is_condition = self.is_status
        parsed = parse_predicate(text, [*self]) if is_condition else parse_expression(text, [*self], [*tables])
        return evaluate(parsed, self, tables)


def _scope(model: MarginModel, path: list[str], values: Mapping[str, float], subject: str) -> _Scope:
    """Numbers, tables and sibling expressions of the place that a path leads to."""
    file = model.file.model_dump()
    part: Any = file
    for key in path[:-1]:
        part = part.get(key, {}) if isinstance(part, dict) else {}
    if path[0] == "status":
        part = {name: text for name, text in file["status"].items() if text is not None}
    owner = file["components"].get(path[1], {}) if path[0] == "components" and len(path) > 1 else part
    siblings = [owner.get(word, {}) for word in _SUMS] if path[0] == "components" else []
    shared = file["formulas"] if path[0] in {"collateral", "counted"} else {}
    texts = {n: text for table in (*siblings, shared, part) for n, text in table.items() if isinstance(text, str)}
    own = owner if isinstance(owner, dict) else {}
    numbers = {**file["parameters"], **file["settable"], **(own.get("numbers") or {})}
    tables = {**file["tables"], **(own.get("tables") or {})}
    return _Scope(values, numbers, texts, tables, subject, path[0] == "status")
