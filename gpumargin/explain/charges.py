"""What a charge requires of one risk unit, group by group: sums over legs, and expressions of them, in plain numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from gpumargin.explain.figures import Figure, Table, evaluate, exact, total
from gpumargin.explain.market import Floats
from gpumargin.explain.unit import Charge, UnitSide, with_total
from gpumargin.expressions import names_in
from gpumargin.modelfile import DEFAULT, ChargeTable, ParsedCharge
from gpumargin.modelfile.names import FEED_NAMES, MARK_COLUMNS, MARK_NAMES, QUOTE_NAMES, TERM_NAMES

_DAYS_PER_YEAR = 365
_LABELS = {"unit": "instrument_id", "position": "instrument_id", "strike": "strike", "expiry": "expiry"}
WORDS: Mapping[str, Callable[[Floats], Floats]] = {
    "net": lambda quantity: quantity,
    "gross": np.abs,
    "long": lambda quantity: np.maximum(quantity, 0.0),
    "short": lambda quantity: np.maximum(-quantity, 0.0),
}


def _out_of_the_money(side: UnitSide, reference: Floats | float) -> Floats:
    strike = side.column("strike") * side.column("quote_ratio")
    out: Floats = np.maximum(np.where(side.is_call, strike - reference, reference - strike), 0.0)
    return out


def _forward(side: UnitSide) -> Floats:
    level = np.where(side.is_kind("option"), side.column("forward"), side.column("mark"))
    return level * side.column("quote_ratio")


def _price(side: UnitSide) -> Floats:
    per_unit = side.column("contract_value") / side.column("contract_size")
    return np.where(side.is_kind("option"), per_unit, side.column("mark") * side.column("quote_ratio"))


def _in_underlying(side: UnitSide, greek: str) -> Floats:
    """A slope of value to the forward in units of the underlying; coin-settled options count as their futures do."""
    slope, is_inverse = side.column(greek), side.legs["inverse"].fill_null(value=False).to_numpy()
    return np.where(
        is_inverse, slope * side.column("forward") / side.column("ratio"), slope / side.column("quote_ratio")
    )


def _delta(side: UnitSide) -> Floats:
    return np.where(side.is_kind("option"), _in_underlying(side, "delta"), side.unit_size)


def _venue_delta(side: UnitSide) -> Floats:
    given = side.column(MARK_COLUMNS["venue_delta"] + "_of_mark")
    size = np.where(side.is_kind("option"), side.column("contract_size"), side.unit_size)
    return np.where(np.isnan(given), _delta(side), given * size)


def _column(column: str, side: UnitSide) -> Floats:
    return side.column(column)


# One long contract, `[N]` each: the names of modelfile.names.
CONTRACT_VALUES: Mapping[str, Callable[[UnitSide], Floats]] = {
    "size": lambda side: side.unit_size,
    "price": _price,
    "value": lambda side: np.where(side.is_kind("option"), side.column("contract_value"), 0.0),
    "forward": _forward,
    "quote": lambda side: side.column("quote_ratio"),
    "strike": lambda side: side.column("strike") * side.column("quote_ratio"),
    "otm": lambda side: _out_of_the_money(side, side.spot),
    "otm_forward": lambda side: _out_of_the_money(side, _forward(side)),
    "years": lambda side: side.column("years"),
    "days": lambda side: side.column("years") * _DAYS_PER_YEAR,
    "rate": lambda side: side.column("rate"),
    "confidence": lambda side: side.column("confidence"),
    "delta": _delta,
    "venue_delta": _venue_delta,
    "composite_delta": lambda side: side.column("composite_delta"),
    "gamma": lambda side: _in_underlying(side, "gamma") / side.column("quote_ratio"),
    "vega": lambda side: side.column("vega"),
    "theta": lambda side: side.column("theta"),
    "rho": lambda side: side.column("rho"),
    "is_option": lambda side: side.is_kind("option").astype(float),
    "is_call": lambda side: side.is_call.astype(float),
    "is_perpetual": lambda side: side.is_kind("perpetual").astype(float),
    "is_base": lambda side: side.is_kind("base").astype(float),
    **{name: partial(_column, f"{name}_of_mark") for name in MARK_NAMES},
    **{name: partial(_column, name) for name in (*FEED_NAMES, *TERM_NAMES, *QUOTE_NAMES)},
}


def _lowest_payoff(side: UnitSide, group: np.ndarray) -> Figure:
    """Least that the options of a group pay together at expiry, found at 0 or at one of their strikes; at most 0."""
    options = group[side.is_kind("option")[group]]
    strike = (side.column("strike") * side.column("quote_ratio"))[options]
    size = np.where(side.is_digital, np.nan, side.column("quantity") * side.column("contract_size"))[options]
    prices = np.array([0.0, *strike])[:, None]
    intrinsic = np.maximum(np.where(side.is_call[options], prices - strike, strike - prices), 0.0)
    payoffs = (size * intrinsic).sum(axis=1)
    return Figure(float(min(np.min(payoffs), 0.0)), float((np.abs(size) * strike).sum()) * 2)


# What the legs of a group say together, in place of a sum over them.
_TOGETHER: Mapping[str, Callable[[UnitSide, np.ndarray], Figure]] = {"lowest_payoff": _lowest_payoff}


class _Legs:
    """The legs that a charge looks at, and what may be named of them."""

    def __init__(self, component: ChargeTable, side: UnitSide) -> None:
        kinds = {k: side.is_kind(k) for k in ("option", "future", "perpetual", "base")}
        kinds |= {"call": kinds["option"] & side.is_call, "put": kinds["option"] & ~side.is_call}
        self.side, self.component = side, component
        self.chosen = np.any([kinds[kind] for kind in component.legs], axis=0)
        numbers = {**side.parameters, **component.numbers}
        self.row = side.unit_values() | {name: exact(side.number(values)) for name, values in numbers.items()}
        self.tables: dict[str, Table] = {
            name: by_unit.get(side.unit, by_unit[DEFAULT])
            for name, by_unit in {**side.tables, **component.tables}.items()
        }

    def of_leg(self, leg: int, names: Mapping[str, Any] | list[str]) -> dict[str, Figure]:
        """Values of one leg's contract, of its unit and of the component."""
        known = {n: exact(float(CONTRACT_VALUES[n](self.side)[leg])) for n in names if n in CONTRACT_VALUES}
        return known | self.row

    def groups(self) -> dict[str, np.ndarray]:
        """Legs that are looked at, by group of the component's level; leg by leg where a unit is the only group."""
        every = np.arange(len(self.chosen))
        ways: dict[str, Callable[[], dict[str, np.ndarray]]] = {
            "unit": lambda: dict(zip(self.side.legs["instrument_id"].to_list(), every[:, None], strict=True)),
            "expiry": self.side.expiries,
            "strike": self.side.strikes,
        }
        ways["position"] = ways["unit"]
        legs = ways[self.component.level]()
        looked_at = {label: group[self.chosen[group]] for label, group in legs.items()}
        return {label: group for label, group in looked_at.items() if len(group)}

    def sums(self, parsed: ParsedCharge, group: np.ndarray) -> dict[str, Figure]:
        """Every sum over the legs of a group."""
        return {
            name: _TOGETHER[word](self.side, group)
            if word in _TOGETHER
            else total([self._term(int(leg), word, expression) for leg in group])
            for name, (word, expression) in parsed.sums.items()
        }

    def _term(self, leg: int, word: str, expression: Any) -> Figure:
        quantity = float(self.side.column("quantity")[leg])
        weight = WORDS[word](np.array([quantity]))[0] if word in WORDS else self.side.column(word)[leg]
        column = evaluate(expression, self.of_leg(leg, sorted(names_in(expression))), self.tables)
        return Figure(float(weight) * column.amount, abs(float(weight)) * column.gross)


