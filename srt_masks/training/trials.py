"""What a comparison has to do: an arm for each spec, and every run that there is to be, begun once before the first of them trains."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..diagnostics import InputError, did_you_mean
from ..models.work import Work, work_of
from ..spec import Spec
from .data import corpus
from .initial import Initial
from .recipe import MOST_SEED, Recipe
from .session import start
from .state import recipe_to_json
from .strategy import Alone
from .task import Places, Task

BUDGETS = ("steps", "work")
FORMAT = "srt_masks comparison 1"
# What of a recipe may be another when a comparison is gone on with.
FREE = ("seed", "save_every", "device", "compile")
# What of a recipe no arm has to itself: the data, and what they are looked at in.
COMMON = ("seed", "words", "batch", "held_out", "max_seconds")
NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Arm:
    """A side of a comparison: a spec, what of the recipe is another for it, by the names of its fields, and, by seed, the model that a run begins with: its
    file, or the folder of its run."""

    spec: Spec
    changes: Mapping[str, Any] = field(default_factory=dict)
    initial: Callable[[int], str | Path] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One run that there is to be; it is itself alone, and no other like it."""

    name: str
    arm: Arm
    recipe: Recipe
    work: Work
    out: Path
    initial: Initial | None  # None: fresh weights
    data: str  # their fingerprint

    @property
    def title(self) -> str:
        """What errors call it."""
        return f"{self.name}, seed {self.recipe.seed}"


def read_arms(specs: Any, recipe: Recipe, seeds: Any, equal: str) -> tuple[dict[str, Arm], tuple[int, ...]]:
    """The arms by name, and the seeds. Raises InputError for what cannot be compared."""
    if not isinstance(specs, Mapping) or len(specs) < 2 or not all(isinstance(s, Spec | Arm) for s in specs.values()):
        raise InputError("compare takes two specs or more, by name: {'plain': srt_masks.parse(...), 'stopped': ...}")
    for name in specs:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InputError(f"a name is letters, digits and . _ + -, as its runs are kept in a folder called so; got {name!r}")
    if len({name.lower() for name in specs}) < len(specs):
        raise InputError(f"two names are one but for case, and some systems keep such folders as one: {', '.join(specs)}")
    if equal not in BUDGETS:
        raise InputError(f"equal is {' or '.join(map(repr, BUDGETS))}: what each spec is given; got {equal!r}")
    if recipe.max_seconds is not None:
        raise InputError("max_seconds gives each run another number of steps, and no two machines the same: leave it out, and give steps=")
    arms = {name: Arm(s) if isinstance(s, Spec) else s for name, s in specs.items()}
    for name, arm in arms.items():
        _check_arm(name, arm)
        _check_changes(name, arm, equal)
    found = tuple(seeds) if isinstance(seeds, Sequence) and not isinstance(seeds, str) else ()
    if not found or any(isinstance(s, bool) or not isinstance(s, int) or not 0 <= s <= MOST_SEED for s in found) or len(set(found)) < len(found):
        raise InputError(f"seeds are whole numbers, from 0 to {MOST_SEED}, each once; got {seeds!r}")
    return arms, found


def _check_arm(name: str, arm: Arm) -> None:
    """Raises InputError where it is made of something else than it says."""
    if not isinstance(arm.spec, Spec):
        raise InputError(f"{name}: the spec of an Arm is what srt_masks.parse(...) gives; got {arm.spec!r}")
    if not isinstance(arm.changes, Mapping):
        raise InputError(
            f"{name}: the changes of an Arm are a mapping, such as {{'own_weights': ('reason',)}}, and empty where there are none; got {arm.changes!r}"
        )
    if arm.initial is not None and not callable(arm.initial):
        raise InputError(f"{name}: initial says by seed which model a run begins with: give initial=lambda seed: {str(arm.initial)!r}; got {arm.initial!r}")


def _initial_of(arm: Arm, seed: int) -> str | Path | None:
    """The model that a run of a seed begins with; None: fresh weights. Raises InputError where an arm that has to name one does not."""
    if arm.initial is None:
        return None
    model = arm.initial(seed)
    if not isinstance(model, str | Path):
        raise InputError(
            f"initial of seed {seed} is {model!r}, and not a model's file or the folder of its run: give initial=lambda seed: a path; for fresh weights, no initial="
        )
    return model


def _check_changes(name: str, arm: Arm, equal: str) -> None:
    """Raises InputError for a change that no recipe has, or that would make the arms' results those of something else."""
    for change in arm.changes:
        known = [f.name for f in fields(Recipe)]
        if change not in known:
            raise InputError(f"{name}: a recipe has no `{change}`; {did_you_mean(change, known) or 'it has ' + ', '.join(known)}")
        if change in COMMON or (change == "steps" and equal == "work"):
            raise InputError(f"{name}: {change} is one for all that are compared: give it in the recipe, or as seeds= and equal=")


def task_of(task: Task | None, recipe: Recipe, files: Sequence[str | Path], validation: Sequence[str | Path]) -> Task:
    if task is None:
        places = Places(tuple(map(str, files)), tuple(map(str, validation)))
        return replace(corpus(files, recipe.words, recipe.held_out, validation), places=places)
    if files or validation:
        raise InputError("a task is what is trained on in place of files: give one or the other")
    return task


def trials_of(arms: Mapping[str, Arm], recipe: Recipe, out: Path, task: Task, seeds: Sequence[int], equal: str) -> tuple[list[Trial], dict[str, Any]]:
    """Every run, seed by seed, and what the comparison is. Each spec is begun once, so that none fails when others have been trained for an hour."""
    works, recipes, initials = {}, {}, {}
    for name, arm in arms.items():
        try:
            recipes[name] = replace(recipe, **arm.changes)
            for seed in seeds if arm.initial is not None else seeds[:1]:
                model = _initial_of(arm, seed)
                begun = start(arm.spec, replace(recipes[name], seed=seed), task, Alone(), model)
                works[name], initials[name, seed] = work_of(begun.model, recipe.words), begun.initial
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    first = next(iter(works.values()))
    if equal == "work":
        recipes = {name: _of_equal_work(recipes[name], first, work, name) for name, work in works.items()}
    data = task.fingerprint(recipe.words)
    trials = [
        Trial(n, arms[n], replace(recipes[n], seed=seed), works[n], out / n / f"seed-{seed}", initials.get((n, seed)), data) for seed in seeds for n in arms
    ]
    about = {
        "format": FORMAT,
        "specs": {n: _about_arm(a) for n, a in arms.items()},
        "recipe": {k: v for k, v in recipe_to_json(recipe).items() if k not in FREE},
        "equal": equal,
        "data": task.name,
        "fingerprint": data,
    }
    return trials, about


def _about_arm(arm: Arm) -> dict[str, Any]:
    # Which model an arm begins with is kept with each of its runs: it may be another for each seed.
    beside = {"changes": changes_of(arm)} if arm.changes else {}
    return {"text": arm.spec.text, "params": dict(arm.spec.params), **beside, **({"initial": True} if arm.initial is not None else {})}


def changes_of(arm: Arm) -> dict[str, Any]:
    """As files have them."""
    plain = recipe_to_json(replace(Recipe(), **arm.changes))
    return {name: plain[name] for name in arm.changes}


def _of_equal_work(recipe: Recipe, first: Work, own: Work, name: str) -> Recipe:
    steps = round(recipe.steps * first.multiplications / own.multiplications)
    if not steps:
        raise InputError(f"{name}: a single step of it is more work than {recipe.steps} steps of the first spec: give more steps=")
    return replace(recipe, steps=steps)
