"""Knowledge insulation between two experts.

A backbone has learnt a task (A). An action expert that reads its keys and values is then trained on another (B), as in pi0.5 (Driess et al. 2025), and the
backbone must not forget. `stop k, v` keeps the expert's gradient out of the backbone's states; but weights that both share learn all the same. With
`own_weights={"action"}` they share none, and what the backbone says is the same afterwards, to the bit. Which rows are trained is a param of the call.
"""

import argparse

import torch
from torch import nn

import srt_masks as srt

TEXT = """param a = 1.0
param b = 1.0
layout repeat 12 { backbone }, action * 4
data backbone, action
attend causal
position pos
predict backbone -> index weight a
predict action -> index weight b
"""
STOP = "stop k, v where q is action and k is backbone"


def data(batch: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (batch, 16, 1): 12 numbers, and nothing at the actions. Answers: A at the numbers, B at the actions."""
    x = 0.5 * torch.randn(batch, 12, generator=generator)
    waves = (3 * x).sin()
    a = waves + nn.functional.pad(waves[:, :-1], (1, 0))
    b = (3 * x[:, ::3]).cos()
    return nn.functional.pad(x, (0, 4))[..., None], torch.cat([a, b], 1)[..., None]


def model_of(stop: bool, own: bool) -> nn.Module:
    sizes = {"dim": 48, "depth": 2, "heads": 4, "numbers": 1, "regression": 1, "max_positions": 16}
    return srt.build_model(srt.parse(TEXT + STOP * stop), own_weights={"action"} if own else (), **sizes)


def train(model: nn.Module, steps: int, batch: int, **weights: float) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)  # decay would move weights that learn nothing
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        inputs, answers = data(batch, generator)
        optimiser.zero_grad()
        model(numbers=inputs, targets=answers, **weights).backward()
        optimiser.step()


@torch.no_grad()
def main(quick: bool) -> None:
    steps, batch = (3, 8) if quick else (400, 128)
    inputs, answers = data(512, torch.Generator().manual_seed(7))
    print("weights  gates   error of A: before  after   error of B   backbone the same, to the bit")
    for own, stop in ((False, False), (False, True), (True, False), (True, True)):
        torch.manual_seed(0)
        model, said = model_of(stop, own), []
        for weights in ({"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}):
            with torch.enable_grad():
                train(model, steps, batch, **weights)
            values = model(numbers=inputs, return_values=True)
            parts = zip(values.split([12, 4], 1), answers.split([12, 4], 1), strict=True)
            said.append((values[:, :12], *((found - wanted).square().mean() / wanted.var() for found, wanted in parts)))
        (before, a, _), (after, later, b) = said
        same = "yes" if torch.equal(before, after) else "no"
        print(f"{'own' if own else 'shared':8} {'stop' if stop else 'open':7} {a:18.4f}  {later:6.4f} {b:11.4f}   {same}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(arguments.parse_args().quick)
