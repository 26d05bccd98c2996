"""One canonical layout for every text.

Input: a `Source` that parses. Output: the same tokens and comments in the same order, with other white space between them; so the tree
stays the same by construction. Non-goals: names, types, meaning; no token is added, dropped or moved.

The layout is a function of the tokens and of what the comments hang on, never of the white space between them: formatting twice is formatting
once, and two spacings of one text become one. Only single blank lines between statements are the writer's.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from ..diagnostics import Diagnostic, Source, Span, SpecError
from . import parser, syntax
from .tables import PIECES

WIDTH = 88  # columns of a line, its comment not counted
INDENT = 4
MOST_INDENT = 48  # what is nested deeper than this moves no further to the right
COMMENT_GAP = "  "
MOST_SPREAD = 24  # columns between the ends of lines whose comments stand in one column


def format_text(source: Source) -> str:
    """The canonical text. Raises SpecError with every mistake of a text that does not parse."""
    _, mistakes = parser.parse(source)
    if mistakes:
        raise SpecError(mistakes, source)
    statements, last_notes = _scan(source.text)
    lines = [line for statement in statements for line in (*_notes(statement[0].above), *_lay_out(statement))] + _notes(last_notes)
    text = "".join(_finish(lines)).lstrip("\n")
    if len(text) > parser.MAX_TEXT:
        message = f"a spec has at most {parser.MAX_TEXT:,} characters; laid out, this one has {len(text):,}"
        raise SpecError([Diagnostic("text-too-long", message, Span(0, 1))], source)
    return text


def difference(before: str, after: str, filename: str) -> str:
    """A unified diff of two texts, empty where they are equal."""
    old, new = (re.findall(r"[^\n]*\n|[^\n]+", text) for text in (before, after))
    lines = difflib.unified_diff(old, new, filename, f"{filename} (formatted)")
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


# ------------------------------------------------------------------------------------------------ tokens and comments


@dataclass(frozen=True, slots=True)
class _Note:
    """A comment on a line of its own."""

    text: str
    after_blank: bool


@dataclass(frozen=True, slots=True)
class _Token:
    """A token and the comments that hang on it: those on the lines before it, and the one behind it."""

    text: str
    after_blank: bool
    above: tuple[_Note, ...] = ()
    behind: str = ""


def _scan(text: str) -> tuple[list[list[_Token]], list[_Note]]:
    """The tokens of each statement, and the comments behind the last one. In a text that parses, no statement word stands inside a statement."""
    statements: list[list[_Token]] = []
    above: list[_Note] = []
    before, fresh_line, after_blank = "", True, False
    for piece in PIECES.finditer(text):
        word = piece.group()
        if piece.lastgroup is not None:
            if word in syntax.STATEMENTS and not (word == "layout" and before in ("queries", "keys")):
                statements.append([])
            statements[-1].append(_Token(word, after_blank, tuple(above)))
            above = []
            before, fresh_line, after_blank = word, False, False
        elif not word.startswith("#"):
            newlines = word.count("\n")
            fresh_line, after_blank = fresh_line or newlines > 0, newlines > 1
        elif fresh_line:
            above.append(_Note(word.rstrip(), after_blank))
            after_blank = False
        else:
            statements[-1][-1] = replace(statements[-1][-1], behind=word.rstrip())
    return statements, above


def _ends_an_operand(word: str) -> bool:
    """Whether an operator behind this token has it as its left operand, and a bracket calls or subscripts it."""
    return word in (")", "]", "}", "true", "false", "q", "k") or (word.isidentifier() and word not in syntax.RESERVED) or word[0].isdigit()


def _spaces(words: Sequence[str]) -> Iterator[bool]:
    """For each token of a statement, whether a space stands before it where no line begins."""
    open_for: list[bool] = []  # of each open bracket, whether spaces stand inside it
    before, tight = "", True
    for word in words:
        tight_before = tight_after = False
        match word:
            case "," | ":":
                tight_before = True
            case ".":
                tight_before = tight_after = True
            case "(" | "[":
                tight_before, tight_after = _ends_an_operand(before) or before in ("any", "all"), True
                open_for.append(False)
            case "{":
                tight_after = before == "in"  # a set; the others are layouts
                open_for.append(not tight_after)
            case ")" | "]" | "}":
                tight_before = not open_for.pop()
            case "+" | "-":
                tight_after = not _ends_an_operand(before)
        yield not (tight or tight_before)
        before, tight = word, tight_after


# ----------------------------------------------------------------------------------------------------- where to break

# A line breaks before these words, and between the members of a list. `is` and `in` stay with what they ask about: a long set breaks inside.
_LOOSEST_FIRST = (
    ("where", "by", "weight", "per", "given", "for"),
    ("list",),
    ("else",),
    ("if",),
    ("implies",),
    ("or",),
    ("and",),
    ("==", "!=", "<", "<=", ">", ">="),
    ("+", "-"),
    ("*", "/", "//", "%"),
    ("**",),
)
_LEVEL = {word: level for level, words in enumerate(_LOOSEST_FIRST, 1) for word in words}
_LIST = _LEVEL["list"]
_BY_COMMENT = 0  # where nothing but a comment breaks the line
_HEADER = 1000  # depth of the parameters of a `let`: they break last

_Key = tuple[int, int]  # brackets round the place, level of its operator: the least breaks first


@dataclass(slots=True)
class _Split:
    """A piece of a statement breaks before the tokens `at`, which bind equally loosely; the pieces between them break as `inside` says."""

    key: _Key
    at: list[int]
    inside: list[_Split | None]


def _breaks(words: Sequence[str], spaces: Sequence[bool], forced: Sequence[bool]) -> Iterator[tuple[int, _Key]]:
    """Every token that may begin a line."""
    depth, in_header = 0, words[0] == "let"
    for i, word in enumerate(words):
        level = _level(words, spaces, i)
        if level is None and forced[i]:
            level = _BY_COMMENT
        if level is not None:
            yield i, (depth + _HEADER * in_header, level)
        depth += (word in "([{") - (word in ")]}")
        in_header = in_header and word != "="


def _level(words: Sequence[str], spaces: Sequence[bool], i: int) -> int | None:
    if i < 2:  # `queries where` stays together
        return None
    word, before = words[i], words[i - 1]
    if before == "," or (spaces[i] and (before == "{" or word == "}")):  # the braces of a layout have spaces inside, and break like its commas
        return _LIST
    if (word in "+-" and not _ends_an_operand(before)) or (word == "given" and words[i + 1] == "{"):  # a sign; a layout
        return None
    return _LEVEL.get(word)


def _tree(breaks: Iterable[tuple[int, _Key]]) -> _Split | None:
    """The breaks, loosest at the root: a Cartesian tree, built in one pass and without recursion."""
    spine: list[_Split] = []  # from the root down the right side
    for at, key in breaks:
        tighter = None
        while spine and spine[-1].key > key:
            tighter = spine.pop()
        if spine and spine[-1].key == key:
            spine[-1].at.append(at)
            spine[-1].inside.append(None)
            continue
        split = _Split(key, [at], [tighter, None])
        if spine:
            spine[-1].inside[-1] = split
        spine.append(split)
    return spine[0] if spine else None


def _line_starts(words: Sequence[str], spaces: Sequence[bool], forced: Sequence[bool]) -> dict[int, int]:
    """The tokens that begin a line, the first one aside, each with its indent.

    A piece that fits stays on its line. Another breaks at its loosest places, all of them, and each part is a piece again, one step deeper.
    Commas outside layouts break only where the line is full.
    """
    ends = list(accumulate(len(word) + space for word, space in zip(words, spaces, strict=True)))
    breaks_before = list(accumulate(forced))

    def width(start: int, end: int) -> int:
        return ends[end - 1] - ends[start] + len(words[start])

    def fits(start: int, end: int, column: int) -> bool:
        return breaks_before[end - 1] == breaks_before[start] and column + width(start, end) <= WIDTH

    if fits(0, len(words), 0):
        return {}
    filled = "layout" not in words[:2]
    found: dict[int, int] = {}
    work: list[tuple[_Split | None, int, int, int, int]] = [(_tree(_breaks(words, spaces, forced)), 0, len(words), 0, INDENT)]
    while work:
        split, first, last, column, indent = work.pop()
        if split is None or fits(first, last, column):
            continue
        level = split.key[1]
        deeper = indent if level == _BY_COMMENT else min(indent + INDENT, MOST_INDENT)
        edges = [first, *split.at, last]
        room = False  # whether the line so far may be continued behind a comma
        for inside, (start, end) in zip(split.inside, pairwise(edges), strict=True):
            if room and not forced[start] and fits(start, end, column + 1):
                column += 1 + width(start, end)
                continue
            if start > first:
                column = found[start] = indent - INDENT if words[start] in ")]}" else indent
            work.append((inside, start, end, column, deeper))
            room = filled and level == _LIST and fits(start, end, column)
            column += width(start, end)
    return found


# -------------------------------------------------------------------------------------------------------------- lines


@dataclass(frozen=True, slots=True)
class _Line:
    code: str
    comment: str = ""
    after_blank: bool = False
    lines_up: bool = False  # a whole statement and its comment


def _notes(notes: Iterable[_Note]) -> list[_Line]:
    return [_Line(note.text, after_blank=note.after_blank) for note in notes]


def _lay_out(tokens: list[_Token]) -> list[_Line]:
    """The lines of one statement, without the comments above it."""
    words = [token.text for token in tokens]
    spaces = list(_spaces(words))
    forced = [False, *(bool(before.behind or token.above) for before, token in pairwise(tokens))]
    starts = _line_starts(words, spaces, forced)
    lines: list[_Line] = []
    edges = [0, *sorted(starts), len(tokens)]
    for start, end in pairwise(edges):
        indent = starts.get(start, 0)
        if start:
            inside = indent + INDENT * (words[start] in ")]}")
            lines += [_Line(" " * inside + note.text) for note in tokens[start].above]
        rest = "".join(" " * spaces[i] + words[i] for i in range(start + 1, end))
        lines.append(_Line(" " * indent + words[start] + rest, tokens[end - 1].behind))
    lines_up = len(lines) == 1 and bool(lines[0].comment)
    return [replace(lines[0], after_blank=tokens[0].after_blank, lines_up=lines_up), *lines[1:]]


def _spread(block: Iterable[_Line]) -> int:
    widths = [len(line.code) for line in block]
    return max(widths) - min(widths)


def _finish(lines: Iterable[_Line]) -> Iterator[str]:
    """The lines as text, blank lines between them; the comments of neighbouring statements stand in one column, if none is pushed far for it."""
    blocks: list[list[_Line]] = []
    for line in lines:
        if line.lines_up and not line.after_blank and blocks and blocks[-1][-1].lines_up and _spread([*blocks[-1], line]) <= MOST_SPREAD:
            blocks[-1].append(line)
        else:
            blocks.append([line])
    for block in blocks:
        column = max(len(line.code) for line in block)
        for line in block:
            yield "\n" * line.after_blank
            yield f"{line.code:{column}}{COMMENT_GAP}{line.comment}\n" if line.comment else f"{line.code}\n"
