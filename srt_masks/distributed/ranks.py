"""The processes of a run: how they find each other, how long they wait, and which of them work on the same sequences."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from ..default_device import on_the_cpu
from ..diagnostics import Error, InputError

WAIT = 45.0  # seconds that a rank waits for another before it gives up
PATIENCE = 3600.0  # where one writes or reads files for all; a rank that dies is noticed at once here, too
LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed out|timeout", re.IGNORECASE)
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Ranks:
    """All processes, as a mesh of ("data", "context"): those of one row share sequences, and have different rows of them."""

    mesh: DeviceMesh
    device: torch.device

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def world(self) -> int:
        return self.mesh.size()

    @property
    def here(self) -> int:
        """How many are on this machine: all, where whoever began them does not say."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.world))

    @property
    def data_rank(self) -> int:
        """Which part of a batch this rank works on, of `data_parts`."""
        return self.mesh.get_local_rank("data")

    @property
    def data_parts(self) -> int:
        return self.mesh.size(0)

    @property
    def context(self) -> DeviceMesh | None:
        """The ranks that work on the same sequences as this one; None: it works on its own alone."""
        return self.mesh["context"] if self.mesh.size(1) > 1 else None

    @property
    def everyone(self) -> DeviceMesh:
        """All ranks along one axis."""
        assert dist.group.WORLD is not None
        return DeviceMesh.from_group(dist.group.WORLD, self.device.type, mesh_dim_names=("ranks",))

    def add_up(self, numbers: Tensor) -> Tensor:
        """The sum over all ranks."""
        numbers = numbers.clone()
        dist.all_reduce(numbers)
        return numbers


@on_the_cpu
def start(context: int = 1, *, device: str | None = None, timeout: float = WAIT) -> Ranks:
    """Join the processes that `torchrun` started: NCCL between CUDA cards, gloo between CPUs. `context` of them share each sequence. `device` is "cpu" or
    "cuda" (the default where there is one), each process having a card of its own. A rank that waits longer than `timeout` seconds for another raises.
    Raises InputError where the processes cannot be divided so, or none were started."""
    if isinstance(context, bool) or not isinstance(context, int) or context < 1:
        raise InputError(f"context is how many processes share each sequence, 1 or more; got {context!r}")
    if not dist.is_initialized():
        missing = [name for name in LAUNCHED if name not in os.environ]
        if missing:
            raise InputError(f"several processes are started by torchrun, which sets {', '.join(missing)}: torchrun --nproc-per-node=2 -m srt_masks train ...")
        world = int(os.environ["WORLD_SIZE"])
        _check(context, world)
        has_cards = torch.cuda.is_available() if device in (None, "auto") else device == "cuda"
        if has_cards:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if has_cards else "gloo", timeout=timedelta(seconds=timeout))
    world = dist.get_world_size()
    _check(context, world)
    patient()
    on_cards = "nccl" in dist.get_backend_config()
    place = torch.device("cuda", torch.cuda.current_device()) if on_cards else torch.device("cpu")
    return Ranks(_mesh(world // context, context, place, timeout), place)


def patient() -> dist.ProcessGroup:
    """All ranks, waiting for one that works alone. Made once, by all of them at the same place: `start`."""
    return _patient_of(dist.group.WORLD)


@cache
def _patient_of(world: dist.ProcessGroup) -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=PATIENCE))
    assert isinstance(group, dist.ProcessGroup)
    return group


def _mesh(data: int, context: int, device: torch.device, timeout: float) -> DeviceMesh:
    """Its groups are made here, as those that torch makes for a mesh wait for half an hour. Every rank makes all of them."""
    number = torch.arange(data * context).view(data, context)
    mine: list[dist.ProcessGroup] = []
    for ranks in (number.T, number):  # along "data", along "context"
        for members in ranks.tolist():
            group = dist.new_group(members, timeout=timedelta(seconds=timeout))
            if dist.get_rank() in members:
                assert isinstance(group, dist.ProcessGroup)
                mine.append(group)
    return DeviceMesh.from_group(mine, device.type, mesh=number, mesh_dim_names=("data", "context"))


@contextmanager
def watched(remedy: str) -> Iterator[None]:
    """Where what torch says of a lost connection is said in words. `remedy` says what to do. Raises Error."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or LOST.search(str(error))
        if isinstance(error, Error) or not lost:
            raise
        rank = dist.get_rank() if dist.is_initialized() else os.environ.get("RANK", "?")
        reason = str(error).strip().splitlines()[0][:200]
        raise Error(
            f"rank {rank} lost another rank: it has died, or did not answer in time; what it said last tells why. {remedy} (torch says: {reason})"
        ) from None


def _check(context: int, world: int) -> None:
    if world % context:
        raise InputError(
            f"{context} processes share each sequence, and {world} are no multiple of that: start {-(-world // context) * context}, or share by others"
        )
