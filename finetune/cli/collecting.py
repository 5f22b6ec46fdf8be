"""Keeps Python's garbage collector out of the way where it can find nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Run without Python's garbage collector within the context.

    Loading torch and transformers makes a million objects that stay, and the collector would look through all of them
    again and again: a fifth of the time it takes. What nothing refers to any more is freed as always. Nor does it look
    at what was made in here later: every run ends with a collection.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
