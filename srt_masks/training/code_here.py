"""By what code a run is made: versions, the commit of a checkout, threads."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .. import __version__

CODE = ("srt_masks", "experiments", ":(exclude,glob)experiments/*/results/**", ":(exclude,glob)experiments/**/*.md")


def code_here() -> dict[str, Any]:
    """For files of results. `commit` is None where the package does not lie in a checkout; it ends in `+` where files of the package or the
    experiments differ from it, or Python files are there that it has not."""
    return {
        "srt_masks": __version__, "commit": commit(), "python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads(),
    }  # fmt: skip


@cache
def commit() -> str | None:
    return commit_of(Path(__file__).resolve().parents[2])


def commit_of(root: Path) -> str | None:
    """Of a checkout, as `code_here` says it. What experiments leave behind, in results/ and on pages, decides no run."""
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        states = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *CODE).splitlines()
        return head[:12] + ("+" if any(not s.startswith("??") or s.strip('"').endswith(".py") for s in states) else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "--no-optional-locks", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
