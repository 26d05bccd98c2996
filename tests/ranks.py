"""What two processes do for `test_distributed.py`: every case in turn, and what each found, in a file. Run by that test, as `torchrun` would run it."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

import srt_masks as srt
from srt_masks.cli import main as main_of_commands
from srt_masks.distributed import Ranks, data_parallel, fully_sharded, start
from srt_masks.distributed.ranks import watched
from srt_masks.distributed.strategies import STRATEGIES
from srt_masks.models.transformer import SpecTransformer
from srt_masks.training.recipe import Recipe
from srt_masks.training.train import STATE, train

ROOT = Path(__file__).parent.parent

STEPS = {"gates": 20, "hidden": 6}
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
    "hidden": {"positions": "rotary", "feed_forward": "gated", "own_weights": {"reason"}, "tied": True, "regression": 2, "numbers": 3},
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
    numbers = torch.rand(4, words, 3, generator=generator, dtype=torch.float64)
    targets = {"targets": torch.rand(4, words, 2, generator=generator, dtype=torch.float64), "huber": 0.3} if step % 2 else {}
    return x, {"numbers": numbers, **targets}


def trained(name: str, model: Callable[..., Any], weights: Any, part: slice) -> list[float]:
    """The losses of some steps; the model is trained."""
    optimiser, losses = torch.optim.AdamW(weights, lr=1e-2), []
    for step in range(STEPS[name]):
        x, options = batch(name, step)
        options = {n: v if n == "huber" else v[part] for n, v in options.items()}
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


def window(ranks: Ranks) -> dict[str, Any]:
    """A window of 5 over 64 tokens that two processes share, against one process, and against the causal mask in its place."""

    def losses(text: str, shared: bool) -> Tensor:
        torch.manual_seed(3)
        model = srt.build_model(srt.parse(text), dim=8, depth=2, heads=2, num_tokens=11).double()
        many = data_parallel(model, ranks, tile=16) if shared else model
        x = torch.randint(0, 11, (2, 64), generator=torch.Generator().manual_seed(1))
        loss = many(x, return_loss=True)
        loss.backward()
        return torch.cat([loss.detach()[None], *(p.grad.flatten() for p in model.parameters() if p.grad is not None)])

    text = "layout repeat { token }\nattend causal and window(5)\npredict token -> index + 1"
    found, alone, causal = losses(text, True), losses(text, False), losses(text.replace(" and window(5)", ""), False)
    return {"apart": float((found - alone).abs().max()), "from causal": float((found - causal).abs().max())}


def embedded(ranks: Ranks) -> dict[str, float]:
    """Two steps of a model whose numbers come embedded, so that nothing is learnt by what would embed them: against one process."""

    def losses(shared: bool) -> list[float]:
        torch.manual_seed(3)
        text = "layout repeat { token }\nattend causal\npredict token -> index + 1"
        model = srt.build_model(srt.parse(text), dim=8, depth=1, heads=2, num_tokens=11, numbers=3, max_positions=8).double()
        x, embeds = torch.randint(0, 11, (4, 8)), torch.randn(4, 8, 8, dtype=torch.float64)
        many = data_parallel(model, ranks) if shared else model
        part = slice(2 * ranks.data_rank, 2 * ranks.data_rank + 2) if shared else slice(None)
        optimiser, seen = torch.optim.SGD(model.parameters(), lr=0.1), []
        for _ in range(2):
            loss = many(x[part], embeds=embeds[part], return_loss=True)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            seen.append(loss.item())
        return seen

    found, alone = losses(True), losses(False)
    return {"apart": max(abs(a - b) for a, b in zip(found, alone, strict=True)), "fell": alone[0] - alone[1]}


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


# ------------------------------------------------------------------------------------------------ runs

RECIPE = Recipe(dim=8, depth=2, heads=2, words=24, batch=4, accumulate=2, steps=9, learning_rate=1e-2, warm_up=2, clip=0.5, save_every=4, dtype="float64")
RUN = srt.load(ROOT / "examples" / "self_reasoning.mask", params={"reasons": 2, "horizon": 3})


class CutError(Exception):
    pass


def run(strategy: Any, out: Path, recipe: Recipe = RECIPE, begin: str = "over", spec: srt.Spec = RUN, cut: int = 0, **options: Any) -> dict[str, Tensor]:
    """A run's last weights, as they are in its file. It saves every fourth step, and is cut off in step `cut`."""

    def watch(report: Any) -> None:
        if report.step == cut:
            raise CutError

    with suppress(CutError):
        train(spec, recipe, out, [ROOT / "README.md"], quiet=True, begin=begin, strategy=strategy, watch=watch, **options)
    return load_file(out / "model.safetensors")


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[n] - t).abs().max()) for n, t in other.items())


