"""`compare`: several specs, each trained from several seeds under one budget, and what that says.

The runs of one seed see the same data in the same order, so differences between specs are paired by seed. A run is one of `train`, in a folder of its own
below `out`; what is done is read from those folders, so that the same call goes on where it was stopped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from ..diagnostics import InputError, did_you_mean
from ..models.work import Work, work_of
from ..spec import Spec
from .code_here import code_here
from .data import corpus
from .initial import Initial, check_initial
from .jobs import check_jobs, named, run_together
from .log import entries
from .loop import Report
from .outcomes import Comparison, Outcome
from .plot import draw_comparison
from .recipe import MOST_SEED, Recipe
from .session import start
from .state import recipe_to_json
from .strategy import Alone
from .task import Measure, Places, Task
from .train import LOG
from .worker import Job, go_on

BUDGETS = ("steps", "work")
ABOUT, RUNS, PLOT = "comparison.json", "runs.jsonl", "comparison.png"
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


def compare(
    specs: Mapping[str, Spec | Arm], recipe: Recipe, out: str | Path, files: Sequence[str | Path] = (), *, task: Task | None = None,
    seeds: Sequence[int] = (0, 1, 2), equal: str = "steps", quiet: bool = False, restart: bool = False, validation: Sequence[str | Path] = (), jobs: int = 1,
) -> Comparison:  # fmt: skip
    """Train a model of each spec from each seed, and say how well they do on held-out data.

    `specs` by name, an `Arm` where one has something of the recipe to itself; the first is what the others are compared with. They are trained on the
    bytes of `files`, or on a `task`. `equal` is the budget: "steps", as many for each as `recipe` says, or "work", as many
    multiplications as those steps are for the first, so that a spec of more rows a word takes fewer steps. `seeds` take the place of the recipe's.
    `out` keeps every run (NAME/seed-S), their ends as JSON lines (runs.jsonl) and a picture; a second call goes on where the first was stopped, or adds
    seeds, and refuses another comparison unless `restart`. What it returns and draws is of the seeds that it was given; runs.jsonl keeps the lines of those
    that earlier calls were given, too. `jobs` runs go on at once, each in a process of its own with its share of the threads; a script
    that asks for it begins with `if __name__ == "__main__":`. Raises InputError, and SpecError, as `train` does, before anything is written, and what ends a
    run, with its name; KeyboardInterrupt after the checkpoints of the runs that were stopped.
    """
    check_jobs(jobs)
    out = Path(out)
    arms, seeds = _read(specs, recipe, seeds, equal)
    given = {"files": files, "validation": validation} if task is None else {"task": task}
    task = _task(task, recipe, files, validation)
    trials, about = _trials(arms, recipe, out, task, seeds, equal)
    calls = {t: {"spec": t.arm.spec, "recipe": t.recipe, "out": t.out, "initial": None if t.initial is None else t.initial.file, **given} for t in trials}
    apart = {Job.of(t.title, **call): t for t, call in calls.items()} if jobs > 1 else {}
    if restart and (out / ABOUT).exists():
        _remove(out, _about_of(out / ABOUT))
    _refuse_another(out / ABOUT, about)
    measure = task.measure(recipe.words)
    done = [t for t in trials if _outcome(t, measure) is not None]
    others = _lines_of_others(out / RUNS, trials) if (out / ABOUT).exists() else []
    _write(out / ABOUT, json.dumps(about, indent=1))
    found: dict[Trial, Outcome] = {}
    with ExitStack() as stack:
        bars = _Bars(stack, trials, measure, quiet)

        def ended(trial: Trial) -> None:
            outcome = _outcome(trial, measure)
            if outcome is None:
                raise InputError(f"{trial.out / LOG} does not say how its run ended: something else writes into that folder. Give another out=")
            found[trial] = outcome
            bars.end(trial, outcome)
            _write(out / RUNS, "".join(line + "\n" for line in [*others, *(json.dumps(found[t].plain()) for t in trials if t in found)]))

        for trial in done:
            ended(trial)
        left = [t for t in trials if t not in found]
        if jobs == 1:
            for trial in left:
                try:
                    asked = go_on(**calls[trial], watch=bars.watch(trial))
                except Exception as error:
                    if (says := named(trial.title, error)) is not error:
                        raise says from None
                    raise
                ended(trial)
                if asked is not None:  # in the last moments of a run, which has ended all the same
                    raise KeyboardInterrupt
        elif left:
            run_together(
                [j for j, t in apart.items() if t in left], jobs, lambda job, report: bars.watch(apart[job])(report), lambda job: ended(apart[job]), quiet
            )
    comparison = Comparison(tuple(arms), tuple(found[t] for t in trials), equal, about["data"], measure)
    draw_comparison(comparison, {(t.name, t.recipe.seed): _curve(t, measure) for t in trials}, out / PLOT)
    return comparison


# ------------------------------------------------------------------------------------------------ what there is to do


def _read(specs: Any, recipe: Recipe, seeds: Any, equal: str) -> tuple[dict[str, Arm], tuple[int, ...]]:
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


def _task(task: Task | None, recipe: Recipe, files: Sequence[str | Path], validation: Sequence[str | Path]) -> Task:
    if task is None:
        places = Places(tuple(map(str, files)), tuple(map(str, validation)))
        return replace(corpus(files, recipe.words, recipe.held_out, validation), places=places)
    if files or validation:
        raise InputError("a task is what is trained on in place of files: give one or the other")
    return task


def _trials(arms: Mapping[str, Arm], recipe: Recipe, out: Path, task: Task, seeds: Sequence[int], equal: str) -> tuple[list[Trial], dict[str, Any]]:
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
    beside = {"changes": _changes(arm)} if arm.changes else {}
    return {"text": arm.spec.text, "params": dict(arm.spec.params), **beside, **({"initial": True} if arm.initial is not None else {})}


def _changes(arm: Arm) -> dict[str, Any]:
    """As files have them."""
    plain = recipe_to_json(replace(Recipe(), **arm.changes))
    return {name: plain[name] for name in arm.changes}


def _of_equal_work(recipe: Recipe, first: Work, own: Work, name: str) -> Recipe:
    steps = round(recipe.steps * first.multiplications / own.multiplications)
    if not steps:
        raise InputError(f"{name}: a single step of it is more work than {recipe.steps} steps of the first spec: give more steps=")
    return replace(recipe, steps=steps)


def _refuse_another(path: Path, about: Mapping[str, Any]) -> None:
    """Raises InputError where a folder holds a comparison of something else."""
    if not path.exists():
        return
    kept = _about_of(path)
    for key, what in (("specs", "other specs"), ("recipe", "another recipe"), ("equal", "another budget"), ("fingerprint", "other data")):
        if kept.get(key) != about[key]:
            there, here = kept.get(key), about[key]
            if isinstance(there, dict):
                there, here = next(((f"{k} = {there.get(k)}", f"{k} = {here.get(k)}") for k in (*here, *there) if there.get(k) != here.get(k)), ("", ""))
            raise InputError(f"{path.parent} holds a comparison of {what} ({there}; here {here}): give another out=, or begin it anew (restart=)")


def _about_of(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("specs"), dict):
        raise InputError(f"{path} is no comparison that this version reads: it does not say `{FORMAT}`. Give another out=")
    return found


def _remove(out: Path, about: Mapping[str, Any]) -> None:
    """The runs of an earlier comparison, and nothing else that the folder may hold."""
    for name in about["specs"]:
        if NAME.fullmatch(name):
            for folder in (out / name).glob("seed-*"):
                try:
                    shutil.rmtree(folder)
                except OSError as error:
                    raise InputError(f"cannot remove {folder}: {error.strerror or error}. Give another out=") from None
    for name in (ABOUT, RUNS, PLOT):
        (out / name).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8", newline="\n")
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


# ------------------------------------------------------------------------------------------------ what is done


def _outcome(trial: Trial, measure: Measure) -> Outcome | None:
    """Of a run that has ended, from its log. Raises InputError where that is of another run."""
    lines = entries(trial.out / LOG)
    ends = [e for e in lines[-1:] if e.get("event") == "end"]
    if not ends:
        return None
    begin = next((e for e in lines if e.get("event") == "begin"), {})
    _refuse_another_run(trial, begin, ends[0])
    check_initial(Initial.read(begin.get("initial")), trial.initial, str(trial.out))
    speed = median(e["tokens_per_second"] for e in lines if "tokens_per_second" in e)
    end, spec = ends[0], trial.arm.spec
    return Outcome(
        trial.name, trial.recipe.seed, end[f"held_out_{measure.key}"], end["held_out_parts"], end["steps"], end["seconds"], speed, begin.get("parameters", 0),
        trial.work, spec.text, dict(spec.params), _changes(trial.arm), trial.initial, _code_of(lines),
    )  # fmt: skip


def _refuse_another_run(trial: Trial, begin: Mapping[str, Any], end: Mapping[str, Any]) -> None:
    """Raises InputError where the log of a folder is that of a run of something else: of `train` on its own, for example."""
    spec, wanted = trial.arm.spec, {k: v for k, v in recipe_to_json(trial.recipe).items() if k not in FREE or k == "seed"}
    recipe = recipe_to_json(Recipe()) | begin.get("recipe", {})  # whose fields came one after another
    differ = [f"{n} = {begin.get('params', {}).get(n)}; here it is {v}" for n, v in spec.params.items() if begin.get("params", {}).get(n) != v]
    differ += [f"{n} = {recipe.get(n)}; here it is {v}" for n, v in wanted.items() if recipe.get(n) != v]
    if end["steps"] != trial.recipe.steps:
        differ.append(f"{end['steps']} steps; here there are {trial.recipe.steps}")
    if begin.get("spec") != spec.text:
        differ.insert(0, "another spec")
    if begin.get("fingerprint", trial.data) != trial.data:
        differ.append(f"other data: {begin.get('data')}, of another size or content")
    if trial.initial is None and begin.get("initial") is not None:
        differ.append(f"weights that began as those of {begin['initial'].get('file')}; here they begin fresh")
    if differ:
        raise InputError(f"{trial.out} holds a run of {differ[0]}. Give another out=, or remove that folder")


def _code_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By what code a run was made: what `code_here` said whenever it began or was gone on with, a list where that was not always the same."""
    said = [e for e in lines if e.get("event") in ("begin", "resume")]
    found = {name: list(dict.fromkeys(e[name] for e in said if name in e)) for name in code_here()}
    return {name: values[0] if len(values) == 1 else values or None for name, values in found.items()}


