"""Compile the Triton kernels for cards that are not here, and say what they take: `make kernels-report`.

For each spec, card, head_dim, dtype and kernel: registers, spills, shared memory, matrix instructions, loads, compile time. Fails where the config that the
table has is no good: it spills, does not fit, has no matrix instructions, or has rows < 16 * warps on sm_90 (where a warp would repeat another's
work). Then the next smaller one that is without fault is named; what has none is a gap. Nothing is timed: only a card can say how fast a kernel
is. Results are kept in `.kernels-report/`, by the content of everything they depend on, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # nothing is compiled in the interpreter; asked when triton is imported

from srt_masks.kernels.cards import CARDS, SHARED_BYTES
from srt_masks.kernels.configs import Config, Kernel

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".kernels-report"
KERNELS = ("triton_forward", "triton_backward", "triton_common", "triton_arithmetic")  # what a kernel is compiled from, with the predicate
DOCUMENTS = "input doc: int per token\n{}attend causal and same(doc){}\nstop k where q.pos - k.pos >= 512\nscale v by 0.5 where (q.pos - k.pos) % 4 == 0"
# One for each kind of mask that the table knows.
SPECS = {
    "self reasoning": (ROOT / "examples" / "self_reasoning.mask").read_text(),
    "documents": DOCUMENTS.format("", ""),  # dK and dV part ways, one gate is a factor
    "documents, table": DOCUMENTS.format("input keep: bool per query, key\n", " and keep"),  # and a table is read at each pair
}
HEAD_DIMS, DTYPES = (32, 64, 128, 256), ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Cell:
    """One number of the table, tried with one spec and dtype."""

    card: int
    spec: str
    head_dim: int
    dtype: str
    kernel: str
    grouped: bool = False  # two query heads a key head, which is another dK/dV kernel

    def key(self) -> str:
        """Of everything the result depends on: the predicate, the kernels and what they are given, the configs to try and the versions."""
        import torch
        import triton

        about = (self, _parts(self)[3].text, _start(self), _arguments(self), inspect.getsource(Config.smaller), torch.__version__, triton.__version__)
        return hashlib.sha256((repr(about) + _sources()).encode()).hexdigest()[:24]


@cache
def _sources() -> str:
    files = [ROOT / "srt_masks" / "kernels" / f"{name}.py" for name in KERNELS]
    return hashlib.sha256(b"\0".join(p.read_bytes() for p in files)).hexdigest()


def _arguments(cell: Cell) -> list[Any]:
    """What the launches are given, as far as it decides what is compiled."""
    from srt_masks.kernels import call
    from srt_masks.kernels.configs import Configs, splits
    from srt_masks.kernels.fit import compile_alone
    from srt_masks.kernels.offline import offline

    def told(name: str, value: Any) -> Any:
        if name.isupper():
            return getattr(value, "__name__", value)
        return (value % 16 == 0, value == 1) if isinstance(value, int) else getattr(value, "dtype", type(value).__name__)

    seen: list[Any] = []

    def look(kernel: Any, _: int, config: Config, __: Any, fuse: bool, **arguments: Any) -> None:
        seen.append((kernel.fn.__name__, config, fuse, {name: told(name, value) for name, value in arguments.items()}))

    compiled, operands, target, source = _parts(cell)
    some, real = Config(16, 16), call.run
    call.run = look  # type: ignore[assignment]
    try:
        with offline(cell.card, lambda *_: None):
            compile_alone(Kernel[cell.kernel], Configs(some, some, some, splits(target.capability, target.head_dim)), compiled, operands, source)
    finally:
        call.run = real
    return seen


def _parts(cell: Cell) -> tuple[Any, ...]:
    import torch

    from srt_masks.kernels.backend import Operands
    from srt_masks.kernels.offline import offline
    from srt_masks.kernels.target import source_of, target_of

    compiled = _attention(cell.spec).compiled
    operands = Operands(getattr(torch, cell.dtype), cell.head_dim, cell.head_dim, 1 + cell.grouped, torch.device("cpu"))
    with offline(cell.card, lambda *_: None):
        return compiled, operands, target_of(compiled, operands), source_of(compiled, False)


@cache
def _attention(spec: str) -> Any:
    import srt_masks as srt

    return srt.compile(srt.parse(SPECS[spec]), backend="triton")


def _start(cell: Cell) -> Config | None:
    from srt_masks.kernels.configs import choose

    return choose(Kernel[cell.kernel], _parts(cell)[2])


def compile_cell(cell: Cell) -> dict[str, Any]:
    """The table's config, compiled, and where it is no good every smaller one up to the first that is."""
    from srt_masks.kernels.configs import Configs, splits
    from srt_masks.kernels.fit import compile_alone
    from srt_masks.kernels.offline import offline

    kernel, config = Kernel[cell.kernel], _start(cell)
    compiled, operands, target, source = _parts(cell)
    tried = []
    while config is not None:
        begin = time.perf_counter()
        with offline(cell.card, lambda *_: None):
            try:
                made = compile_alone(kernel, Configs(config, config, config, splits(target.capability, target.head_dim)), compiled, operands, source)
                taken = [_taken(cell, config, one) for one in made]
            except Exception as error:  # Triton's own passes, or the assembler
                taken = [{"problems": [f"{type(error).__name__}: {str(error).splitlines()[:1]}"[:160]], "stack": 1}]
        tried.append({"config": str(config), "seconds": time.perf_counter() - begin, "launches": taken})
        if not any(one["problems"] for one in taken):
            break
        config = config.smaller(target, any(one["stack"] for one in taken))
    return {**asdict(cell), "tried": tried}


