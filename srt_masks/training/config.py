"""Where the choices of a run come from: flags, then a TOML file, then the defaults of `Recipe`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..diagnostics import InputError, did_you_mean
from .recipe import Recipe
from .schedules import read_schedule

PLACES = ("data", "validation", "tokenizer", "out", "initial", "tensorboard")  # what a run reads and writes, beside the fields of its recipe
FIELDS = {f.name: str(f.type) for f in fields(Recipe)}


@dataclass(frozen=True, slots=True)
class Choices:
    """What was chosen, by name; the rest is as it was, or the default."""

    recipe: Mapping[str, Any]
    places: Mapping[str, Any]

    def applied(self, recipe: Recipe) -> Recipe:
        return replace(recipe, **self.recipe)


def choices(flags: Mapping[str, Any], config: str | Path | None = None) -> Choices:
    """`flags` by the names of `Recipe`, None where one was not given, win over those of the file. Raises InputError for a file that cannot be read, or
    holds what no run has."""
    chosen = {} if config is None else read_config(config)
    chosen |= {name: value for name, value in flags.items() if value is not None}
    if "own_weights" in chosen:
        chosen["own_weights"] = tuple(chosen["own_weights"])
    if "schedules" in chosen:
        chosen["schedules"] = tuple(read_schedule(s) for s in chosen["schedules"])
    return Choices({n: v for n, v in chosen.items() if n in FIELDS}, {n: v for n, v in chosen.items() if n in PLACES})


def read_config(path: str | Path) -> dict[str, Any]:
    """The fields of a TOML file. Raises InputError naming the file and the key."""
    try:
        found = tomllib.loads(Path(path).read_bytes().decode("utf-8-sig"))  # some editors put a mark in front
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML: {error}") from None
    for name, value in found.items():
        if name not in FIELDS and name not in PLACES:
            known = [*FIELDS, *PLACES]
            raise InputError(f"{path}: a run has no `{name}`; {did_you_mean(name, known) or 'it has ' + ', '.join(known)}")
        if name in ("tokenizer", "out", "initial") and not isinstance(value, str):
            raise InputError(f"{path}: {name} is a path; got {value!r}")
        if name == "tensorboard" and not isinstance(value, bool):
            raise InputError(f"{path}: tensorboard is true or false; got {value!r}")
        if name in ("data", "validation") and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            raise InputError(f'{path}: {name} is a list of files, for example {name} = ["a.txt", "b.txt"]; got {value!r}')
        if name == "schedules" and not (isinstance(value, dict) and all(isinstance(v, str) for v in value.values())):
            raise InputError(f'{path}: schedules is a table, for example [schedules] and below it horizon = "0@0, 16@1000"; got {value!r}')
        if name == "own_weights" and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            raise InputError(f'{path}: own_weights is a list of roles, for example own_weights = ["reason"]; got {value!r}')
        if name in FIELDS and name not in ("schedules", "own_weights") and not _fits(value, FIELDS[name]):
            raise InputError(f"{path}: {name} is {FIELDS[name].replace(' | None', '')}; got {value!r}")
    if "schedules" in found:
        found["schedules"] = [f"{name}={points}" for name, points in found["schedules"].items()]
    return found


def _fits(value: Any, kind: str) -> bool:
    """Whether a value of a file is of the type that a field is annotated with."""
    if isinstance(value, bool):
        return kind == "bool"
    return (
        (kind.startswith("str") and isinstance(value, str))
        or (kind.startswith("int") and isinstance(value, int))
        or (kind.startswith("float") and isinstance(value, int | float))
    )  # fmt: skip
