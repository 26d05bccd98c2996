"""What a user types -> specs, numbers, inputs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diagnostics import InputError, did_you_mean, listing

if TYPE_CHECKING:
    from ..spec import Spec
    from ..time_steps import Steps


def spec_of(options: argparse.Namespace) -> Spec:
    from ..spec import parse

    text, name = text_of(options.spec)
    return parse(text, params=params_of(options), filename=name)


def params_of(options: argparse.Namespace) -> dict[str, int | float]:
    refuse_twice("param", options.param)
    return dict(options.param)


def specs_sharing(names: Sequence[str], options: argparse.Namespace) -> list[Spec]:
    """Several specs, each with the params given that it has. Raises InputError for a param that is in none."""
    from ..spec import parse

    if names.count("-") > 1:
        raise InputError("standard input can be read once: give the other spec as a file")
    params, found = params_of(options), []
    for text, filename in map(text_of, names):
        spec = parse(text, filename=filename)
        own = {n: v for n, v in params.items() if n in spec.params}
        found.append(parse(text, params=own, filename=filename) if own else spec)
    if unknown := [n for n in params if not any(n in spec.params for spec in found)]:
        known = [n for spec in found for n in spec.params]
        raise InputError(
            f"--param {unknown[0]}: no spec here has such a param; {did_you_mean(unknown[0], known) or 'their params: ' + (listing(known) or 'none')}"
        )
    return found


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


def name_of(filename: str) -> str:
    """What a spec is called where something is kept by its name; `filename` is what `text_of` reports it under."""
    if filename.startswith("zoo:"):
        return filename.removeprefix("zoo:")
    return "stdin" if filename == "<stdin>" else Path(filename).stem


def inputs_of(spec: Spec, options: argparse.Namespace) -> dict[str, Any]:
    """The inputs given as JSON, as tensors; 0 and 1 stand for true and false where the text declares a bool. Raises InputError for a name that
    the text does not have, an input that is missing, what is given twice, and what is no tensor. Types and shapes are checked where they are used."""
    import torch

    from ..binding import split_arguments
    from ..grammar.checked import Type

    refuse_twice("input", options.input)
    if both := [name for name, _ in options.input if name in params_of(options)]:
        raise InputError(f"`{both[0]}` is given twice, by --input and by --param: give it once")
    given, params = split_arguments(spec.checked, dict(options.input), {})
    missing = [declared for name, declared in spec.inputs.items() if name not in given]
    if missing:
        forms = " ".join(f"--input '{i.name}={'[...]' if i.axes or i.sizes else '...'}'" for i in missing)
        raise InputError(f"missing input{'s' if len(missing) > 1 else ''}: give {forms} ({'; '.join(map(str, missing))})")
    for name, declared in spec.inputs.items():
        try:
            tensor = torch.as_tensor(given[name])
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"input `{name}` is numbers in nested lists, all rows of one length: {declared}") from None
        if declared.type is Type.FLOAT or tensor.numel() == 0:
            tensor = tensor.to({Type.BOOL: torch.bool, Type.INT: torch.int64, Type.FLOAT: torch.float64}[declared.type])
        elif declared.type is Type.BOOL and tensor.dtype is torch.int64 and bool(((tensor == 0) | (tensor == 1)).all()):
            tensor = tensor.bool()
        given[name] = tensor
    return {**given, **params}


def steps_of(spec: Spec, options: argparse.Namespace, inputs: dict[str, Any]) -> Steps | None:
    """Time steps as given; else as many as inputs along the layouts have, if any does."""
    if options.steps is not None:
        return options.steps
    from ..time_steps import steps_in

    return steps_in(spec.checked, inputs)


def refuse_twice(flag: str, items: Sequence[tuple[str, Any]]) -> None:
    names = [name for name, _ in items]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise InputError(f"--{flag} {twice}=... is given twice: give it once")


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


def time_steps(item: str) -> Steps:
    try:
        match [int(number) for number in item.split("x")]:
            case [both]:
                return both
            case [queries, keys]:
                return queries, keys
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"wants a number of time steps, or QUERIESxKEYS, such as 24x5, where a text has two layouts; got {item!r}")


def card(item: str) -> tuple[int, int]:
    major, dot, minor = item.partition(".")
    if not (dot and item.isascii() and major.isdecimal() and minor.isdecimal() and int(major) and len(minor) == 1):
        raise argparse.ArgumentTypeError(f"wants X.Y, for example 9.0 for sm_90; got {item!r}")
    return int(major), int(minor)