def _taken(cell: Cell, config: Config, made: Any) -> dict[str, Any]:
    from srt_masks.kernels.cubin import code, usage

    found = {**asdict(usage(made)), **asdict(code(made))}
    problems = []
    if found["stack"]:
        problems.append(f"spills {found['stack']} bytes")
    if found["shared"] > SHARED_BYTES[cell.card]:
        problems.append(f"{found['shared']} bytes of shared memory")
    if cell.dtype != "float32" and not found["matrix"]:
        problems.append("no matrix instruction")
    if cell.card == 90 and cell.dtype != "float32" and config.rows < 16 * config.warps:
        problems.append("rows < 16 x warps")
    return {**found, "problems": problems}


def _work(cell: Cell, until: float) -> dict[str, Any] | None:
    path = CACHE / f"{cell.key()}.json"
    if path.exists():
        return json.loads(path.read_text())
    if time.time() > until:
        return None
    # Triton's own cache would make compile times those of the second time.
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        found = compile_cell(cell)
    with tempfile.NamedTemporaryFile("w", dir=CACHE, delete=False) as file:
        json.dump(found, file)
    os.replace(file.name, path)
    return found


def cells(full: bool) -> list[Cell]:
    """The short gate: the config of each kernel on three cards, and one of every other kind."""
    if full:
        every = [Cell(c, s, d, t, k.name) for t in DTYPES for c in CARDS for d in HEAD_DIMS for s in SPECS for k in Kernel]
        return every + [replace(cell, grouped=True) for cell in every if cell.kernel == "DKV"]
    some = [Cell(90, "self reasoning", 64, "bfloat16", k.name) for k in Kernel]
    some += [Cell(card, "self reasoning", 128, "float16", "DQ") for card in (80, 89, 100, 120)]
    return [*some, Cell(86, "documents, table", 64, "bfloat16", "DKV", grouped=True), Cell(80, "documents", 32, "float32", "FORWARD")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="every number of the table, in every dtype: an hour or two of one core")
    parser.add_argument("--cards", type=int, nargs="+", choices=CARDS, default=CARDS)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no kernel after so many; the report names those that are missing")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="also write the report here, as Markdown")
    options = parser.parse_args()
    wanted = [cell for cell in cells(options.full) if cell.card in options.cards and cell.dtype in options.dtypes]
    CACHE.mkdir(exist_ok=True)
    os.environ["SRT_MASKS_CACHE"] = str(CACHE / "predicates")
    from tqdm import tqdm

    rows: list[dict[str, Any]] = []
    until = time.time() + options.seconds
    with multiprocessing.get_context("spawn").Pool(options.workers, maxtasksperchild=30) as pool:
        found = pool.imap_unordered(partial(_work, until=until), wanted)
        rows += filter(None, tqdm(found, total=len(wanted), desc="compiling", unit="kernel", mininterval=5))
    rows.sort(key=lambda r: (r["card"], r["head_dim"], list(SPECS).index(r["spec"]), DTYPES.index(r["dtype"]), Kernel[r["kernel"]].value, r["grouped"]))
    text = report(rows, Counter(cell.dtype for cell in wanted) - Counter(row["dtype"] for row in rows))
    print(text)
    if options.out:
        options.out.write_text(text)
    return int(any(_is_faulty(r) for r in rows))