def runs(folder: Path, how: str, context: int) -> dict[str, Any]:
    """A run, in parts and clipped, against that of one process; and against itself, cut off in the fifth step and gone on with."""
    out, alone = folder / how, folder / f"alone{os.environ['RANK']}"
    if not alone.exists():
        run(None, alone)
    strategy = STRATEGIES[how](start(context), tile=16)
    whole = run(strategy, out)
    run(strategy, folder / f"cut {how}", cut=5)
    shutil.copytree(folder / f"cut {how}", folder / f"other {how}") if dist.get_rank() == 0 else None
    went_on = run(strategy, folder / f"cut {how}", begin="resume")
    # A run of another seed, which begins with the weights that came of it.
    taught, alone_taught = folder / f"taught {how}", folder / f"alone taught{os.environ['RANK']}"
    then, given = replace(RECIPE, steps=4, seed=5), {"initial": alone / "model.safetensors"}
    begun = run(strategy, taught, then, cut=3, **given), run(strategy, taught, then, begin="resume")
    wanted_begun = run(None, alone_taught, then, **given)
    fresh = run(None, folder / f"fresh{os.environ['RANK']}", then)
    reports = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    wanted = [json.loads(line) for line in (alone / "log.jsonl").read_text().splitlines()]
    pairs = [(a, b) for a, b in zip(reports, wanted, strict=True) if "loss" in a]
    return {
        "steps": len(pairs),
        "weights": apart(whole, load_file(alone / "model.safetensors")),
        "reports": max(abs(a[name] - b[name]) for a, b in pairs for name in ("loss", "bits_per_byte", "norm")),
        "clipped": sum(a["norm"] > RECIPE.clip for a, _ in pairs),
        "resumed": apart(went_on, whole),
        "taught": apart(begun[1], wanted_begun),
        "taught, not fresh": apart(begun[1], fresh),
        "held out": abs(reports[-1]["held_out_bits_per_byte"] - wanted[-1]["held_out_bits_per_byte"]),
    }


def cut_otherwise(folder: Path) -> dict[str, float]:
    """A checkpoint of ranks that have parts of the weights, gone on with by ranks that have all of them; and the other way round."""
    return {
        then: apart(run(STRATEGIES[then](start(1)), folder / f"other {was}", begin="resume"), load_file(folder / "ddp" / "model.safetensors"))
        for was, then in (("fsdp", "ddp"), ("ddp", "fsdp"))
    }


def refused(folder: Path) -> dict[str, Any]:
    """What is said where a checkpoint cannot be written by one rank, or is broken; and whether the one before is whole."""
    strategy = STRATEGIES["fsdp"](start(1))
    out = folder / "refused"
    run(strategy, out, replace(RECIPE, steps=2))
    said: dict[str, Any] = {}

    def note(name: str, recipe: Recipe, begin: str, spec: srt.Spec = RUN) -> None:
        try:
            run(strategy, out, recipe, begin, spec)
        except srt.Error as error:
            said[name] = str(error)

    write = HuggingFaceStorageWriter.write_data
    if dist.get_rank() == 1:

        def full(*_: Any) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

        HuggingFaceStorageWriter.write_data = full  # type: ignore[method-assign]
    try:
        note("full", replace(RECIPE, steps=4), "resume")
    finally:
        HuggingFaceStorageWriter.write_data = write  # type: ignore[method-assign]
    latest = json.loads((out / STATE / "latest.json").read_text())
    said["step before"] = json.loads(latest["about"]["run"])["step"]
    note("whole", replace(RECIPE, steps=3), "resume")
    note("another spec", replace(RECIPE, steps=3), "resume", RUN.with_params(horizon=4))
    if dist.get_rank() == 0:
        latest = json.loads((out / STATE / "latest.json").read_text())
        broken = next((out / STATE / str(latest["folder"])).glob("shard-00002*"))
        broken.write_bytes(broken.read_bytes()[:1000])
    dist.barrier()
    note("broken", replace(RECIPE, steps=5), "resume")
    if dist.get_rank() == 0:
        (out / STATE / "latest.json").write_text("{")
    dist.barrier()
    note("no json", replace(RECIPE, steps=5), "resume")
    return said


