"""Bytes to train on: files, or the reference text that ships inside Python itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..diagnostics import InputError

HELD_OUT = 0.1


@dataclass(frozen=True, slots=True)
class Corpus:
    """`train` and `held_out`, uint8 vectors; `name` says where they come from."""

    name: str
    train: Tensor
    held_out: Tensor

    def batch(self, size: int, length: int, generator: torch.Generator) -> Tensor:
        """(size, length) random windows of the training bytes, int64."""
        starts = torch.randint(len(self.train) - length + 1, (size,), generator=generator)
        return self.train[starts[:, None] + torch.arange(length)].long()

    def held_out_windows(self, length: int, most: int) -> Tensor:
        """(windows, length) of the held-out bytes, evenly spread, at most `most`."""
        count = max(1, min(most, len(self.held_out) // length))
        starts = torch.linspace(0, len(self.held_out) - length, count).long()
        return self.held_out[starts[:, None] + torch.arange(length)].long()


def corpus(files: Sequence[str | Path], length: int) -> Corpus:
    """The bytes of some files, in order, or of Python's own reference documentation if none is given; the last tenth is held out.

    Raises InputError for a file that cannot be read, or if there are too few bytes for windows of `length`.
    """
    if files:
        name, data = ", ".join(str(f) for f in files), b"".join(_read(Path(f)) for f in files)
    else:
        from pydoc_data import topics

        name = "Python's reference documentation (pydoc_data.topics)"
        data = "\n\n".join(topics.topics[key] for key in sorted(topics.topics)).encode()
    held_out = int(len(data) * HELD_OUT)
    if min(held_out, len(data) - held_out) < length:
        need = int(length / HELD_OUT) + 1
        raise InputError(
            f"{name}: {len(data):,} bytes are too few for windows of {length}, a tenth being held out: give {need:,} or more, or a smaller --words"
        )
    tensor = torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
    return Corpus(name, tensor[:-held_out], tensor[-held_out:])


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    if not data:
        raise InputError(f"{path} is empty: nothing to train on")
    return data
