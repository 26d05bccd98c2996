"""How long it takes to read a text: start-up of the command line, and parsing and checking up to the largest text allowed.

    .venv/bin/python benchmarks/language.py [--out benchmarks/results/language.md] [--repeat 20]

The best of several runs is given, because another process can only make one slower. Time per kB should not depend on the size.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from srt_masks.diagnostics import Source, SpecError
from srt_masks.grammar import tables
from srt_masks.grammar.check import check
from srt_masks.grammar.formatter import format_text
from srt_masks.grammar.parser import MAX_TEXT, parse

GOAL = 0.3  # seconds from the command to its exit, for a text of 50 lines
SIZES = (10_000, 100_000, MAX_TEXT)


def lines(pattern: str, ending: str = "") -> Callable[[int], str]:
    """A text of at most so many characters: the pattern again and again, `{}` being a number, and an ending."""

    def text(size: int) -> str:
        width = len(pattern.format(0)) + (len(str(size)) if "{}" in pattern else 0)
        return "".join(pattern.format(i) for i in range((size - len(ending)) // width)) + ending

    return text


RIGHT: dict[str, Callable[[int], str]] = {
    "statements": lines("let a{} = k is token and 0 < q.step - k.step <= 16\n", "attend causal\n"),
    "short statements on one line": lines("stop k where full ", "attend causal"),
    "comments": lines("# a comment, and nothing else\n", "attend causal\n"),
    "one comment": lambda size: "attend causal # " + "x" * (size - 16),
    "names": lambda size: "layout " + lines("role{}, ")(size - 20) + "token\nattend causal",
    "one long condition": lambda size: "attend " + lines("k.pos == {} or ")(size - 20) + "causal",
    "one long list": lambda size: "attend min(" + lines("k.pos, ")(size - 20) + "0) > 0",
    "99 levels in each statement": lines("let a{} = " + "not " * 97 + "causal\n", "attend causal\n"),
}
WRONG: dict[str, Callable[[int], str]] = {
    "a mistake in each statement": lines("attend causal;\n"),
    "100 mistakes at the end": lambda size: lines("let a{} = causal\n")(size - 2000) + "attend causal;\n" * 100,
    "misspelt names": lambda size: lines("let abcdef{} = causal\n")(size - 2500) + "attend abdcef9x\n" * 99,
    "no statement": lines("x "),
    "one statement that never ends": lambda size: "attend min(" + lines("k.pos, ")(size - 20),
    "levels without end": lambda size: "attend " + lines("not ")(size - 20) + "causal",
}


def fifty_lines() -> str:
    rules = "".join(f"let near{i} = k is reason and 0 < q.step - k.step <= horizon + {i}  # rule {i}\n" for i in range(42))
    head = "# fifty lines\nparam reasons = 4\nparam horizon = 16\nlayout repeat { token, reason * reasons }\n"
    return head + rules + "attend causal and not near41\nstop k, v where near0 or near1\npredict token -> index + 1\npredict reason -> index + 1\n"


def seconds(run: Callable[[], object], repeat: int, clock: Callable[[], float] = time.process_time) -> list[float]:
    found = []
    for _ in range(repeat):
        gc.collect()
        begin = clock()
        run()
        found.append(clock() - begin)
    return found


def start_up(repeat: int) -> Iterator[str]:
    yield "| command | best | median | of `python -c pass` |"
    yield "|---|--:|--:|--:|"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fifty.mask"
        path.write_text(format_text(Source(fifty_lines())))
        assert path.read_text().count("\n") == 50
        commands = {
            "python -c pass": ["-c", "pass"],
            "python -c 'import lark'": ["-c", "import lark"],
            "srt-masks check": ["-m", "srt_masks", "check", str(path)],
            "srt-masks fmt --check": ["-m", "srt_masks", "fmt", "--check", str(path)],
        }
        base = 0.0
        for name, words in commands.items():
            times = seconds(lambda words=words: subprocess.run([sys.executable, *words], check=True, capture_output=True), repeat, time.perf_counter)
            base = base or min(times)
            verdict = f" (goal {GOAL} s: {'met' if min(times) < GOAL else 'MISSED'})" if name.startswith("srt") else ""
            yield f"| `{name}`{verdict} | {min(times):.3f} s | {statistics.median(times):.3f} s | {min(times) / base:.1f} x |"
    made = seconds(tables.make, 3)
    loaded = seconds(tables.load.__wrapped__, repeat)
    yield ""
    yield f"The tables are read in {min(loaded) * 1e3:.1f} ms; lark would make them in {min(made):.2f} s, at each start."


def growth(title: str, texts: dict[str, Callable[[int], str]], work: Callable[[str], Callable[[], object] | None], repeat: int) -> Iterator[str]:
    yield f"| {title} | " + " | ".join(f"{s // 1000} kB" for s in SIZES) + " | largest / smallest | the same, not collecting |"
    yield "|---|" + "--:|" * (len(SIZES) + 2)
    for name, make in texts.items():
        found, bare = [], []
        for size in SIZES:
            text = make(size)
            assert size * 0.8 < len(text) <= size, (name, len(text))
            run = work(text)
            if run is None:
                continue
            times = repeat if size < MAX_TEXT else 3
            found.append(min(seconds(run, times)) * 1e9 / len(text))
            gc.disable()
            bare.append(min(seconds(run, times)) * 1e9 / len(text))
            gc.enable()
        ratios = [f"{x[-1] / x[0]:.2f}" if len(x) > 1 else "" for x in (found, bare)]
        yield f"| {name} | " + " | ".join([*(f"{x:.0f}" for x in found), *["refused"] * (len(SIZES) - len(found)), *ratios]) + " |"


def parsing(text: str) -> Callable[[], object]:
    def run() -> None:
        with suppress(SpecError):
            parse(Source(text))

    return run


def checking(text: str) -> Callable[[], object] | None:
    try:
        tree, mistakes = parse(Source(text))
    except SpecError:
        return None
    return None if mistakes or check(tree, {})[1] else lambda: check(tree, {})


def wrong_checking(text: str) -> Callable[[], object] | None:
    try:
        tree, _ = parse(Source(text))
    except SpecError:
        return None
    return lambda: check(tree, {})


def formatting(text: str) -> Callable[[], object] | None:
    try:
        format_text(Source(text))
    except SpecError:
        return None
    return lambda: format_text(Source(text))


def report(repeat: int) -> Iterator[str]:
    yield "# Reading a text"
    yield ""
    yield (
        f"`benchmarks/language.py` on {os.cpu_count()} cores ({platform.machine()}), {platform.system()}, Python {platform.python_version()}, lark "
        f"{version('lark')} (which only renews the tables). Start-up: wall time of {repeat} runs. "
        f"Sizes: CPU time, the best of 5 runs, of 3 for the largest."
    )
    yield ""
    yield "## Start-up, with a text of 50 lines"
    yield ""
    yield from start_up(repeat)
    for title, texts, work in (
        ("parse, µs per kB", RIGHT, parsing),
        ("parse of what is wrong, µs per kB", WRONG, parsing),
        ("check of a tree, µs per kB", RIGHT, checking),
        ("check with mistakes, µs per kB", {"misspelt names": WRONG["misspelt names"]}, wrong_checking),
        ("fmt, µs per kB", RIGHT, formatting),
    ):
        yield ""
        yield f"## {title.split(',')[0].capitalize()}"
        yield ""
        yield from growth(title, texts, work, 5)
    yield ""
    yield "*Refused* is a text that some limit forbids (operations, levels, characters). A ratio above 1 is Python's collector of garbage, which walks a larger heap, and what else the machine did; far below 1, reading stops at the hundredth mistake."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the table there too")
    parser.add_argument("--repeat", type=int, default=20)
    options = parser.parse_args()
    found = []
    for line in report(options.repeat):
        print(line, flush=True)
        found.append(line)
    if options.out:
        options.out.write_text("\n".join(found) + "\n")


if __name__ == "__main__":
    main()
