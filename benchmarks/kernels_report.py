"""Compile the Triton kernels for cards that are not here, and say what they take: `make kernels-report`.

For each spec, card, head_dim and dtype: registers, spills, shared memory, matrix instructions, loads, compile time, and how many
kernels one spec needs. Fails on a spill, on a config that does not fit, and on rows < 16 * warps on sm_90 (where a warp would repeat
another's work). Nothing is timed: only a card can say how fast a kernel is. Results are kept in `.kernels-report/`, by the content
of everything they depend on, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".kernels-report"
SPECS = {
    "causal": "attend causal",
    "self reasoning": (ROOT / "examples" / "self_reasoning.mask").read_text(),
    # dK and dV part ways, one gate is a factor, a table is read at each pair.
    "documents": (
        "input doc: int per token\ninput keep: bool per query, key\nattend causal and same(doc) and keep\n"
        "stop k where q.pos - k.pos >= 512\nscale v by 0.5 where (q.pos - k.pos) % 4 == 0"
    ),
}
CAPABILITIES = (80, 90, 100)
HEAD_DIMS = (64, 128)
DTYPES = ("bfloat16", "float16")


@dataclass(frozen=True)
class Task:
    spec: str
    capability: int
    head_dim: int
    dtype: str

    def key(self) -> str:
        """Of everything the result depends on: the text, the sources and the versions."""
        import torch
        import triton

        sources = [p.read_bytes() for folder in ("kernels", "compiler", "grammar") for p in sorted((ROOT / "srt_masks" / folder).glob("*.*"))]
        about = repr((self, SPECS[self.spec], torch.__version__, triton.__version__)).encode()
        return hashlib.sha256(b"\0".join([*sources, about, Path(__file__).read_bytes()])).hexdigest()[:24]


def compile_all(task: Task) -> list[dict]:
    """Every kernel that a forward and a backward of the task launch, one row each."""
    import torch

    import srt_masks as srt
    from srt_masks.kernels.offline import SHARED_BYTES, offline, resources

    rows: list[dict] = []
    begin = time.perf_counter()

    def record(name: str, config, compiled) -> None:
        nonlocal begin
        taken = resources(compiled)
        problems = []
        if taken.stack:
            problems.append(f"spills {taken.stack} bytes")
        if taken.shared > SHARED_BYTES[task.capability]:
            problems.append(f"{taken.shared} bytes of shared memory")
        if task.capability == 90 and taken.matrix and config.rows < 16 * config.warps:
            problems.append("rows < 16 x warps")
        rows.append({**asdict(task), "kernel": name, "config": str(config), **asdict(taken), "seconds": time.perf_counter() - begin, "problems": problems})
        begin = time.perf_counter()

    spec = srt.parse(SPECS[task.spec])
    tokens = 5 * 128
    q, k, v = (torch.randn(1, 4, tokens, task.head_dim, dtype=getattr(torch, task.dtype), requires_grad=True) for _ in range(3))
    inputs = {"doc": torch.zeros(tokens, dtype=torch.int64), "keep": torch.ones(tokens, tokens, dtype=torch.bool)} if "input" in spec.text else {}
    with offline(task.capability, record):
        srt.compile(spec, backend="triton")(q, k, v, **inputs).sum().backward()
    return rows


def _work(task: Task) -> list[dict]:
    path = CACHE / f"{task.key()}.json"
    if path.exists():
        return json.loads(path.read_text())
    rows = compile_all(task)
    with tempfile.NamedTemporaryFile("w", dir=CACHE, delete=False) as file:
        json.dump(rows, file)
    os.replace(file.name, path)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one spec, one card: seconds")
    parser.add_argument("--out", type=Path, help="also write the report here, as Markdown")
    options = parser.parse_args()
    tasks = [Task(s, c, d, t) for c in CAPABILITIES for s in SPECS for d in HEAD_DIMS for t in DTYPES]
    if options.short:
        tasks = [Task("self reasoning", 90, 64, "bfloat16"), Task("documents", 80, 64, "float16")]
    CACHE.mkdir(exist_ok=True)
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ["TRITON_CACHE_DIR"] = str(CACHE / "triton")
    os.environ["SRT_MASKS_CACHE"] = str(CACHE / "predicates")
    from tqdm import tqdm

    rows: list[dict] = []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(_work, task) for task in tasks]
        for done in tqdm(as_completed(waiting), total=len(tasks), desc="compiling", unit="task", disable=None):
            rows += done.result()
    rows.sort(key=lambda r: (r["capability"], list(SPECS).index(r["spec"]), r["head_dim"], r["dtype"]))
    text = report(rows)
    print(text)
    if options.out:
        options.out.write_text(text)
    return int(any(r["problems"] for r in rows))


def report(rows: list[dict]) -> str:
    import torch
    import triton

    lines = [
        "# What the Triton kernels take", "",
        f"Compiled with triton {triton.__version__} (torch {torch.__version__}) on {platform.machine()} without a GPU. *Not timed*: no card has run these.",
        "Tiles: own rows x columns of a step, warps, stages. Loads: of 16 bytes / all, and straight into shared memory.", "",
        "| card | spec | head_dim | dtype | kernel | tile | registers | spills B | shared KB | matrix instr. | loads | async | compile s | |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in rows:
        lines.append(
            f"| sm_{r['capability']} | {r['spec']} | {r['head_dim']} | {r['dtype']} | {r['kernel'].removesuffix('_kernel')} | {r['config']} | {r['registers']} | {r['stack']} "
            f"| {r['shared'] / 1024:.1f} | {r['matrix']} | {r['vector_loads']}/{r['loads']} | {r['async_loads']} | {r['seconds']:.1f} | {'; '.join(r['problems'])} |"
        )
    needed = {}
    for r in rows:
        needed.setdefault((r["spec"], r["capability"], r["head_dim"], r["dtype"]), []).append(r["kernel"])
    lines += ["", f"Compiles that one spec needs, forward and backward with all gradients: {max(map(len, needed.values()))}."]
    broken = [r for r in rows if r["problems"]]
    lines += [f"{len(rows)} kernels, {len(broken)} with problems.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
