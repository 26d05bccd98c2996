"""What proofs cost: every claim of the zoo, stated or made by a `predict`, and what `srt.compile` takes with proofs and without.

    .venv/bin/python benchmarks/prove.py [--out benchmarks/results/prove.md] [--repeat 3]

Times are wall time, the best of several runs on one thread. No proof is remembered between the runs of a claim: what is kept of them lies in a
folder that is made for this run and emptied before each. Compiling is timed three ways: with nothing known, with the proofs of an earlier process in
the folder, and again in the same process; and, since z3 is imported by the first claim only, the first compile of a process apart.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import z3
from measuring import alone, machine, publish, table

import srt_masks as srt
from srt_masks.proofs.known import forget
from srt_masks.proofs.verdict import Verdict
from srt_masks.schemes import names

MOST, MEDIAN = 2.0, 0.05  # seconds: the goals for the slowest claim and the median


@dataclass(frozen=True, slots=True)
class Row:
    """A claim of a scheme, and the seconds that it took."""

    scheme: str
    verdict: Verdict
    seconds: float


def unknown() -> None:
    """Makes every proof one that nobody has found."""
    forget()
    shutil.rmtree(os.environ["SRT_MASKS_CACHE"], ignore_errors=True)


def claims(name: str, repeat: int) -> list[Row]:
    spec, runs = srt.zoo(name), []
    for _ in range(repeat):
        unknown()
        runs.append(srt.prove(spec))
    assert len({tuple(str(v.outcome) for v in run) for run in runs}) == 1, f"{name}: verdicts differ from run to run"
    return [Row(name, same[0], min(v.seconds for v in same)) for same in zip(*runs, strict=True)]


def fastest(call: Callable[[], object], before: Callable[[], object], repeat: int) -> float:
    """Seconds of a call, each time after what comes before it."""
    least = float("inf")
    for _ in range(repeat):
        before()
        begin = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - begin)
    return least


def compiling(name: str, repeat: int) -> list[str]:
    spec = srt.zoo(name)
    compiled = lambda: srt.compile(spec)  # noqa: E731
    times = (
        fastest(lambda: srt.compile(spec, proofs="off"), lambda: None, repeat),
        fastest(compiled, unknown, repeat),
        fastest(compiled, forget, repeat),
        fastest(compiled, lambda: None, repeat),
    )
    return [name, *(f"{1000 * t:.1f}" for t in times)]


def first_of_a_process(name: str, proofs: str) -> float:
    torch.set_num_threads(1)
    spec = srt.zoo(name)
    begin = time.perf_counter()
    srt.compile(spec, proofs=proofs)
    return time.perf_counter() - begin


def report(repeat: int) -> list[str]:
    torch.set_num_threads(1)
    rows = sorted((row for name in names() for row in claims(name, repeat)), key=lambda r: -r.seconds)
    slowest, median = rows[0].seconds, statistics.median(r.seconds for r in rows)
    goals = [
        ("every claim", f"{len(rows)} of {len(rows)} proved" if all(r.verdict for r in rows) else "not all are proved", all(r.verdict for r in rows)),
        (f"slowest, under {MOST:g} s", f"{slowest:.2f} s, of {rows[0].scheme}", slowest < MOST),
        (f"median, under {1000 * MEDIAN:g} ms", f"{1000 * median:.0f} ms", median < MEDIAN),
    ]
    claimed = [[r.scheme, f"`{r.verdict.claim}`", str(r.verdict.outcome), f"{1000 * r.seconds:.0f}"] for r in rows]
    speaking = list(dict.fromkeys(r.scheme for r in sorted(rows, key=lambda r: names().index(r.scheme))))
    unknown()
    first = [first_in(mode) for mode in ("off", "nothing", "kept")]
    return [
        "# Proofs",
        f"`benchmarks/prove.py` on {machine()}, z3 {z3.get_version_string()}. Wall time, the best of {repeat} runs.",
        "## Claims of the zoo, with nothing remembered",
        table(["goal", "measured", ""], [[goal, figure, "met" if met else "missed"] for goal, figure, met in goals]),
        table(["scheme", "claim", "verdict", "ms"], claimed),
        "## `srt.compile`",
        'Before a spec is compiled its claims are proved, unless `proofs="off"`. In a process that has proved before, in ms:',
        table(["scheme", "off", "nothing known", "kept by an earlier process", "again"], [compiling(name, repeat) for name in speaking]),
        "The first compile of a process, `self reasoning, stopped`, the import of z3 included, in ms:",
        table(["off", "nothing known", "kept by an earlier process"], [[f"{1000 * t:.0f}" for t in first]]),
    ]


def first_in(mode: str) -> float:
    """Seconds of the first compile of a process: without proofs, with all to find, or with those that the one before kept."""
    if mode == "nothing":
        unknown()
    return alone(first_of_a_process, "self reasoning, stopped", "off" if mode == "off" else "warn", method="spawn")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the page to this file")
    parser.add_argument("--repeat", type=int, default=3, help="runs, of which the best counts (default 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SRT_MASKS_CACHE"] = str(Path(folder) / "kept")
        publish(report(options.repeat), options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
