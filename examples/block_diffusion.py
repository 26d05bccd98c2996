"""Block diffusion: a block of bytes at once.

Counting, `418,419,420,...`, in blocks of eight bytes. A noisy copy of the text, all of it masked here, stands before the clean one; every noisy block sees
itself and the clean blocks before it, and fills in all of its bytes in one pass. One pass over the text trains all blocks. Then the model writes: a block
at a time, each from what is there, where a causal model would take eight passes.
"""

import argparse

import torch

import srt_masks as srt

SIZE, BLOCKS = 8, 4


def counting(batch: int, generator: torch.Generator) -> torch.Tensor:
    """(batch, 32) bytes: eight numbers of three digits, one after another, a comma behind each."""
    first = torch.randint(100, 990, (batch,), generator=generator).tolist()
    return torch.tensor([list("".join(f"{n + i}," for i in range(SIZE * BLOCKS // 4)).encode()) for n in first])


@torch.no_grad()
def write(model, begin: torch.Tensor) -> torch.Tensor:
    """(batch, 8) -> (batch, 32): what is not there yet is not seen, so it may hold anything."""
    x = torch.nn.functional.pad(begin, (0, SIZE * (BLOCKS - 1)))
    for block in range(1, BLOCKS):
        here = slice(SIZE * block, SIZE * (block + 1))
        x[:, here] = model(x, all_rows=True)[:, here].argmax(-1)  # the noisy copy comes first: its row n is byte n
    return x


def main(quick: bool) -> None:
    steps, dim, depth, batch = (3, 16, 1, 4) if quick else (500, 96, 3, 32)
    torch.manual_seed(0)
    model = srt.build_model(srt.zoo("block diffusion", params={"size": SIZE}), dim=dim, depth=depth, heads=4, num_tokens=256, max_positions=SIZE * BLOCKS)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(1)
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        loss = model(counting(batch, generator), return_loss=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % max(1, steps // 5) == 0:
            print(f"step {step:4}  loss {loss.item():.3f} nats a byte")
    x = counting(200 if not quick else 3, torch.Generator().manual_seed(7))
    written = write(model, x[:, :SIZE])
    right = (written == x)[:, SIZE:].float().mean()
    print(f"{100 * right:.1f}% of the bytes behind the first block are right, in {BLOCKS - 1} passes")
    for row in written[:3]:
        print(bytes(row[:SIZE].tolist()).decode(), "->", bytes(row[SIZE:].tolist()).decode("utf-8", "replace"))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(arguments.parse_args().quick)
