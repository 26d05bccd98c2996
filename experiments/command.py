"""The command of an experiment: the arguments that all take, what may be published, and what a mistake says."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from srt_masks.cli import in_flags
from srt_masks.diagnostics import Error, SpecError


def command(main: Callable[[argparse.Namespace], None], about: str, name: str, **protocol: Any) -> None:
    """Run `main` with the arguments of the command line, and end with a line on what was wrong with them. `about`, `name` and `protocol` are what
    `arguments` takes."""
    asked = arguments(about, name, **protocol)
    try:
        main(asked)
    except SpecError as error:
        sys.exit(error.report)
    except Error as error:
        message = re.sub(r", or begin it anew \(restart=\)", "", str(error))  # there is no such flag: hours of runs might go by it
        sys.exit(f"error: {in_flags(message, vars(asked))}")
    print(f"\nruns  {asked.out}")


def arguments(
    about: str, name: str, *, steps: int, seeds: tuple[int, int], longer: Mapping[int, Sequence[str]] | None = None, groups: Sequence[str] = (), more: Sequence[str] = ()
) -> argparse.Namespace:  # fmt: skip
    """`about`, the docstring of the run, `name`, its folder's; `steps` and `seeds`, the first and the last, are those of the protocol, of `longer`
    steps for some groups: runs of others are not published, and those of other steps, and quick ones, are kept in a folder of their own. An experiment
    of several comparisons takes `--only` some of its `groups`, or of `more`, which are made only when they are asked for. Ends the process, as argparse
    does, for what it cannot read."""
    longer = longer or {}
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{name}.run", description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--steps", type=int, default=steps, help=f"of a run ({steps})")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=list(range(seeds[0], seeds[1] + 1)),
        help=f"numbers of the seeds, one or more ({' '.join(map(str, range(seeds[0], seeds[1] + 1)))})",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each with its share of the cores (1)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs") / name, help=f"where runs are kept; the same command goes on where it was stopped (runs/{name})"
    )
    parser.add_argument("--quick", action="store_true", help="seconds, of models that learn nothing, to see that it runs")
    parser.add_argument("--publish", action="store_true", help="put the runs into results/, and make the page of them")
    if groups:
        parser.add_argument("--only", nargs="+", default=list(groups), choices=[*groups, *more], help=f"of the comparisons ({' '.join(groups)})")
    asked = parser.parse_args()
    if asked.publish and asked.quick:
        parser.error("--quick makes models that learn nothing, and nothing to --publish: give one of the two")
    if asked.publish and asked.steps not in (steps, *longer):
        parser.error(f"--publish puts runs of the protocol into results/: --steps {' or '.join(map(str, (steps, *longer)))}, not {asked.steps}")
    if asked.publish and (others := [seed for seed in asked.seeds if not seeds[0] <= seed <= seeds[1]]):
        parser.error(f"--publish puts runs of the protocol into results/: --seeds of {seeds[0]} to {seeds[1]}, not {' '.join(map(str, others))}")
    if asked.publish and asked.steps in longer and (others := [group for group in asked.only if group not in longer[asked.steps]]):
        parser.error(
            f"--publish puts runs of the protocol into results/, which has {' '.join(others)} at {steps} steps alone: --only {' '.join(longer[asked.steps])}"
        )
    if asked.quick:
        asked.out /= "quick"
    elif asked.steps not in (steps, *longer):
        asked.out /= f"{asked.steps}-steps"
    return asked
