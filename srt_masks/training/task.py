"""`Task`: what a run trains on, and in what its results are said. Text is one (`data.Corpus`); numbers that are made as they are needed are another
(`made.Numbers`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..diagnostics import InputError, listing
from ..models.losses import Loss

# What a model is called with, by the names of its arguments. Every tensor has the sequences along its first axis.
Batch = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Places:
    """The files that data come from, as they were named; without any, the text that ships inside Python."""

    files: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    tokenizer: str | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """What results are said in: the mean error of the last row that predicts each data token, or of all rows of one `part` of the loss, times `scale`."""

    name: str  # such as "bits per byte"
    short: str  # such as "bits/byte"
    key: str  # in files: "bits_per_byte"
    scale: float
    part: str | None = None  # a role, or a slot of one: `reason`, `reason[1]`

    def error(self, loss: Loss) -> Tensor:
        """The mean error that counts. Raises InputError for a part that the loss has not."""
        if self.part is None:
            return loss.last
        if self.part not in loss.parts:
            raise InputError(f"results are to be those of {self.part!r}, and no row called so is trained: those that are are {listing(list(loss.parts))}")
        return loss.parts[self.part]

    @property
    def rows(self) -> str:
        """Which rows speak, in words."""
        return "the last row that predicts each data token" if self.part is None else f"the rows of {self.part}"


class Task(Protocol):
    """`name` says where the data come from, `fingerprint` tells them from others; `sizes` are the arguments of `build_model` that they decide."""

    @property
    def name(self) -> str: ...

    @property
    def sizes(self) -> Mapping[str, Any]: ...

    @property
    def places(self) -> Places: ...

    def fingerprint(self, words: int) -> str: ...

    def measure(self, words: int) -> Measure:
        """What results are said in, where sequences have so many data tokens."""
        ...

    def check(self) -> None:
        """Raises InputError if the data are no longer what they were."""
        ...

    def draw(self, count: int, words: int, generator: torch.Generator) -> Batch:
        """So many sequences to train on; the state of the generator is the position in the data. Raises InputError where they cannot be had."""
        ...

    def unseen(self, words: int) -> Batch:
        """What a run is judged by, and never trains on: the same at every call."""
        ...


def parts_of(batch: Batch, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """A batch in parts of so many sequences each."""
    tensors = {name: value.split(list(sizes)) for name, value in batch.items() if isinstance(value, Tensor)}
    rest = {name: value for name, value in batch.items() if name not in tensors}
    return [{**rest, **{name: parts[place] for name, parts in tensors.items()}} for place in range(len(sizes))]


def equal_parts(batch: Batch, count: int) -> list[dict[str, Any]]:
    """A batch in so many equal parts: its sequences are a multiple of that."""
    return parts_of(batch, [sequences(batch) // count] * count)


def sequences(batch: Batch) -> int:
    return next(len(value) for value in batch.values() if isinstance(value, Tensor))


def on(device: torch.device, batch: Batch) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


@dataclass(slots=True)
class Tally:
    """What several losses come to: float64 sums of weighted errors, of their weights, of the errors that `measure` counts, and how many those are."""

    measure: Measure
    sums: Tensor

    @staticmethod
    def of(measure: Measure) -> Tally:
        return Tally(measure, torch.zeros(4, dtype=torch.float64))

    def add(self, loss: Loss, count: int) -> None:
        """A loss of so many sequences."""
        counted = loss.count if self.measure.part is None else count
        with torch.no_grad():
            self.sums[:3] += torch.stack([loss.loss * loss.weight, loss.weight, self.measure.error(loss) * counted]).cpu().double()
            self.sums[3] += counted
