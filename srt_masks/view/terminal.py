"""Pictures as text: coloured blocks in a terminal, plain characters anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import IO

from .picture import Mark, Picture, legend

_COLOUR = {
    Mark.TRAINS: "\x1b[48;5;71m  \x1b[0m",
    Mark.PART: "\x1b[48;5;74m  \x1b[0m",
    Mark.SEES: "\x1b[48;5;179m  \x1b[0m",
    Mark.NOTHING: "\x1b[38;5;240m··\x1b[0m",
}


def takes_colour(stream: IO[str] | None) -> bool:
    """Whether colours come out as such: of a terminal, unless NO_COLOR asks for none; on Windows of one that says what it is."""
    if stream is None or not stream.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        return False
    return sys.platform != "win32" or any(name in os.environ for name in ("WT_SESSION", "ANSICON", "TERM"))


def render(pictures: Picture | Sequence[Picture], colour: bool) -> str:
    """One picture or several of one spec, under one title and over one legend.

    Labels stand left of the rows; the columns carry the first letter of theirs, in the rows' order.
    """
    if isinstance(pictures, Picture):
        pictures = (pictures,)

    def cell(mark: Mark) -> str:
        return _COLOUR[mark] if colour else f"{mark.character} "

    lines = [pictures[0].heading if len(pictures) == 1 else pictures[0].title]
    for p in pictures:
        width = max((len(r) for r in p.rows), default=0)
        lines += ["", *([p.which] if len(pictures) > 1 else [])]
        lines.append(" " * (width + 2) + " ".join(c.split()[-1][:1] for c in p.columns))
        lines += [f"{label:>{width}}  " + "".join(cell(m) for m in row).rstrip() for label, row in zip(p.rows, p.cells, strict=True)]
    marks = "   ".join(f"{cell(m).rstrip() if not colour else cell(m)} {m.words}" for m in legend(pictures))
    return "\n".join([*lines, "", marks, pictures[-1].note])
