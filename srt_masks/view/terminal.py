"""A picture as text: coloured blocks in a terminal, plain characters anywhere else."""

from __future__ import annotations

from .picture import Mark, Picture

_COLOUR = {Mark.TRAINS: "\x1b[48;5;71m  \x1b[0m", Mark.SEES: "\x1b[48;5;179m  \x1b[0m", Mark.NOTHING: "\x1b[38;5;240m··\x1b[0m"}


def render(picture: Picture, colour: bool) -> str:
    """Labels stand left of the rows; the columns carry the first letter of theirs, in the rows' order."""

    def cell(mark: Mark) -> str:
        return _COLOUR[mark] if colour else f"{mark.character} "

    width = max((len(r) for r in picture.rows), default=0)
    heads = [c.split()[-1][:1] for c in picture.columns]
    lines = [picture.title, "", " " * (width + 2) + "".join(f"{h} " for h in heads)]
    lines += [f"{label:>{width}}  " + "".join(cell(m) for m in row).rstrip() for label, row in zip(picture.rows, picture.cells, strict=True)]
    legend = "   ".join(f"{cell(m).rstrip() if not colour else cell(m)} {m.words}" for m in Mark)
    return "\n".join([*lines, "", legend, picture.note])
