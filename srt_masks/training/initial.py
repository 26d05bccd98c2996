"""`Initial`: the model that a run begins with, in place of fresh weights. What it learnt is taken over; the optimiser, the data and their order are the run's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from ..diagnostics import InputError, listing
from ..models.checkpoint import load_model
from ..models.config import Config
from ..models.transformer import SpecTransformer

# What the shapes of the weights say anyhow, or what holds none.
SHAPES = ("max_positions", "max_slots")
# What no recipe says, but the task, or nobody: how it comes to be the same.
OF_TASKS = {
    "num_tokens": "Train on a task of the same tokens (none: Numbers; 256: files of bytes; else files with the tokenizer= of that model)",
    "numbers": "Train on Numbers of as many inputs= (none: on files)",
    "regression": "Train on Numbers of as many outputs= (none: on files)",
    "dim_head": "Here it is dim / heads: give both so that it is the same",
}


@dataclass(frozen=True, slots=True)
class Initial:
    """A model's file, as it was named, and what its weights are."""

    file: str
    sha256: str

    @staticmethod
    def read(found: Mapping[str, str] | None) -> Initial | None:
        """From what a file says. Raises KeyError or TypeError where it is none."""
        return None if found is None else Initial(str(found["file"]), str(found["sha256"]))


def begin_with(model: SpecTransformer, given: str | Path) -> Initial:
    """Give a model the weights of another: its file, or the folder of its run. Raises InputError where there is none, or naming what does not fit."""
    path = Path(given) / "model.safetensors" if Path(given).is_dir() else Path(given)
    there = load_model(path)
    if there.spec.roles != model.spec.roles:
        raise InputError(
            f"{path} has weights of the roles {listing(there.spec.roles)}, and this spec has {listing(model.spec.roles)}: begin with a model of the same roles, "
            "in the same order"
        )
    for name in [field.name for field in fields(Config) if field.name not in SHAPES]:
        was, now = getattr(there.config, name), getattr(model.config, name)
        if was != now:
            remedy = OF_TASKS.get(name) or f"Give {name}={_said(was)}"
            raise InputError(f"{path} is a model of {name} = {_said(was)}; here it is {_said(now)}. {remedy}, or begin with another model")
    weights, own = there.state_dict(), model.state_dict()
    if unlike := sorted(n for n in own.keys() | weights.keys() if n not in own or n not in weights or own[n].shape != weights[n].shape):
        shapes = (f"{n} ({_shape(weights.get(n))} there, {_shape(own.get(n))} here)" for n in unlike)
        raise InputError(f"{path} does not fit this model: {listing(shapes, 5)}. Give the sizes that it was trained with, or begin with another model")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])
    return Initial(str(path), _digest(weights))


def check_initial(was: Initial | None, now: Initial | None, run: str) -> None:
    """Raises InputError where a run that is gone on with began with another model than is named now; one need not be named."""
    if now is None or (was is not None and was.sha256 == now.sha256):
        return
    began = "fresh weights" if was is None else f"other weights, of {was.file}"
    raise InputError(f"{run} began with {began}, and not with those that {now.file} has now. Leave initial= out to go on as it was, or begin anew elsewhere")


def _digest(weights: Mapping[str, Tensor]) -> str:
    """Of the weights alone: the texts beside them may be written in any order."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _said(value: object) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _shape(tensor: Tensor | None) -> str:
    return "none" if tensor is None else "x".join(map(str, tensor.shape)) or "a number"
