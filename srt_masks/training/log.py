"""What a run leaves behind of every step: one JSON object a line."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..diagnostics import InputError
from .loop import Report
from .task import Measure


class Log:
    """Lines of a file, each written at once. With `after`, a step, the file is gone on with behind it: what a run did after its last checkpoint, and will do
    again, is dropped. Raises InputError where the file cannot be written."""

    def __init__(self, path: Path, measure: Measure, after: int | None = None):
        self.path, self.measure = path, measure
        self.history: list[tuple[int, float]] = []  # (step, what was measured) of every step that is in the file
        kept = [] if after is None else [entry for entry in entries(path) if entry.get("step", 0) <= after and entry.get("event") != "end"]
        try:
            if kept:
                beside = path.with_name(f".{path.name}.{os.getpid()}.part")
                beside.write_bytes(b"".join(map(_line, kept)))
                os.replace(beside, path)
            # Nothing is held back: what a line says is in the file, or raises.
            self._file = path.open("ab" if kept else "wb", buffering=0)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None
        weakref.finalize(self, self._file.close)
        for entry in kept:
            self._remember(entry)

    def close(self) -> None:
        self._file.close()

    def write(self, entry: Mapping[str, Any]) -> None:
        line = memoryview(_line(entry))
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}. The last checkpoint is whole: make room, then resume") from None
        self._remember(entry)

    def _remember(self, entry: Mapping[str, Any]) -> None:
        if self.measure.key in entry and "event" not in entry:
            self.history.append((entry["step"], entry[self.measure.key]))


def entry_of(report: Report, measure: Measure) -> dict[str, Any]:
    """What the log says of a step."""
    entry = {
        "step": report.step, "loss": report.loss, measure.key: report.measured, "norm": report.norm,
        "learning_rate": report.learning_rate, "tokens_per_second": report.tokens_per_second, "seconds": report.seconds,
    }  # fmt: skip
    return {**entry, **({"params": dict(report.params)} if report.params else {})}


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def entries(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; the last may have been cut off."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries
