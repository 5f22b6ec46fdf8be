"""Asking a running study to stop: the batch under way is finished, what can be resumed is saved, and the same command
goes on with it."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

from finetune.core.errors import Interrupted
from finetune.core.launched import launched

INSISTING = (signal.SIGINT, signal.SIGTERM)
"""A person's, and what is sent last before a process is killed: asked twice, we stop at once."""

SIGNALS = (*INSISTING, signal.SIGUSR1, signal.SIGUSR2)
"""All of them ask us to save and leave. Schedulers send SIGUSR1 or SIGUSR2 ahead of SIGTERM, and each process may get
them from several sides (the scheduler, a batch script, a launcher): however many come, they only ask."""

ANSWER = "stopping after this batch; press again to stop now"

TOGETHER = 1.0
"""Seconds within which two signals are one where a launcher hands on what the terminal has sent already."""

PATIENCE = 5.0
"""Seconds after the second signal in which Python may end by itself, from which code that is not Python's keeps it."""


DEATH_SIGNAL = 1
"""Linux's `PR_SET_PDEATHSIG`."""


def end_with_parent(by: signal.Signals) -> None:
    """Let the system send this process a signal when the one that has started it dies, whatever kills that."""
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, by)


class StopRequest:
    """A flag that is set when somebody asks us to stop."""

    def __init__(self) -> None:
        self.requested = False

    def wait(self, seconds: float) -> None:
        """Wait for so long, or until somebody asks."""
        ends = time.monotonic() + seconds
        while not self.requested and time.monotonic() < ends:
            time.sleep(min(0.05, seconds))


_current: ContextVar[StopRequest | None] = ContextVar("stop", default=None)


def stop_requested() -> bool:
    """Tell whether the work of this thread was asked to stop."""
    request = _current.get()
    return request is not None and request.requested


def stop_here(doing: str) -> None:
    """Raise :class:`~finetune.core.errors.Interrupted` where this process was asked to stop."""
    if stop_requested():
        raise Interrupted(f"stopped while {doing}")


@contextmanager
def stop_on_signals(answer: Callable[[str], None] = lambda text: None) -> Iterator[StopRequest]:
    """Turn the first of :data:`SIGNALS` into a request, which is answered at once; a second SIGINT or SIGTERM stops at
    once.

    ``answer`` is called in a thread of its own: a handler runs between any two steps of the main thread, which may
    hold the very lock that printing needs, and not before a long computation outside Python has ended.
    """
    request = StopRequest()
    token = _current.set(request)
    try:
        if threading.current_thread() is not threading.main_thread():
            # Only the main thread can receive signals.
            yield request
            return
        with _receiving(request), _answering(answer):
            yield request
    finally:
        _current.reset(token)


_asked = threading.Event()
"""Set once the command under way has been asked to stop, by whatever signal."""


@contextmanager
def leave_on_signals() -> Iterator[None]:
    """Around a whole command: the first of :data:`SIGNALS` ends it as Ctrl-C does where nothing else receives it, as
    while libraries are loaded. By itself Python would die without a word. Further ones find it leaving already."""
    _asked.clear()

    def receive(number: int, frame: FrameType | None) -> None:
        if not _asked.is_set():
            _asked.set()
            raise KeyboardInterrupt

    with handling(receive, [number for number in SIGNALS if number != signal.SIGINT]):
        yield


@contextmanager
def handling(
    receive: Callable[[int, FrameType | None], None], numbers: Sequence[signal.Signals] = SIGNALS
) -> Iterator[None]:
    """Within the context, let ``receive`` handle signals, where this is the thread that gets them; elsewhere nothing
    changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, receive) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def _receiving(request: StopRequest) -> Iterator[None]:
    """Let the first signal within the context set ``request``, and the next that insists raise KeyboardInterrupt."""
    count = Insistence()

    def receive(number: int, frame: FrameType | None) -> None:
        request.requested = True
        _asked.set()
        if count.insists(number):
            raise KeyboardInterrupt

    with handling(receive):
        yield


class Insistence:
    """Counts signals that insist. Of those that a launcher hands on, two within :data:`TOGETHER` seconds are one."""

    def __init__(self) -> None:
        self._first: float | None = None

    def insists(self, number: int) -> bool:
        """Tell whether this signal is a second one."""
        if number not in INSISTING:
            return False
        if self._first is None:
            self._first = time.monotonic()
            return False
        return not launched() or time.monotonic() - self._first >= TOGETHER


@contextmanager
def _answering(answer: Callable[[str], None]) -> Iterator[None]:
    """Answer signals within the context in a thread: Python writes their numbers into a socket as they come."""
    heard, written = socket.socketpair()
    written.setblocking(False)
    former = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_answer, args=(heard, answer), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        written.close()
        thread.join()
        heard.close()


def _answer(heard: socket.socket, answer: Callable[[str], None]) -> None:
    """Answer the first signal; make sure that a second one that insists ends the process."""
    count, answered = Insistence(), False
    while number := heard.recv(1):
        if number[0] not in SIGNALS:
            continue
        if not answered:
            answered = True
            answer(ANSWER)
        if count.insists(number[0]):
            ready, _, _ = select.select([heard], [], [], PATIENCE)
            if not ready or heard.recv(1):
                _leave()
            return


def _leave() -> None:
    """End the process from outside its main thread. Files are written beside their places, so that none is half."""
    if sys.stdout.isatty():
        os.write(1, b"\x1b[?25h\n")  # the cursor that the live line has hidden
    os._exit(Interrupted.exit_code)
