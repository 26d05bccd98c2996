"""Where the numbers of a training run lie: in files, read a window at a time, or in memory.

Files are read, not mapped into memory: a map of a file that somebody cuts short ends the process without a word. What is read is only what is asked
for, so a file may be far larger than memory.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..diagnostics import InputError

PROBES, PROBE = 64, 4096  # blocks, and bytes of each, that a fingerprint looks at


class Source(Protocol):
    """Bytes by place."""

    size: int

    def read(self, start: int, count: int) -> bytes:
        """So many bytes from `start`, which lie within `size`. Raises InputError where they cannot be had any more."""
        ...

    def check(self) -> None:
        """Raises InputError if what is read is no longer what it was."""
        ...


class Held:
    """Bytes in memory."""

    def __init__(self, data: bytes):
        self.data, self.size = data, len(data)

    def read(self, start: int, count: int) -> bytes:
        return self.data[start : start + count]

    def check(self) -> None:
        pass


class FileSource:
    """A file, as it was when it was opened. Raises InputError if it cannot be read, or is empty."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            kind = os.stat(self.path).st_mode  # before it is opened: a pipe would wait for somebody to write
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                raise InputError(f"{path} is a pipe or a device, and windows are read from any place of the data: write it to a file first")
            self._file = self.path.open("rb", buffering=0)
            self._was = _identity(os.fstat(self._file.fileno()))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from None
        weakref.finalize(self, self._file.close)
        self.size = os.fstat(self._file.fileno()).st_size
        self._lock = threading.Lock()
        if not self.size:
            raise InputError(f"{path} is empty: nothing to train on")

    def read(self, start: int, count: int) -> bytes:
        try:
            data = self._read(start, count)
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror or error}") from None
        if len(data) != count:
            raise InputError(
                f"{self.path} was cut short while it was read: byte {start + len(data):,} of {self.size:,} is not there. Put it back as it was, then resume"
            )
        return data

    def _read(self, start: int, count: int) -> bytes:
        parts = []
        with self._lock:
            self._file.seek(start)
            while count > 0 and (part := self._file.read(count)):
                parts.append(part)
                count -= len(part)
        return b"".join(parts)

    def check(self) -> None:
        try:
            now = _identity(os.stat(self.path))
        except OSError as error:
            raise InputError(f"{self.path} is no longer there ({error.strerror or error}). Put it back as it was, then resume") from None
        if now != self._was:
            raise InputError(
                f"{self.path} was changed while it was trained on: it had {self._was[0]:,} bytes and has {now[0]:,}, or is written anew. "
                "Put it back as it was, then resume"
            )


class Joined:
    """Sources end to end."""

    def __init__(self, sources: Sequence[Source]):
        self.sources = tuple(sources)
        self.size = sum(s.size for s in sources)

    def read(self, start: int, count: int) -> bytes:
        parts = []
        for source in self.sources:
            if start < source.size and count > 0:
                parts.append(source.read(start, min(count, source.size - start)))
                count -= len(parts[-1])
                start = 0
            else:
                start -= source.size
            start = max(start, 0) if parts else start
        return b"".join(parts)

    def check(self) -> None:
        for source in self.sources:
            source.check()


def fingerprint(source: Source) -> str:
    """What tells a source from another: its size, and blocks evenly spread over it. A change elsewhere goes unseen; reading 10 GB would take minutes."""
    digest = hashlib.sha256(str(source.size).encode())
    for number in range(PROBES):
        start = number * max(0, source.size - PROBE) // max(1, PROBES - 1)
        digest.update(source.read(start, min(PROBE, source.size - start)))
    return digest.hexdigest()


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev
