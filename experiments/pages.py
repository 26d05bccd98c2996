"""What the page of an experiment is made of: its runs, kept as JSON lines, as tables and a line that says where they come from.

A page is a README.md whose generated blocks stand between `<!-- NAME -->` and `<!-- /NAME -->`; a test holds each to the runs in results/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from srt_masks.training.intervals import Interval

Runs = Sequence[Mapping[str, Any]]
NOT_RUN = "*Not run yet.*"
RESULTS = Path("results/runs.jsonl")  # in the folder of an experiment


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results, in its order; none where there is no file yet."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def write_runs(path: Path, runs: Runs) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(run, ensure_ascii=False) + "\n" for run in runs), encoding="utf-8", newline="\n")


def names_of(runs: Runs) -> list[str]:
    """The arms, in the order in which they first ran."""
    return list(dict.fromkeys(run["name"] for run in runs))


def values(runs: Runs, name: str, key: str) -> dict[int, float]:
    """By seed, of one arm."""
    return {run["seed"]: float(run[key]) for run in sorted(runs, key=lambda run: run["seed"]) if run["name"] == name}


def differences(runs: Runs, one: str, other: str, key: str) -> Interval:
    """one - other, of the runs of the same seed."""
    a, b = values(runs, one, key), values(runs, other, key)
    return Interval.of([a[seed] - b[seed] for seed in a if seed in b])


def said(number: float) -> str:
    """In three digits or so: 0.0473, 0.412, 1.03, 12.5. Nothing is known of further ones."""
    for digits, less_than in ((4, 0.1), (3, 1), (2, 10), (1, 100)):
        text = f"{number:z.{digits}f}"  # z: no -0
        if abs(float(text)) < less_than:
            return text
    return f"{number:.0f}"


def spread(interval: Interval) -> str:
    return said(interval.mean) + ("" if interval.half is None else f" ± {said(interval.half)}")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; all columns but the first to the right."""
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def by_seed(runs: Runs, key: str, words: Mapping[str, str]) -> str:
    """A row an arm: what it is, in words, by its name; each seed's figure; the mean with its 95% interval by Student's t. NOT_RUN if none did."""
    seeds = sorted({run["seed"] for run in runs})
    rows = []
    for name, about in words.items():
        own = values(runs, name, key)
        if own:
            rows.append([about, *(said(own[seed]) if seed in own else "" for seed in seeds), f"**{spread(Interval.of(list(own.values())))}**"])
    return table(["", *(f"seed {seed}" for seed in seeds), "mean"], rows) if rows else NOT_RUN


def paired(runs: Runs, key: str, pairs: Mapping[tuple[str, str], str]) -> str:
    """A row a pair of arms: what is subtracted, in words; the mean of the differences with its 95% interval; whether that holds 0. NOT_RUN if no pair did."""
    present, rows = names_of(runs), []
    for (one, other), about in pairs.items():
        if one in present and other in present:
            found = differences(runs, one, other, key)
            holds = "" if found.half is None else "yes" if abs(found.mean) <= found.half else "no"
            rows.append([about, spread(found), holds])
    return table(["difference, by runs of the same seed", "mean", "0 within"], rows) if rows else NOT_RUN


def origin(runs: Runs) -> str:
    """A sentence: how many runs, of which seeds, steps, versions, threads and seconds. The texts and their hashes stand beside each run."""

    def one(found: Sequence[Any]) -> str:
        each = [value for run in found for value in (run if isinstance(run, list) else [run])]  # a list: of a run that was gone on with by others
        texts = [str(value) for value in dict.fromkeys(each)]
        return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)

    seconds, code = [run["seconds"] for run in runs], [run["code"] for run in runs]
    srt_masks, commit, python, torch, threads = (one([c[key] for c in code]) for key in ("srt_masks", "commit", "python", "torch", "threads"))
    return (
        f"{len(runs)} runs, seeds {one(sorted(run['seed'] for run in runs))}, {one([run['steps'] for run in runs])} steps each; srt_masks {srt_masks} at {commit}, "
        f"Python {python}, torch {torch}, threads of a run: {threads}; {median(seconds):.0f} s a run ({min(seconds):.0f} to {max(seconds):.0f}), beside other work."
    )


def filled(page: str, blocks: Mapping[str, str]) -> str:
    """A page with its generated blocks as given. Raises ValueError for a block that it has no place for."""
    for name, block in blocks.items():
        page, count = re.subn(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m, block=block: f"{m[1]}{block}\n{m[2]}", page, flags=re.S)
        if count != 1:
            raise ValueError(f"the page has {count} places for the block {name!r}: write <!-- {name} --> and <!-- /{name} --> once")
    return page


def publish(folder: Path, runs: Runs, blocks: Callable[[Runs], Mapping[str, str]], pictures: Callable[[Runs], Mapping[str, str]]) -> None:
    """Put runs of an experiment beside those in its results/, in place of any of the same arm, steps and seed, and make its page of all."""
    every = {(run["name"], run["steps"], run["seed"]): _without_places(run) for run in (*read_runs(folder / RESULTS), *runs)}
    write_runs(folder / RESULTS, list(every.values()))
    remake(folder, blocks, pictures)


def _without_places(run: Mapping[str, Any]) -> dict[str, Any]:
    """A model that a run began with is named by its content: where it lay is of one machine."""
    return {**run, **({"initial": {"sha256": run["initial"]["sha256"]}} if run.get("initial") else {})}


def remake(folder: Path, blocks: Callable[[Runs], Mapping[str, str]], pictures: Callable[[Runs], Mapping[str, str]]) -> None:
    """Write the generated blocks of a README, and the pictures, each by its file's name in results/, of the runs that are kept there."""
    for path, text in made(folder, blocks, pictures).items():
        path.write_text(text, encoding="utf-8", newline="\n")


def made(folder: Path, blocks: Callable[[Runs], Mapping[str, str]], pictures: Callable[[Runs], Mapping[str, str]]) -> dict[Path, str]:
    """What `remake` writes, by file. Before there are runs every block says so, and there is no picture."""
    page, runs = folder / "README.md", read_runs(folder / RESULTS)
    text = page.read_text(encoding="utf-8")
    if not runs:
        return {page: filled(text, dict.fromkeys(re.findall(r"<!-- (\w+) -->", text), NOT_RUN))}
    found = pictures(runs)
    shown = "\n\n".join(f"![{name.partition('.')[0]}](results/{name})" for name in found)
    return {page: filled(text, {**blocks(runs), "pictures": shown}), **{(folder / RESULTS).with_name(name): drawn for name, drawn in found.items()}}
