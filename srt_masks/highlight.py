"""The words of the language by kind, and the rules that colour a text: one table for every editor.

Pygments reads it in `highlight_pygments.py`; a TextMate grammar is made of it by

    python -m srt_masks.highlight > editors/mask.tmLanguage.json

Non-goals: meaning. A name is coloured by what every spec calls so, though a spec may call something else so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import resources

from .diagnostics import Source
from .grammar import checked, syntax
from .grammar.parser import parse


class Kind(Enum):
    """What a piece of text is. The value is its TextMate scope; white space has none."""

    SPACE = ""
    COMMENT = "comment.line.number-sign"
    NUMBER = "constant.numeric"
    STATEMENT = "keyword.control"  # begins a statement
    CLAUSE = "keyword.other"  # goes on with one
    OPERATOR_WORD = "keyword.operator.word"
    OPERATOR = "keyword.operator"
    PUNCTUATION = "punctuation"
    CONSTANT = "constant.language"
    SUBJECT = "variable.language"  # the query, the key, and what of them a gradient rule acts on
    ATTRIBUTE = "variable.other.member"
    GLOBAL = "support.variable"
    FUNCTION = "support.function"  # the prelude's masks and functions, and the built-in ones
    TYPE = "storage.type"
    AXIS = "support.constant"
    DEFINED = "entity.name"  # where a name gets its meaning
    NAME = "variable.other"


RESERVED: dict[Kind, tuple[str, ...]] = {
    Kind.STATEMENT: tuple(word for word in syntax.RESERVED if word in syntax.STATEMENTS),
    Kind.CLAUSE: ("weight", "where", "by", "per", "no", "every", "flow", "grad", "leak", "cacheable", "repeat", "given", "for"),
    Kind.OPERATOR_WORD: ("if", "else", "and", "or", "not", "xor", "implies", "is", "in"),
    Kind.FUNCTION: ("any", "all"),
    Kind.CONSTANT: ("true", "false"),
    Kind.SUBJECT: ("q", "k"),
}
BUILT_IN = ("min", "max", "abs", "clamp", "range")
TYPES = tuple(kind.value for kind in checked.Type if kind is not checked.Type.ROLE)
TARGETS = ("q", "k", "v", "hidden")


@cache
def prelude() -> tuple[str, ...]:
    """The names every spec starts with, in the order of `prelude.mask`."""
    text = resources.files("srt_masks.grammar").joinpath("prelude.mask").read_text(encoding="utf-8")
    tree, _ = parse(Source(text))
    return tuple(s.name.text for s in tree.statements if isinstance(s, syntax.Let))


@dataclass(frozen=True, slots=True)
class Rule:
    """A regular expression whose groups hold all it matches, and the kind of each group."""

    pattern: str
    kinds: tuple[Kind, ...]


_END = "(?![A-Za-z0-9_])"  # of a word
_NAME = f"(?!(?:{'|'.join(syntax.RESERVED)}){_END})[A-Za-z_][A-Za-z0-9_]*"


def rules() -> tuple[Rule, ...]:
    """In order: the first that matches at a place is taken. They are for Python's `re` and for Oniguruma alike."""
    return (
        Rule(r"(#[^\n]*)", (Kind.COMMENT,)),
        Rule(r"([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)", (Kind.NUMBER,)),
        Rule(rf"(param|input|let)(\s+)({_NAME})", (Kind.STATEMENT, Kind.SPACE, Kind.DEFINED)),
        _list(Kind.STATEMENT, ("stop", "scale"), Kind.SUBJECT, TARGETS),
        _list(Kind.CLAUSE, ("per",), Kind.AXIS, checked.INPUT_AXES),
        Rule(rf"(every)(\s+)(query)(\s+)(attends){_END}", (Kind.CLAUSE, Kind.SPACE, Kind.CLAUSE, Kind.SPACE, Kind.CLAUSE)),
        Rule(rf"([qk])(\s*)(\.)(\s*)({_NAME})", (Kind.SUBJECT, Kind.SPACE, Kind.PUNCTUATION, Kind.SPACE, Kind.ATTRIBUTE)),
        *(_words(kind, words) for kind, words in RESERVED.items()),
        _words(Kind.ATTRIBUTE, checked.ATTRIBUTES),
        _words(Kind.GLOBAL, checked.GLOBALS),
        _words(Kind.FUNCTION, (*prelude(), *BUILT_IN)),
        _words(Kind.TYPE, TYPES),
        Rule("([A-Za-z_][A-Za-z0-9_]*)", (Kind.NAME,)),
        Rule(r"(->|//|\*\*|[<>=!]=|[-+*/%<>=])", (Kind.OPERATOR,)),
        Rule(r"([()\[\]{},.:])", (Kind.PUNCTUATION,)),
    )


def _words(kind: Kind, words: Iterable[str]) -> Rule:
    return Rule(f"({'|'.join(words)}){_END}", (kind,))


def _list(head: Kind, heads: tuple[str, ...], kind: Kind, members: tuple[str, ...]) -> Rule:
    """`head member, member, ...` on one line: each member once, so no more than there are."""
    member = f"({'|'.join(members)}){_END}"
    more = rf"(?:(\s*)(,)(\s*){member})?" * (len(members) - 1)
    kinds = (Kind.SPACE, Kind.PUNCTUATION, Kind.SPACE, kind) * (len(members) - 1)
    return Rule(rf"({'|'.join(heads)})(\s+){member}{more}", (head, Kind.SPACE, kind, *kinds))


def textmate() -> dict[str, object]:
    """The grammar in TextMate's form, as VS Code and other editors read it."""
    patterns = [
        {"match": rule.pattern, "captures": {str(i): {"name": f"{kind.value}.mask"} for i, kind in enumerate(rule.kinds, 1) if kind is not Kind.SPACE}}
        for rule in rules()
    ]
    return {"name": "srt_masks", "scopeName": "source.mask", "fileTypes": ["mask"], "patterns": patterns}


def textmate_text() -> str:
    return json.dumps(textmate(), indent=2) + "\n"


if __name__ == "__main__":
    print(textmate_text(), end="")
