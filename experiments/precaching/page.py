"""What the page says of the runs: `python -m experiments.precaching.page` makes it again of results/."""

from __future__ import annotations

from pathlib import Path

from ..pages import Runs, origin, read_runs, remake, said, table
from ..question import Question, pictures_of

HERE = Path(__file__).parent
CONTROLS = HERE / "results" / "controls.jsonl"
RULES = {
    "nothing": "nothing",
    "stop_k": "`stop k`",
    "stop_v": "`stop v`",
    "stop_k_v": "`stop k, v`",
    "stop_hidden": "`stop hidden`",
    "stop_q": "`stop q`",
    "own_pair": "`stop k, v`, of the own pair alone",
}
HORIZONS = {f"horizon_{n}": f"horizon {n}" for n in range(7)}
TRICKLES = {f"trickle_{share:g}": f"trickle {share:g}" for share in (1, 0.3, 0.1, 0.03, 0.01, 0)}
PAIRS = {
    ("stop_k_v", "nothing"): "`stop k, v` - nothing",
    ("stop_k", "nothing"): "`stop k` - nothing",
    ("stop_v", "stop_k"): "`stop v` - `stop k`",
    ("stop_k_v", "stop_v"): "`stop k, v` - `stop v`",
    ("stop_k_v", "stop_hidden"): "`stop k, v` - `stop hidden`",
    ("stop_q", "nothing"): "`stop q` - nothing",
    ("own_pair", "nothing"): "the own pair alone - nothing",
}
STEPS_OF_HORIZON = {(f"horizon_{n + 1}", f"horizon_{n}"): f"horizon {n + 1} - horizon {n}" for n in range(6)}
STEPS_OF_TRICKLE = {
    (f"trickle_{b:g}", f"trickle_{a:g}"): f"trickle {b:g} - trickle {a:g}" for a, b in ((1, 0.3), (0.3, 0.1), (0.1, 0.03), (0.03, 0.01), (0.01, 0))
}
SHORT, LONG = 600, 3000  # steps
# By the name of a table and of its picture.
QUESTIONS = {
    "rules": Question(f"Whom does the future teach? {SHORT} steps", RULES, pairs=PAIRS, steps=SHORT),
    "longer": Question(f"Whom does the future teach? {LONG} steps", RULES, pairs=PAIRS, steps=LONG),
    "horizons": Question("For how many rows does the future not teach?", HORIZONS, pairs=STEPS_OF_HORIZON, steps=SHORT),
    "trickles": Question("What share of the gradient comes back?", TRICKLES, pairs=STEPS_OF_TRICKLE, steps=SHORT),
}


def controls(found: Runs) -> str:
    """A row a text: what of it was tried on models that were trained."""
    rows = [[RULES[c["name"]], "yes" if c["forward_equal"] else "NO", f"{c['difference']:.1e}", said(c["largest"])] for c in found]
    heads = ["", "forward before training, bit-equal to that of nothing", "largest difference of a gradient, reference and `tiled`", "largest gradient"]
    return table(heads, rows)


def blocks(runs: Runs) -> dict[str, str]:
    lengths = [[run for run in runs if run["steps"] == steps] for steps in (SHORT, LONG)]
    return {
        **{name: question.table(runs) for name, question in QUESTIONS.items()},
        **{f"{name}_differences": question.differences(runs) for name, question in QUESTIONS.items()},
        "controls": controls(read_runs(CONTROLS)),
        "origin": "\n\n".join(origin(same) for same in lengths if same),
    }


def pictures(runs: Runs) -> dict[str, str]:
    return pictures_of(QUESTIONS, runs)


if __name__ == "__main__":
    remake(HERE, blocks, pictures)
