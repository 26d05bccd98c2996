"""What went wrong, where, and what to write instead: spans, diagnostics, and the caret renderer.

    error[unknown-attribute]: key has no attribute `documnet`
     --> doc.mask:2:29
      |
    2 | let same_doc = q.document == k.documnet
      |                                ^^^^^^^^ did you mean `document`?
      = help: attributes of a key here: pos, step, slot, role, index, document

The lowest floor: it imports nothing of this package.
"""

from __future__ import annotations

import difflib
import sys
import unicodedata
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

MOST_SHOWN = 20  # mistakes rendered in one report
MOST_FOUND = 100  # mistakes after which a text is read no further


class Error(Exception):
    """Base class of every error this package raises on purpose."""


class InputError(Error, ValueError):
    """An argument of a call is wrong: its shape, dtype, device, name or value. The message says what was wanted and what came."""


class BackendError(Error, RuntimeError):
    """The backend asked for by name cannot do what was asked. The message names a backend that can."""


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of characters of a source text."""

    start: int
    end: int

    def to(self, other: Span) -> Span:
        return Span(min(self.start, other.start), max(self.end, other.end))


@dataclass(frozen=True)
class Source:
    """A text, without the byte order mark that some editors put before one, and the name it is reported under."""

    text: str
    filename: str = "<spec>"

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text.removeprefix("\ufeff"))

    @cached_property
    def line_starts(self) -> list[int]:
        return [0, *(i + 1 for i, c in enumerate(self.text) if c == "\n")]

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of a character, both counted from 1."""
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        start = self.line_starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start : end if end >= 0 else len(self.text)].rstrip("\r")


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake: a stable slug, a headline, the place with a caret label, how it comes about, and help that can be pasted."""

    slug: str
    message: str
    span: Span
    label: str = ""
    help: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # how it comes about

    def render(self, source: Source) -> str:
        line, column = source.place(self.span.start)
        text = source.line(line)
        before = text[: column - 1]
        marked = source.text[self.span.start : min(self.span.end, self.span.start + 400)].split("\n", 1)[0]
        text, before, marked = _window(text, before, marked)
        carets = "^" * max(1, _columns(marked.rstrip()))
        margin = " " * len(str(line))
        rows = [
            f"error[{self.slug}]: {visible(self.message)}",
            f"{margin}--> {visible(source.filename)}:{line}:{column}",
            f"{margin} |",
            f"{line} | {visible(text)}",
            f"{margin} | {_blank(before)}{carets} {visible(self.label)}".rstrip(),
        ]
        said = [*(("note", n) for n in self.notes), *(("help", h) for h in self.help)]
        return "\n".join([*rows, *(f"{margin} = {kind}: {visible(words)}" for kind, words in said)])


class SpecError(Error, ValueError):
    """A spec text is wrong. `diagnostics` holds every mistake found; the message is their rendering."""

    def __init__(self, diagnostics: Iterable[Diagnostic], source: Source):
        self.diagnostics = tuple(sorted(diagnostics, key=lambda d: (d.span.start, d.span.end)))
        self.source = source
        shown = [d.render(source) for d in self.diagnostics[:MOST_SHOWN]]
        if len(self.diagnostics) > MOST_SHOWN:
            shown.append(f"... and {len(self.diagnostics) - MOST_SHOWN} more mistakes")
        super().__init__("\n\n".join(shown))

    def __reduce__(self):
        return SpecError, (self.diagnostics, self.source)

    def __str__(self) -> str:
        # A leading newline keeps the carets aligned behind Python's "SpecError: ".
        return "\n" + self.args[0]

    @property
    def report(self) -> str:
        return self.args[0]


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning that points at the line outside of this package that led to it, whatever lies between."""
    package, level, frame = __name__.partition(".")[0], 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean `causal`?`` or the empty string."""
    candidates = sorted(set(known))
    if len(candidates) > 200:
        # Comparing with every name of a large text would take longer than reading it.
        candidates = [c for c in candidates if c[:1] == word[:1]][:200]
    close = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else ""


def listing(names: Iterable[str], limit: int = 12) -> str:
    """`a, b, c` of at most `limit` names, in their order."""
    names = list(names)
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")


WIDEST = 160  # columns of a line that is shown whole
WINDOW = 140  # columns shown of a wider line, of which so many before the mark:
BEFORE_MARK = 60


def _window(text: str, before: str, marked: str) -> tuple[str, str, str]:
    """A line, what stands before the mark and what is marked; of a very long line (a spec on one line) what stands round the mark."""
    if _fitting(text, WIDEST) == len(text):
        return text, before, marked
    kept = before[len(before) - _fitting(before[::-1], BEFORE_MARK) :]
    rest = text[len(before) - len(kept) :]
    shown = rest[: _fitting(rest, WINDOW)]
    cut = "…" if len(kept) < len(before) else ""
    return cut + shown + ("…" if len(shown) < len(rest.rstrip()) else ""), cut + kept, marked[: _fitting(marked, WINDOW - BEFORE_MARK)]


def _fitting(text: str, columns: int) -> int:
    """How many characters from the beginning fit into so many columns. It looks no further: lines may be as long as a text."""
    for i, c in enumerate(text):
        columns -= _width(c)
        if columns < 0:
            return i
    return len(text)


def _columns(text: str) -> int:
    """Terminal columns: wide characters take two, combining marks none."""
    return sum(_width(c) for c in text)


def _width(c: str) -> int:
    if unicodedata.combining(c):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def visible(text: str) -> str:
    """Control characters, which could move the cursor or colour the terminal, are shown as `?`; tabs stay."""
    return "".join(c if c == "\t" or unicodedata.category(c)[0] != "C" else "?" for c in text)


def _blank(text: str) -> str:
    return "".join("\t" if c == "\t" else " " * _width(c) for c in text)


def spans(numbers: Sequence[int]) -> str:
    """Ascending numbers in words: `0-4, 6`."""
    found: list[list[int]] = []
    for n in numbers:
        if found and n == found[-1][-1] + 1:
            found[-1][1:] = [n]
        else:
            found.append([n])
    return ", ".join("-".join(map(str, s)) for s in found)
