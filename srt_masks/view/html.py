"""Pictures as HTML: a fragment for notebooks, a page for files."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from ..diagnostics import InputError
from .picture import Picture, pictures
from .svg import svg

if TYPE_CHECKING:
    from ..spec import Spec


def page(spec: Spec) -> str:
    """The text of a spec and, where it can be drawn without inputs, its pictures."""
    text = f"<pre>{escape(spec.text)}</pre>"
    try:
        return text + svg(pictures(spec))
    except InputError as error:
        return f"{text}<p>{escape(str(error))}</p>"


def document(pictures: Sequence[Picture]) -> str:
    """A whole page that holds the drawing."""
    head = '<meta charset="utf-8"><meta name="color-scheme" content="light dark">'
    title = escape("".join(c if c.isprintable() else "?" for c in pictures[0].title))
    return f"<!doctype html>\n<html>\n<head>{head}<title>{title}</title></head>\n<body>\n{svg(pictures)}</body>\n</html>\n"
