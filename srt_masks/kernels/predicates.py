"""Emitted source -> an imported module: written once into a folder private to the user, under a name that is its content's hash.

Triton reads a kernel's source from its file, so the text has to lie in one. The folder is `SRT_MASKS_CACHE`, or `srt_masks` in the
user's cache folder; one that another user could write to is refused. A file is written beside and renamed, so that concurrent
writers leave one whole file; its content is compared before it is imported.
"""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
import tempfile
from importlib.machinery import SourceFileLoader
from pathlib import Path
from threading import Lock
from types import CodeType, ModuleType

from ..diagnostics import BackendError
from .emit import Source

_LOCK = Lock()
_PREFIX = "srt_masks_predicate_"


def module_of(source: Source) -> ModuleType:
    """The functions of a predicate module, ready to be given to a kernel. Raises BackendError where no folder can be written."""
    name = _PREFIX + source.key
    with _LOCK:
        if name in sys.modules:
            return sys.modules[name]
        path = _written(folder() / f"{name}.py", source.text)
        spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module


class _FromSource(SourceFileLoader):
    """Compiles the text that was compared, never a .pyc that lies beside it."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def folder() -> Path:
    """The cache folder, made if it is missing. Raises BackendError if it is not the user's alone."""
    chosen = os.environ.get("SRT_MASKS_CACHE")
    remedy = "set SRT_MASKS_CACHE to a folder of your own"
    try:
        path = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "srt_masks"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except (OSError, RuntimeError) as error:
        raise BackendError(f"no folder for emitted kernels: {error}; {remedy}") from None
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise BackendError(f"{path} is another user's, and kernels are code: {remedy}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and os.name == "posix":
        raise BackendError(f"others can write to {path}, and kernels are code: chmod go-w {path}, or {remedy}")
    return path


def kept(name: str) -> str | None:
    """What `keep` put under a name; None where it did not, or it cannot be read."""
    try:
        return (folder() / name).read_text()
    except (OSError, UnicodeDecodeError):
        return None


def keep(name: str, text: str) -> None:
    """A file of the cache folder. Raises BackendError where it cannot be written."""
    _written(folder() / name, text)


def _written(path: Path, text: str) -> Path:
    try:
        if path.is_file() and path.read_bytes() == text.encode():
            return path
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="\n", dir=path.parent, prefix=path.stem, suffix=".tmp", delete=False) as file:
            file.write(text)
        os.replace(file.name, path)
    except OSError as error:
        raise BackendError(f"cannot write {path}: {error.strerror or error}; set SRT_MASKS_CACHE to a folder of your own") from None
    return path
