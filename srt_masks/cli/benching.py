"""The command `bench`: attention by a spec beside torch's own, at the sizes that are asked for, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..diagnostics import InputError
from .arguments import inputs_of, spec_of, steps_of
from .planning import compiled, planning_of

if TYPE_CHECKING:
    from ..spec import Spec
    from ..time_steps import Steps
    from ..timing import Timed

STEPS = (512, 2048)  # where the layout repeats and nobody says


def bench(options: argparse.Namespace) -> None:
    import torch

    from ..timing import bench as timed

    spec = spec_of(options)
    device = _device(options.device)
    dtype = options.dtype or ("bfloat16" if device == "cuda" else "float32")
    options.dtype, options.layer = None, 0 if options.layer is None and spec.checked.speaks_of_layers else options.layer
    found: list[Timed] = []
    for steps in _sizes(spec, options):
        attend, tokens, arguments, _ = planning_of(spec, argparse.Namespace(**{**vars(options), "steps": steps}), STEPS[0])
        arguments |= {"head_dim": options.head_dim, "layer": options.layer}
        sizes = {name: arguments.pop(name) for name in ("heads", "head_dim", "layer")}
        # The first plan of a process pays for what later ones find ready.
        compiled(spec, options).plan(tokens, **sizes, **arguments)
        found.append(timed(attend, tokens, **sizes, batch=options.batch, dtype=getattr(torch, dtype), device=device, repeat=options.repeat, **arguments))
    about = {
        "spec": spec.filename, "params": dict(spec.params), "heads": options.heads, "head_dim": options.head_dim, "dtype": dtype, "device": _named(device),
        "threads": torch.get_num_threads(), "torch": torch.__version__, "repeat": options.repeat,
    }  # fmt: skip
    print(json.dumps({**about, "sizes": [each.plain() for each in found]}, indent=1) if options.format == "json" else "\n".join(_lines(spec, about, found)))


def _sizes(spec: Spec, options: argparse.Namespace) -> list[Steps | None]:
    """Time steps, each size once; None: the layout has one length."""
    if options.steps is not None:
        return list(dict.fromkeys(options.steps))
    known = steps_of(spec, options, inputs_of(spec, options))
    return [known] if known is not None or not spec.checked.repeats else list(STEPS)


def _device(asked: str | None) -> str:
    import torch

    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=asked)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device is one that torch has here, such as cpu or cuda; got {asked!r} ({str(error).strip().splitlines()[0]})") from None
    return asked


def _named(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{device} ({platform.machine()})"


def _lines(spec: Spec, about: dict[str, Any], found: list[Timed]) -> Iterator[str]:
    from ..timing import OURS

    values = ", ".join(f"{n} = {v}" for n, v in about["params"].items())
    threads = f", {about['threads']} thread{'s' if about['threads'] > 1 else ''}" if about["device"].startswith("cpu") else ""
    yield f"{spec.filename}{' with ' + values if values else ''}"
    yield (
        f"batch {found[0].batch}, {about['heads']} heads of {about['head_dim']}, {about['dtype']}, {about['device']}{threads}, torch {about['torch']}; "
        "milliseconds, the fastest turn of each"
    )
    head = ("queries x keys", "attended", "", "forward", "backward", "both", f"/ {OURS}")
    rows: list[tuple[str, ...]] = []
    for size in found:
        first = (f"{size.queries:,} x {size.keys:,}", f"{100 * size.density:.3g}%")
        for name, times in size.sides.items():
            ratio = "" if name == OURS else f"{times.both / size.sides[OURS].both:.2f}"
            shown = f"{name} ({size.backend}, tile {size.tile})" if name == OURS else name
            rows.append((*first, shown, *(f"{1000 * x:.2f}" for x in (times.forward, times.backward, times.both)), ratio))
            first = ("", "")
        rows += [("", "", name, "-", "-", "-", why) for name, why in size.left_out.items()]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    yield ""
    for row in (head, *rows):
        yield "  ".join(
            f"{x:<{w}}" if i in (0, 2) or (i == 6 and not x[:1].isdigit()) else f"{x:>{w}}" for i, (x, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
    yield ""
    yield f"Planned once, before: {', '.join(f'{1000 * size.planned:.1f} ms' for size in found)}. A dense mask is made before it is timed."
    if spec.checked.rules:
        yield "No side but srt_masks has the gradient rules: torch's compute all gradients, whole."
