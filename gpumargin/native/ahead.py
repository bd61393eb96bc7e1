"""Traced functions cut in two: what is known before any row is looked at, and what is left to be done for every row.

A group closes with numbers of its contract, and rows are finished with numbers of their unit. What follows from these
alone is computed once per contract or unit, ahead, and looked up. Only operations that round alike on every path are
moved, so bits stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from jax.extend import core

from gpumargin.native.lowering import UnsupportedError, is_alike, is_one_row, is_same_columns, width_of
from gpumargin.native.traced import Traced, needed


class When(IntEnum):
    """When an input is known: in any case, of every contract or unit ahead of the rows, or of a row alone."""

    ALWAYS = 0
    AHEAD = 1
    LATE = 2


@dataclass(frozen=True)
class Cut:
    """Two functions that, one after the other, are the one that was cut.

    Attributes:
      ahead: of all inputs but the late ones; gives floating columns.
      rest: of these columns, then of all inputs but those known ahead.
    """

    ahead: Traced
    rest: Traced

    @property
    def widths(self) -> list[int]:
        """Number of columns of each result of `ahead`."""
        return [width_of(variable.aval.shape) for variable in self.ahead.jaxpr.outvars]

    def function(self) -> Callable[..., list[Any]]:
        """`ahead`, to be called."""
        return core.jaxpr_as_fun(self.ahead)  # type: ignore[no-any-return]


def cut(closed: Traced, when: Sequence[When]) -> Cut:
    """A traced function of one row cut in two; `when` says of each input when it is known.

    Raises:
      UnsupportedError: of what is known ahead, rows need more than floating columns.
    """
    inputs, equations = closed.jaxpr.invars, needed(closed.jaxpr)
    known = _known(equations, dict(zip(inputs, when, strict=True)))
    maker = {out: equation for equation in equations for out in equation.outvars}
    columns: dict[Any, None] = {}
    again: set[Any] = set()

    def read(atom: Any) -> None:
        """Notes where rows take something from: a column, or what they make again from columns."""
        if isinstance(atom, core.Literal) or known.get(atom, When.ALWAYS) != When.AHEAD or atom in columns:
            return
        made = maker.get(atom)
        if made is not None and (is_same_columns(made) or not _is_column(atom.aval)):
            again.update(made.outvars)
            for operand in made.invars:
                read(operand)
        elif _is_column(atom.aval):
            columns[atom] = None
        else:
            message = "rows that look up other than floating columns"
            raise UnsupportedError(message)

    for atom in (*closed.jaxpr.outvars, *_operands(equations, known)):
        read(atom)
    early = [e for e in equations if known[e.outvars[0]] != When.LATE]
    late = [e for e in equations if known[e.outvars[0]] != When.AHEAD or again.intersection(e.outvars)]
    return Cut(
        _function(closed, [v for v in inputs if known[v] != When.LATE], early, list(columns)),
        _function(closed, [*columns, *(v for v in inputs if known[v] != When.AHEAD)], late, closed.jaxpr.outvars),
    )


def _known(equations: Sequence[Any], inputs: dict[Any, When]) -> dict[Any, When]:
    """When every variable is known; what rounds in a way of its own counts as late."""
    known = dict(inputs)
    for equation in equations:
        read = [known.get(atom, When.ALWAYS) for atom in equation.invars if not isinstance(atom, core.Literal)]
        when = max(read, default=When.ALWAYS)
        if when == When.AHEAD and not is_alike(equation):
            when = When.LATE
        known.update(dict.fromkeys(equation.outvars, when))
    return known


def _operands(equations: Sequence[Any], known: dict[Any, When]) -> Iterator[Any]:
    """What equations read that have to wait for their row."""
    for equation in equations:
        if known[equation.outvars[0]] == When.LATE:
            yield from equation.invars


def _is_column(aval: Any) -> bool:
    return is_one_row(aval.shape) and bool(np.issubdtype(aval.dtype, np.floating))


def _function(closed: Traced, inputs: list[Any], equations: list[Any], outputs: list[Any]) -> Traced:
    return closed.replace(jaxpr=closed.jaxpr.replace(invars=inputs, eqns=equations, outvars=outputs))
