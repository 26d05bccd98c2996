"""Makes docs/zoo.md and docs/pictures/*.svg from the texts of examples/: `python docs/make_zoo.py`.

The pictures are what the command of each text draws, run through the command line. A test makes both anew and compares.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from itertools import groupby
from pathlib import Path

from srt_masks.cli import main as command_line
from srt_masks.schemes import Entry, entries

DOCS = Path(__file__).parent

INTRODUCTION = """\
# The zoo

{count} published schemes of attention, each as a text of a few lines: who sees whom, and what trains. They come with the package: a
command takes `zoo:NAME` where it takes a file, and `srt_masks.zoo("gemma 3")` gives the spec. Case and punctuation of a name do not
matter.

In the pictures rows ask and columns are seen. Green: the pair is seen, and trains the key and the value it reads. Orange: it is seen
and trains neither. Blue: it trains in part, because a gradient is scaled, or one of several is stopped. Where heads or layers differ
there is one picture for each mask. All are drawn small, by the command beside them; a text's own sizes are those of its source.

This page is made by [`make_zoo.py`](make_zoo.py) from [`examples/`](../examples).
"""


def page() -> str:
    """The whole of zoo.md."""
    groups = [(name, list(members)) for name, members in groupby(entries(), key=lambda e: e.group)]
    contents = [f"- {name}: " + ", ".join(f"[{e.name}](#{anchor(e.name)})" for e in members) for name, members in groups]
    chapters = [f"## {name}\n\n" + "\n".join(map(section, members)) for name, members in groups]
    return "\n".join([INTRODUCTION.format(count=len(entries())), *contents, "", *chapters])


def section(entry: Entry) -> str:
    blocks = [f"### {entry.name}", f"*{entry.source}*", entry.words, f"```mask\n{entry.body}```"]
    if entry.attempt:
        blocks += [f"```sh\n{entry.attempt}\n```", f"![{entry.name}: who sees whom, and what trains](pictures/{entry.slug}.svg)"]
    return "\n\n".join(blocks) + "\n"


def anchor(heading: str) -> str:
    """The fragment that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def draw(folder: Path) -> None:
    """Run the command of every text, its picture going to `folder`. Raises SystemExit with what a command said where it fails."""
    for entry in entries():
        if not entry.attempt:
            continue
        _, *arguments = shlex.split(entry.attempt)
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = command_line([*arguments, "--out", str(folder / f"{entry.slug}.svg")])
        if code:
            raise SystemExit(f"{entry.attempt}\n{said.getvalue()}")


if __name__ == "__main__":
    (DOCS / "pictures").mkdir(exist_ok=True)
    for old in (DOCS / "pictures").glob("*.svg"):
        old.unlink()
    draw(DOCS / "pictures")
    (DOCS / "zoo.md").write_text(page(), encoding="utf-8")
