"""What a process that was begun for runs does (`jobs` begins it): one run after another, as they are handed to it, and word of each to whoever began it.

Over one pipe come runs and `STOP`; back go reports, and how each run ended. Nobody else is to decide when a run stops: Ctrl-C, which a terminal sends to
every process, is for the one that began them all, and if that one is gone the pipe says so.
"""

from __future__ import annotations

import pickle
import signal
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ..diagnostics import InputError
from .loop import Report
from .train import STATE, train

STOP = b"stop"
EVERY = 0.1  # seconds between two reports that are passed on: a small model takes hundreds of steps in one


@dataclass(frozen=True, slots=True)
class Job:
    """A run that there is to be, as it travels: `name` is what errors call it, `packed` are the arguments of `train`."""

    name: str
    packed: bytes

    @staticmethod
    def of(name: str, **arguments: Any) -> Job:
        """Raises InputError where the arguments cannot be handed to another process."""
        try:
            packed = pickle.dumps(arguments)
        except Exception as error:  # what __reduce__ of anybody's class raises
            raise InputError(
                f"{name}: jobs= hands every run to a process of its own, and this one cannot be handed over ({error}). Functions have to be found again by "
                "their names, at the top of a module or script: no lambda, and none inside another function. Or give jobs=1"
            ) from None
        return Job(name, packed)


@dataclass(frozen=True, slots=True)
class Settings:
    """What torch is told in a process before its first run: threads, the dtype of new tensors, the precision of float32 products, and whether deterministic
    algorithms are asked for. What else a script tells torch for itself (`torch.set_flush_denormal`, which cannot be asked, backends' flags) stays in its process."""

    threads: int
    dtype: torch.dtype
    precision: str  # of float32 products
    deterministic: bool
    warn_only: bool  # where an algorithm that is not deterministic is asked for

    @staticmethod
    def shared(count: int) -> Settings:
        """Those of this process, its threads dealt to `count` processes."""
        return Settings(
            max(1, torch.get_num_threads() // count),
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )

    def apply(self) -> None:
        torch.set_num_threads(self.threads)
        torch.set_default_dtype(self.dtype)
        torch.set_float32_matmul_precision(self.precision)
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)


@dataclass(frozen=True, slots=True)
class Ended:
    """The run took its last step."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run was stopped between two steps, and its checkpoint written."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The run raised something."""

    error: Exception
    trace: str


def work(connection: Connection, settings: Settings) -> None:
    """Runs, until the pipe says stop, or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # at which a run that is going on ends its step, by `Stop`
    settings.apply()
    with suppress(EOFError, OSError):
        while (packed := connection.recv_bytes()) != STOP:
            connection.send(_run(packed, connection))


def go_on(out: Path, **arguments: Any) -> int | None:
    """`train` in a folder that may hold a part of this very run; the signal that asked it to stop when there was nothing left to stop."""
    begin = "resume" if (out / STATE).exists() else "over"
    return train(out=out, quiet=True, begin=begin, **arguments).asked


def _run(packed: bytes, connection: Connection) -> Ended | Stopped | Failed:
    said = 0.0

    def watch(report: Report) -> None:
        nonlocal said
        try:
            if connection.poll():  # there is nothing to be said to a run but stop; a pipe that has ended says it, too
                signal.raise_signal(signal.SIGTERM)
            elif time.monotonic() - said > EVERY:
                said = time.monotonic()
                connection.send(report)
        except OSError:
            signal.raise_signal(signal.SIGTERM)

    try:
        if connection.poll():
            return Stopped()
        go_on(**_unpacked(packed), watch=watch)
    except (KeyboardInterrupt, SystemExit):
        return Stopped()
    except Exception as error:
        return Failed(_portable(error), "".join(traceback.format_exception(error)))
    return Ended()


def _unpacked(packed: bytes) -> Mapping[str, Any]:
    try:
        return pickle.loads(packed)
    except Exception as error:  # what anybody's module raises when it is imported
        raise InputError(
            f"the run cannot be read in a process of its own: {error}. Keep the functions it needs in a file, at the top of a module or script; or give jobs=1"
        ) from None


def _portable(error: Exception) -> Exception:
    """Itself, if another process can read it."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
