"""What two processes do for `test_distributed.py`: every case in turn, and what each found, in a file. Run by that test, as `torchrun` would run it."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

import srt_masks as srt
from srt_masks.distributed import Ranks, data_parallel, fully_sharded, start
from srt_masks.models.transformer import SpecTransformer

STEPS = 20
MOST = 1e-9  # between processes and one, of any weight after 20 steps

TEXTS = {
    "gates": """
        input doc: int per token
        layout repeat { token, reason * 2 }
        attend causal and same(doc)
        stop k, v where k is reason and 0 < q.step - k.step <= 3
        scale q by 0.5 where q.step - k.step > 5
        predict token -> index + 1
        predict reason -> index + 1 weight 0.3
    """,
    "hidden": """
        layout repeat { token, reason * 4 }
        attend causal and not (k is reason and q.step - k.step > 2) and (head == 0 or layer == 0 or window(30))
        stop hidden where q.step - k.step > 4
        stop v where head == 1 and k is token
        predict reason -> index + 1 where slot == 3
    """,
}
SIZES: dict[str, dict[str, Any]] = {
    "gates": {"key_heads": 1},
    "hidden": {"positions": "rotary", "feed_forward": "gated", "own_weights": {"reason"}, "tied": True, "regression": 2},
}


def build(name: str) -> SpecTransformer:
    torch.manual_seed(3)
    return srt.build_model(srt.parse(TEXTS[name]), dim=8, depth=2, heads=2, num_tokens=11, max_positions=64, proofs="off", **SIZES[name]).double()


def batch(name: str, step: int) -> tuple[Tensor, dict[str, Any]]:
    """Four sequences, of which those of one process hold far fewer targets than those of the other."""
    generator = torch.Generator().manual_seed(step)
    words = 30 if name == "gates" else 24
    x = torch.randint(0, 11, (4, words), generator=generator)
    if name == "gates":
        return x, {"lengths": [30, 27, 9, 1], "doc": (torch.arange(90) // 31).expand(4, -1)}
    return x, {"targets": torch.rand(4, words, 2, generator=generator, dtype=torch.float64)} if step % 2 else {}


def trained(name: str, model: Callable[..., Any], weights: Any, part: slice, steps: int = STEPS) -> list[float]:
    """The losses of some steps; the model is trained."""
    optimiser, losses = torch.optim.AdamW(weights, lr=1e-2), []
    for step in range(steps):
        x, options = batch(name, step)
        options = {n: v[part] for n, v in options.items()}
        loss = model(x[part], return_loss=True, **options)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def whole(model: SpecTransformer) -> dict[str, Tensor]:
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))


@cache
def in_one_process(name: str) -> tuple[SpecTransformer, list[float]]:
    alone = build(name)
    return alone, trained(name, alone, alone.parameters(), slice(None))


def equal_to_one_process(name: str, wrap: Callable[..., Any], ranks: Ranks) -> dict[str, float]:
    alone, wanted = in_one_process(name)
    many = wrap(build(name), ranks, tile=16)
    size = 4 // ranks.data_parts
    found = trained(name, many, many.parameters(), slice(ranks.data_rank * size, (ranks.data_rank + 1) * size))
    state = whole(many.model)
    return {
        "losses": max(abs(a - b) for a, b in zip(wanted, found, strict=True)),
        "weights": max(float((state[n] - t).abs().max()) for n, t in alone.state_dict().items()),
        "moved": max(float((alone.state_dict()[n] - t).abs().max()) for n, t in build(name).state_dict().items()),
    }


def own_rows(ranks: Ranks) -> dict[str, Any]:
    """What is kept between forward and backward, and what of the rows, by a rank that shares its sequences."""
    many = data_parallel(build("gates"), ranks, tile=16)
    x, doc = batch("gates", 0)[0][:1], batch("gates", 0)[1]["doc"][:1]
    kept: list[tuple[int, ...]] = []

    def keep(t: Tensor) -> Tensor:
        kept.append(tuple(t.shape))
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        loss = many(x, doc=doc)
    loss.backward()
    dealt = many.share.deal(many.model.lay_out(x, doc=doc))
    return {"rows": len(dealt.rows), "kept": sorted({n for shape in kept for n in shape}), "work": dealt.work}


CASES: dict[str, Callable[[], Any]] = {
    **{
        f"{name}, {wrap.__name__}, context {context}": lambda n=name, w=wrap, c=context: equal_to_one_process(n, w, start(c))
        for name in TEXTS
        for wrap in (data_parallel, fully_sharded)
        for context in (1, 2)
    },
    "own rows": lambda: own_rows(start(2)),
}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    found = {}
    for name, case in CASES.items():
        begin = time.perf_counter()
        try:
            found[name] = case()
        except Exception:
            found[name] = {"error": traceback.format_exc()}
        print(f"{name}: {time.perf_counter() - begin:.1f} s", flush=True)
        (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
