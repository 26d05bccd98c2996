"""Saving and loading: safetensors, with the spec's text, its params and the model's sizes inside. Loading runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..diagnostics import InputError, SpecError, visible
from ..spec import Spec, parse
from .builder import build_model
from .config import Config
from .tensor_files import opened, write_tensors
from .transformer import SpecTransformer, of_build_model

KIND, VERSION = "srt_masks model", 1
FORMAT = f"{KIND} {VERSION}"


def save_model(model: SpecTransformer, path: str | Path, about: Mapping[str, str] | None = None, tensors: Mapping[str, Tensor] | None = None) -> None:
    """Write a model beside `path`, then rename: an older file stays whole until the new one is. `about` are more texts to keep in it; `tensors` its
    weights, where they are not all in the model. Raises InputError if the folder cannot be written, or if no model could be built of the weights again."""
    model = of_build_model(model, "save_model")
    # torch.compile puts a name of its own before those of what it compiles.
    own = {name.replace("_orig_mod.", ""): tensor for name, tensor in (model.state_dict() if tensors is None else tensors).items()}
    _check_builds(model, own)
    write_tensors(path, own, {**about_model(model), **(about or {})})


def _check_builds(model: SpecTransformer, tensors: Mapping[str, Tensor]) -> None:
    """Raises InputError for weights that a model of this spec and these sizes has not: `load_model` would refuse them, when they are the only ones left."""
    for name in (*tensors, *model.shapes):
        found, wanted = tensors.get(name), model.shapes.get(name)
        if found is None or wanted is None or tuple(found.shape) != wanted:
            came = f"{wanted} as built, and {'is not there' if found is None else tuple(found.shape)} here" if wanted else "none of build_model's"
            raise InputError(
                f"the model is another than build_model makes, and could not be loaded again: {name} is {came}. Undo what was changed (parametrizations, "
                "layers put in, vocabularies resized), or keep model.state_dict() by torch.save"
            )
        if found.is_meta:
            raise InputError(f"{name} lies on the meta device and holds no numbers: there is nothing to save")


def about_model(model: SpecTransformer) -> dict[str, str]:
    """What it takes to build a model again, as texts."""
    return {"format": FORMAT, **about_spec(model.spec), "config": json.dumps(asdict(model.config))}


def about_spec(spec: Spec, **params: int | float) -> dict[str, str]:
    """A spec as a text, with some params' values other than its own."""
    return {"spec": json.dumps({"text": spec.text, "params": {**spec.params, **params}, "filename": Path(spec.filename).name})}


def load_model(path: str | Path, *, backend: str = "auto") -> SpecTransformer:
    """A model as it was saved. Raises InputError if the file is missing, broken, or not one of ours."""
    path = Path(path)
    with opened(path) as file:
        metadata = file.metadata() or {}
        kind = metadata.get("format", "")
        if kind.startswith(f"{KIND} ") and kind != FORMAT:
            raise InputError(f"{path} says `{visible(kind)}`; this version reads `{FORMAT}`: load it with the version of srt_masks that wrote it")
        if kind.startswith("srt_masks ") and kind != FORMAT:
            raise InputError(f"{path} says `{visible(kind)}`: it is what a run goes on from; its model lies beside it, as model.safetensors")
        if kind != FORMAT:
            raise InputError(f"{path} is no model of srt_masks: it does not say `{FORMAT}`")
        # Copies: those of safetensors are the file itself, which Windows then lets nobody write, and which others may change.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    try:
        spec, config = json.loads(metadata["spec"]), Config(**json.loads(metadata["config"]))
        parsed = parse(spec["text"], params=spec["params"], filename=spec["filename"])
        if config.depth != len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}):
            raise ValueError("its sizes do not fit its tensors")
        # Built without memory first: what a stranger's file claims is compared with what it holds before anything is made.
        with torch.device("meta"):
            # What the text claims was judged before there was anything to save.
            model = build_model(parsed, **asdict(config), backend=backend, proofs="off")
        if {n: t.shape for n, t in model.state_dict().items()} != {n: t.shape for n, t in tensors.items()}:
            raise ValueError("its sizes do not fit its tensors")
        model.load_state_dict(tensors, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError, SpecError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} is no model that this version can build: {visible(reason)}") from None
    return model
