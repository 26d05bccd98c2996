"""The benchmarks of a card, dry: every column and every path of them runs on a CPU, at tiny sizes, so that none is met broken when a card comes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parent.parent


def dry_run(script: str, *arguments: str, out: Path) -> tuple[list[dict[str, Any]], str]:
    """The rows that it writes, and its table."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {"TMPDIR": str(out)}
    command = [sys.executable, ROOT / "benchmarks" / f"{script}.py", "--dry-run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=250, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f"written to {out}{os.sep}dry-run-")
    written = Path(last.removeprefix("written to "))
    found = json.loads((written / f"{script}.json").read_text())
    assert "no time means anything" in found["about"]
    return found["rows"], (written / f"{script}.md").read_text()


def test_every_contender_is_measured_and_right(tmp_path: Path):
    rows, table = dry_run("gpu_attention", out=tmp_path)
    found = {(r["spec"], r["tokens"], r["contender"]) for r in rows}
    plain = {(s, 80, c) for s in ("causal", "window", "documents") for c in ("triton", "flex", "tiled")} | {("causal", 80, "sdpa")}
    rules = {("self reasoning", 80, c) for c in ("triton", "flex twice", "flex keys", "tiled")}
    assert found == plain | rules | {("causal", 96, c) for c in ("triton", "flex", "sdpa", "tiled")}
    assert all(r["forward ms"] > 0 and r["backward ms"] > 0 for r in rows)
    assert all((r["difference"] == 0) == (r["contender"] == "triton") and r["difference"] < 0.02 for r in rows)
    assert len(table.splitlines()) == 8 + len(rows) and "nan" not in table and "no time means anything" in table


def test_every_kernel_is_compiled_and_timed_with_every_candidate(tmp_path: Path):
    rows, table = dry_run("tune_kernels", out=tmp_path)
    each = {
        (spec, kernel): [r for r in rows if (r["spec"], r["kernel"]) == (spec, kernel)] for spec in ("plain", "apart") for kernel in ("FORWARD", "DQ", "DKV")
    }
    for mine in each.values():  # two candidates, and what the table has
        assert len({r["config"] for r in mine}) == 3 and sum(r["now"] for r in mine) == 1 and all(r["ms"] > 0 for r in mine)
    assert sum(map(len, each.values())) == len(rows)
    assert table.count("(now)") == 6 and all(r["config"] in table for r in rows)
