"""The arguments that every experiment takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def arguments(
    about: str, name: str, *, steps: int, seeds: tuple[int, int], groups: Sequence[str] = (), more: Sequence[str] = ()
) -> argparse.Namespace:  # fmt: skip
    """`about`, the docstring of the run, `name`, its folder's; `steps` and `seeds`, the first and the last, are those of the published runs. An experiment
    of several comparisons takes `--only` some of its `groups`, or of `more`, which are made only when they are asked for."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{name}.run", description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=steps, help=f"of a run ({steps})")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(seeds[0], seeds[1] + 1)), help=f"({seeds[0]} to {seeds[1]})")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each with its share of the cores (1)")
    parser.add_argument("--out", type=Path, default=Path("runs") / name, help="where runs are kept; the same command goes on where it was stopped")
    parser.add_argument("--quick", action="store_true", help="seconds, of models that learn nothing, to see that it runs")
    parser.add_argument("--publish", action="store_true", help="put the runs into results/, and make the page of them")
    if groups:
        parser.add_argument("--only", nargs="+", default=list(groups), choices=[*groups, *more], help=f"of the comparisons ({' '.join(groups)})")
    return parser.parse_args()
