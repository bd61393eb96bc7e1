"""The leg loop as LLVM instructions: row by row, leg by leg, closing groups where they end.

It does what `gpumargin_kernels.tally.row_stage` does, and gives the same bits: the same products and sums in the same
order, never contracted (only of the least of many zeros XLA leaves the sign open; here -0 is below 0). It is faster
because a group is closed once, where it ends, because the sums of a row stay in registers, and because nothing but
results goes to memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from llvmlite import ir

from gpumargin.native.blocks import Block, block_type, lanes, padded, scalar, widened
from gpumargin.native.control import INT, LINE, LONG, POINTER, builder_of, counted, fetch, grouped
from gpumargin.native.instructions import bytes_of, within
from gpumargin.native.lowering import Target, element_type, lowered
from gpumargin.native.plan import LanePlan, Place, Plan

GROUPED_LEVELS = ("expiry", "strike")  # which have a column of group numbers
SHARED_ARGUMENTS = len(GROUPED_LEVELS) + 2  # arrays that all buckets share: groups, tables of contracts and of units
# Numbers between the columns of a result: columns a power of two apart would share their places in the cache.
COLUMN_GAP = 8
# Legs between asking for a row of the table and reading it: a third off plain sums, 5 to 15 % off a block (measured).
_AHEAD = 16
# Rows between asking for a line of a result and writing it: 6 to 19 % off the leg stage where every number is wanted,
# 18 streams to memory, more than the machine foresees (measured; 8 to 128 rows make no difference).
_ROWS_AHEAD = 32


def bucket_arguments(plan: Plan) -> int:
    """Arrays of one bucket: contract, quantity, unit and the inputs of legs."""
    return 3 + len(plan.inputs)


@dataclass(frozen=True)
class _Memory:
    """Pointers that the loop reads and writes, each `[rows, width]` or by contract."""

    contract: ir.Value
    quantity: ir.Value
    unit: ir.Value
    inputs: dict[str, ir.Value]
    groups: dict[str, ir.Value]
    table: ir.Value
    units: ir.Value
    results: list[ir.Value]  # of every output that has columns
    stride: ir.Value  # from one column of a result to the next
    last: ir.Value  # the bucket's last slot


@dataclass(frozen=True)
class _Lane:
    """A lane's plan and its registers: the sums of the open group by word, and the total of the row."""

    plan: LanePlan
    sums: dict[str, tuple[ir.Value, ...]]
    total: tuple[ir.Value, ...]


