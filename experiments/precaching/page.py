"""What the page says of the runs: `python -m experiments.precaching.page` makes it again of results/."""

from __future__ import annotations

from pathlib import Path

from ..pages import NOT_RUN, Runs, by_seed, origin, paired, read_runs, remake, said, table, values
from ..picture import picture

HERE = Path(__file__).parent
CONTROLS = HERE / "results" / "controls.jsonl"
KEY = "held_out"
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
SHORT, LONG = 600, 3000  # steps
# By the name of a table and of its picture: the steps of its runs, its arms, and the picture's title.
QUESTIONS = {
    "rules": (SHORT, RULES, f"Whom does the future teach? {SHORT} steps"),
    "longer": (LONG, RULES, f"Whom does the future teach? {LONG} steps"),
    "horizons": (SHORT, HORIZONS, "For how many rows does the future not teach?"),
    "trickles": (SHORT, TRICKLES, "What share of the gradient comes back?"),
}


def asked(runs: Runs, question: str) -> Runs:
    steps, arms, _ = QUESTIONS[question]
    return [run for run in runs if run["steps"] == steps and run["name"] in arms]


def controls(found: Runs) -> str:
    """A row a text: what of it was tried on models that were trained."""
    rows = [[RULES[c["name"]], "yes" if c["forward_equal"] else "NO", f"{c['difference']:.1e}", said(c["largest"])] for c in found]
    heads = ["", "forward before training, bit-equal to that of nothing", "largest difference of a gradient, reference and `tiled`", "largest gradient"]
    return table(heads, rows)


def blocks(runs: Runs) -> dict[str, str]:
    own = {question: asked(runs, question) for question in QUESTIONS}
    found = {
        **{question: by_seed(own[question], KEY, arms) for question, (_, arms, _) in QUESTIONS.items()},
        **{f"{question}_differences": paired(own[question], KEY, PAIRS) for question in ("rules", "longer")},
    }
    made = {name: text if own[name.partition("_")[0]] else NOT_RUN for name, text in found.items()}
    lengths = [[run for run in runs if run["steps"] == steps] for steps in (SHORT, LONG)]
    return {**made, "controls": controls(read_runs(CONTROLS)), "origin": "\n\n".join(origin(same) for same in lengths if same)}


def pictures(runs: Runs) -> dict[str, str]:
    drawn = {}
    for question, (_, arms, title) in QUESTIONS.items():
        figures = {about.replace("`", ""): list(values(asked(runs, question), arm, KEY).values()) for arm, about in arms.items()}
        figures = {about: own for about, own in figures.items() if own}
        if figures:
            drawn[f"{question}.svg"] = picture(title, "error over variance", figures, mark=(1.0, "knows nothing"))
    return drawn


if __name__ == "__main__":
    remake(HERE, blocks, pictures)
