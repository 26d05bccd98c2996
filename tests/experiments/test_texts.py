"""The texts of experiments: each is formatted, and proves what it asserts; and the data are what the texts are asked about."""

from __future__ import annotations

import pytest
import torch
from conftest import ROOT

import srt_masks as srt
from experiments.insulation import data as insulation
from experiments.reasoning_tokens import data as reasoning_tokens
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


def test_answers_of_reasoning_tokens_are_sums_of_earlier_waves():
    numbers, answers = reasoning_tokens.make(3, 16, torch.Generator().manual_seed(0))
    assert torch.equal(numbers[:, ::2], numbers[:, 1::2]) and torch.equal(answers[:, ::2], answers[:, 1::2])
    x, y = numbers[:, ::2, 0], answers[:, ::2, 0]
    wanted = torch.stack([sum((torch.sin(3 * x[:, t - s]) for s in range(1, 6) if t >= s), torch.zeros(3)) for t in range(8)], 1)
    torch.testing.assert_close(y, wanted)


def test_the_two_tasks_of_insulation():
    numbers, answers = insulation.make(2, 16, torch.Generator().manual_seed(0))
    x, y = numbers[..., 0], answers[..., 0]
    assert not x[:, 12:].any()
    for t in range(12):
        torch.testing.assert_close(y[:, t], torch.sin(3 * x[:, t]) + (torch.sin(3 * x[:, t - 1]) if t else 0))
    for j in range(4):
        torch.testing.assert_close(y[:, 12 + j], torch.cos(3 * x[:, 3 * j]))

    class Constant(torch.nn.Module):
        def forward(self, numbers, return_values):
            return torch.tensor([0.0] * 12 + [100.0] * 4).expand(len(numbers), -1)[..., None]

    numbers, answers = insulation.make(512, 16, torch.Generator().manual_seed(1))
    errors = insulation.Errors.of(Constant(), numbers, answers)
    a, b = answers[:, :12], answers[:, 12:]
    assert errors.a == pytest.approx(((a - 0).square().mean() / a.var()).item())
    assert errors.b == pytest.approx(((b - 100).square().mean() / b.var()).item())
    assert not errors.backbone.any() and errors.backbone.shape == (512, 12, 1)
