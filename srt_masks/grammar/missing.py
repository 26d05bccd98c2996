"""What the statements that do not parse would have said: what only misses that is no second mistake.

Input: the tokens of such a statement. Output: `Missing`. Non-goals: what is wrong with it (`explain_syntax.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from .tables import NAME, Token


@dataclass(frozen=True, slots=True)
class Missing:
    """Names that were to be defined, and the statement words that were to stand in the text."""

    names: frozenset[str] = frozenset()
    statements: frozenset[str] = frozenset()

    def __or__(self, other: Missing) -> Missing:
        return Missing(self.names | other.names, self.statements | other.statements)


NOTHING_MISSING = Missing()


def missing_with(statement: list[Token], word: str) -> Missing:
    """What a statement would have said whose first word was meant to be `word`. If no word of the language begins it, it may have been an
    `attend`, or what its signs tell."""
    keys = {x.key for x in statement}
    names = frozenset(x.text for x in statement if x.key == NAME)
    match word if statement[0].key == word else "":
        case "let" | "param" | "input":
            return Missing(frozenset([statement[1].text]), frozenset([word]))
        case "queries" if statement[1].key == "where":
            return NOTHING_MISSING
        case "layout" | "queries" | "keys":
            return Missing(names, frozenset(["layout"]))
        case "data":
            return Missing(names, frozenset(["data"]))
        case "":
            lists = ["layout", "data"] if word in ("layout", "queries", "keys", "data") or keys & {",", "{"} else []
            return Missing(names, frozenset([word, "attend", *lists, *(["predict"] if "->" in keys else [])]))
        case _:
            return Missing(statements=frozenset([word]))
