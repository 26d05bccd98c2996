"""What a call is given beside q, k and v, flattened to what an operator may take, and put together again.

An operator takes tensors, whole numbers (symbolic ones too) and strings. The `form` says what became of every argument, in words: `name=kind`, with
`given.step` for an entry of given= and `inputs.doc` for one of inputs=. Kinds: `t` the next tensor; `i` the next number; `r` a range, the next three;
`l5` a list, the next five; `n` None; `y` and `f` true and false; `w:` words, in rows. Python's floats become tensors of 64 bits, which torch.compile
passes from call to call without compiling again. `flatten` is traced by torch.compile: it is written in what that understands (of torch 2.9, not `isinstance(x, A | B)`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..diagnostics import InputError

NESTED = ("given", "inputs")


def flatten(arguments: Mapping[str, Any]) -> tuple[str, list[Tensor], list[int]]:
    """The form of some arguments, their tensors and their numbers. Raises InputError for what no operator can take."""
    words: list[str] = []
    tensors: list[Tensor] = []
    whole: list[int] = []
    for name, value in arguments.items():
        if name in NESTED and isinstance(value, Mapping):
            words.append(f"{name}=d")
            for inner, part in value.items():
                words.append(f"{name}.{_word(inner)}={_kind(inner, part, tensors, whole)}")
        elif value is not None:
            words.append(f"{_word(name)}={_kind(name, value, tensors, whole)}")
    return " ".join(words), tensors, whole


def _word(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"names of inputs are words; got {name!r}")
    return name


def _kind(name: str, value: Any, tensors: list[Tensor], whole: list[int]) -> str:
    """The kind of an argument, whose tensors and numbers are noted."""
    if value is None:
        return "n"
    if isinstance(value, bool):
        return "y" if value else "f"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Tensor):
        tensors.append(value)
        return "t"
    if isinstance(value, (int, torch.SymInt)):
        whole.append(value)  # type: ignore[arg-type]
        return "i"
    if isinstance(value, (float, torch.SymFloat)):
        # Of products torch.compile knows that a float may be a tensor; of other ways to make one it compiles again.
        tensors.append(torch.ones((), dtype=torch.float64, device="cpu") * value)  # type: ignore[operator]
        return "t"
    if isinstance(value, range):
        whole.extend((value.start, value.stop, value.step))
        return "r"
    if isinstance(value, np.ndarray):
        tensors.append(torch.as_tensor(value))
        return "t"
    if isinstance(value, (list, tuple)):
        return _kind_of_list(name, value, tensors, whole)
    raise InputError(
        f"`{name}`, where torch compiles or watches a call, is a tensor, a number, a range, or a list of numbers or names; got {type(value).__name__}"
    )


def _kind_of_list(name: str, value: Sequence[Any], tensors: list[Tensor], whole: list[int]) -> str:
    if all(isinstance(x, (int, torch.SymInt)) and not isinstance(x, bool) for x in value):
        whole.extend(value)
        return f"l{len(value)}"
    rows = value if isinstance(value[0], (list, tuple)) else [value]
    if all(isinstance(x, str) for row in rows for x in row):
        return "w:" + "/".join(",".join(_word(x) for x in row) for row in rows) + ("/" if rows is value else "")
    try:
        found = torch.tensor(value, device="cpu")
        # Python's floats have 64 bits, and keep them, at any depth and beside whole numbers.
        tensors.append(torch.tensor(value, dtype=torch.float64, device="cpu") if found.is_floating_point() else found)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"`{name}` is a tensor, or numbers in rows of one length; got {type(value).__name__}") from None
    return "t"


def unflatten(form: str, tensors: Sequence[Any], whole: Sequence[int]) -> dict[str, Any]:
    """The arguments; whatever is given for the tensors stands in their places."""
    remaining, numbers = iter(tensors), iter(whole)
    arguments: dict[str, Any] = {}
    for outer, name, read in _read(form):
        place = arguments[outer] if outer else arguments
        place[name] = read(lambda: next(remaining), lambda: next(numbers))
    return arguments


Read = Callable[[Callable[[], Any], Callable[[], int]], Any]


@lru_cache(maxsize=256)
def _read(form: str) -> tuple[tuple[str, str, Read], ...]:
    """For every argument what it is an entry of, its name, and how to read it off the next tensors and numbers."""
    found = []
    for word in form.split():
        path, _, kind = word.partition("=")
        outer, _, name = path.rpartition(".")
        found.append((outer, name, _reader(kind)))
    return tuple(found)


def _reader(kind: str) -> Read:
    match kind[0], kind[1:]:
        case "t", _:
            return lambda tensor, _: tensor()
        case "i", _:
            return lambda _, number: number()
        case "r", _:
            return lambda _, number: range(number(), number(), number())
        case "l", count:
            return lambda _, number: [number() for _ in range(int(count))]
        case "d", _:
            return lambda *_: {}
        case "n", _:
            return lambda *_: None
        case "w", text:
            rows = [row.split(",") for row in text[1:].removesuffix("/").split("/")]
            return lambda *_: [list(row) for row in rows] if text.endswith("/") else list(rows[0])
        case truth, _:
            return lambda *_: truth == "y"
