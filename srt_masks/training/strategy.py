"""`Strategy`: what a training loop asks of the processes it runs in. Here is the one for a process that is alone; others stand in `distributed/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ..models.checkpoint import save_model
from ..models.tensor_files import read_about, read_into, write_tensors
from ..models.transformer import SpecTransformer
from .task import Batch

T = TypeVar("T")


class Strategy(Protocol):
    """The same calls are made on every rank, in the same order.

    Gradients: every rank calls backward on the *sum* of weighted errors of what is its own, and `wrap` has them averaged over the ranks; the loop then
    divides by the mean of the weights, so that a step is that of one process on the joined batch.
    """

    world: int

    @property
    def leader(self) -> bool:
        """Whether this rank writes logs, plots and progress."""
        ...

    @property
    def shares(self) -> int:
        """Into how many parts `share` divides a batch: as many as there are ranks, unless several work on the same sequences."""
        ...

    @property
    def weight_shares(self) -> int:
        """Into how many parts weights, gradients and the state of the optimiser are divided."""
        ...

    @property
    def here(self) -> int:
        """How many of the processes are on this machine."""
        ...

    def wrap(self, model: SpecTransformer, device: torch.device) -> Any:
        """The module that the loop calls in the model's place, on `device`. What is trained are the parameters of `model` afterwards."""
        ...

    def share(self, batch: Batch) -> Batch:
        """This rank's sequences of a batch."""
        ...

    def passing(self, module: Any, last: bool) -> AbstractContextManager[Any]:
        """Around the forward and backward of one part of a batch; gradients need to be those of all ranks only after the `last`."""
        ...

    def clip(self, model: SpecTransformer, most: float) -> float:
        """Scale all gradients so that their norm, over all ranks, is at most `most`; the norm before."""
        ...

    def mean(self, values: Tensor) -> Tensor:
        """The mean over ranks of a few numbers, (n,) float64."""
        ...

    def agree(self, asked: bool) -> bool:
        """Whether any rank was asked to stop."""
        ...

    def leader_first(self, do: Callable[[], T], path: Path) -> T:
        """Done by the leader, and then by the others, who find the files in `path` that it has written. What it raises, InputError or of files, is raised
        by all."""
        ...

    def save(self, path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
        """A checkpoint of tensors and texts, whole or not at all: an older one stays until it is. Raises InputError where it cannot be written."""
        ...

    def about(self, path: Path) -> dict[str, str]:
        """The texts of a checkpoint. Raises InputError where it is missing or broken."""
        ...

    def load(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Fill tensors from a checkpoint, in place. Raises InputError unless it has these, of these shapes and types."""
        ...

    def save_model(self, path: Path, model: SpecTransformer, about: Mapping[str, str]) -> None:
        """The model alone, as `srt_masks.load_model` reads it."""
        ...


class Alone:
    """One process."""

    world, leader, shares, weight_shares, here = 1, True, 1, 1, 1

    def wrap(self, model: SpecTransformer, device: torch.device) -> Any:
        return model.to(device)

    def share(self, batch: Batch) -> Batch:
        return batch

    def passing(self, module: Any, last: bool) -> AbstractContextManager[Any]:
        return nullcontext()

    def clip(self, model: SpecTransformer, most: float) -> float:
        return torch.nn.utils.clip_grad_norm_(model.parameters(), most).item()

    def mean(self, values: Tensor) -> Tensor:
        return values

    def agree(self, asked: bool) -> bool:
        return asked

    def leader_first(self, do: Callable[[], T], path: Path) -> T:
        return do()

    def save(self, path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
        write_tensors(path, tensors, about)

    def about(self, path: Path) -> dict[str, str]:
        return read_about(path)

    def load(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        read_into(path, tensors)

    def save_model(self, path: Path, model: SpecTransformer, about: Mapping[str, str]) -> None:
        save_model(model, path, about)
