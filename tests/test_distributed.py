"""Two processes against one: training with every rank's own sequences, with shared ones, with shared weights. What they do stands in `ranks.py`.

They are started once for the whole session, whichever worker comes first."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ranks as cases
from conftest import ROOT
from filelock import FileLock

pytestmark = pytest.mark.timeout(240)
Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each rank found, by case."""
    # The folder that all workers of a run have in common, if there are workers.
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ranks"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "done").exists():
            run(folder)
            (folder / "done").touch()
    return [json.loads((folder / f"rank{r}.json").read_text()) for r in range(2)]


def run(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "ranks.py"), str(folder)], env={**shared, "RANK": str(r), "LOCAL_RANK": str(r)}, cwd=folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for r in range(2)
    ]  # fmt: skip
    for r, process in enumerate(started):
        try:
            output, _ = process.communicate(timeout=180)
        except subprocess.TimeoutExpired:
            for other in started:
                other.kill()
            raise
        assert (folder / f"rank{r}.json").exists(), output


def of(found: Found, case: str) -> list[dict[str, Any]]:
    """What each rank found in a case."""
    both = [rank[case] for rank in found]
    for one in both:
        assert "error" not in one, one["error"]
    return both


@pytest.mark.parametrize("context", [1, 2])
@pytest.mark.parametrize("wrap", ["data_parallel", "fully_sharded"])
@pytest.mark.parametrize("name", cases.TEXTS)
def test_twenty_steps_are_those_of_one_process(found: Found, name: str, wrap: str, context: int):
    for one in of(found, f"{name}, {wrap}, context {context}"):
        assert one["losses"] < cases.MOST and one["weights"] < cases.MOST < 1e-2 < one["moved"]


def test_a_rank_keeps_its_own_rows_alone(found: Found):
    both = of(found, "own rows")
    assert sum(one["rows"] for one in both) == 90 and both[0]["work"] == both[1]["work"]
    for one in both:
        assert 0 < one["rows"] < 90 and max(one["kept"]) < 90 and one["rows"] in one["kept"]
