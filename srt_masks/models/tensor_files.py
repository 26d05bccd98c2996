"""Files of tensors with texts beside them: safetensors, written whole or not at all, read without running anything that they hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..diagnostics import InputError, listing


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write beside `path`, then rename: an older file stays whole until the new one is. Raises InputError if it cannot be written."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.touch()
        allowed = beside.stat().st_mode  # as of any file here: that of save_file is its owner's alone, whatever the umask says
        save_file({n: t.detach().contiguous() for n, t in tensors.items()}, str(beside), dict(about))
        beside.chmod(allowed)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())  # a machine that stops keeps the old file or the new one
        os.replace(beside, path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if not isinstance(error, OSError | SafetensorError):
            raise
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        older = f"; the {path.name} that was there before is whole" if path.is_file() else ""
        raise InputError(f"cannot write {path}, of {size / 2**20:,.1f} MiB: {error}{older}. Make room there, or give another folder") from None


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """A file of tensors, open. Raises InputError if it is missing, cut short, or no such file."""
    path = Path(path)
    if path.is_dir():
        raise InputError(
            f"cannot read {path}: it is a folder. A run of several processes under FSDP2 keeps its checkpoint in one: go on with it under torchrun, by two "
            "processes or more; its model is the file model.safetensors beside it"
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"cannot read {path}: there is no such file") from None
    except (OSError, SafetensorError) as error:
        if _holds_pickle(path):
            raise InputError(f"cannot read {path}: it is a pickle, as torch.save writes them, which could run code; wanted a safetensors file") from None
        raise InputError(f"cannot read {path}: it is broken, or no safetensors file ({error})") from None


def read_about(path: str | Path) -> dict[str, str]:
    """The texts of a file. Raises InputError as `opened` does."""
    with opened(path) as file:
        return dict(file.metadata() or {})


def read_into(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill tensors in place with those of a file. Raises InputError, with none of them touched, unless it has these, of these shapes and types."""
    with opened(path) as file:
        names = set(file.keys())
        if missing := sorted(set(tensors) - names):
            raise InputError(f"{path} lacks {listing(missing[:5])}: it is of another model or another version")
        if unknown := sorted(names - set(tensors)):
            raise InputError(f"{path} also holds {listing(unknown[:5])}: it is of another model or another version")
        for name, tensor in tensors.items():
            found = file.get_slice(name)
            wanted = (list(tensor.shape), tensor.dtype)
            came = (found.get_shape(), _DTYPES.get(found.get_dtype()))
            if came != wanted:
                raise InputError(f"{path}: {name} is {came[1]} of shape {tuple(came[0])}; this run has {wanted[1]} of shape {tuple(wanted[0])}")
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(file.get_tensor(name))


_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def _holds_pickle(path: Path) -> bool:
    """Whether a file begins as torch.save's do: a zip archive, or a bare pickle."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04" or (file.seek(0) == 0 and file.read(2) in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))
    except OSError:
        return False