def command(folder: Path) -> dict[str, Any]:
    """`train` as a user types it."""
    text = ROOT / "examples" / "self_reasoning.mask"
    sizes = [
        "--steps",
        "2",
        "--words",
        "16",
        "--batch",
        "2",
        "--dim",
        "8",
        "--depth",
        "1",
        "--heads",
        "2",
        "--parallel",
        "fsdp",
        "--context-parallel",
        "2",
        "--tile",
        "16",
    ]
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = main_of_commands(["train", str(text), "--data", str(ROOT / "README.md"), "--out", str(folder / "command"), *sizes])
    left = not dist.is_initialized()
    os.environ["MASTER_PORT"] = os.environ["THIRD_PORT"]
    out = str(folder / "command")
    with redirect_stdout(io.StringIO()):
        code += main_of_commands(["train", str(text), "--data", str(ROOT / "README.md"), "--out", out, "--resume", "--steps", "3", *sizes[-6:]])
    os.environ["MASTER_PORT"] = os.environ["NEXT_PORT"]  # where those were that have parted, a rank might meet nobody
    return {"code": code, "printed": printed.getvalue(), "left": left}


def late() -> dict[str, Any]:
    """A rank that does not come."""
    ranks = start(2, timeout=2.0)
    group = ranks.mesh.get_group("context")
    begin = time.monotonic()
    if dist.get_rank() == 1:
        time.sleep(3)
    try:
        with watched("Start again."):
            dist.all_reduce(torch.ones(1), group=group)
        return {}
    except srt.Error as error:
        return {"said": str(error), "seconds": time.monotonic() - begin}


def dies(folder: Path) -> dict[str, Any]:
    """Rank 1 is killed in the fourth step of a run that saves every second one."""
    out, begin = folder / "dies", [0.0]

    def watch(report: Any) -> None:
        begin[0] = time.monotonic()
        if report.step == 3 and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        with watched("Go on with it."):
            train(RUN, replace(RECIPE, save_every=2), out, [ROOT / "README.md"], quiet=True, strategy=STRATEGIES["fsdp"](start(2), tile=16), watch=watch)
        return {}
    except srt.Error as error:
        latest = json.loads((out / STATE / "latest.json").read_text())
        return {"said": str(error), "seconds": time.monotonic() - begin[0], "step": json.loads(latest["about"]["run"])["step"]}


def cases(folder: Path) -> dict[str, Callable[[], Any]]:
    """By name, in the order in which they run: after the last, there is one rank less."""
    return {
        "command": lambda: command(folder),
        **{
            f"{name}, {wrap.__name__}, context {context}": lambda n=name, w=wrap, c=context: equal_to_one_process(n, w, start(c))
            for name in TEXTS
            for wrap in (data_parallel, fully_sharded)
            for context in (1, 2)
        },
        "embedded": lambda: embedded(start(1)),
        "own rows": lambda: own_rows(start(2)),
        "window": lambda: window(start(2)),
        "run, ddp": lambda: runs(folder, "ddp", 1),
        "run, fsdp, shared": lambda: runs(folder, "fsdp", 2),
        "cut otherwise": lambda: cut_otherwise(folder),
        "refused": lambda: refused(folder),
        "late": late,
        "dies": lambda: dies(folder),
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    found = {}
    for name, case in cases(folder).items():
        begin = time.perf_counter()
        try:
            found[name] = case()
        except Exception:
            found[name] = {"error": traceback.format_exc()}
        print(f"{name}: {time.perf_counter() - begin:.1f} s", flush=True)
        (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
