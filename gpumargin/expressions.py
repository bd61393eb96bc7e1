"""Text of a requirement to the nested tuples that kernels evaluate."""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpumargin_kernels.expression import Expression

_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_CALLS = {"max": None, "min": None, "sqrt": 1, "abs": 1}  # operands; None = any number of them
_GRAMMAR = "names, numbers, + - * /, parentheses, and the functions max, min, sqrt, abs"


def parse_expression(text: str, names: Collection[str]) -> Expression:
    """Nested tuples of an expression such as `"max(basis, scan) * im_factor + oracle"`.

    Args:
      text: names, numbers, `+ - * /`, parentheses, `max`, `min`, `sqrt`, `abs`. Nothing is executed.
      names: what may be named.

    Returns:
      A name, a number, or (operator, operands...).

    Raises:
      ValueError: the text is not such an expression, or uses an unknown name; the message lists the known ones.
    """
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        message = f"{text!r} is not an expression: {error.msg}; use {_GRAMMAR}"
        raise ValueError(message) from None
    return _node(tree, text, names)


def names_in(expression: Expression) -> set[str]:
    """Every name that an expression uses."""
    if isinstance(expression, str):
        return {expression}
    if isinstance(expression, tuple):
        return set().union(*(names_in(operand) for operand in expression[1:]))
    return set()


def _node(node: ast.expr, text: str, names: Collection[str]) -> Expression:
    def operand(child: ast.expr) -> Expression:
        return _node(child, text, names)

    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value)
        case ast.Name(id=name):
            return _known(name, text, names)
        case ast.UnaryOp(op=ast.USub(), operand=child):
            return ("-", 0.0, operand(child))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return (_BINARY[type(op)], operand(left), operand(right))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if args and _CALLS.get(name, 0) in (
            None,
            len(args),
        ):
            return (name, *map(operand, args))
    message = f"{ast.unparse(node)!r} in {text!r} is not allowed; use {_GRAMMAR}"
    raise ValueError(message)


def _known(name: str, text: str, names: Collection[str]) -> str:
    if name in names:
        return name
    message = f"unknown name {name!r} in {text!r}; known here: {', '.join(sorted(names))}"
    raise ValueError(message)
