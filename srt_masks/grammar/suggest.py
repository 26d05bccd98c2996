"""What was meant: words of other languages, near misses, and an expression spelled again, to be pasted.

Input: a word and the words that fit its place; or an expression of the tree. Output: text. Non-goals: what is wrong, and where
(`explain_syntax.py`, `names.py`, `expressions.py`, `check.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from ..diagnostics import Span, did_you_mean
from . import syntax as t

# What other languages, and people, call what has another name here. A word in small letters -> what to write.
NAMES = {
    "q_idx": "q.pos", "query_idx": "q.pos", "kv_idx": "k.pos", "k_idx": "k.pos", "key_idx": "k.pos", "i": "q.pos", "j": "k.pos",
    "h": "head", "len": "length", "seq_len": "length", "bidirectional": "full",
}  # fmt: skip
ATTRIBUTES = {"position": "pos", "idx": "pos", "type": "role"}
SIDES = {"query": "q", "queries": "q", "key": "k", "keys": "k", "v": "k", "value": "k", "values": "k", "kv": "k"}
TARGETS = {"query": "q", "queries": "q", "key": "k", "keys": "k", "value": "v", "values": "v", "state": "hidden", "x": "hidden"}
WORDS = {"if": "where", "when": "where", "double": "float", "real": "float", "number": "int", "mask": "bool", "elif": "else", "times": "by"}
CLAIMS = ("no leak", "cacheable", "every query attends")  # those that stand alone
SIGNATURES = ("causal", "full", "diagonal", "window(n)", "dilated(n, d)", "first(n)", "same(attr)")  # of the prelude

LONGEST = 60  # characters of a spelled expression
NOTHING: Mapping[str, str] = MappingProxyType({})


def closest(word: str, known: Iterable[str], foreign: Mapping[str, str] = NOTHING) -> str:
    """The word of `known` that was meant, or what `foreign` has for it; or the empty string."""
    small = word.lower()
    if small in foreign:
        return foreign[small]
    known = list(known)
    found = did_you_mean(small, known) if small in known else did_you_mean(word, known) or did_you_mean(small, known)
    return found.split("`")[1] if found else ""


def meant(word: str, known: Iterable[str], foreign: Mapping[str, str] = NOTHING) -> str:
    """``did you mean `causal`?`` or the empty string."""
    found = closest(word, known, foreign)
    return f"did you mean `{found}`?" if found else ""


def spelled(expr: t.Expr, *, bare: bool = False) -> str:
    """An expression of a few names and numbers as text, `...` for any other. `bare` leaves out `q.` and `k.`."""
    text = _spelled(expr, bare)
    return text if "..." not in text and len(text) <= LONGEST else "..."


def _spelled(expr: t.Expr, bare: bool) -> str:
    match expr:
        case t.Number(text=text) | t.Name(name=text):
            return text
        case t.Attribute(side=side, name=word):
            return word.text if bare else f"{side}.{word}"
        case t.Subject(side=side):
            return "role" if bare else side
        case t.Binary(op=op, left=left, right=right):
            return f"{_operand(left, bare)} {op} {_operand(right, bare)}"
        case t.Is(subject=subject, role=role, negated=negated):
            return f"{_operand(subject, bare)} is {'not ' if negated else ''}{role}"
        case t.In(subject=subject, members=members, negated=negated):
            return f"{_operand(subject, bare)} {'not ' if negated else ''}in {{{', '.join(_spelled(m, bare) for m in members)}}}"
        case t.Call(name=name, args=args):
            return f"{name}({', '.join(_spelled(a, bare) for a in args)})"
        case _:
            return "..."


def _operand(expr: t.Expr, bare: bool) -> str:
    text = _spelled(expr, bare)
    return f"({text})" if isinstance(expr, t.Binary) else text


def walk(node: object) -> Iterator[object]:
    """A node of the tree and all nodes in it, in the order of the text."""
    stack = [node]
    while stack:
        node = stack.pop()
        if isinstance(node, tuple):
            stack.extend(reversed(node))
        elif fields := getattr(node, "__dataclass_fields__", None):
            yield node
            stack.extend(getattr(node, f) for f in reversed(fields) if f != "span")


def about_a_side(expr: t.Expr) -> tuple[Span, str, str] | None:
    """The first part that speaks of `q` or `k`: where it stands, its text, and the same about the token at hand."""
    for node in walk(expr):
        match node:
            case t.Attribute() | t.Is(subject=t.Subject()) | t.In(subject=t.Subject()):
                return node.span, spelled(node), spelled(node, bare=True)
    return None


def one_sided(expr: t.Expr) -> bool:
    """Whether an expression speaks of `q` alone, or of `k` alone: then it says something of one token."""
    return len({node.side for node in walk(expr) if isinstance(node, t.Attribute | t.Subject)}) == 1
