"""One side of a conversation: a model, what was said so far, and how a person stops it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from finetune.core.signals import handling

if TYPE_CHECKING:
    from finetune.inference.talking import Request, Settings


class Speaker:
    """One model and its conversation."""

    def __init__(self, name: str, talker: Any, system: str | None):
        self.name, self.talker = name, talker
        self.system = [] if system is None else [{"role": "system", "content": system}]
        self.turns: list[dict[str, str]] = []

    def answer(self, asked: str, settings: Settings, tell: Callable[[str], None]) -> Request:
        """Answer, telling what is said as it comes, and keep both turns."""
        from finetune.inference.talking import Request

        user = {"role": "user", "content": asked}
        request = Request(self.talker.chat([*self.system, *self.turns, user]), settings, tell)
        with _stopped_by_person(request):
            self.talker.answer([request])
        if request.said.strip():  # what was never said cannot be answered to
            self.turns += [user, {"role": "assistant", "content": request.said}]
        return request


@contextmanager
def _stopped_by_person(request: Request) -> Iterator[None]:
    """Within the context the first Ctrl-C ends the answer, and the next one all."""

    def receive(number: int, frame: FrameType | None) -> None:
        if request.cancelled:
            raise KeyboardInterrupt
        request.cancelled = True

    with handling(receive, [signal.SIGINT]):
        yield
