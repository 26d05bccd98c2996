"""By what code a run is made: versions, the commit of a checkout, threads."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .. import __version__


def code_here() -> dict[str, Any]:
    """For files of results. `commit` is None where the package does not lie in a checkout; it ends in `+` where files differ from it."""
    return {
        "srt_masks": __version__, "commit": commit(), "python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads(),
    }  # fmt: skip


@cache
def commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head[:12] + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no", "--", "srt_masks") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
