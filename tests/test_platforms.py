"""Systems and devices that are not here: no triton, no float64, what macOS and Windows lack, the oldest versions that are promised.

Each is played in a process of its own, by taking away what it has not.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from conftest import ROOT

import srt_masks as srt
from srt_masks import cli
from srt_masks.view.terminal import takes_colour

TESTS = Path(__file__).parent


def python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_everything_but_the_triton_backend_works_without_triton(system: str):
    """Compile, forward, backward, plan, a model, and every command."""
    assert python("-W", "error", str(TESTS / "without_triton.py"), system).endswith("done\n")


def test_a_device_without_float64_meets_none():
    """`tiled` on what MPS lets through, every feature of the table; a model; and the reference, which says why not."""
    said = python(str(TESTS / "far_calls.py")).splitlines()
    assert said.count("a model") == 2 and len(said) > 80 and said[-1].startswith('backend="reference" computes in float64, and far has none: backend="tiled"')


def test_the_package_asks_for_triton_on_linux_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {d.split(">=")[0]: d for d in project["dependencies"]}
    assert wanted["triton"] == "triton>=3.4; platform_system == 'Linux'" and wanted["torch"] == "torch>=2.9" and project["requires-python"] == ">=3.11"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("system", "environment", "coloured"), [
    ("linux", {}, True), ("linux", {"NO_COLOR": "1"}, False), ("linux", {"TERM": "dumb"}, False), ("darwin", {}, True),
    ("win32", {}, False), ("win32", {"WT_SESSION": "1"}, True), ("win32", {"TERM": "xterm"}, True), ("win32", {"WT_SESSION": "1", "NO_COLOR": ""}, False),
])  # fmt: skip
def test_where_colours_are_shown(system: str, environment: dict[str, str], coloured: bool, monkeypatch):
    for name in ("NO_COLOR", "TERM", "WT_SESSION", "ANSICON"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", system)
    assert takes_colour(Terminal()) is coloured and not takes_colour(io.StringIO()) and not takes_colour(None)


@pytest.mark.parametrize(("system", "code"), [("win32", 0), ("linux", 1)])
def test_a_reader_that_has_gone_is_no_error_on_windows_either(system: str, code: int, monkeypatch, capsys):
    """There a broken pipe is EINVAL, and nothing else is."""

    def gone(*_: object, **__: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(cli, "_drop_the_output", lambda: None)
    monkeypatch.setattr("srt_masks.cli.commands.print_pictures", gone)
    assert cli.main(["show", "zoo:gemma-3", "--steps", "4"]) == code
    assert capsys.readouterr().err == ("" if code == 0 else "error: cannot write: Invalid argument\n")


def test_a_loaded_model_holds_no_part_of_its_file(tmp_path: Path):
    """A file that is mapped cannot be replaced on Windows, and changes under the model elsewhere."""
    model = srt.build_model(srt.parse("attend causal\npredict token -> index + 1"), dim=16, depth=1, heads=2, num_tokens=7)
    path = tmp_path / "model.safetensors"
    srt.save_model(model, path)
    loaded = srt.load_model(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
