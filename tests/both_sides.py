"""Which operand of every `max` and `min` of a model binds somewhere, seen while accounts are explained."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from gpumargin.explain import figures
from gpumargin.expressions import parse_expression
from gpumargin.modelfile import account_expressions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pytest

    from gpumargin.explain.figures import Figure, Table
    from gpumargin.modelfile import ModelFile

    Seen = dict[Any, set[int]]

_BEST = {"max": max, "min": min}


def choices(expression: Any) -> Iterator[tuple[Any, ...]]:
    """Every `max` and `min` in an expression."""
    if isinstance(expression, tuple):
        if expression[0] in _BEST:
            yield expression
        for operand in expression[1:]:
            yield from choices(operand)


def expressions_of(file: ModelFile) -> Iterator[Any]:
    """Every expression of a model's charges, on legs and on balances, and of its requirements."""
    for charge in file.charges.values():
        yield from (expression for _, expression in charge.sums.values())
        yield from (*charge.each.values(), charge.amount)
    known = {*file.components, *file.parameters, *file.margin}
    yield from (parse_expression(text, known) for text in file.margin.values())
    found = account_expressions(file)
    yield from found.margins.values()
    for of_balances in found.charges.values():
        yield from (*of_balances.each.values(), of_balances.amount)


def watch(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Makes explanations note, by `max` or `min`, the operands that were better than all others."""
    seen: Seen = {}

    def evaluate(expression: Any, values: Mapping[str, Figure], tables: Mapping[str, Table] | None = None) -> Figure:
        if isinstance(expression, tuple) and expression[0] in _BEST:
            found = [evaluate(operand, values, tables) for operand in expression[1:]]
            amounts = [figure.amount for figure in found]
            best = _BEST[expression[0]](amounts)
            if amounts.count(best) == 1:
                seen.setdefault(expression, set()).add(amounts.index(best))
            return figures._OPERATORS[expression[0]](*found)
        return plain(expression, values, tables)

    plain = figures.evaluate
    for name in [n for n in sys.modules if n.startswith("gpumargin.explain")]:
        if getattr(sys.modules[name], "evaluate", None) is plain:
            monkeypatch.setattr(sys.modules[name], "evaluate", evaluate)
    return seen


def one_sided(file: ModelFile, seen: Seen) -> list[str]:
    """Operands of the model's `max` and `min` that bound nowhere, as `max(a, b): b`."""
    wanted = dict.fromkeys(choice for expression in expressions_of(file) for choice in choices(expression))
    return [
        f"{shown(choice)}: {shown(operand)}"
        for choice in wanted
        for place, operand in enumerate(choice[1:])
        if place not in seen.get(choice, set())
    ]


def shown(expression: Any) -> str:
    """An expression as text."""
    if not isinstance(expression, tuple):
        return f"{expression:g}" if isinstance(expression, float) else str(expression)
    name, *operands = expression
    texts = [shown(operand) for operand in operands]
    return f"({texts[0]} {name} {texts[1]})" if name in {"+", "-", "*", "/"} else f"{name}({', '.join(texts)})"