def _is_faulty(row: dict[str, Any]) -> bool:
    """Whether the table's own config is no good. What the table leaves open is a gap, and no fault."""
    return bool(row["tried"]) and any(one["problems"] for one in row["tried"][0]["launches"])


def report(rows: list[dict[str, Any]], missing: Counter[str]) -> str:
    import torch
    import triton

    lines = [
        "# What the Triton kernels take", "",
        f"Compiled with triton {triton.__version__} (torch {torch.__version__}) on {platform.machine()} without a GPU. *Unmeasured*: every kernel here, but for those of `tune_kernels.md` and `gpu_attention.md`, "
        "which one card has timed.",
        "Tile: what a program owns x what it takes a step, warps, stages. Loads: of 16 bytes / all, and straight into shared memory. Two numbers: dK and dV in a launch each.", "",
        "| card | head_dim | spec | dtype | kernel | tile | registers | spills B | shared KB | matrix instr. | loads | async | compile s | |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in rows:
        kernel = r["kernel"] + (", grouped heads" if r["grouped"] else "")
        for attempt in r["tried"][:1]:
            many = attempt["launches"]

            def each(name: str, many: list[dict[str, Any]] = many, over: int = 1) -> str:
                return " + ".join(f"{one[name] / over:.1f}" if over > 1 else str(one.get(name, "-")) for one in many)

            loads = " + ".join(f"{one.get('vector_loads')}/{one.get('loads')}" for one in many)
            shared = each("shared", over=1024) if "shared" in many[0] else "-"
            said = "; ".join(p for one in many for p in one["problems"])
            lines.append(
                f"| sm_{r['card']} | {r['head_dim']} | {r['spec']} | {r['dtype']} | {kernel} | {attempt['config']} | {each('registers')} | {each('stack')} "
                f"| {shared} | {each('matrix')} | {loads} | {each('async_loads')} | {attempt['seconds']:.1f} | {said} |"
            )
    faulty, open_ = [r for r in rows if _is_faulty(r)], [r for r in rows if not r["tried"]]
    lines += [
        "",
        f"{len(rows) - len(open_)} kernels, {len(faulty)} whose config in the table is no good"
        + ("; not compiled yet: " + ", ".join(f"{n} in {dtype}" for dtype, n in missing.items()) if missing else "")
        + ".",
    ]
    for r in faulty:
        last = r["tried"][-1]
        fits = "none that is smaller is good" if any(one["problems"] for one in last["launches"]) else f"{last['config']} is"
        lines.append(f"- {_named(r)}: {r['tried'][0]['config']} is not; {fits}")
    if open_:
        lines += ["", "Gaps: the table has no config, because all that were tried spill.", "", *(f"- {_named(r)}" for r in open_)]
    return "\n".join([*lines, ""])


def _named(r: dict[str, Any]) -> str:
    return f"sm_{r['card']}, {r['spec']}, head_dim {r['head_dim']}, {r['dtype']}, {r['kernel']}{', grouped heads' if r['grouped'] else ''}"


if __name__ == "__main__":
    sys.exit(main())
