"""Checkpoints of a run on several ranks. One rank writes the file that one process would, or all write together, each its own part, by
torch.distributed.checkpoint; either is safetensors and JSON, so that reading runs no code, and either can be gone on with by ranks that are more, fewer, or
have other parts. What goes on keeps to the form that is there.

    training.safetensors/          a folder, where one process has a file
      latest.json                  which of the folders is whole, and the texts beside its tensors
      3/                           one file of tensors a rank, cut as ranks had them

A new folder is written beside the old one; `latest.json` is exchanged in one step when all of it lies on disk, and only then the old one goes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, distribute_tensor

from ..diagnostics import InputError
from ..models.tensor_files import opened, read_about, write_tensors
from .ranks import patient

LATEST = "latest.json"
T = TypeVar("T")


def write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str], *, in_parts: bool) -> None:
    """Every rank calls it. `in_parts`: together, unless a file is there already. Raises InputError, on every rank, if one cannot write; an older checkpoint
    is then whole."""

    def begin() -> int | None:
        """The number of a new folder; None where a file is to be written."""
        if not (path.is_dir() or (in_parts and not path.exists())):
            return None
        number = 1 + max((int(old.name) for old in path.glob("*") if old.name.isdecimal()), default=0)
        (path / str(number)).mkdir(parents=True)
        return number

    # One rank looks what is there: another might look when it has begun.
    number = on_leader(begin, path)
    if number is not None:
        _write_parts(path, number, tensors, about)
        return
    whole = {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in tensors.items()}
    on_leader(lambda: write_tensors(path, whole, about), path)


def _write_parts(path: Path, number: int, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Into a folder that has been made."""
    folder = path / str(number)

    def finish() -> None:
        for file in folder.iterdir():
            with file.open("rb+") as written:
                os.fsync(written.fileno())
        beside = path / f".{LATEST}.part"
        beside.write_text(json.dumps({"folder": number, "about": dict(about)}), encoding="utf-8")
        os.replace(beside, path / LATEST)
        for old in path.iterdir():
            if old.is_dir() and old != folder:
                shutil.rmtree(old, ignore_errors=True)

    try:
        save(_flat(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        raise InputError(f"cannot write {path}: {_reason(error)}{_older(path)}. Make room there, or give another folder") from None
    on_leader(finish, path)


def on_leader(do: Callable[[], T], path: Path) -> T:
    """Done by one rank, while the others wait; all get what it gives. Raises InputError, on every rank, if it fails there."""
    found: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            found[1] = do()
        except OSError as error:
            found[0] = f"{path}: {error.strerror or error}{_older(path)}"
        except InputError as error:
            found[0] = str(error)
    dist.broadcast_object_list(found, src=0, group=patient())
    if found[0] is not None:
        raise InputError(found[0])
    return found[1]


def about_checkpoint(path: Path) -> dict[str, str]:
    """The texts of a checkpoint, of all ranks or of one process. Raises InputError where it is missing or broken."""
    return dict(_latest(path)["about"]) if path.is_dir() else read_about(path)


def read(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill each rank's part of the tensors. Raises InputError, on every rank, unless the checkpoint has these, of these shapes."""
    if path.is_file():
        _read_whole(path, tensors)
        return
    folder = path / str(_latest(path)["folder"])

    def look() -> None:
        for file in sorted(folder.iterdir()):
            with opened(file):
                pass

    on_leader(look, path)  # torch tells of a broken file at length
    try:
        load(_flat(tensors), storage_reader=HuggingFaceStorageReader(str(folder)))
    except CheckpointException as error:
        raise InputError(f"cannot read {folder}: it is broken, or of another model or another version ({_reason(error)})") from None


def _read_whole(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """From the file of one process: each rank takes its part of every tensor."""
    with opened(path) as file, torch.no_grad():
        if set(file.keys()) != set(tensors):
            raise InputError(f"{path} has other tensors than this run: it is of another model or another version")
        for name, tensor in tensors.items():
            found = file.get_tensor(name)
            if found.shape != tensor.shape or found.dtype is not tensor.dtype:
                raise InputError(f"{path}: {name} is {found.dtype} of shape {tuple(found.shape)}; this run has {tensor.dtype} of shape {tuple(tensor.shape)}")
            if isinstance(tensor, DTensor):
                found = distribute_tensor(found.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None)
            tensor.copy_(found)


def _flat(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same memory; the format has no tensors without an axis."""
    return {name: t.detach().view(1) if t.ndim == 0 and not isinstance(t, DTensor) else t.detach() for name, t in tensors.items()}


def _latest(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / LATEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path / LATEST}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"cannot read {path / LATEST}: it is no JSON ({error})") from None
    about = found.get("about") if isinstance(found, dict) else None
    if not isinstance(about, dict) or type(found.get("folder")) is not int or not all(isinstance(x, str) for x in (*about, *about.values())):
        raise InputError(f'cannot read {path / LATEST}: it says no "folder", a whole number, and no "about", texts by name')
    return found


def _reason(error: CheckpointException) -> str:
    """What went wrong on the first rank where something did."""
    rank, (wrapped, _) = min(error.failures.items())
    lines = str(wrapped).strip().splitlines()
    return f"on rank {rank}: {lines[0] if lines else type(wrapped).__name__}"


def _older(path: Path) -> str:
    return "; the checkpoint that was there before is whole" if path.is_file() or (path / LATEST).exists() else ""
