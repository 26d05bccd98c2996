"""What is trained on: the tokens of files, or of the reference text that ships inside Python itself, and which of them are held out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..diagnostics import InputError
from .sources import FileSource, Held, Joined, Source, fingerprint
from .task import Measure, Places

HELD_OUT = 0.1
MOST_WINDOWS = 64  # of the held-out data, that a run is judged by
BITS = 1 / math.log(2)  # bits in a nat


@dataclass(frozen=True, slots=True)
class Stretch:
    """The tokens from `begin` to `end` of a source that holds one in every `dtype`."""

    source: Source
    begin: int
    end: int
    dtype: np.dtype = np.dtype(np.uint8)  # noqa: RUF009

    def __len__(self) -> int:
        return self.end - self.begin

    def windows(self, starts: Sequence[int], length: int) -> Tensor:
        """(windows, length) int64. Raises InputError where the source cannot be read any more."""
        size = self.dtype.itemsize
        read = (self.source.read((self.begin + start) * size, length * size) for start in starts)
        return torch.from_numpy(np.stack([np.frombuffer(data, self.dtype) for data in read]).astype(np.int64))

    def spread(self, length: int, most: int) -> Tensor:
        """(windows, length), evenly spread, at most `most`."""
        count = max(1, min(most, len(self) // length))
        # In whole numbers: places in a large file are beyond what float32 tells apart.
        return self.windows([n * (len(self) - length) // max(1, count - 1) for n in range(count)], length)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Text, as a task. `name` says where the data come from; `num_tokens` is the size of the vocabulary, `bytes_per_token` what a held-out token stands for on average."""

    name: str
    train: Stretch
    held_out: Stretch
    num_tokens: int = 256
    bytes_per_token: float = 1.0
    places: Places = field(default_factory=Places)

    def check(self) -> None:
        """Raises InputError if a file has changed or gone since it was opened."""
        self.train.source.check()
        self.held_out.source.check()

    @property
    def sizes(self) -> Mapping[str, Any]:
        return {"num_tokens": self.num_tokens}

    def measure(self, words: int) -> Measure:
        return bits_per_byte(self.bytes_per_token)

    def draw(self, count: int, words: int, generator: torch.Generator) -> dict[str, Any]:
        """Random windows of what is trained on: x (count, words) int64."""
        self.check()
        starts = torch.randint(len(self.train) - words + 1, (count,), generator=generator)
        return {"x": self.train.windows(starts.tolist(), words)}

    def unseen(self, words: int) -> dict[str, Any]:
        return {"x": self.held_out.spread(words, MOST_WINDOWS)}

    def fingerprint(self, words: int) -> str:
        return f"{fingerprint(self.train.source)}:{self.train.end}:{fingerprint(self.held_out.source)}:{self.num_tokens}"


def bits_per_byte(bytes_per_token: float = 1.0) -> Measure:
    """Of errors in nats a data token, each of which stands for so many bytes on average."""
    return Measure("bits per byte", "bits/byte", "bits_per_byte", BITS / bytes_per_token)


def corpus(files: Sequence[str | Path], length: int, held_out: float = HELD_OUT, validation: Sequence[str | Path] = ()) -> Corpus:
    """The bytes of some files, in order, or of Python's own reference documentation if none is given; the last of them are held out, a share of
    `held_out`, unless `validation` names files of their own.

    Raises InputError for a file that cannot be read, or if there are too few bytes for windows of `length`.
    """
    name, source = opened(files)
    cut = source.size if validation else source.size - int(source.size * held_out)
    train = Stretch(source, 0, cut)
    kept = Stretch(source, cut, source.size)
    if validation:
        other, apart = opened(validation)
        name, kept = f"{name}; held out: {other}", Stretch(apart, 0, apart.size)
    check_sizes(name, train, kept, length, 0.0 if validation else held_out)
    return Corpus(name, train, kept)


def check_sizes(name: str, train: Stretch, kept: Stretch, length: int, share: float) -> None:
    """Raises InputError if a window does not fit into what is trained on, or into what is held out."""
    if min(len(train), len(kept)) >= length:
        return
    if share:
        need = int(length / min(share, 1 - share)) + 1
        raise InputError(
            f"{name}: {len(train) + len(kept):,} tokens are too few for windows of {length}, a share of {share:g} being held out: give {need:,} or more, "
            "or a smaller words="
        )
    raise InputError(
        f"{name}: {len(train):,} tokens to train on and {len(kept):,} held out are too few for windows of {length}: give more, or a smaller words="
    )


def opened(files: Sequence[str | Path]) -> tuple[str, Source]:
    """The bytes of files end to end, and what to call them."""
    if files:
        return ", ".join(str(f) for f in files), Joined([FileSource(f) for f in files])
    from pydoc_data import topics

    text = "\n\n".join(topics.topics[key] for key in sorted(topics.topics))
    return "Python's reference documentation (pydoc_data.topics)", Held(text.encode())
