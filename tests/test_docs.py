"""README and docs, run: python blocks in one namespace a page, their output compared; console blocks; mask blocks parse."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import srt_masks as srt
from srt_masks.diagnostics import Source
from srt_masks.grammar.formatter import format_text

BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.M | re.S)
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("original", "testing", "planning", "elsewhere", "backends", "proofs", "training", "scaling")),
]
COSTS = re.compile(r"\d+\.\d ms, [\d,]+ bytes|tried in \d+ ms| +\d+ ms(?=  (?:for|tried:) )")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run_and_print_what_the_page_shows(page: Path):
    blocks = [(m[1], m[2]) for m in BLOCK.finditer(page.read_text())]
    namespace: dict = {}
    ran = 0
    for (language, code), (after, text) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"<{page.name}>", "exec"), namespace)  # no file: who asks for its source must not read the page as Python
        if after == "text":
            assert printed.getvalue().strip() == text.strip()
        ran += 1
    assert ran >= (1 if page.stem == "backends" else 2)


@pytest.mark.parametrize(("name", "count"), [("README.md", 5), ("docs/planning.md", 3), ("docs/proofs.md", 1)])
def test_console_blocks_print_what_the_page_shows(name: str, count: int):
    """All but what a plan and a proof cost."""
    ran = 0
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for language, text in BLOCK.findall((ROOT / name).read_text()):
        if language != "console":
            continue
        command, shown = text.split("\n", 1)
        done = subprocess.run(["bash", "-c", command.removeprefix("$ ")], capture_output=True, text=True, cwd=ROOT, env=environment)
        lines = [COSTS.sub("...", x.rstrip()) for x in (done.stdout + done.stderr).strip().splitlines()]
        assert lines == COSTS.sub("...", shown).strip().splitlines()
        ran += 1
    assert ran == count


def test_mask_blocks_parse_and_are_the_example():
    texts = [text for language, text in BLOCK.findall((ROOT / "README.md").read_text()) if language == "mask"]
    assert [srt.parse(t).checked for t in texts] == [srt.load(ROOT / "examples" / "self_reasoning.mask").checked]
    texts = [text for language, text in BLOCK.findall((ROOT / "docs" / "planning.md").read_text()) if language == "mask"]
    assert [srt.parse(t).checked for t in texts] == [srt.load(ROOT / "examples" / "myopic_training.mask").checked]


def test_every_example_parses_and_is_formatted():
    paths = sorted((ROOT / "examples").glob("*.mask"))
    assert len(paths) >= 47
    for path in paths:
        assert format_text(Source(srt.load(path).text)) == path.read_text(), path


def test_no_figure_is_left_to_be_measured():
    assert "DEMO_" not in (ROOT / "README.md").read_text()


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "editors" / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", BLOCK.sub("", page.read_text())):
            assert target.startswith("https://") or (page.parent / target).exists(), (page, target)


def test_flags_given_to_the_compile_gate_are_its_own():
    known = (ROOT / "benchmarks" / "kernels_report.py").read_text(encoding="utf-8")
    for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines():
        for flag in re.findall(r"--[a-z-]+", line.partition("make kernels-report")[2]):
            assert f'"{flag}"' in known, line
