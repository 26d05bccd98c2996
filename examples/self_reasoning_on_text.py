"""Self-reasoning tokens on text.

Python's own reference documentation, byte by byte: a plain causal model; one with two reasoning tokens behind every byte; and the same with the stop
rule, by which the next steps read a reasoning token and do not train it. All see the same bytes. Bits per byte are those of the last row that predicts
each byte, on text that was held out. Reasoning tokens cost rows, so this compares what is learnt from as much text, not for as much work; runs as
short as this one say that all three learn, and not which is best.
"""

import argparse
import math
import pydoc_data.topics
import time

import torch

import srt_masks as srt

PLAIN = "attend causal\npredict token -> index + 1"
OPEN = "layout repeat { token, reason * 2 }\nattend causal\npredict token -> index + 1\npredict reason -> index + 1"
STOPPED = OPEN + "\nstop k, v where k is reason and 0 < q.step - k.step <= 8"


def batches(text: torch.Tensor, words: int, count: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        first = torch.randint(0, len(text) - words, (16, 1), generator=generator)
        yield text[first + torch.arange(words)]


def train(model, text: torch.Tensor, words: int, steps: int) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    for x in batches(text, words, steps, seed=0):
        optimiser.zero_grad()
        model(x, return_loss=True).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()


@torch.no_grad()
def bits_per_byte(model, text: torch.Tensor, words: int) -> float:
    losses = [model(x, return_parts=True).last for x in batches(text, words, 8, seed=1)]
    return float(torch.stack(losses).mean()) / math.log(2)


def main(quick: bool) -> None:
    steps, words, dim = (3, 16, 16) if quick else (300, 64, 96)
    text = torch.tensor(list("\n".join(pydoc_data.topics.topics.values()).encode()))
    cut = len(text) * 9 // 10
    for name, mask in (("plain", PLAIN), ("two reasoning tokens", OPEN), ("two, stopped", STOPPED)):
        torch.manual_seed(0)
        model = srt.build_model(srt.parse(mask), dim=dim, depth=2, heads=4, num_tokens=256, feed_forward="gated", positions="rotary")
        begin = time.perf_counter()
        train(model, text[:cut], words, steps)
        seconds = time.perf_counter() - begin
        print(f"{name:22} {bits_per_byte(model, text[cut:], words):5.2f} bits per byte after {steps} steps  ({model.rows_for(words)} rows, {seconds:.0f} s)")
    print("the last one writes:", srt.sample(model, b"The ", 60 if not quick else 5, temperature=0.7, top_p=0.9).decode("utf-8", "replace"))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(arguments.parse_args().quick)
