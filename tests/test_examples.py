"""The scripts of examples/: each runs, small; none is long; and the page shows them all, with the words they have."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
NUMBER = r"\d+\.\d+"
PRINTED = {
    "self_reasoning_on_text": rf"plain +{NUMBER} bits per byte .*(?s:.*)two reasoning tokens +{NUMBER} .*(?s:.*)two, stopped +{NUMBER} .*\nthe last one writes: .",
    "myopic_training": rf"error over variance after 3 steps\n(?:(?:ordinary|stop k|stop v|myopic: stop k, v) +{NUMBER}\n){{4}}",
    "knowledge_insulation": rf"weights .*\n(?:(?:shared|own) +(?:open|stop) +{NUMBER} +{NUMBER} +{NUMBER} +no\n){{3}}own +stop +({NUMBER}) +\1 +{NUMBER} +yes",
    "block_diffusion": rf"(?:step +\d loss +{NUMBER} .*\n)*(?s:.*){NUMBER}% of the bytes behind the first block are right, in 3 passes\n\d{{3}},\d{{3}}, -> ",
    "packed_documents": rf"4 documents of .*\npacked: +\d+ rows +{NUMBER} s +loss ({NUMBER})\npadded: +\d+ rows +{NUMBER} s +loss \1\n{NUMBER} times as fast",
    "huggingface_stop_rules": rf"(?:step +\d +horizon +\d+ +loss of all rows {NUMBER}, of the last row of each byte {NUMBER} nats\n){{3}}",
}


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_every_script_runs(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    if path.stem == "huggingface_stop_rules":
        pytest.importorskip("transformers")
    monkeypatch.setattr(sys, "argv", [str(path), "--quick"])
    module_of(path).main(quick=True)
    assert re.match(PRINTED[path.stem], capsys.readouterr().out)


def test_scripts_fit_a_page():
    assert {p.stem for p in SCRIPTS} == set(PRINTED)
    assert all(len(p.read_text().splitlines()) < 80 for p in SCRIPTS)


def test_the_page_shows_every_script_as_it_is():
    make = module_of(ROOT / "docs" / "make_examples.py")
    text = (ROOT / "docs" / "examples.md").read_text()
    outputs = make.shown(text)
    assert set(outputs) == set(PRINTED) and all(outputs.values())
    assert make.page(outputs) == text
