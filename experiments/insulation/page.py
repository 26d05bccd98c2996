"""What the page says of the runs: `python -m experiments.insulation.page` makes it again of results/runs.jsonl."""

from __future__ import annotations

from pathlib import Path

from srt_masks.training.intervals import Interval

from ..pages import Runs, by_seed, names_of, origin, paired, remake, spread, table, values
from ..picture import picture

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
HEADS = ("weights of the expert, gates", "error of A before", "error of A after", "error of B after", "backbone the same, to the bit")


def blocks(runs: Runs) -> dict[str, str]:
    rows = []
    for name in names_of(runs):
        same = [run["bit_equal"] for run in runs if run["name"] == name]
        errors = (spread(Interval.of(list(values(runs, name, key).values()))) for key in ("a_before", "a_after", "b_after"))
        rows.append([ARMS[name], *errors, f"{sum(same)} of {len(same)} seeds"])
    return {
        "table": table(HEADS, rows),
        "seeds_of_a": by_seed(runs, "a_after", ARMS),
        "seeds_of_b": by_seed(runs, "b_after", ARMS),
        "differences_of_a": paired(runs, "a_after", PAIRS),
        "differences_of_b": paired(runs, "b_after", PAIRS),
        "origin": f"{origin(runs)} {_before(runs)}",
    }


def _before(runs: Runs) -> str:
    """The seconds and steps of `origin` are of the second stage; this is the first."""
    begun = {(run["name"].partition("-")[0], run["seed"]) for run in runs}
    return f"These are the runs of B; they begin with the weights of {len(begun)} runs of A, one for each seed and each kind of weights, of as many steps."


def pictures(runs: Runs) -> dict[str, str]:
    def of(key: str) -> dict[str, list[float]]:
        return {ARMS[name]: list(values(runs, name, key).values()) for name in names_of(runs)}

    axis, mark = "error over variance", (1.0, "knows nothing")
    return {
        "error_of_a.svg": picture("Task A, after the expert has learnt B", axis, of("a_after"), log=True, mark=mark),
        "error_of_b.svg": picture("Task B, as the expert has learnt it", axis, of("b_after"), log=True, mark=mark),
    }


if __name__ == "__main__":
    remake(Path(__file__).parent, blocks, pictures)
