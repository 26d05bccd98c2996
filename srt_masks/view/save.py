"""Pictures into a file, by the ending of its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..diagnostics import InputError
from .html import document
from .picture import Picture
from .png import png
from .svg import svg

FORMATS = {".svg": svg, ".html": document, ".png": png}


def save(pictures: Sequence[Picture], path: str | Path) -> None:
    """Write pictures of one spec as .svg, .html or .png. Raises InputError for another ending, or a file that cannot be written."""
    if not isinstance(path, str | Path) or "\0" in str(path):
        raise InputError(f"a path is wanted; got {path!r}")
    path = Path(path)
    make = FORMATS.get(path.suffix.lower())
    if make is None:
        raise InputError(f"a picture is written as {', '.join(FORMATS)}; got {path.name!r}: give a name that ends in one of them")
    if not pictures:
        raise InputError("there is no picture to write")
    made = make(pictures)
    try:
        path.write_bytes(made if isinstance(made, bytes) else made.encode("utf-8"))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
