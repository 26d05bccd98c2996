"""Run by test_platforms.py in a process of its own, because a device is for a whole process: calls of `tiled`, and a model, on a device without
float64. Prints a line for each; raises where a tensor of float64 is made there, or tensors of two devices meet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from far_device import NAME, FarDevice, far_device
from test_capabilities import FEATURES, Results, calling, results, tensors

import srt_masks as srt
from srt_masks import binding
from srt_masks.features.example import Example, Use

binding.NO_FLOAT64.add(NAME)
USES = (Use.BACKWARD, Use.LSE, Use.K_ALONE, Use.COPIED, Use.FUNC_GRAD)


def there(x: Any, device: FarDevice) -> Any:
    """An input as a tensor on the device; what is no input as it was."""
    if isinstance(x, list) and x:
        value = torch.as_tensor(x)
        return device.put(value.float() if value.is_floating_point() else value)
    return x


def calls() -> Iterator[tuple[str, Example]]:
    for name, feature in FEATURES.items():
        if feature.example.use in USES and feature.example.dtype != "float64" and "precision" not in feature.example.options:
            yield name, feature.example


def on_the_device(example: Example, data: list[torch.Tensor], inputs_too: bool) -> tuple[Results, FarDevice]:
    with far_device() as device:
        far = [device.put(x) for x in data]
        call = {n: there(x, device) if inputs_too and n == "x" else x for n, x in example.call.items()}
        found = results(calling(Example(**{**_fields(example), "call": call}), "tiled"), example, far)
        assert all(x.device.type == NAME for x in found.values())
        return {n: x.cpu() for n, x in found.items()}, device


def _fields(example: Example) -> dict[str, Any]:
    return {n: getattr(example, n) for n in Example.__dataclass_fields__}


def model_trains(text: str) -> None:
    model = srt.build_model(srt.parse(text), dim=32, depth=2, heads=2, num_tokens=11)
    words = torch.randint(0, 11, (2, 9))
    model(words, return_loss=True).backward()
    with far_device() as device:
        weights = {n: device.put(p).requires_grad_() for n, p in model.named_parameters()}
        loss = torch.func.functional_call(model, weights, (device.put(words),), {"return_loss": True})
        loss.backward()
        for name, p in model.named_parameters():
            assert p.grad is not None and torch.allclose(weights[name].grad.cpu(), p.grad, rtol=1e-5, atol=1e-7), name
        assert torch.float64 not in device.dtypes


def main() -> None:
    torch.set_num_threads(1)
    for name, example in calls():
        dtype = getattr(torch, example.dtype) if example.dtype else torch.float32
        data = tensors(example, dtype, "cpu")
        here = results(calling(example, "tiled"), example, data)
        for inputs_too in (False, True) if "x" in example.call else (False,):
            found, device = on_the_device(example, data, inputs_too)
            assert all(torch.equal(found[n], here[n]) for n in here), name
            assert torch.float64 not in device.dtypes
            print(name)
    for text in (
        "layout repeat { token, reason * 2 }\nattend causal\nstop k, v where k is reason\npredict reason -> index + 1 weight 0.5",
        "attend causal\nstop hidden where k.pos < 4\npredict token -> index + 1",
    ):
        model_trains(text)
        print("a model")
    q = tensors(Example(), torch.float32, "cpu")[0]
    with far_device() as device:
        x = device.put(q)
        try:
            srt.compile(srt.parse("attend causal"), backend="reference")(x, x, x)
        except srt.BackendError as error:
            print(error)


if __name__ == "__main__":
    sys.exit(main())
