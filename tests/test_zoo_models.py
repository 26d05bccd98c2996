"""Every published scheme as a model: those that say what is predicted train; of the others it is said what is missing, and what is said can be written."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from test_zoo import inputs_of, steps_of
from zoo_case import SCHEMES, Scheme

import srt_masks as srt

STEPS = 10
TRAIN = {s.name for s in SCHEMES if "\npredict " in s.text}
READ_WHAT_COMES = {
    "bert padding", "prefix lm", "longformer", "bigbird", "semi-autoregressive", "neighbourhood attention", "axial", "flashmask columns", "knowledge insulation",
    "transfusion", "vision registers", "shifted windows",
}  # fmt: skip
TWO_LAYOUTS = {"encoder-decoder", "retrieved chunks"}
NOT_ALL_ASK = {"transformer-xl", "speculative verification", "medusa tree", "streaming speech"}


def losses(spec: srt.Spec, case: SimpleNamespace) -> list[float]:
    """Of ten steps on one batch, and after them. Raises what the builder and the model raise."""
    torch.manual_seed(0)
    model = srt.build_model(spec, dim=8 * case.heads, depth=case.layers, heads=case.heads, num_tokens=11)
    inputs = inputs_of(spec, case)
    table = srt.tokens(spec, steps=steps_of(spec, case), heads=case.heads, layers=case.layers, inputs=inputs, given=case.given)
    words = sum(spec.roles.index(role) in spec.checked.data for role in table.role)
    x = torch.randint(0, 11, (2, words))
    optimiser, found = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for step in range(STEPS + 1):
        loss = model(x, return_loss=True, inputs=inputs, given=case.given)
        found.append(loss.item())
        if step < STEPS:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    return found


def falls(found: list[float]) -> bool:
    return found[-1] < found[0] - 0.05 and found[-1] < min(found[:3])


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.name in TRAIN], ids=lambda s: s.name)
def test_what_predicts_trains(scheme: Scheme):
    case = scheme.cases[0]
    assert falls(losses(srt.parse(scheme.text, params=case.params), case))


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.name not in TRAIN], ids=lambda s: s.name)
def test_of_the_others_it_is_said_what_is_missing(scheme: Scheme):
    """Written into the text, as it is said, it trains; or what it would predict is seen, and that is said."""
    case, text = scheme.cases[0], scheme.text
    if scheme.name in TWO_LAYOUTS | NOT_ALL_ASK:
        wanted = "two layouts: .*srt_masks.nn.Attention" if scheme.name in TWO_LAYOUTS else "only some tokens ask.*srt_masks.compile"
        with pytest.raises(srt.InputError, match=wanted):
            losses(srt.parse(text, params=case.params), case)
        return
    for _ in range(3):
        with pytest.raises(srt.InputError, match="write `") as error:
            losses(srt.parse(text, params=case.params), case)
        statement = re.search(r"write `(\w+ [^`]*)`", str(error.value))
        assert statement is not None
        text += f"\n{statement[1]}"
        if statement[1].startswith("predict"):
            break
    if scheme.name in READ_WHAT_COMES:
        with pytest.raises(srt.SpecError, match="`assert no leak` does not hold"):
            losses(srt.parse(text, params=case.params), case)
    else:
        assert falls(losses(srt.parse(text, params=case.params), case))
