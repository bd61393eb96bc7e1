"""The component that most requirements are made of: sums over groups of legs, and expressions of those sums.

leg      what one contract adds to each sum, an expression of the contract
group    `each`: expressions of the group's sums (a position, a strike, an expiry), added up over the groups
row      `amount`: an expression of those, of the unit's prices and of earlier components
"""

from dataclasses import dataclass
from typing import NamedTuple, cast

import jax.numpy as jnp
from jax import Array

from gpumargin_kernels.contract_values import ContractSide, ContractValues, leg_masks
from gpumargin_kernels.expression import Expression, evaluate
from gpumargin_kernels.model import Component
from gpumargin_kernels.records import Level, Tally

HELD = "count"  # of the legs that the component looks at


class Summed(NamedTuple):
    """One sum over the legs of a group."""

    name: str
    word: str  # what of a leg multiplies it, see `Tally`
    of_contract: Expression


class ChargeChoices(NamedTuple):
    """The static side of a charge, as a model file writes it."""

    legs: tuple[str, ...]  # keys of `leg_masks`
    level: Level
    sums: tuple[Summed, ...]
    terms: tuple[str, ...]  # what `each` names of the contract and the component; none at unit level
    each: tuple[tuple[str, Expression], ...]  # empty at unit level; later ones may name earlier ones
    amount: Expression


@dataclass(frozen=True)
class _Each:
    """Closes a group: its sums and its contract's terms into the values of `each`; 0 where no leg is looked at."""

    order: tuple[tuple[str, str], ...]  # word and name of each sum, column by column
    terms: tuple[tuple[str, int], ...]  # name and number of brackets of each term, 0 = a number
    each: tuple[tuple[str, Expression], ...]

    def __call__(self, sums: dict[str, Array], terms: Array, one: Array) -> Array:
        values = {name: sums[word][:, i] for word, name, i in _columns(self.order)}
        start = 0
        for name, brackets in self.terms:
            width = max(2 * brackets, 1)
            block = terms[:, start : start + width]
            values[name] = block.reshape(-1, brackets, 2) if brackets else block[:, 0]
            start += width
        held = values[HELD]
        for name, expression in self.each:
            values[name] = jnp.broadcast_to(evaluate(expression, values, one), held.shape)
        return jnp.stack([jnp.where(held > 0, values[name], 0) for name, _ in self.each], axis=1)


def _columns(order: tuple[tuple[str, str], ...]) -> list[tuple[str, str, int]]:
    """Word, name and column within its word of every sum."""
    seen: dict[str, int] = {}
    found = []
    for word, name in order:
        found.append((word, name, seen.get(word, 0)))
        seen[word] = seen.get(word, 0) + 1
    return found


def _sums(choices: ChargeChoices) -> tuple[Summed, ...]:
    """The sums of a charge and the count of legs that it looks at."""
    return (*choices.sums, Summed(HELD, "count", 1.0))


def _column_blocks(choices: ChargeChoices, side: ContractSide) -> dict[str, Array]:
    """What one contract adds to every sum, `[M, K]` by word; nothing if the component does not look at it."""
    masks = leg_masks(side.contracts)
    chosen = jnp.any(jnp.stack([masks[kind] for kind in choices.legs]), axis=0)
    values = ContractValues(side)
    blocks: dict[str, list[Array]] = {}
    for s in _sums(choices):
        column = jnp.broadcast_to(jnp.asarray(evaluate(s.of_contract, values), side.contracts.size.dtype), chosen.shape)
        blocks.setdefault(s.word, []).append(jnp.where(chosen, column, 0))
    return {word: jnp.stack(columns, axis=1) for word, columns in blocks.items()}


def _terms(choices: ChargeChoices, side: ContractSide) -> tuple[Array, tuple[tuple[str, int], ...]]:
    """What `each` needs of a group's contract, `[M, T]`, and the name and number of brackets of every term."""
    values = ContractValues(side)
    found = {name: values[name] for name in choices.terms}
    blocks = [term.reshape(term.shape[0], -1) for term in found.values()]
    nothing = jnp.zeros((*side.contracts.size.shape, 0), side.contracts.size.dtype)
    brackets = tuple((name, term.shape[1] if term.ndim > 1 else 0) for name, term in found.items())
    return jnp.concatenate([nothing, *blocks], axis=1), brackets


def charge_tallies(component: Component, side: ContractSide) -> tuple[Tally, ...]:
    """What a charge adds up over the legs of a row."""
    choices = cast("ChargeChoices", component.choice("charge"))
    columns = _column_blocks(choices, side)
    terms, brackets = _terms(choices, side)
    if choices.level == "unit":
        return (Tally(columns=columns, terms=terms),)
    order = tuple((s.word, s.name) for s in _sums(choices))
    close = _Each(order, brackets, choices.each)
    return (Tally(columns=columns, terms=terms, level=choices.level, close=close),)


def charge_amount(component: Component, sums: Array, known: dict[str, Array], one: Array | float = 1.0) -> Array:
    """Amount of a charge for every unit row, `[R]`; 0 where no leg is looked at.

    Args:
      component: the charge.
      sums: `[R, J]` from `leg_sums`.
      known: `[R]` each, the component's numbers, the unit's values, earlier components.
      one: `[]` run-time one, see `evaluate`.
    """
    choices = cast("ChargeChoices", component.choice("charge"))
    if choices.level != "unit":
        values = {name: sums[:, i] for i, (name, _) in enumerate(choices.each)}
        return jnp.broadcast_to(evaluate(choices.amount, known | values, one), sums.shape[:1])
    ordered = sorted(_sums(choices), key=lambda s: s.word)
    values = {s.name: sums[:, i] for i, s in enumerate(ordered)}
    amount = jnp.where(values[HELD] > 0, evaluate(choices.amount, known | values, one), 0)
    return jnp.broadcast_to(amount, sums.shape[:1])
