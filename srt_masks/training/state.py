"""A run in a file: model, optimiser, position in the data, random states, and what they belong to. A run that goes on from it takes the same steps, bit for
bit, that it would have taken without a break."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..diagnostics import InputError, visible
from ..models.tensor_files import read_about
from ..spec import said_otherwise
from .data import Corpus
from .initial import Initial, check_initial
from .recipe import Recipe
from .schedules import read_schedule
from .session import Session
from .task import Places

KIND, VERSION = "srt_masks training", 1
FORMAT = f"{KIND} {VERSION}"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
# What may differ from the run that is gone on with. `steps` and `learning_rate` change the steps that are left; the others how, when and where.
FREE = ("steps", "learning_rate", "save_every", "validate_every", "max_seconds", "device", "accumulate", "compile")


def save_session(session: Session, path: Path) -> None:
    """Raises InputError where it cannot be written; an older file is then whole."""
    session.strategy.save(path, tensors_of(session), about_session(session))


def resume_session(session: Session, path: Path) -> None:
    """Bring a session that has just been started to where the file was written. Raises InputError where that is of another spec, recipe, vocabulary or data,
    or broken."""
    about = about_run(session.strategy.about(path), path)
    check_same(session, about, path)
    tensors = tensors_of(session)
    session.strategy.load(path, tensors)
    torch.set_rng_state(tensors["random.torch"])
    session.generator.set_state(tensors["random.data"])
    if session.device.type == "cuda" and bool(tensors["random.cuda"].any()):
        torch.cuda.set_rng_state(tensors["random.cuda"], session.device)
    session.step, session.seconds, session.initial = about["step"], about["seconds"], about["initial"]


def tensors_of(session: Session) -> dict[str, Tensor]:
    """Everything that changes from step to step, by name: the model's and the optimiser's own tensors, which a file may be read into, and copies of random
    states."""
    tensors = {f"model.{name}": tensor for name, tensor in session.model.state_dict().items()}
    for name, parameter in session.model.named_parameters():
        state = session.optimiser.state[parameter]
        if not state:
            # As AdamW begins: a file has the same names at every step, also of weights that have had no gradient yet.
            state.update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(parameter), exp_avg_sq=torch.zeros_like(parameter))
        tensors.update({f"optimiser.{name}.{moment}": state[moment] for moment in MOMENTS})
    tensors["random.torch"] = torch.get_rng_state()
    tensors["random.data"] = session.generator.get_state()
    # There in every file, so that a run may go on elsewhere: zeros say nothing.
    tensors["random.cuda"] = torch.cuda.get_rng_state(session.device) if session.device.type == "cuda" else torch.zeros(16, dtype=torch.uint8)
    return tensors


def about_session(session: Session) -> dict[str, str]:
    """What a file says of itself."""
    run = {
        "spec": {"text": session.spec.text, "params": session.spec.params},
        "recipe": recipe_to_json(session.recipe),
        "data": {"name": session.task.name, "fingerprint": session.fingerprint, "text": isinstance(session.task, Corpus), **asdict(session.task.places)},
        "initial": None if session.initial is None else asdict(session.initial),
        "step": session.step,
        "seconds": session.seconds,
        "written_by": {"srt_masks": __version__, "torch": torch.__version__},
    }
    return {"format": FORMAT, "run": json.dumps(run)}


def about_run(about: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What the texts of a file say. Raises InputError where it is no checkpoint of a run, or one of another version."""
    kind = about.get("format", "")
    if kind != FORMAT:
        if kind.startswith(KIND + " "):
            raise InputError(f"{path} says `{visible(kind)}`; this version reads `{FORMAT}`: resume it with the version of srt_masks that wrote it")
        if kind:
            raise InputError(f"{path} says `{visible(kind)}`: it is no checkpoint of a run. One says `{FORMAT}`; `train` writes it as training.safetensors")
        raise InputError(f"{path} is no checkpoint of srt_masks: it does not say `{FORMAT}`")
    try:
        run = json.loads(about["run"])
        if not isinstance(run["step"], int) or not isinstance(run["seconds"], float | int) or not isinstance(run["data"]["fingerprint"], str):
            raise ValueError("its step, seconds or data are none")
        if not all(isinstance(x, str) for x in (run["spec"]["text"], run["data"]["name"])) or not isinstance(run["spec"]["params"], dict):
            raise ValueError("its spec or data are none")
        places = [run["data"].get(name, []) for name in ("files", "validation")]
        if not all(isinstance(x, str) for x in [*places[0], *places[1], run["data"].get("tokenizer") or ""]):
            raise ValueError("its files are none")
        run["places"] = Places(tuple(places[0]), tuple(places[1]), run["data"].get("tokenizer"))
        run["recipe"] = recipe_from_json(run["recipe"])
        run["initial"] = Initial.read(run.get("initial"))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is a checkpoint that this version cannot read: {visible(str(error)) or type(error).__name__}") from None
    return run


def saved_recipe(path: Path, about: Callable[[Path], Mapping[str, str]] = read_about) -> Recipe:
    """The recipe of a run that is to be gone on with; `about` reads the texts of its checkpoint (that of a strategy does). Raises InputError as `about_run` does."""
    return about_run(about(path), path)["recipe"]


def check_same(session: Session, about: Mapping[str, Any], path: Path) -> None:
    """Raises InputError naming the first thing in which the run of a file is another than this one."""
    text, params = about["spec"]["text"], about["spec"]["params"]
    if line := said_otherwise(text, session.spec.text):
        raise InputError(f"{path} is of another spec: {line}. Give the spec it was trained with, or another out=")
    for name, value in session.spec.params.items():
        if params.get(name) != value:
            raise InputError(f"{path} is of a run with {name} = {params.get(name)}; here it is {value}. Give --param {name}={params.get(name)}")
    for field in fields(Recipe):
        was, now = getattr(about["recipe"], field.name), getattr(session.recipe, field.name)
        if field.name not in FREE and was != now:
            raise InputError(f"{path} is of a run with {field.name} = {_said(was)}; here it is {_said(now)}. Leave {field.name}= out to go on as it was")
    check_initial(about["initial"], session.initial, str(path))
    if about["data"]["fingerprint"] != session.fingerprint:
        raise InputError(
            f"{path} is of a run on other data: {visible(about['data']['name'])}, of another size or content than {session.task.name} has now. "
            "Give the data it was trained on, or another out="
        )
    if about["step"] > session.recipe.steps:
        raise InputError(f"{path} is at step {about['step']}, beyond the {session.recipe.steps} asked for: give a larger steps=")


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    return {**asdict(recipe), "schedules": [str(s) for s in recipe.schedules], "own_weights": list(recipe.own_weights)}


def recipe_from_json(found: Mapping[str, Any]) -> Recipe:
    """Raises TypeError or ValueError where it is none."""
    own = tuple(found.get("own_weights", ()))
    return Recipe(**{**found, "schedules": tuple(read_schedule(s) for s in found["schedules"]), "own_weights": own})


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
