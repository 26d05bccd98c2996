"""What a user types -> specs, numbers, inputs."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from ..diagnostics import InputError

if TYPE_CHECKING:
    from ..spec import Spec


def spec_of(options: argparse.Namespace) -> Spec:
    from ..spec import parse

    text, name = text_of(options.spec)
    return parse(text, params=dict(options.param), filename=name)


def text_of(name: str) -> tuple[str, str]:
    """The text of a SPEC argument, and the name to report it under."""
    from ..grammar.parser import MAX_TEXT
    from ..spec import read_text

    if name.startswith("zoo:"):
        from ..schemes import entry_of

        entry = entry_of(name.removeprefix("zoo:"))
        return entry.text, f"zoo:{entry.slug}"
    if name != "-":
        return read_text(name), name
    if sys.stdin is None:
        raise InputError("there is no standard input to read")
    try:
        return sys.stdin.buffer.read(4 * MAX_TEXT + 1).decode("utf-8"), "<stdin>"
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is no text: byte {error.start} is not UTF-8") from None


def inputs_of(spec: Spec, options: argparse.Namespace) -> dict[str, Any]:
    """The inputs given as JSON, as tensors of the declared types. Raises InputError for a name or a value that does not fit."""
    import torch

    from ..binding import DTYPES, split_arguments

    given, params = split_arguments(spec.checked, dict(options.input), {})
    for name, declared in spec.inputs.items():
        if name not in given:
            shape = "a nested list" if declared.axes or declared.sizes else "a number"
            raise InputError(f"missing input `{name}`: give --input '{name}=...', {shape}: {declared}")
        try:
            given[name] = torch.as_tensor(given[name]).to(DTYPES[declared.type])
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"input `{name}` is numbers in nested lists, all rows of one length: {declared}") from None
    return {**given, **params}


def named_number(item: str) -> tuple[str, int | float]:
    name, equals, text = item.partition("=")
    try:
        number = int(text) if text.strip().lstrip("+-").isdecimal() else float(text)
    except ValueError:
        equals, number = "", 0
    if not equals or not name.strip():
        raise argparse.ArgumentTypeError(f"wants NAME=NUMBER, got {item!r}")
    return name.strip(), number


def named_value(item: str) -> tuple[str, Any]:
    name, equals, text = item.partition("=")
    if not equals or not name.strip():
        raise argparse.ArgumentTypeError(f"wants NAME=JSON, for example doc=[0,0,1]; got {item!r}")
    return name.strip(), value(text)


def value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise argparse.ArgumentTypeError(f"wants JSON, for example [0, 0, 1] or true; got {text!r}") from None