class Loop:
    """Writes one loop function into a module, over the rows of one bucket.

    Its arguments: rows, slots of a row, `stride` from one column of a result to the next; pointers to contract,
    quantity, unit and inputs of the bucket, to expiry and strike groups, the tables of contracts and of units, and to
    each result that is written at the bucket's first row.

    Args:
      module: gets the function.
      plan: what it does.
      name: of the function.
    """

    def __init__(self, module: ir.Module, plan: Plan, name: str) -> None:
        self.plan = plan
        self.element: ir.Type = element_type(f"float{8 * plan.itemsize}")
        count = bucket_arguments(plan) + SHARED_ARGUMENTS + len(plan.written)
        signature = ir.FunctionType(ir.VoidType(), [LONG] * 3 + [POINTER] * count)
        self.function = ir.Function(module, signature, name)
        self.function.linkage = "internal"
        self.builder = builder_of(self.function)
        self._write()

    def _write(self) -> None:
        rows, width, stride, contract, quantity, unit, *rest = self.function.args
        inputs, rest = rest[: len(self.plan.inputs)], rest[len(self.plan.inputs) :]
        expiry, strike, table, units, *results = rest
        memory = _Memory(
            contract,
            quantity,
            unit,
            inputs=dict(zip(self.plan.inputs, inputs, strict=True)),
            groups={"expiry": expiry, "strike": strike},
            table=table,
            units=units,
            results=results,
            stride=stride,
            last=self.builder.sub(self.builder.mul(rows, width), ir.Constant(LONG, 1)),
        )
        registers = [self._lane(plan) for plan in self.plan.lanes]
        grouped(
            self.builder,
            rows,
            LINE // self.plan.itemsize,  # as many rows as there are numbers of a result in a line
            partial(self._fetch_results, memory),
            lambda row: self._row(memory, registers, row, width),
        )
        self.builder.ret_void()

    def type_of(self, kind: str) -> ir.Type:
        """Type of a result."""
        return self.element if kind == "float" else INT

    # Registers: stack slots that LLVM keeps in vector registers.

    def _slots(self, width: int) -> tuple[ir.Value, ...]:
        kind = block_type(width, self.element, self.plan.itemsize)
        count = padded(width, self.plan.itemsize) // lanes(width, self.plan.itemsize) if width else 0
        with self.builder.goto_entry_block():
            return tuple(self.builder.alloca(kind) for _ in range(count))

    def _lane(self, plan: LanePlan) -> _Lane:
        return _Lane(plan, {word: self._slots(place.width) for word, place in plan.words}, self._slots(plan.total))

    def _clear(self, slots: tuple[ir.Value, ...], width: int) -> None:
        kind = block_type(width, self.element, self.plan.itemsize)
        zero = ir.Constant(kind, 0.0 if kind == self.element else None)
        for slot in slots:
            self.builder.store(zero, slot)

    def _held(self, slots: tuple[ir.Value, ...], width: int) -> Block:
        kind = block_type(width, self.element, self.plan.itemsize)
        return Block(width, tuple(self.builder.load(slot, typ=kind) for slot in slots))

    def _add(self, slots: tuple[ir.Value, ...], more: Block) -> None:
        for slot, part in zip(slots, more.parts, strict=True):
            self.builder.store(self.builder.fadd(self.builder.load(slot, typ=part.type), part), slot)

    # Memory.

    def _at(self, base: ir.Value, index: ir.Value, kind: ir.Type) -> ir.Value:
        return self.builder.load(self.builder.gep(base, [index], source_etype=kind), align=bytes_of(kind), typ=kind)

    def _columns(self, row: ir.Value, place: Place) -> Block:
        """Columns of a row of the table."""
        if not place.width:
            return Block(0, ())
        kind = block_type(place.width, self.element, self.plan.itemsize)
        return Block(place.width, tuple(self._vector(row, i, kind) for i in self._starts(place)))

    def _starts(self, place: Place) -> range:
        size = self.plan.itemsize
        return range(place.start, place.start + padded(place.width, size), lanes(place.width, size))

    def _vector(self, row: ir.Value, start: int, kind: ir.Type) -> ir.Value:
        pointer = self.builder.gep(row, [ir.Constant(LONG, start)], source_etype=self.element)
        return self.builder.load(pointer, align=self.plan.itemsize, typ=kind)

    def _store(self, result: ir.Value, stride: ir.Value, row: ir.Value, block: Block) -> None:
        """A row's result, each column into its own run of memory: what follows goes through many rows at once."""
        builder = self.builder
        for i, place in enumerate(self._places(stride, row, block.width)):
            value = scalar(builder, block, i)
            pointer = builder.gep(result, [place], source_etype=value.type)
            builder.store(value, pointer, align=bytes_of(value.type))

    def _places(self, stride: ir.Value, row: ir.Value, width: int) -> Iterator[ir.Value]:
        """Where a row stands in each column of a result."""
        for i in range(width):
            yield self.builder.add(self.builder.mul(stride, ir.Constant(LONG, i)), row) if i else row

    # Control.

    def _fetch_results(self, memory: _Memory, row: ir.Value) -> None:
        """Asks for the lines of all results that rows some way behind this one write."""
        builder = self.builder
        ahead = builder.add(row, ir.Constant(LONG, _ROWS_AHEAD))
        for result, output in zip(memory.results, self.plan.written, strict=True):
            for place in self._places(memory.stride, ahead, output.width):
                address = builder.gep(result, [place], source_etype=self.type_of(output.kind))
                fetch(builder, address, to_write=True)

    def _row(self, memory: _Memory, registers: list[_Lane], row: ir.Value, width: ir.Value) -> None:
        for lane in registers:
            for word, place in lane.plan.words:
                self._clear(lane.sums[word], place.width)
            self._clear(lane.total, lane.plan.total)
        first = self.builder.mul(row, width)
        with counted(self.builder, width) as (slot, end):
            self._leg(memory, registers, first, slot, width, end)
        found = [block for lane in registers for block in self._found(lane)]
        unit = self._at(memory.unit, row, INT)
        inputs = [*self._of_unit(memory, unit), *found, Block(1, (unit,)), self._one()]
        results = lowered(self.plan.finish.rest, self._target(), inputs)
        written = [block for block in results if block.width]
        for result, block in zip(memory.results, written, strict=True):
            self._store(result, memory.stride, row, block)

    def _found(self, lane: _Lane) -> list[Block]:
        """The sums by word of a lane at unit level, the total of any other."""
        if lane.plan.close is None:
            return [self._held(lane.sums[word], place.width) for word, place in lane.plan.words]
        return [self._held(lane.total, lane.plan.total)]

    def _of_unit(self, memory: _Memory, unit: ir.Value) -> list[Block]:
        """What a row reads of its unit; one beyond the last means the nearest, as on XLA's own path."""
        if not self.plan.units:
            return []
        number = self.builder.sext(within(self.builder, unit, self.plan.unit_rows), LONG)
        start = self.builder.mul(number, ir.Constant(LONG, self.plan.unit_width))
        row = self.builder.gep(memory.units, [start], source_etype=self.element)
        return [self._columns(row, place) for place in self.plan.units]

    def _one(self) -> Block:
        return Block(1, (ir.Constant(self.element, 1.0),))

    def _leg(
        self,
        memory: _Memory,
        registers: list[_Lane],
        first: ir.Value,
        slot: ir.Value,
        width: ir.Value,
        end: ir.Block,
    ) -> None:
        """One leg: into every sum, then the levels that it closes; padding ends the row."""
        builder = self.builder
        place = builder.add(first, slot)
        if self.plan.looks_ahead:
            self._fetch_ahead(memory, place)
        contract = builder.sext(self._at(memory.contract, place, INT), LONG)
        expiry = self._at(memory.groups["expiry"], contract, INT)
        held = self.function.append_basic_block("leg")
        builder.cbranch(builder.icmp_signed("<", expiry, ir.Constant(INT, 0)), end, held)
        builder.position_at_end(held)
        start = builder.mul(contract, ir.Constant(LONG, self.plan.table_width))
        table = builder.gep(memory.table, [start], source_etype=self.element)
        owned = self._multipliers(memory, place)
        for lane in registers:
            for word, columns in lane.plan.words:
                self._add(lane.sums[word], self._product(owned[word], self._columns(table, columns)))
        closers = [lane for lane in registers if lane.plan.close is not None]
        for level in dict.fromkeys(lane.plan.level for lane in closers):
            own = [lane for lane in closers if lane.plan.level == level]
            self._closing(memory, level, own, place, slot, width, contract, table)

    def _fetch_ahead(self, memory: _Memory, place: ir.Value) -> None:
        """Asks for the table's row of a leg that comes soon, be it of this row or of one behind it."""
        builder = self.builder
        ahead = builder.add(place, ir.Constant(LONG, _AHEAD))
        ahead = builder.select(builder.icmp_unsigned("<", ahead, memory.last), ahead, memory.last)
        contract = builder.sext(self._at(memory.contract, ahead, INT), LONG)
        start = builder.mul(contract, ir.Constant(LONG, self.plan.table_width))
        for line in range(0, self.plan.table_width, LINE // self.plan.itemsize):
            number = builder.add(start, ir.Constant(LONG, line))
            fetch(builder, builder.gep(memory.table, [number], source_etype=self.element))

    def _multipliers(self, memory: _Memory, place: ir.Value) -> dict[str, Block]:
        """What of the leg multiplies the columns of each word."""
        quantity = Block(1, (self._at(memory.quantity, place, self.element),))
        owned = {word: lowered(traced, self._target(), [quantity])[0] for word, traced in self.plan.multipliers}
        return owned | {word: Block(1, (self._at(x, place, self.element),)) for word, x in memory.inputs.items()}

    def _product(self, own: Block, columns: Block) -> Block:
        wide = widened(self.builder, own, columns.width, self.plan.itemsize)
        pairs = zip(wide.parts, columns.parts, strict=True)
        return Block(columns.width, tuple(self.builder.fmul(x, y) for x, y in pairs))

    def _target(self) -> Target:
        return Target(self.builder, self.plan.itemsize)

    def _closing(
        self,
        memory: _Memory,
        level: str,
        own: list[_Lane],
        place: ir.Value,
        slot: ir.Value,
        width: ir.Value,
        contract: ir.Value,
        table: ir.Value,
    ) -> None:
        """Closes the lanes of a level if the leg is the last of its group."""
        if level not in GROUPED_LEVELS:  # every position is a group
            self._close(own, table)
            return
        builder = self.builder
        following = builder.add(slot, ir.Constant(LONG, 1))
        is_last = builder.icmp_unsigned("==", following, width)
        next_place = builder.select(is_last, place, builder.add(place, ir.Constant(LONG, 1)))
        next_contract = builder.sext(self._at(memory.contract, next_place, INT), LONG)
        group, next_group = (self._at(memory.groups[level], c, INT) for c in (contract, next_contract))
        ends = builder.or_(is_last, builder.icmp_signed("!=", group, next_group))
        closes, after = (self.function.append_basic_block(name) for name in ("closes", "after"))
        builder.cbranch(ends, closes, after)
        builder.position_at_end(closes)
        self._close(own, table)
        builder.branch(after)
        builder.position_at_end(after)

    def _close(self, own: list[_Lane], table: ir.Value) -> None:
        for lane in own:
            assert lane.plan.close is not None  # noqa: S101  lanes at unit level have nothing to close
            sums = [self._held(lane.sums[word], place.width) for word, place in lane.plan.words]
            inputs = [*(self._columns(table, place) for place in lane.plan.terms), *sums, self._one()]
            (found,) = lowered(lane.plan.close.rest, self._target(), inputs)
            self._add(lane.total, found)
            for word, place in lane.plan.words:
                self._clear(lane.sums[word], place.width)
