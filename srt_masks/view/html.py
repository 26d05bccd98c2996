"""A picture as a small HTML page, for notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ..diagnostics import InputError
from .picture import Mark, picture

if TYPE_CHECKING:
    from ..spec import Spec

_COLOUR = {Mark.TRAINS: "#5faf5f", Mark.SEES: "#d7af5f", Mark.NOTHING: "#eeeeee"}
CELL = 12


def page(spec: Spec) -> str:
    """The text of a spec and, where it can be drawn without inputs, its picture."""
    text = f"<pre>{escape(spec.text)}</pre>"
    try:
        drawn = picture(spec)
    except InputError as error:
        return f"{text}<p>{escape(str(error))}</p>"
    squares = [
        f'<rect x="{CELL * j}" y="{CELL * i}" width="{CELL - 1}" height="{CELL - 1}" fill="{_COLOUR[m]}">'
        f"<title>{escape(drawn.rows[i])} {m.words} {escape(drawn.columns[j])}</title></rect>"
        for i, row in enumerate(drawn.cells)
        for j, m in enumerate(row)
    ]
    width, height = CELL * len(drawn.columns), CELL * len(drawn.rows)
    legend = " ".join(f'<span style="background:{_COLOUR[m]}">&nbsp;&nbsp;&nbsp;</span> {m.words}' for m in Mark)
    return f'{text}<svg width="{width}" height="{height}">{"".join(squares)}</svg><p>{legend}</p>'
