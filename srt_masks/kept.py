"""What is kept between runs: files in one folder that is private to the user.

The folder is `SRT_MASKS_CACHE`, or `srt_masks` in the user's cache folder; one that another user could write to is refused. A file is written beside
and renamed, so that concurrent writers leave one whole file.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from .diagnostics import BackendError


def folder() -> Path:
    """The cache folder, made if it is missing. Raises BackendError if it is not the user's alone."""
    chosen = os.environ.get("SRT_MASKS_CACHE")
    remedy = "set SRT_MASKS_CACHE to a folder of your own"
    try:
        path = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "srt_masks"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except (OSError, RuntimeError) as error:
        raise BackendError(f"no folder to keep kernels and proofs in: {error}; {remedy}") from None
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise BackendError(f"{path} is another user's, and what is kept there is trusted: {remedy}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and os.name == "posix":
        raise BackendError(f"others can write to {path}, and what is kept there is trusted: chmod go-w {path}, or {remedy}")
    return path


def kept(name: str) -> str | None:
    """What `keep` put under a name; None where it did not, or it cannot be read."""
    try:
        return (folder() / name).read_text()
    except (OSError, UnicodeDecodeError):
        return None


def keep(name: str, text: str) -> None:
    """A file of the cache folder. Raises BackendError where it cannot be written."""
    written(folder() / name, text)


def written(path: Path, text: str) -> Path:
    """The file with this content. Raises BackendError where it cannot be written."""
    try:
        if path.is_file() and path.read_bytes() == text.encode():
            return path
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="\n", dir=path.parent, prefix=path.stem, suffix=".tmp", delete=False) as file:
            file.write(text)
        os.replace(file.name, path)
    except OSError as error:
        raise BackendError(f"cannot write {path}: {error.strerror or error}; set SRT_MASKS_CACHE to a folder of your own") from None
    return path
