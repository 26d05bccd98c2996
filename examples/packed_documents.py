"""Packed documents: many short texts in one row.

The entries of Python's documentation are of very unlike lengths. Padded to the longest, most of a batch is padding; packed end to end in one row, with
attention that stays within each document, nothing is. The loss and the gradients of all weights are those of the documents alone.
"""

import argparse
import pydoc_data.topics
import time

import torch

import srt_masks as srt


def step(model, x: torch.Tensor, **options) -> tuple[float, dict[str, torch.Tensor], float]:
    """The loss in nats, the gradients, and the best of three times in seconds."""
    times = []
    for _ in range(3):
        model.zero_grad()
        begin = time.perf_counter()
        loss = model(x, return_loss=True, **options)
        loss.backward()
        times.append(time.perf_counter() - begin)
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}, min(times)


def main(quick: bool) -> None:
    entries = sorted((t.encode() for t in pydoc_data.topics.topics.values()), key=len)
    documents = [list(t[:300]) for t in entries[:4]] if quick else [list(t[:2000]) for t in entries[:40:2]]
    lengths = [len(d) for d in documents]
    print(f"{len(documents)} documents of {min(lengths)} to {max(lengths)} bytes, {sum(lengths)} together")
    torch.manual_seed(0)
    model = srt.build_model(srt.zoo("packed documents"), dim=64, depth=2, heads=4, num_tokens=256, max_positions=max(lengths))

    packed = {"start": srt.documents(lengths=lengths)["start"]}
    one_row = torch.tensor([[byte for d in documents for byte in d]])
    loss, grads, seconds = step(model, one_row, **packed)
    print(f"packed: {one_row.numel():6} rows  {seconds:.2f} s  loss {loss:.6f}")

    padded = torch.tensor([d + [0] * (max(lengths) - len(d)) for d in documents])
    alone = {"start": torch.zeros_like(padded), "lengths": lengths}
    padded_loss, padded_grads, padded_seconds = step(model, padded, **alone)
    print(f"padded: {padded.numel():6} rows  {padded_seconds:.2f} s  loss {padded_loss:.6f}")
    apart = max(float((grads[n] - g).abs().max() / g.abs().max().clamp(min=1e-9)) for n, g in padded_grads.items())
    print(f"{padded_seconds / seconds:.1f} times as fast; gradients differ by {apart:.0e} of their largest number at most")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(arguments.parse_args().quick)
