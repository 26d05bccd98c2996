"""What the page says of the runs: `python -m experiments.language.page` makes it again of results/runs.jsonl."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from ..pages import Runs, names_of, origin, remake, table
from ..question import Question, pictures_of

ARMS = {
    "plain": "no reasoning tokens",
    "open-1": "1 reasoning token, open",
    "stop-1": "1, stopped for the next step",
    "open-4": "4 reasoning tokens, open",
    "stop-4": "4, stopped for the next step",
    "plain-work-of-1": "none, as much work as 1 open",
    "plain-work-of-4": "none, as much work as 4 open",
}
PAIRS = {
    ("open-1", "plain"): "1 open - none, equal steps",
    ("open-1", "plain-work-of-1"): "1 open - none, equal work",
    ("stop-1", "open-1"): "1: stopped - open",
    ("open-4", "plain"): "4 open - none, equal steps",
    ("open-4", "plain-work-of-4"): "4 open - none, equal work",
    ("stop-4", "open-4"): "4: stopped - open",
}
BITS = Question("Reasoning tokens on text", ARMS, counted="held-out bits per byte, of the last row of each", pairs=PAIRS, mark=None, zero=False)


def blocks(runs: Runs) -> dict[str, str]:
    rows = []
    for name in names_of(runs):
        own = [run for run in runs if run["name"] == name]
        products = own[0]["work"]["multiplications"] * own[0]["steps"]
        rows.append([ARMS[name], f"{own[0]['steps']:,}", f"{own[0]['work']['rows']:,}", _relative(products, runs), f"{fmean(r['seconds'] for r in own):,.0f}"])
    costs = table(["", "steps", "rows of a sequence", "multiplications, forward, of none", "seconds a run"], rows)
    return {"table": BITS.table(runs), "differences": BITS.differences(runs), "costs": costs, "origin": origin(runs)}


def _relative(products: int, runs: Runs) -> str:
    first = next(run for run in runs if run["name"] == "plain")
    return f"{products / (first['work']['multiplications'] * first['steps']):.2f}"


def pictures(runs: Runs) -> dict[str, str]:
    return pictures_of({"bits_per_byte": BITS}, runs)


if __name__ == "__main__":
    remake(Path(__file__).parent, blocks, pictures)
