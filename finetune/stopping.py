"""Asking a running study to stop: the current step is finished, a checkpoint written, and the same command resumes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether somebody asked us to stop."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; a second one stops at once.

    SIGTERM is what schedulers send before they take a machine away.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread can receive signals.
        yield request
        return

    def receive(number: int, frame: FrameType | None) -> None:
        if request.requested:
            raise KeyboardInterrupt
        request.requested = True

    former = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
