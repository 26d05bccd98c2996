"""Settings of every test run: hypothesis profiles, one thread a worker, quiet numbers."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch

os.environ.setdefault("SRT_MASKS_CACHE", tempfile.mkdtemp(prefix="srt_masks_tests_"))

from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # experiments/ are of the checkout, and of no package

settings.register_profile("dev", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True)
settings.register_profile("thorough", parent=settings.get_profile("dev"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))

# Two workers on two cores: more threads would only fight.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def pytest_configure(config):
    # The Triton kernels run in Triton's interpreter, on CPU tensors, except under `-m gpu`. It has to be asked for before triton is
    # imported, so before any test file is.
    if config.option.markexpr != "gpu" or config.option.interpreted:
        os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="accept what the golden tests find")
    parser.addoption(
        "--interpreted", action="store_true", help="with -m gpu: what a card is to run, small and in Triton's interpreter, to try the tests themselves"
    )
    parser.addoption("--filled", action="store_true", help="run in memory that torch fills with NaN: what is read before it is written shows")


@pytest.fixture(autouse=True)
def _filled(request):
    if not request.config.getoption("--filled"):
        yield
        return
    torch.use_deterministic_algorithms(True, warn_only=True)  # which fills new memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def update_golden(request) -> bool:
    return request.config.getoption("--update-golden")


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(params=["tiled", "triton"])
def backend(request) -> str:
    """Every backend; `triton` is interpreted."""
    return request.param


def pytest_collection_modifyitems(config, items):
    reason = "needs a CUDA card; none is here" if not torch.cuda.is_available() else "on a card, and not in the interpreter: pytest -m gpu"
    if config.option.markexpr == "gpu" and config.option.interpreted:
        return
    for item in items:
        if item.get_closest_marker("gpu") and (config.option.markexpr != "gpu" or not torch.cuda.is_available()):
            item.add_marker(pytest.mark.skip(reason=reason))
