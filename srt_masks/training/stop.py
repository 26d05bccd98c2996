"""Being asked to stop: Ctrl-C, or SIGTERM, as schedulers send it, lets the step end and a checkpoint be written."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stop:
    """While it is entered, the first signal is only noted, and with `says` answered; a second Ctrl-C stops at once. Outside the main thread, where signals
    do not arrive, it does nothing."""

    def __init__(self, says: bool = False) -> None:
        self._says = says
        self.asked: int | None = None  # the signal
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # A run that a shell put into the background is deaf to Ctrl-C, and stays so.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = number
        if self._says:
            os.write(2, b"\nstopping when this step is done and saved; Ctrl-C stops at once\n")  # a stream may be in the middle of a write

    def leave(self) -> None:
        """What a program that was stopped by the signal does. Raises KeyboardInterrupt, or SystemExit with the code of the signal."""
        if self.asked == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt
