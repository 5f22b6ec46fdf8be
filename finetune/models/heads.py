"""Which class a task's model is of: a transformers Auto class, or one of ours, with a head of the task's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.models.pooling import EMBEDDED, POOLED

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class OwnHead:
    """A bare model under a task's own head."""

    name: str
    """What the model's class is called."""
    build: Callable[[Any], torch.nn.Module]
    """Makes the head for a configuration: see :meth:`finetune.tasks.base.Task.head`."""


WARM_STARTED = "WarmStartedEncoderDecoder"
"""An encoder-decoder that begins as an encoder, twice: see `warm_started.py`."""

Architecture = str | OwnHead
"""The name of a transformers Auto class, of one of our pooled models, or of :data:`WARM_STARTED`; or a task's own
head."""


def name_of(architecture: Architecture) -> str:
    """Give what a model's class is called."""
    return architecture if isinstance(architecture, str) else architecture.name


def is_ours(architecture: Architecture) -> bool:
    """Tell whether plain transformers has no such class."""
    return isinstance(architecture, OwnHead) or architecture in (POOLED, EMBEDDED, WARM_STARTED)
