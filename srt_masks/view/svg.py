"""Pictures as SVG: one self-contained drawing, of colours that read on light and on dark pages.

Nothing is filled behind the drawing and all lettering is a middle grey, so it takes on the page's own background without asking for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from textwrap import wrap

from .picture import Mark, Picture, legend

# Apart also for those who do not tell red from green (Okabe and Ito 2008).
COLOURS = {Mark.TRAINS: "#009e73", Mark.PART: "#56b4e9", Mark.SEES: "#e69f00", Mark.NOTHING: "#808080"}
FAINT = 0.1  # how much of NOTHING's grey shows
INK = "#767676"
FONT = 'font-family="ui-monospace, Menlo, Consolas, monospace"'
LETTER, LINE = 6.1, 14  # width of a letter and height of a line of lettering, in pixels at size 10
WIDEST = 900  # pictures stand side by side up to here
NARROWEST = 60 * LETTER  # room for the lettering
GAP = 24


def svg(pictures: Sequence[Picture]) -> str:
    """Every picture, under the title they share and over one legend."""
    shared = len({p.title for p in pictures}) == 1
    captions = [p.which if shared and len(pictures) > 1 else p.heading for p in pictures]
    blocks = [_block(p, caption if len(pictures) > 1 else "") for p, caption in zip(pictures, captions, strict=True)]
    title = captions[0] if len(pictures) == 1 else pictures[0].title if shared else "; ".join(captions)
    places, width, height = _flow([(w, h) for w, h, _ in blocks])
    width = max(width, NARROWEST)
    heading = _lines(title, width) if shared else []
    top = LINE * len(heading) + (8 if heading else 0)
    parts = [_words(line, 0, LINE * (n + 1) - 3, ' font-weight="bold"') for n, line in enumerate(heading)]
    parts += [f'<g transform="translate({_n(x)} {_n(y + top)})">{body}</g>' for (x, y), (_, _, body) in zip(places, blocks, strict=True)]
    below, bottom = _below(pictures, width, top + height + 10)
    size = f'width="{_n(width)}" height="{_n(bottom)}" viewBox="0 0 {_n(width)} {_n(bottom)}"'
    body = "\n".join([f"<title>{_text(title)}</title>", *parts, *below])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {FONT} font-size="10" fill="{INK}">\n{body}\n</svg>\n'


def _flow(sizes: Sequence[tuple[float, float]]) -> tuple[list[tuple[float, float]], float, float]:
    """Places of blocks put side by side while they fit, then below; and the width and height of all."""
    places: list[tuple[float, float]] = []
    x = y = row = widest = 0.0
    for width, height in sizes:
        if x and x + width > WIDEST:
            x, y, row = 0.0, y + row + GAP, 0.0
        places.append((x, y))
        widest, row, x = max(widest, x + width), max(row, height), x + width + GAP
    return places, widest, y + row


def _block(p: Picture, caption: str) -> tuple[float, float, str]:
    """Width, height and drawing of one picture with the names of its rows and columns."""
    cell = _cell(max(len(p.rows), len(p.columns)))
    left = LETTER * max((len(r) for r in p.rows), default=0) + 10
    top = LETTER * max((len(c) for c in p.columns), default=0) + 10 + (LINE if caption else 0)
    right, bottom = left + cell * len(p.columns), top + cell * len(p.rows)
    parts = [_words(caption, 0, LINE - 3)] if caption else []
    parts += [_words(p.rows[i], left - 7, top + cell * (i + 0.5) + 3.5, ' text-anchor="end"') for i in _named(p.row_starts, len(p.rows), cell)]
    for j in _named(p.column_starts, len(p.columns), cell):
        x, y = left + cell * (j + 0.5) + 3.5, top - 7
        parts.append(_words(p.columns[j], x, y, f' transform="rotate(-90 {_n(x)} {_n(y)})"'))
    parts += _cells(p, cell, left, top)
    lines = [f"M{_n(left + cell * j)} {_n(top)}V{_n(bottom)}" for j in range(len(p.columns) + 1)]
    lines += [f"M{_n(left)} {_n(top + cell * i)}H{_n(right)}" for i in range(len(p.rows) + 1)]
    steps = [f"M{_n(left + cell * j)} {_n(top - 5)}V{_n(bottom)}" for j in p.column_starts] if len(p.column_starts) < len(p.columns) else []
    steps += [f"M{_n(left - 5)} {_n(top + cell * i)}H{_n(right)}" for i in p.row_starts] if len(p.row_starts) < len(p.rows) else []
    # Where cells are small, lines round each would hide them.
    parts += [_path(lines, 0.25), _path(steps, 0.8)] if cell >= 6 else [_path(steps, 0.3)]
    return max(right, LETTER * len(caption)) + 1, bottom + 1, "\n".join(x for x in parts if x)


def _cell(tokens: int) -> float:
    return 16 if tokens <= 24 else 12 if tokens <= 48 else max(3.0, 600 // tokens)


def _named(starts: Sequence[int], count: int, cell: float) -> list[int]:
    """The rows to write a name at: all, or where they are too narrow the first of each step, as far as there is room."""
    if cell >= 11:
        return list(range(count))
    shown: list[int] = []
    for i in starts:
        if not shown or (i - shown[-1]) * cell >= 11:
            shown.append(i)
    return shown


def _cells(p: Picture, cell: float, left: float, top: float) -> Iterator[str]:
    """Equal neighbours in a row are one rectangle, whose title says what they are."""
    for i, (name, row) in enumerate(zip(p.rows, p.cells, strict=True)):
        for mark, run in groupby(range(len(row)), key=lambda j, row=row: row[j]):
            columns = list(run)
            first, last = p.columns[columns[0]], p.columns[columns[-1]]
            said = f"{name}, {first if first == last else f'{first} to {last}'}: {mark.words}"
            place = f'x="{_n(left + cell * columns[0])}" y="{_n(top + cell * i)}" width="{_n(cell * len(columns))}" height="{_n(cell)}"'
            yield f"<rect {place} {_fill(mark)}><title>{_text(said)}</title></rect>"


def _below(pictures: Sequence[Picture], width: float, y: float) -> tuple[list[str], float]:
    """Legend and note, and where they end."""
    parts: list[str] = []
    x = 0.0
    for mark in legend(pictures):
        wide = 16 + LETTER * len(mark.words)
        if x and x + wide > width:
            x, y = 0.0, y + LINE
        parts.append(f'<rect x="{_n(x)}" y="{_n(y)}" width="11" height="11" {_fill(mark)}/>')
        parts.append(_words(mark.words, x + 16, y + 9))
        x += wide + 14
    y += LINE + 6
    for line in _lines(pictures[-1].note, width):
        parts.append(_words(line, 0, y + 9))
        y += LINE
    return parts, y


def _lines(text: str, width: float) -> list[str]:
    return wrap(text, max(10, int(width / LETTER))) or [""]


def _path(lines: Sequence[str], opacity: float) -> str:
    return f'<path d="{"".join(lines)}" stroke="{INK}" stroke-opacity="{opacity}"/>' if lines else ""


def _fill(mark: Mark) -> str:
    return f'fill="{COLOURS[mark]}"' + (f' fill-opacity="{FAINT}"' if mark is Mark.NOTHING else "")


def _words(text: str, x: float, y: float, more: str = "") -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}"{more}>{_text(text)}</text>'


def _text(text: str) -> str:
    """Characters that XML does not allow are shown as `?`."""
    return escape("".join(c if c.isprintable() else "?" for c in text))


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
