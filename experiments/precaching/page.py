"""What the page says of the runs: `python -m experiments.precaching.page` makes it again of results/."""

from __future__ import annotations

from pathlib import Path

from ..pages import Runs, by_seed, origin, paired, read_runs, remake, said, table, values
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
HORIZONS = {f"horizon_{n}": f"{n}" for n in range(7)}
TRICKLES = {f"trickle_{share:g}": f"{share:g}" for share in (1, 0.3, 0.1, 0.03, 0.01, 0)}
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


def of_steps(runs: Runs, steps: int) -> Runs:
    return [run for run in runs if run["steps"] == steps]


def controls(found: Runs) -> str:
    """A row a text: what of it was tried on models that were trained."""
    rows = [[RULES[c["name"]], "yes" if c["forward_equal"] else "NO", f"{c['difference']:.1e}", said(c["largest"])] for c in found]
    heads = ["", "forward before training, bit-equal to that of nothing", "largest difference of a gradient, reference and `tiled`", "largest gradient"]
    return table(heads, rows)


def blocks(runs: Runs) -> dict[str, str]:
    short, long = of_steps(runs, SHORT), of_steps(runs, LONG)
    return {
        "rules": by_seed(short, KEY, RULES),
        "differences": paired(short, KEY, PAIRS),
        "longer": by_seed(long, KEY, RULES),
        "longer_differences": paired(long, KEY, PAIRS),
        "horizons": by_seed(short, KEY, HORIZONS),
        "trickles": by_seed(short, KEY, TRICKLES),
        "controls": controls(read_runs(CONTROLS)),
        "origin": origin(runs),
    }


def pictures(runs: Runs) -> dict[str, str]:
    short, long, axis = of_steps(runs, SHORT), of_steps(runs, LONG), "error over variance"
    wanted = {
        "rules.svg": (short, f"Whom does the future teach? {SHORT} steps", RULES),
        "longer.svg": (long, f"{LONG} steps", RULES),
        "horizons.svg": (short, "The next rows do not train: how many?", {name: f"horizon {n}" for name, n in HORIZONS.items()}),
        "trickles.svg": (short, "What share of the gradient comes back?", {name: f"trickle {share}" for name, share in TRICKLES.items()}),
    }
    drawn = {}
    for name, (own, title, arms) in wanted.items():
        found = {about.replace("`", ""): list(values(own, arm, KEY).values()) for arm, about in arms.items() if values(own, arm, KEY)}
        if found:
            drawn[name] = picture(title, axis, found, mark=(1.0, "knows nothing"))
    return drawn


if __name__ == "__main__":
    remake(HERE, blocks, pictures)
