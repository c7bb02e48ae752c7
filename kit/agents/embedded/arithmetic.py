"""Arithmetic: the exact value of a sum such as `(17 + 4) * 2.5`, and nothing else that Python could do.

The text is parsed, never run (`ast`), and computed in fractions, so that 0.1 + 0.2 is 0.3. Length and size are bounded: a sum that
would keep the machine busy has no value here.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

_LENGTH = 200
_BITS = 2048
"""A bound on each intermediate result: about 600 digits, below the 4,300 at which Python refuses to print an integer."""

_ASKED = r"what(?:'s| is)|how much is|calculate|compute|evaluate|solve"
_SPELLED = (
    (r"multiplied by|times|×|·|(?<=[\d)\s])x(?=[\d(\s])", "*"),
    (r"divided by|over|÷", "/"),
    (r"to the power of|\^", "**"),
    (r"plus", "+"),
    (r"minus|−", "-"),
    (r"(?<=\d),(?=\d{3}\b)", ""),
)
_OPERATORS: dict[type[ast.AST], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
}


class NoValue(Exception):
    """The sum has no value that could be said; the text is the rest of a sentence: 'that ...'."""


def find(prompt: str) -> str | None:
    """The sum that a prompt asks for, in Python's signs: `2 * 3` out of "what is 2 times 3?"; None where it asks for none."""
    if len(prompt) > 2 * _LENGTH:
        return None
    text = prompt.strip().lower()
    for spelled, sign in _SPELLED:
        text = re.sub(spelled, sign, text)
    asked = re.fullmatch(rf"(?:please\s+)?(?:{_ASKED})?:?\s*([\d\s.+\-*/%()]+?)[\s=?.!]*", text)
    return asked[1] if asked and re.search(r"[\d)]\s*[+\-*/%]+\s*[-+(.\d]", asked[1]) else None


def evaluate(text: str) -> Fraction:
    """The value of a sum; raises NoValue where it has none, is malformed, or is too large."""
    if len(text) > _LENGTH:
        raise NoValue(f"is longer than the {_LENGTH} characters that I read")
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, MemoryError, RecursionError):  # the parser's own bounds on nesting
        raise NoValue("is not a sum that I can read") from None
    except ZeroDivisionError:
        raise NoValue("divides by zero, which has no value") from None


def spell(value: Fraction) -> str:
    """The value in decimal digits, with 'about' where they don't end."""
    with localcontext() as context:
        context.prec = 700
        decimal = Decimal(value.numerator) / Decimal(value.denominator)
        exact = Fraction(decimal) == value and len(decimal.as_tuple().digits) <= 650
        return f"{decimal.normalize():f}" if exact else f"about {decimal:.10g}"


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _bounded(Fraction(repr(number))) if number != float("inf") else _too_large()
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _bounded(_OPERATORS[type(op)](_value(left), _value(right)))
    raise NoValue("is not a sum that I can read")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise NoValue("asks for a root, and I only take whole powers")
    if max(abs(base.numerator).bit_length() - 1, base.denominator.bit_length() - 1) * abs(exponent.numerator) > _BITS:
        _too_large()  # before it is computed
    return _bounded(Fraction(base**exponent.numerator))


def _bounded(value: Fraction) -> Fraction:
    return value if max(abs(value.numerator).bit_length(), value.denominator.bit_length()) <= _BITS else _too_large()


def _too_large() -> Fraction:
    raise NoValue("has more digits than anybody would read")
