"""`compare`: several specs, each trained from several seeds under one budget, and what that says.

The runs of one seed see the same data in the same order, so differences between specs are paired by seed. A run is one of `train`, in a folder of its own
below `out`; what is done is read from those folders, so that the same call goes on where it was stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..default_device import on_the_cpu
from ..diagnostics import InputError
from ..spec import Spec
from .jobs import check_jobs, named, run_together
from .kept_runs import ABOUT, PLOT, RUNS, curve_of, kept_about, lines_of_others, outcome_of, refuse_another, remove, runs_of, write
from .loop import Report
from .outcomes import Comparison, Outcome
from .plot import draw_comparison
from .recipe import Recipe
from .task import Measure, Task
from .train import LOG
from .trials import Arm, Trial, read_arms, task_of, trials_of
from .worker import Job, go_on


@on_the_cpu
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
    arms, seeds = read_arms(specs, recipe, seeds, equal)
    given = {"files": files, "validation": validation} if task is None else {"task": task}
    task = task_of(task, recipe, files, validation)
    trials, about = trials_of(arms, recipe, out, task, seeds, equal)
    calls = {t: {"spec": t.arm.spec, "recipe": t.recipe, "out": t.out, "initial": None if t.initial is None else t.initial.file, **given} for t in trials}
    apart = {Job.of(t.title, **call): t for t, call in calls.items()} if jobs > 1 else {}
    measure = task.measure(recipe.words)
    anew = restart and (out / ABOUT).exists()
    if not anew:
        refuse_another(out / ABOUT, about)
    gone = runs_of(out, kept_about(out / ABOUT)) if anew else []
    # Every run that stays is looked at, and may be refused, before any goes.
    done = [t for t in trials if t.out not in gone and outcome_of(t, measure) is not None]
    if anew:
        remove(out, gone)
    others = lines_of_others(out / RUNS, trials) if (out / ABOUT).exists() else []
    write(out / ABOUT, json.dumps(about, indent=1))
    found: dict[Trial, Outcome] = {}
    with ExitStack() as stack:
        bars = _Bars(stack, trials, measure, quiet)

        def ended(trial: Trial) -> None:
            outcome = outcome_of(trial, measure)
            if outcome is None:
                raise InputError(f"{trial.out / LOG} does not say how its run ended: something else writes into that folder. Give another out=")
            found[trial] = outcome
            bars.end(trial, outcome)
            write(out / RUNS, "".join(line + "\n" for line in [*others, *(json.dumps(found[t].plain()) for t in trials if t in found)]))

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
    draw_comparison(comparison, {(t.name, t.recipe.seed): curve_of(t, measure) for t in trials}, out / PLOT)
    return comparison


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
