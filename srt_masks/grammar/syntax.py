"""The tree: what the text says, before anything is known about its names or types. Every node carries its span.

Input: nothing. Output: the types that `parser.py` builds and `check.py` reads. Non-goals: meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..diagnostics import Span

RESERVED = tuple(
    [
        "param",
        "input",
        "data",
        "layout",
        "queries",
        "keys",
        "let",
        "attend",
        "stop",
        "scale",
        "position",
        "predict",
        "weight",
        "assert",
        "where",
        "by",
        "per",
        "no",
        "every",
        "flow",
        "grad",
        "leak",
        "cacheable",
        "repeat",
        "given",
        "if",
        "else",
        "and",
        "or",
        "not",
        "xor",
        "implies",
        "is",
        "in",
        "for",
        "any",
        "all",
        "true",
        "false",
        "q",
        "k",
    ]
)
STATEMENTS = frozenset(["param", "input", "data", "layout", "queries", "keys", "let", "attend", "stop", "scale", "position", "predict", "assert"])


@dataclass(frozen=True, slots=True)
class Word:
    """A name as written."""

    span: Span
    text: str

    def __str__(self) -> str:
        return self.text


# ------------------------------------------------------------------------------------------------ expressions


@dataclass(frozen=True, slots=True)
class Number:
    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Truth:
    span: Span
    value: bool


@dataclass(frozen=True, slots=True)
class Name:
    span: Span
    name: str


@dataclass(frozen=True, slots=True)
class Subject:
    """A bare `q` or `k`."""

    span: Span
    side: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """`q.step`"""

    span: Span
    side: str
    name: Word


@dataclass(frozen=True, slots=True)
class Subscript:
    """`table[i, j]`, `q.table[k.block]`"""

    span: Span
    base: Name | Attribute
    indices: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Call:
    span: Span
    name: Word
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Sign:
    """Unary `-` or `+`."""

    span: Span
    op: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary:
    """`+ - * // / % **`"""

    span: Span
    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Chain:
    """`a < b <= c`: first, then (operator, operand) pairs."""

    span: Span
    first: Expr
    rest: tuple[tuple[str, Expr], ...]


@dataclass(frozen=True, slots=True)
class Is:
    span: Span
    subject: Expr
    role: Word
    negated: bool


@dataclass(frozen=True, slots=True)
class In:
    span: Span
    subject: Expr
    members: tuple[Expr, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Not:
    span: Span
    operand: Expr


@dataclass(frozen=True, slots=True)
class Logic:
    """`and`, `or`, `implies`"""

    span: Span
    op: str
    operands: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Choose:
    """`then if condition else otherwise`"""

    span: Span
    then: Expr
    condition: Expr
    otherwise: Expr


@dataclass(frozen=True, slots=True)
class Quantify:
    """`any(body for variable in domain)`; a domain is the arguments of `range` or the members of a set."""

    span: Span
    word: str
    body: Expr
    variable: Word
    domain: tuple[Expr, ...]
    is_range: bool


Expr = Number | Truth | Name | Subject | Attribute | Subscript | Call | Sign | Binary | Chain | Is | In | Not | Logic | Choose | Quantify

# ------------------------------------------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True)
class Param:
    span: Span
    name: Word
    value: str
    given: Expr | None = None  # the fact stated with it


@dataclass(frozen=True, slots=True)
class Input:
    span: Span
    name: Word
    type: str
    sizes: tuple[Expr, ...]
    axes: tuple[Word, ...]
    given: Expr | None = None


@dataclass(frozen=True, slots=True)
class Data:
    span: Span
    roles: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """`role` or `role * count`"""

    span: Span
    role: Word
    count: Expr | None


@dataclass(frozen=True, slots=True)
class Repeat:
    span: Span
    count: Expr | None
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Given:
    span: Span
    roles: tuple[Word, ...]


Item = Rows | Repeat | Given


@dataclass(frozen=True, slots=True)
class Layout:
    span: Span
    axis: str | None  # None: one axis for both; "queries" or "keys"
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class QueriesWhere:
    span: Span
    where: Expr


@dataclass(frozen=True, slots=True)
class Let:
    span: Span
    name: Word
    parameters: tuple[Word, ...] | None
    body: Expr


@dataclass(frozen=True, slots=True)
class Attend:
    span: Span
    where: Expr


@dataclass(frozen=True, slots=True)
class Rule:
    """`stop targets where`, or `scale targets by factor where`."""

    span: Span
    targets: tuple[Word, ...]
    factor: Expr | None  # None: stop
    where: Expr | None


@dataclass(frozen=True, slots=True)
class Position:
    span: Span
    value: Expr


@dataclass(frozen=True, slots=True)
class Predict:
    span: Span
    role: Word
    target: Expr
    weight: Expr | None
    where: Expr | None


class Claim(Enum):
    """What an `assert` states."""

    PAIRS = "assert"
    FLOW = "assert flow"
    GRAD = "assert grad"
    NO_FLOW = "assert no flow"
    NO_GRAD = "assert no grad"
    NO_LEAK = "assert no leak"
    CACHEABLE = "assert cacheable"
    EVERY_QUERY = "assert every query attends"


@dataclass(frozen=True, slots=True)
class Assert:
    span: Span
    claim: Claim
    where: Expr | None


Statement = Param | Input | Data | Layout | QueriesWhere | Let | Attend | Rule | Position | Predict | Assert


@dataclass(frozen=True, slots=True)
class Tree:
    """A whole text, in its order."""

    statements: tuple[Statement, ...]

    def __str__(self) -> str:
        return "\n".join(show(s) for s in self.statements)


def show(node: object) -> str:
    """A node as an s-expression, without its span: `(Attend where=(Name 'causal'))`."""
    match node:
        case Word(text=text):
            return text
        case Enum():
            return node.name
        case tuple():
            return "[" + " ".join(show(x) for x in node) + "]"
        case _ if hasattr(node, "__dataclass_fields__"):
            fields = [f"{f}={show(getattr(node, f))}" for f in node.__dataclass_fields__ if f != "span"]  # type: ignore[attr-defined]
            return f"({type(node).__name__} {' '.join(fields)})"
        case _:
            return repr(node)
