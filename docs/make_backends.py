"""Makes docs/backends.md from `srt_masks.capabilities()`: `python docs/make_backends.py`. A test makes it anew and compares."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import torch

import srt_masks as srt
from srt_masks.features.example import BACKENDS
from srt_masks.features.table import Capabilities, Reasons, Row
from srt_masks.kernels.dispatch import MEASURED

DOCS = Path(__file__).parent
SHOWN = (9, 0)  # the card of the table of features
CARDS = ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
HEAD_DIMS = (32, 64, 128, 256)
KINDS = {
    "attend": "",
    "stop k, v apart": "k and v stopped apart",
    "lookup by a pair": "lookups by a pair",
    "grouped heads": "grouped heads",
    "lookup, grouped heads": "both",
}  # what a config depends on

INTRODUCTION = """\
# Backends

A text means the same on every backend: it is honoured exactly, or refused with an error. `srt_masks.compile(spec, backend=...)` takes

| | what it is | what it is for |
|---|---|---|
| `"reference"` | dense, every pair with its own copies of q, k and v, differentiated by torch, in float64 | the truth that the others are held to; small sizes; derivatives of derivatives |
| `"tiled"` | torch alone: on a CPU torch's flash attention over rectangles of what the mask visits, elsewhere and for large scores products tile by tile | any device that torch has: training and inference on a CPU, and wherever `triton` is not |
| `"triton"` | Triton kernels on the same tiles, the mask compiled into them | CUDA cards |
| `"auto"` | the default: `triton` on {measured}, and `tiled` elsewhere | |

`auto` takes `triton` only where a card has shown it right, and faster than `tiled` can be; on a CUDA card where it takes `tiled` it warns
once, and says why. A backend that is asked for by name does what is asked, or raises `BackendError` with the reason and the way out; it never
hands the call to another, and never leaves a part of the text out.

```sh
srt-masks capabilities                                     # here
srt-masks capabilities --capability 8.6 --dtype float16    # on a card that need not be here
```
```python
import srt_masks as srt

table = srt.capabilities(device="cuda", capability=(9, 0))
print(table["head_dim 257"].auto, "-", table["head_dim 257"].why)
print([row.name for row in table if not row["triton"].served and row.group == "expressions"])
```
```text
{printed}
```

`print(table)` shows all of it, `table.to_json()` is for programs. This page is made of the same table by
[`make_backends.py`](make_backends.py), and a test tries every cell: what is honoured has the results and the gradients of the reference, and
not those of the call without the feature; what is refused raises the error that stands there.

## Numbers

- **The bound.** On every backend, in every dtype, output and gradients err by at most twice what dense attention in the same dtype does, plus 4
  units in the last place of the largest term; both against float64. `srt_masks.testing.compare` measures it.
- **float32 is IEEE float32**, whatever `torch.set_float32_matmul_precision` says. float16 and bfloat16 are computed with float32 sums.
  `lse` is float32, and float64 for float64 tensors. The reference computes in float64 and rounds its results to the dtype of q.
- **Autocast** casts float32 q, k and v to its dtype, as for torch's own attention, and reaches no further.
- **The same call gives the same bits**: nothing is added up in an order that may change (no atomics). Another batch, other padding, another
  tile or another order of visiting tokens may move the last places, within the bound.
- **NaN.** A key that no query attends may hold anything; a key that some query attends must hold numbers. A row without a key gives 0, lse
  -inf and gradients of 0.

## Systems

Triton is a dependency on Linux alone. Elsewhere, and where it is missing, everything else works; `backend="triton"` then says what to install.

| | backends |
|---|---|
| Linux, CUDA card | `reference`, `tiled`, `triton` |
| Linux, macOS, Windows: CPU | `reference`, `tiled` |
| macOS: MPS | `tiled`; no float64 there, so `reference` is refused, and `tiled` makes no float64 tensor on it |
| AMD cards | `reference`, `tiled` |

Linux is what the tests run on; what other systems lack is taken away there in tests (triton, MPS's float64), not tried on such a machine.
"""


def page() -> str:
    """The whole of backends.md."""
    table = srt.capabilities(device="cuda", capability=SHOWN)
    where = " and ".join(f"sm_{card} in {' and '.join(str(d).removeprefix('torch.') for d in dtypes)}" for card, dtypes in MEASURED.items())
    many = [row.name for row in table if not row["triton"].served and row.group == "expressions"]
    row = table["head_dim 257"]
    introduction = INTRODUCTION.format(measured=where, printed=f"{row.auto} - {row.why}\n{many}")
    return "\n".join([introduction, *features(table), *cards()])


def features(table: Capabilities) -> list[str]:
    """Every feature, on the card that is shown."""
    reasons = Reasons()
    lines = [f"## Features, on {table.where}", "", "On a CPU `auto` is `tiled` in every row, and `triton` runs in its interpreter only.", ""]
    for group, rows in groupby(table, key=lambda row: row.group):
        lines += [f"| {group} | | {' | '.join(BACKENDS)} | auto |", f"|---|---|{'---|' * len(BACKENDS)}---|", *(_line(row, reasons) for row in rows), ""]
    return [*lines, *(f"({number}) {_prose(reason)}\n" for number, reason in reasons.numbered())]


def _line(row: Row, reasons: Reasons) -> str:
    cells = [reasons.said("yes", "**no**", cell.refusal) for cell in row.cells]
    return f"| {_prose(row.name)} | {_prose(row.words)} | {' | '.join(cells)} | {reasons.auto(row, '')} |"


def _prose(text: str) -> str:
    """`[`, `|` and `*` mean something in Markdown."""
    return text.replace("[", r"\[").replace("|", r"\|").replace("*", r"\*")


def cards() -> list[str]:
    """What `triton` does on each card: where `auto` takes it, where it is there by name, what is refused."""
    lines = [
        "## Cards", "",
        "*auto*: `auto` is `triton`. *by name*: `backend=\"triton\"` runs: configs are known whose kernels compile without spills; none was timed; `auto` is `tiled`. *no*: "
        "refused. head_dim in between takes the next above. `srt-masks capabilities --capability X.Y --dtype ... --head-dim ...` says why.", "",
        f"| dtype | head_dim | {' | '.join(f'sm_{major}{minor}' for major, minor in CARDS)} |", f"|---|---|{'---|' * len(CARDS)}",
    ]  # fmt: skip
    for dtype in DTYPES:
        for head_dim in HEAD_DIMS:
            cells = [_on_card(srt.capabilities(device="cuda", capability=card, dtype=dtype, head_dim=head_dim)) for card in CARDS]
            lines.append(f"| {str(dtype).removeprefix('torch.')} | {head_dim} | {' | '.join(cells)} |")
    return [*lines, ""]


def _on_card(table: Capabilities) -> str:
    served = {kind: "auto" if table[kind].auto == "triton" else "by name" if table[kind]["triton"].served else "no" for kind in KINDS}
    usual = served["attend"]
    others = [f"{KINDS[kind]}: {found}" for kind, found in served.items() if found != usual]
    return "; ".join([usual, *others])


if __name__ == "__main__":
    (DOCS / "backends.md").write_text(page(), encoding="utf-8")
