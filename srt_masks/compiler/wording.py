"""IR -> words: an expression as a text of the language would say it. For names and messages; the meaning is in the IR."""

from __future__ import annotations

from ..grammar.checked import Type
from . import ir
from .ir import Apply, Const, Expr, Field, Gather, Load, Op, Scalar, Side

# How tightly an operator binds, and its sign.
_INFIX = {
    Op.OR: (1, "or"), Op.AND: (2, "and"), Op.LT: (4, "<"), Op.LE: (4, "<="), Op.EQ: (4, "=="), Op.NE: (4, "!="),
    Op.ADD: (5, "+"), Op.SUB: (5, "-"), Op.MUL: (6, "*"), Op.TRUEDIV: (6, "/"), Op.FLOORDIV: (6, "//"), Op.MOD: (6, "%"), Op.POW: (8, "**"),
}  # fmt: skip
_ATOM = 9
MOST_WORDS = 200  # a `let` that is used twice is said twice: a short text may be made of very many


def wording(expr: Expr, roles: tuple[str, ...]) -> str:
    """`k is token`, `k.pos % 64`, `k.cluster`: an input read once for each token is an attribute of it. What is too long has a name of its own."""
    return _worded(expr, roles)[0] if _words(expr) <= MOST_WORDS else f"expression {ir.digest(expr)[:8]}"


def _words(expr: Expr) -> int:
    """Of its text, about."""
    count: dict[Expr, int] = {}
    for node in ir.postorder(expr):
        count[node] = 1 + sum(count[c] for c in ir.children(node))
    return count[expr]


def _worded(expr: Expr, roles: tuple[str, ...]) -> tuple[str, int]:
    def inside(part: Expr, least: int) -> str:
        text, tightness = _worded(part, roles)
        return text if tightness >= least else f"({text})"

    match expr:
        case Const(value=value, type=Type.ROLE):
            return roles[int(value)], _ATOM
        case Const(value=value):
            return str(value).lower() if isinstance(value, bool) else str(value), _ATOM
        case Scalar(name=name):
            return name, _ATOM
        case Field(side=side, name=name):
            return f"{side.value}.{name}", _ATOM
        case Load(table=table, indices=indices) if (side := _whose(indices)) is not None:
            return f"{side.value}.{table}", _ATOM
        case Load(table=table, indices=indices):
            return f"{table}[{', '.join(_worded(i, roles)[0] for i in indices)}]" if indices else table, _ATOM
        case Gather(value=value, index=index):
            return f"{inside(value, _ATOM)}[{_worded(index, roles)[0]}]", _ATOM
        case Apply(op=(Op.EQ | Op.NE) as op, args=args) if any(isinstance(a, Field) and a.name == "role" for a in args):
            role, which = sorted(args, key=lambda a: isinstance(a, Const))
            if isinstance(role, Field) and isinstance(which, Const):
                return f"{role.side.value} {'is' if op is Op.EQ else 'is not'} {_worded(which, roles)[0]}", 4
        case _:
            pass
    assert isinstance(expr, Apply)
    match expr.op, expr.args:
        case Op.NOT, (a,):
            return f"not {inside(a, 3)}", 3
        case Op.NEG, (a,):
            return f"-{inside(a, 7)}", 7
        case Op.SELECT, (condition, a, b):
            return f"{inside(a, 1)} if {inside(condition, 1)} else {inside(b, 0)}", 0
        case op, (a, b) if op in _INFIX:
            tightness, sign = _INFIX[op]
            return f"{inside(a, tightness)} {sign} {inside(b, tightness + 1)}", tightness
        case op, args:
            return f"{op.symbol}({', '.join(_worded(a, roles)[0] for a in args)})", _ATOM


def _whose(indices: tuple[Expr, ...]) -> Side | None:
    """Whose attribute an input is that is read at the token itself, and at the call's own head and layer."""
    places = [i for i in indices if not (isinstance(i, Scalar) and i.name in ("head", "layer"))]
    match places:
        case [Field(side=side, name=("pos" | "step"))]:
            return side
        case _:
            return None


def brief(text: str, most: int = 48) -> str:
    """At most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
