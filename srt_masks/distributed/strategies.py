"""What a training loop asks of several processes (`training/strategy.py`): how a model is shared, who has which sequences, who writes what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from ..diagnostics import InputError
from ..models.checkpoint import save_model
from ..models.transformer import SpecTransformer
from ..training.task import Batch, equal_parts
from .checkpoint import about_checkpoint, on_leader, read, write
from .parallel import Parallel, data_parallel, fully_sharded
from .ranks import Ranks

T = TypeVar("T")


class Many:
    """What both have in common. A step's loss is that of all ranks, on every rank, so that means over ranks change nothing."""

    def __init__(self, ranks: Ranks, tile: int | None = None):
        self.ranks, self.tile = ranks, tile
        # Asked for once: the command line wants to know whether it leads when the processes have parted.
        self.world, self._leads = ranks.world, ranks.rank == 0

    @property
    def leader(self) -> bool:
        return self._leads

    @property
    def shares(self) -> int:
        return self.ranks.data_parts

    @property
    def here(self) -> int:
        return self.ranks.here

    def check(self, device: torch.device) -> None:
        """Raises InputError for a device that the processes have not joined with."""
        if device.type != self.ranks.device.type:
            raise InputError(f"the processes have joined with {self.ranks.device.type}, and device is {device.type}: give device={device.type} by its flag")

    def share(self, batch: Batch) -> Batch:
        return equal_parts(batch, self.ranks.data_parts)[self.ranks.data_rank]

    def mean(self, values: Tensor) -> Tensor:
        return self.ranks.add_up(values.to(self.ranks.device)).to(values.device) / self.world

    def agree(self, asked: bool) -> bool:
        return bool(self.ranks.add_up(torch.tensor(int(asked), device=self.ranks.device)))

    def leader_first(self, do: Callable[[], T], path: Path) -> T:
        found: list[T] = []
        on_leader(lambda: found.append(do()), path)
        return found[0] if self.leader else do()

    def about(self, path: Path) -> dict[str, str]:
        return about_checkpoint(path)

    def load(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        read(path, tensors)

    def save_model(self, path: Path, model: SpecTransformer, about: Mapping[str, str]) -> None:
        whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        on_leader(lambda: save_model(model, path, about, whole), path)  # pyright: ignore[reportArgumentType]  -- all of them are tensors


class DataParallel(Many):
    """Every rank has the whole model, and one writes it: to the file that one process would write."""

    weight_shares = 1

    def wrap(self, model: SpecTransformer, device: torch.device) -> Any:
        self.check(device)
        return data_parallel(model, self.ranks, tile=self.tile)

    def passing(self, module: Parallel, last: bool) -> AbstractContextManager[Any]:
        assert isinstance(module.wrapped, DistributedDataParallel)
        return nullcontext() if last else module.wrapped.no_sync()

    def clip(self, model: SpecTransformer, most: float) -> float:
        return torch.nn.utils.clip_grad_norm_(model.parameters(), most).item()

    def save(self, path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
        write(path, tensors, about, in_parts=False)


class FullySharded(Many):
    """Every rank has a part of each weight, and writes it: checkpoints are folders."""

    @property
    def weight_shares(self) -> int:
        return self.world

    def wrap(self, model: SpecTransformer, device: torch.device) -> Any:
        self.check(device)
        return fully_sharded(model, self.ranks, tile=self.tile)

    def passing(self, module: Parallel, last: bool) -> AbstractContextManager[Any]:
        return _unsynchronised(module, last)

    def clip(self, model: SpecTransformer, most: float) -> float:
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), most)
        return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()

    def save(self, path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
        write(path, tensors, about, in_parts=True)


@contextmanager
def _unsynchronised(module: Parallel, last: bool) -> Any:
    """Gradients of a part stay where they are, whole, until the last."""
    module.share.set_requires_gradient_sync(last)  # type: ignore[operator]  -- a method that FSDP2 gives the module
    yield


STRATEGIES = {"ddp": DataParallel, "fsdp": FullySharded}


def finish() -> None:
    """Leave the other processes in order. They must all have come here."""
    if dist.is_initialized():
        dist.destroy_process_group()
