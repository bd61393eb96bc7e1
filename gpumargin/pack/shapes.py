"""Shapes of parts that come one book after the other: as few as possible, since each is a program to compile."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gpumargin.pack.buckets import ROW_STEP, Plan, Shape

_MOST_PADDING = 1.5  # a part may take so many times its own slots before it gets a shape of its own
_MOST_JOINED = 1.2  # and so many in a shape that is made for it and one before
_FEW_SLOTS = 1 << 18  # that many take no time worth a compilation


@dataclass
class KnownShapes:
    """Shapes that books so far were computed in."""

    _known: list[Shape] = field(default_factory=list)

    def plan(self, plan: Plan) -> Plan:
        """The plan in a shape that is known already, if one holds its parts without much padding; else in a new one."""
        own = _slots(plan.shape)
        for shape in self._known:
            if _holds(shape, plan.shape) and _slots(shape) <= max(_FEW_SLOTS, _MOST_PADDING * own):
                return replace(plan, shape=shape)
        self._known.append(self._new(plan.shape, max(_FEW_SLOTS, _MOST_JOINED * own)))
        return replace(plan, shape=self._known[-1])

    def _new(self, wanted: Shape, most: float) -> Shape:
        if not self._known:
            return wanted
        joined = _joined(self._known[-1], wanted)
        return joined if _slots(joined) <= most else _joined(wanted, wanted)


def _levels(shape: Shape) -> list[dict[int, int]]:
    """Rows by width of every level of a shape."""
    return [dict(level) for level in (shape.legs, shape.cash_legs, shape.unit_slots, shape.balances)]


def _slots(shape: Shape) -> int:
    """Slots of all levels that a part of a shape has, padding included."""
    return sum(width * rows for level in _levels(shape) for width, rows in level.items())


def _holds(shape: Shape, wanted: Shape) -> bool:
    """Whether what fits into one shape fits into the other too: no fewer rows of any width or wider."""
    pairs = zip(_levels(shape), _levels(wanted), strict=True)
    has_rows = all(_rows_from(want, width) <= _rows_from(have, width) for have, want in pairs for width in want)
    return has_rows and shape.unit_rows >= wanted.unit_rows and shape.accounts >= wanted.accounts


def _rows_from(level: dict[int, int], width: int) -> int:
    """Rows of at least a width."""
    return sum(rows for own, rows in level.items() if own >= width)


def _joined(a: Shape, b: Shape) -> Shape:
    """A shape that holds both, with room to spare: parts of a book that come one by one differ a little."""

    def level(one: dict[int, int], other: dict[int, int]) -> tuple[tuple[int, int], ...]:
        return tuple((w, _spare(max(one.get(w, 0), other.get(w, 0)))) for w in sorted({*one, *other}))

    legs, cash_legs, unit_slots, balances = map(level, _levels(a), _levels(b))
    unit_rows, accounts = _spare(max(a.unit_rows, b.unit_rows)), _spare(max(a.accounts, b.accounts))
    return Shape(legs, cash_legs, unit_slots, balances, unit_rows, accounts)


def _spare(rows: int) -> int:
    """A sixteenth more, in whole steps."""
    return -(-rows * 17 // (16 * ROW_STEP)) * ROW_STEP