def _group_lines(legs: _Legs, parsed: ParsedCharge) -> list[dict[str, Any]]:
    """Sums and expressions of every group; figures under their names."""
    lines = []
    for label, group in legs.groups().items():
        sums = legs.sums(parsed, group)
        values = legs.of_leg(int(group[-1]), parsed.terms) | sums
        each: dict[str, Figure] = {}
        for name, expression in parsed.each.items():
            each[name] = evaluate(expression, values | each, legs.tables)
        of_group: dict[str, Any] = {_LABELS[legs.component.level]: label}
        lines.append(of_group | {n: values[n] for n in parsed.terms if n in values} | sums | each)
    return lines


def charge(component: ChargeTable, side: UnitSide) -> Charge:
    """Sums over groups of legs, each group's expressions, and the amount they make."""
    earlier = {name: earlier.figure for name, earlier in side.charges.items()}
    parsed, legs = component.parsed(side.shared, earlier), _Legs(component, side)
    lines = _group_lines(legs, parsed)
    named = list(parsed.each or parsed.sums)
    totals = {name: total([line[name] for line in lines]) for name in named}
    is_idle = component.level == "unit" and not lines
    figure = exact(0.0) if is_idle else evaluate(parsed.amount, earlier | legs.row | totals, legs.tables)
    shown = [{k: v.amount if isinstance(v, Figure) else v for k, v in line.items()} for line in lines]
    used = {name: value.amount for name, value in legs.row.items() if name in parsed.names()}
    summary = pl.DataFrame([{**used, "amount_of": component.amount_text, "charge": figure.amount}])
    return Charge(figure, {"": with_total(shown, *named), "amount": summary})
