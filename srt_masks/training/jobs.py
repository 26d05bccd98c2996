"""Several runs at once, each in a process of its own with its share of the cores: small models learn more from two processes of one thread
than from one process of two. What a process does is in `worker`; here is who begins them, hands out runs, listens, and leaves none behind.

Processes begin from nothing (spawn) and are used for one run after another. One that ends early, however it does, ends the others after their checkpoints.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from ..diagnostics import Error, InputError, SpecError
from .loop import Report
from .stop import Stop
from .worker import STOP, Ended, Failed, Job, Settings, Stopped, work

NAME = "srt_masks run"  # of a process
BEGUN_AGAIN = 90  # the exit code of one that would begin everything again
PROMPT = 0.2  # seconds, at most, until Ctrl-C is passed on


def check_jobs(count: int) -> None:
    """Raises InputError for what is no number of processes, or where they cannot be begun; SystemExit in a process that was begun to run, and instead reads
    a script that would begin the processes again."""
    own = multiprocessing.current_process()
    if own.name.startswith(NAME):
        raise SystemExit(BEGUN_AGAIN)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"jobs is how many runs go on at once, a whole number, 1 or more; got {count!r}")
    if count == 1:
        return
    if own.daemon:
        raise InputError("jobs= begins processes, which a daemonic process of multiprocessing may not: give jobs=1, or daemon=False")
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None) if getattr(main, "__spec__", None) is None else None  # what spawn reads by its path
    if script is not None and not Path(script).exists():
        raise InputError(f"jobs= begins processes that read the script anew, and there is no file {script}: keep it in a file, or give jobs=1")


def run_together(jobs: Sequence[Job], count: int, seen: Callable[[Job, Report], None], ended: Callable[[Job], None], quiet: bool = False) -> None:
    """Every run to its end, `count` at once; word of a run now and then, and of its end, in whatever order they come.

    Raises what the first run that fails raised, with its name; Error for a process that was ended from outside; KeyboardInterrupt or SystemExit after
    Ctrl-C or SIGTERM: all of them when every other run has ended its step and written its checkpoint. A second Ctrl-C waits for nothing.
    """
    left, failure, outside = deque(jobs), None, False
    with Stop(says=not quiet) as stop, _Processes(min(count, len(jobs)), Settings.shared(count)) as processes:
        while True:
            if failure is not None or outside or stop.asked is not None:
                processes.stop()
            else:
                for idle in [p for p in processes.every if p.job is None][: len(left)]:
                    idle.hand(left.popleft())
            if not processes.busy:
                break
            for process, job, message in processes.heard(PROMPT):
                match message:
                    case Report():
                        seen(job, message)
                        continue
                    case Ended():
                        ended(job)
                    case Stopped():
                        outside = True  # or because it was asked to
                    case Failed():
                        failure = failure or named(job.name, message.error, message.trace)
                    case int():
                        failure = failure or _lost(job, message)
                process.job = None
    if failure is not None and not (stop.asked is not None and isinstance(failure, Lost)):
        raise failure from None
    if stop.asked is not None:
        stop.leave()
    if outside:  # the run's process alone was asked to stop
        raise SystemExit(128 + signal.SIGTERM)


class Lost(Error):
    """A process was ended from outside."""


@dataclass(slots=True)
class _Process:
    process: SpawnProcess
    connection: Connection
    job: Job | None = None

    def hand(self, job: Job) -> None:
        self.job = job
        self.say(job.packed)

    def say(self, words: bytes) -> None:
        with suppress(OSError):  # of one that has died: it is heard of
            self.connection.send_bytes(words)

    def hear(self) -> Report | Ended | Stopped | Failed | int:
        """What it says; its exit code, if it says nothing any more."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return self.process.exitcode or 0


class _Processes:
    """Begun when it is entered, gone when it is left: at once at a second Ctrl-C, after a step and a checkpoint in any other case."""

    def __init__(self, count: int, settings: Settings):
        self.every: list[_Process] = []
        self._count, self._settings, self._stopped = count, settings, False

    def __enter__(self) -> _Processes:
        try:
            with _deaf():
                for number in range(self._count):
                    self.every.append(self._begun(number))
        except BaseException:
            self._end(at_once=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._end(at_once=kind is not None and issubclass(kind, KeyboardInterrupt))

    @property
    def busy(self) -> list[_Process]:
        return [p for p in self.every if p.job is not None]

    def stop(self) -> None:
        """Every run ends its step and writes its checkpoint."""
        if not self._stopped:
            self._stopped = True
            for process in self.every:
                process.say(STOP)

    def heard(self, most: float) -> Iterator[tuple[_Process, Job, Report | Ended | Stopped | Failed | int]]:
        """What was said within so many seconds."""
        busy = self.busy
        ready = wait([p.connection for p in busy], most)
        for process in busy:
            if process.connection in ready:
                assert process.job is not None
                yield process, process.job, process.hear()

    def _begun(self, number: int) -> _Process:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=work, args=(there, self._settings), name=f"{NAME} {number}")
        try:
            process.start()
        except OSError as error:
            here.close()
            raise InputError(f"cannot begin process {number + 1} of {self._count}: {error.strerror or error}. Give fewer jobs=") from None
        finally:
            there.close()  # the other end is the process's alone: when it dies, the pipe ends
        return _Process(process, here)

    def _end(self, at_once: bool) -> None:
        try:
            for process in self.every:
                if at_once:
                    process.process.kill()
                process.connection.close()  # which it takes for STOP
            for process in self.every:
                process.process.join()
        except BaseException:  # Ctrl-C, once more
            for process in self.every:
                process.process.kill()
            for process in self.every:
                process.process.join()
            raise


@contextmanager
def _deaf() -> Iterator[None]:
    """What begins here never hears Ctrl-C, and one that comes meanwhile is heard afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which would unblock it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def named(run: str, error: Exception, trace: str | None = None) -> Exception:
    """The error of a run, that says which; `trace` is what the process says that it ran in, where that is another."""
    match error:
        case SpecError():
            pass
        case Error():
            return type(error)(f"{run}: {error}")
    error.add_note(f"in the run {run}" + ("" if trace is None else f". Its process says:\n{trace}"))
    return error


def _lost(job: Job, code: int) -> Error:
    if code == BEGUN_AGAIN:
        return InputError(
            "jobs= begins processes that read the script anew, and this one would begin everything again in each of them: put what it does under "
            '`if __name__ == "__main__":`'
        )
    how = f"ended by itself, with code {code}; what it printed may tell why"
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        how = f"ended from outside, by {name}" + (", as systems do that run out of memory: fewer jobs= need less" if name == "SIGKILL" else "")
    return Lost(f"{job.name}: its process was {how}. The other runs were stopped and saved; the same call goes on from the last checkpoint of each")
