"""Text of a requirement to the nested tuples that kernels evaluate."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NoReturn

from gpumargin.errors import suggestion

if TYPE_CHECKING:
    from gpumargin_kernels.expression import Expression

_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
# Functions with their number of operands; None = any number of them.
_CALLS = {
    "max": None,
    "min": None,
    **dict.fromkeys(("sqrt", "abs", "exp", "log", "floor", "ceil", "sign"), 1),
    **dict.fromkeys(("pow", "shrink"), 2),
}
_TABLE_CALLS = ("marginal", "bracket")
_WHERE_CHOICES = 2  # what it is and what it is not
_GRAMMAR = (
    "names, numbers, + - * /, parentheses, where(a < b, x, y) with < <= > >=, marginal(x, table), bracket(x, table), "
    f"and the functions {', '.join(_CALLS)}"
)
_CONDITIONS = "comparisons < <= > >= of two expressions, joined by and, or, such as 'equity < 0 and initial_margin > 0'"


def parse_expression(text: str, names: Collection[str], tables: Collection[str] = ()) -> Expression:
    """Nested tuples of an expression such as `"max(basis, scan) * im_factor + oracle"`.

    Args:
      text: names, numbers, `+ - * /`, parentheses, `max`, `min`, `sqrt`, `abs`, `exp`, `log`, `floor`, `ceil`, `sign`,
        `pow(x, p)`, `shrink(x, by)`, `where(a < b, x, y)`, `marginal(x, table)`, `bracket(x, table)`. Nothing is
        executed.
      names: what may be named.
      tables: bracket tables that may be named.

    Returns:
      A name, a number, or (operator, operands...).

    Raises:
      ValueError: the text is not such an expression, or uses an unknown name; the message lists the known ones.
    """
    return _parsed(text, frozenset(names), frozenset(tables))


@cache
def _parsed(text: str, names: frozenset[str], tables: frozenset[str]) -> Expression:
    return _Reader(text, names, tables).node(_tree(text))  # once: a model is asked for its expressions at every block


def _tree(text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        message = f"{text!r} is not an expression: {error.msg}; use {_GRAMMAR}"
        raise ValueError(message) from None


def parse_predicate(text: str, names: Collection[str]) -> Expression:
    """Nested tuples of a condition such as `"initial_margin > 0 and initial_excess < 0"`: 1 if it holds, else 0.

    Args:
      text: comparisons `<`, `<=`, `>`, `>=` of two expressions, joined by `and`, `or` and parentheses.
      names: what may be named.

    Raises:
      ValueError: the text is no such condition, or uses an unknown name.
    """
    return _Reader(text, names, ()).predicate(_tree(text))


def substituted(expression: Expression, by: Mapping[str, Expression]) -> Expression:
    """An expression with names replaced by expressions; the tables of `marginal` and `bracket` stay names."""
    if isinstance(expression, str):
        return by.get(expression, expression)
    if not isinstance(expression, tuple):
        return expression
    name, *operands = expression
    if name in _TABLE_CALLS:
        return (name, substituted(operands[0], by), operands[1])
    return (name, *(substituted(operand, by) for operand in operands))


def names_in(expression: Expression) -> set[str]:
    """Every name that an expression uses, tables included."""
    if isinstance(expression, str):
        return {expression}
    if isinstance(expression, tuple):
        return set().union(*(names_in(operand) for operand in expression[1:]))
    return set()


@dataclass(frozen=True)
class _Reader:
    """One text, and what it may name."""

    text: str
    names: Collection[str]
    tables: Collection[str]

    def node(self, node: ast.expr) -> Expression:
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return float(value)
            case ast.Name(id=name):
                return self._known(name, self.names)
            case ast.UnaryOp(op=ast.USub(), operand=child):
                return ("-", 0.0, self.node(child))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return (_BINARY[type(op)], self.node(left), self.node(right))
            case ast.Call(func=ast.Name(id="where"), args=[ast.Compare() as compare, *choices], keywords=[]):
                return self._where(node, compare, choices)
            case ast.Call(func=ast.Name(id=name), args=[amount, ast.Name(id=table)], keywords=[]) if (
                name in _TABLE_CALLS
            ):
                return (name, self.node(amount), self._known(table, self.tables))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if args and _CALLS.get(name, 0) in (
                None,
                len(args),
            ):
                return (name, *map(self.node, args))
        return self._refused(node)

    def predicate(self, node: ast.expr) -> Expression:
        match node:
            case ast.BoolOp(op=op, values=parts):
                return ("min" if isinstance(op, ast.And) else "max", *map(self.predicate, parts))
            case ast.Compare():
                return self._compared(node, node, (1.0, 0.0))
        message = f"{ast.unparse(node)!r} in {self.text!r} is no condition; use {_CONDITIONS}"
        raise ValueError(message)

    def _where(self, node: ast.expr, compare: ast.Compare, choices: list[ast.expr]) -> Expression:
        if len(choices) != _WHERE_CHOICES:
            return self._refused(node)
        return self._compared(node, compare, [self.node(choice) for choice in choices])

    def _compared(self, node: ast.expr, compare: ast.Compare, both: Sequence[Expression]) -> Expression:
        if len(compare.ops) != 1:
            return self._refused(node)
        left, right = self.node(compare.left), self.node(compare.comparators[0])
        match compare.ops[0]:
            case ast.Lt():
                return ("where<", left, right, *both)
            case ast.LtE():
                return ("where<=", left, right, *both)
            case ast.Gt():
                return ("where<", right, left, *both)
            case ast.GtE():
                return ("where<=", right, left, *both)
        return self._refused(node)

    def _known(self, name: str, known: Collection[str]) -> str:
        if name in known:
            return name
        listed = ", ".join(sorted(known)) or "none"
        message = f"unknown name {name!r} in {self.text!r}; known here: {listed}{suggestion(name, known)}"
        raise ValueError(message)

    def _refused(self, node: ast.expr) -> NoReturn:
        message = f"{ast.unparse(node)!r} in {self.text!r} is not allowed; use {_GRAMMAR}"
        raise ValueError(message)
