"""What the folder of a comparison holds: what it is of, the ends of its runs, and each run in a folder of its own, whose log is the truth about it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ..diagnostics import InputError, visible
from ..spec import said_otherwise
from .code_here import code_here
from .initial import Initial, check_initial
from .log import entries
from .outcomes import Outcome
from .recipe import Recipe
from .state import recipe_to_json
from .task import Measure
from .train import LOG, STATE
from .trials import FORMAT, FREE, NAME, Trial, changes_of

ABOUT, RUNS, PLOT = "comparison.json", "runs.jsonl", "comparison.png"


def refuse_another(path: Path, about: Mapping[str, Any]) -> None:
    """Raises InputError where a folder holds a comparison of something else."""
    if not path.exists():
        return
    kept = kept_about(path)
    data = "" if kept.get("fingerprint") == about["fingerprint"] else f"{kept.get('data')}, of another size or content than {about['data']} has now"
    for what, said in (
        ("other specs", _of_specs(kept["specs"], about["specs"])),
        ("another recipe", _of_values(kept.get("recipe"), about["recipe"])),
        ("another budget", _of_values({"equal": kept.get("equal")}, {"equal": about["equal"]})),
        ("other data", data),
    ):
        if said:
            raise InputError(f"{path.parent} holds a comparison of {what} ({visible(said)}): give another out=, or begin it anew (restart=)")


def _of_specs(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In what the specs of a comparison are others, comments apart; empty where they are not."""
    if there.keys() != here.keys() or not all(isinstance(arm, dict) and isinstance(arm.get("text"), str) for arm in there.values()):
        return f"{', '.join(there)}; here {', '.join(here)}"
    for name, arm in here.items():
        if line := said_otherwise(there[name]["text"], arm["text"]):
            return f"{name}: {line}"
        for key in sorted((there[name].keys() | arm.keys()) - {"text"}):
            if said := _of_values(there[name].get(key), arm.get(key)):
                return f"{name}: {said}" if key == "params" else f"{name}: {key}, {said}"
    return ""


def _of_values(there: Any, here: Any) -> str:
    if there == here:
        return ""
    if isinstance(there, dict) and isinstance(here, dict):
        there, here = next((f"{k} = {there.get(k)}", f"{k} = {here.get(k)}") for k in (*here, *there) if there.get(k) != here.get(k))
    return f"{there}; here {here}"


def kept_about(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("specs"), dict):
        raise InputError(f"{path} is no comparison that this version reads: it does not say `{FORMAT}`. Give another out=")
    return found


def runs_of(out: Path, about: Mapping[str, Any]) -> list[Path]:
    """The folders of the runs of an earlier comparison: nothing else that there may be."""
    return [folder for name in about["specs"] if NAME.fullmatch(name) for folder in sorted((out / name).glob("seed-*"))]


def remove(out: Path, runs: Sequence[Path]) -> None:
    """Those runs, and what was said of all of them. Raises InputError for a folder that cannot be removed."""
    for folder in runs:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise InputError(f"cannot remove {folder}: {error.strerror or error}. Give another out=") from None
    for name in (ABOUT, RUNS, PLOT):
        (out / name).unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8", newline="\n")
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def outcome_of(trial: Trial, measure: Measure) -> Outcome | None:
    """Of a run that has ended, from its log. Raises InputError where that is of another run, ended or to be gone on with."""
    lines = entries(trial.out / LOG)
    begin = next((e for e in lines if e.get("event") == "begin"), {})
    if not any(e.get("event") == "end" for e in lines[-1:]):
        if begin and (trial.out / STATE).exists():
            _refuse_another_run(trial, begin, trial.recipe.steps)
        return None
    end, spec = lines[-1], trial.arm.spec
    _refuse_another_run(trial, begin, end["steps"])
    check_initial(Initial.read(begin.get("initial")), trial.initial, str(trial.out))
    speed = median(e["tokens_per_second"] for e in lines if "tokens_per_second" in e)
    return Outcome(
        trial.name, trial.recipe.seed, end[f"held_out_{measure.key}"], end["held_out_parts"], end["steps"], end["seconds"], speed, begin.get("parameters", 0),
        trial.work, spec.text, dict(spec.params), changes_of(trial.arm), trial.initial, _code_of(lines),
    )  # fmt: skip


def _refuse_another_run(trial: Trial, begin: Mapping[str, Any], steps: int) -> None:
    """Raises InputError where the log of a folder is that of a run of something else, or of so many steps: of `train` on its own, for example."""
    spec, wanted = trial.arm.spec, {k: v for k, v in recipe_to_json(trial.recipe).items() if k not in FREE or k == "seed"}
    recipe = recipe_to_json(Recipe()) | begin.get("recipe", {})  # whose fields came one after another
    differ = [f"{n} = {begin.get('params', {}).get(n)}; here it is {v}" for n, v in spec.params.items() if begin.get("params", {}).get(n) != v]
    differ += [f"{n} = {recipe.get(n)}; here it is {v}" for n, v in wanted.items() if recipe.get(n) != v]
    if steps != trial.recipe.steps:
        differ.append(f"{steps} steps; here there are {trial.recipe.steps}")
    if line := said_otherwise(str(begin.get("spec", "")), spec.text):
        differ.insert(0, f"another spec: {line}")
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


def lines_of_others(path: Path, trials: Sequence[Trial]) -> list[str]:
    """Of a comparison's file of runs, those that are not asked for now."""
    own = {(t.name, t.recipe.seed) for t in trials}
    kept = {(e.get("name"), e.get("seed")): json.dumps(e) for e in entries(path)}
    return [line for run, line in kept.items() if run not in own]


def curve_of(trial: Trial, measure: Measure) -> list[tuple[int, float]]:
    """(step, what was measured) of every step of a run."""
    return [(e["step"], e[measure.key]) for e in entries(trial.out / LOG) if measure.key in e and "event" not in e]
