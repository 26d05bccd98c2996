"""Myopic training against the ordinary kind.

Does a model compute things in advance, for later words? Wu, Morris and Levine (2024) cut the gradient from the future, and look at what is lost. At step
t the answer is sum sin(3 x[t - s]) over s = 1 .. 5: of no use at the steps whose x it needs, so that a model of two layers has to prepare sin(3 x) when
x comes. `stop k, v` takes away the gradient that would teach it to; the forward pass is the same. Stopped in the keys alone, or in the values alone,
it shows which of them teaches. The error is that on fresh data, over the variance of the answers: 1 is to know nothing.
"""

import argparse

import torch
from torch import nn

import srt_masks as srt

TEXTS = {
    "ordinary": "attend causal",
    "stop k": "attend causal\nstop k where k.pos < q.pos",
    "stop v": "attend causal\nstop v where k.pos < q.pos",
    "myopic: stop k, v": "attend causal\nstop k, v where k.pos < q.pos",
}
LENGTH, REACH = 24, 5


def data(batch: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (batch, LENGTH, 2), x and 1; answers (batch, LENGTH, 1)."""
    x = torch.randn(batch, LENGTH, generator=generator)
    waves = nn.functional.pad((3 * x).sin(), (REACH, 0))
    answer = torch.stack([waves[:, REACH - s : REACH - s + LENGTH] for s in range(1, REACH + 1)]).sum(0)
    return torch.stack([x, torch.ones_like(x)], -1), answer[..., None]


def train(mask: str, steps: int, batch: int) -> float:
    torch.manual_seed(0)
    model = srt.build_model(srt.parse(mask + "\npredict token -> index"), dim=64, depth=2, heads=2, numbers=2, regression=1, max_positions=LENGTH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps, pct_start=1 / 6)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        inputs, answers = data(batch, generator)
        optimiser.zero_grad()
        model(numbers=inputs, targets=answers).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        inputs, answers = data(1024, torch.Generator().manual_seed(7))
        return float(model(numbers=inputs, targets=answers) / answers.var())


def main(quick: bool) -> None:
    steps, batch = (3, 8) if quick else (500, 128)
    print(f"error over variance after {steps} steps")
    for name, mask in TEXTS.items():
        print(f"{name:20} {train(mask, steps, batch):.3f}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(arguments.parse_args().quick)
