"""The texts of experiments: each is formatted, and proves what it asserts."""

from __future__ import annotations

import pytest
from conftest import ROOT

import srt_masks as srt
from srt_masks.diagnostics import Source
from srt_masks.grammar.formatter import format_text

TEXTS = sorted((ROOT / "experiments").glob("*/texts/*.mask"))


def test_every_experiment_has_texts():
    assert {p.parent.parent.name for p in TEXTS} == {p.parent.name for p in (ROOT / "experiments").glob("*/README.md")}


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: f"{p.parent.parent.name}-{p.stem}")
def test_every_text_is_formatted_and_proves_what_it_asserts(path):
    spec = srt.load(path)
    assert format_text(Source(spec.text)) == path.read_text()
    # A model of numbers reads no token that it predicts, so that the leak of `predict -> index` is none; `no leak` counts where the text states it.
    verdicts = [v for v in srt.prove(spec) if v.claim in path.read_text()]
    assert len(verdicts) == path.read_text().count("\nassert ") >= 2
    assert all(v.outcome == "proved" for v in verdicts), [str(v) for v in verdicts if v.outcome != "proved"]