def _lines_of_others(path: Path, trials: Sequence[Trial]) -> list[str]:
    """Of a comparison's file of runs, those that are not asked for now."""
    own = {(t.name, t.recipe.seed) for t in trials}
    kept = {(e.get("name"), e.get("seed")): json.dumps(e) for e in entries(path)}
    return [line for run, line in kept.items() if run not in own]


def _curve(trial: Trial, measure: Measure) -> list[tuple[int, float]]:
    """(step, what was measured) of every step of a run."""
    return [(e["step"], e[measure.key]) for e in entries(trial.out / LOG) if measure.key in e and "event" not in e]


class _Bars:
    """A bar for all steps of all runs, with the time left, and a line for each spec."""

    def __init__(self, stack: ExitStack, trials: Sequence[Trial], measure: Measure, quiet: bool):
        self.measure = measure

        def bar(**options: Any) -> tqdm:
            return stack.enter_context(tqdm(disable=quiet, file=sys.stderr, dynamic_ncols=True, leave=True, **options))

        width = max(map(len, [t.name for t in trials] + ["all runs"]))
        self.every = bar(total=sum(t.recipe.steps for t in trials), desc="all runs".ljust(width), unit="step", position=0)
        self.own: dict[str, tqdm] = {}
        for trial in trials:
            if trial.name not in self.own:
                total = sum(t.recipe.steps for t in trials if t.name == trial.name)
                form = "{desc}: {percentage:3.0f}%|{bar}|{postfix}"
                self.own[trial.name] = bar(total=total, desc=trial.name.ljust(width), position=len(self.own) + 1, bar_format=form)
        self.seen: dict[Path, int] = {}

    def watch(self, trial: Trial) -> Callable[[Report], None]:
        def seen(report: Report) -> None:
            self._move(trial, report.step)
            self.own[trial.name].set_postfix_str(f"seed {trial.recipe.seed}, step {report.step}: {report.measured:.3f} {self.measure.short}", refresh=False)

        return seen

    def end(self, trial: Trial, outcome: Outcome) -> None:
        self._move(trial, trial.recipe.steps)
        self.own[trial.name].set_postfix_str(f"seed {trial.recipe.seed} held out: {outcome.held_out:.3f} {self.measure.short}")

    def _move(self, trial: Trial, step: int) -> None:
        count = step - self.seen.get(trial.out, 0)
        self.seen[trial.out] = step
        self.every.update(count)
        self.own[trial.name].update(count)
