"""The pages of experiments say what their runs say."""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT

from experiments.pages import RESULTS, made, read_runs

FOLDERS = sorted(path.parent for path in (ROOT / "experiments").glob("*/page.py"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_the_page_and_its_pictures_are_made_of_the_runs(folder: Path):
    page = import_module(f"experiments.{folder.name}.page")
    for path, text in made(folder, page.blocks, page.pictures).items():
        assert path.read_text() == text, f"python -m experiments.{folder.name}.page"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_runs_are_those_of_the_texts(folder: Path):
    """A text that was changed after it had run would stand beside figures of another."""
    texts = {path.read_text() for path in (folder / "texts").glob("*.mask")}
    for run in read_runs(folder / RESULTS):
        assert run["spec"] in texts and run["spec_sha256"] == hashlib.sha256(run["spec"].encode()).hexdigest(), run["name"]
