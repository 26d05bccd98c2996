"""What the page says of the runs: `python -m experiments.insulation.page` makes it again of results/runs.jsonl."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from srt_masks.training.intervals import Interval

from ..pages import Runs, names_of, origin, remake, spread, table, values
from ..question import Question, pictures_of

ARMS = {
    "shared-open": "shared weights, open",
    "shared-stop": "shared weights, stopped",
    "own-open": "own weights, open",
    "own-stop": "own weights, stopped",
}
PAIRS = {
    ("shared-stop", "shared-open"): "shared weights: stopped - open",
    ("own-open", "shared-open"): "open: own - shared weights",
    ("own-stop", "shared-stop"): "stopped: own - shared weights",
    ("own-stop", "own-open"): "own weights: stopped - open",
}
QUESTIONS = {
    "a": Question("Task A, after the expert has learnt B", ARMS, "a_after", pairs=PAIRS, log=True),
    "b": Question("Task B, as the expert has learnt it", ARMS, "b_after", pairs=PAIRS, log=True),
}
HEADS = ("weights of the expert, gates", "error of A before", "error of A after", "error of B after", "backbone the same, to the bit")


def blocks(runs: Runs) -> dict[str, str]:
    rows = []
    for name in names_of(runs):
        same = [run["bit_equal"] for run in runs if run["name"] == name]
        errors = (spread(Interval.of(list(values(runs, name, key).values()))) for key in ("a_before", "a_after", "b_after"))
        rows.append([ARMS[name], *errors, f"{sum(same)} of {len(same)} seeds"])
    return {
        "table": table(HEADS, rows),
        **{f"seeds_of_{task}": question.table(runs) for task, question in QUESTIONS.items()},
        **{f"differences_of_{task}": question.differences(runs) for task, question in QUESTIONS.items()},
        "origin": f"{origin(runs)} {_before(runs)}",
    }


def _before(runs: Runs) -> str:
    """The seconds and steps of `origin` are of the second stage; this is the first."""
    begun = {(run["name"].partition("-")[0], run["seed"]): run["a_seconds"] for run in runs}
    return (
        f"These are the runs of B; they begin with the weights of {len(begun)} runs of A, one for each seed and each kind of weights, of as many steps, "
        f"{median(begun.values()):.0f} s a run ({min(begun.values()):.0f} to {max(begun.values()):.0f})."
    )


def pictures(runs: Runs) -> dict[str, str]:
    return pictures_of({f"error_of_{task}": question for task, question in QUESTIONS.items()}, runs)


if __name__ == "__main__":
    remake(Path(__file__).parent, blocks, pictures)
