"""Where a statement does not parse: the token, what stands round it, and what was expected there.

Input: the parser's error. Output: `Place`, which `explain_syntax.py` asks. Non-goals: what is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..diagnostics import Diagnostic, Span
from . import syntax as t
from .tables import END, NAME, NUMBER, Token

LONGEST_QUOTE = 60  # characters


def is_name(token: Token) -> bool:
    """Whether a token is a name, or could be one elsewhere: `query`, `range`."""
    return token.text.isidentifier() and token.text not in t.RESERVED


@dataclass(frozen=True, slots=True)
class Place:
    text: str
    statement: list[Token]
    at: int  # the token that does not fit
    expected: frozenset[str]

    @property
    def token(self) -> Token:
        return self.statement[self.at]

    @property
    def word(self) -> str:
        """The statement's first word."""
        return self.statement[0].text

    @property
    def operand_wanted(self) -> bool:
        return {NUMBER, NAME} <= self.expected

    def back(self, n: int) -> Token:
        """The n-th token in front of this one, or one without text."""
        return self.statement[self.at - n] if n <= self.at else Token(END, 0, 0, "")

    def ahead(self, n: int) -> Token:
        return self.statement[min(self.at + n, len(self.statement) - 1)]

    def quote(self, start: int, end: int) -> str:
        """The tokens start..end-1 as written, `...` if that is long or on several lines."""
        if start >= end:
            return "..."
        text = self.text[self.statement[start].start : self.statement[end - 1].end]
        return text if len(text) <= LONGEST_QUOTE and "\n" not in text else "..."

    def operand_before(self, at: int) -> str:
        """The name or attribute that ends in front of a token."""
        attribute = at >= 3 and self.statement[at - 2].text == "."
        start = at - 3 if attribute else at - 1
        return self.quote(start, at) if start >= 1 and self.statement[at - 1].key in (NAME, "q", "k") else "..."

    def opened(self, brackets: str = "([{") -> int:
        """The innermost bracket of these that is open here, or -1."""
        closed = 0
        for i in range(self.at - 1, -1, -1):
            key = self.statement[i].key
            if key in (")", "]", "}"):
                closed += 1
            elif key in ("(", "[", "{"):
                if closed == 0:
                    return i if key in brackets else -1
                closed -= 1
        return -1

    def until_closed(self, opening: int) -> int:
        """The bracket that closes this one, or the end."""
        depth = 0
        for i in range(opening, len(self.statement)):
            depth += (self.statement[i].key in ("(", "[", "{")) - (self.statement[i].key in (")", "]", "}"))
            if depth == 0:
                return i
        return len(self.statement) - 1

    def argument_end(self) -> int:
        """The comma or bracket behind the argument in which this token stands."""
        depth = 0
        for i in range(self.at, len(self.statement)):
            key = self.statement[i].key
            if depth == 0 and key in (",", ")", "]", "}", END):
                return i
            depth += (key in ("(", "[", "{")) - (key in (")", "]", "}"))
        return len(self.statement) - 1

    def says(self, label: str, *help: str, message: str = "", first: int | None = None, slug: str = "syntax") -> Diagnostic:
        """A diagnostic about the tokens `first` to this one."""
        span = Span(self.statement[self.at if first is None else first].start, self.token.end)
        found = self.text[span.start : span.end]
        return Diagnostic(slug, message or f"`{short(found)}` does not fit here", span, label, help)


def short(text: str) -> str:
    """A token as it is shown; one that cannot be seen, by its number."""
    if not text.isprintable() and len(text) == 1:
        return f"U+{ord(text):04X}"
    return text if len(text) <= 24 else text[:20] + "…"
