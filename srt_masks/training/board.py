"""A run's numbers for TensorBoard, beside the log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..diagnostics import InputError


class Board:
    """Events in a folder. `after`: a step that the run goes on behind; what was said of later ones is dropped. Raises InputError where the package is
    missing."""

    def __init__(self, folder: Path, after: int | None):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("events for TensorBoard take its package: pip install tensorboard") from None
        if after is None:
            for old in folder.glob("events.out.tfevents.*"):  # of a run that this one takes the place of
                old.unlink()
        self._writer: Any = SummaryWriter(str(folder), purge_step=None if after is None else after + 1)

    def write(self, entry: Mapping[str, Any]) -> None:
        """The numbers of a line of the log that speaks of a step."""
        step = entry.get("step", entry.get("steps"))
        if step is None:
            return
        for name, value in {**entry, **{f"params/{n}": v for n, v in entry.get("params", {}).items()}}.items():
            if isinstance(value, int | float) and name not in ("step", "steps"):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()
