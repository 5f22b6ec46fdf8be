"""Python imports this first in each process of a study under faults: it tells what the process does, and has the faults
that come from inside one.

`FINETUNE_EVENTS` names a file to which each step, checkpoint and phase adds a line, `nanoseconds process kind words`;
`FINETUNE_FAULT` is a fault in JSON, by its `kind`. Neither is read before something happens, so that a process can be
forked from one that has loaded the libraries already.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.abc
import importlib.util
import json
import os
import sys
import time

_events = [0]


def fault():
    """The fault that this process is to have, as a dict; empty: none."""
    return json.loads(os.environ.get("FINETUNE_FAULT") or "{}")


def tell(kind, words):
    """Add a line to the events."""
    path = os.environ.get("FINETUNE_EVENTS")
    if not path:
        return
    if not _events[0] and fault().get("kind") == "rights" and os.getuid() == 0:
        give_up_rights()
    _events[0] += 1
    line = f"{time.monotonic_ns()} {os.getpid()} {kind} {words}\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def give_up_rights():
    """Let the folders that nobody may write to be closed to root too: CAP_DAC_OVERRIDE, capabilities(7)."""
    libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    sets[0] &= ~(1 << 1)
    libc.capset(header, sets)


def after_loop(module):
    training = module._Training
    plain, watch = training.update, training.watch

    def update(self, norms):
        plain(self, norms)
        for replica, state in zip(self.replicas, self.states, strict=True):
            if state.active:
                tell("step", f"{self.at.step} {replica.folder.path}")

    def watched(self, losses, norms, phase):
        asked = fault()
        if asked.get("kind") == "nan" and self.at.step + 1 == asked["step"]:
            losses = [float("nan") if number == 0 else loss for number, loss in enumerate(losses)]
        watch(self, losses, norms, phase)

    training.update, training.watch = update, watched


def after_checkpoint(module):
    plain = module.save

    def save(folder, step, *rest, **named):
        plain(folder, step, *rest, **named)
        tell("saved", f"{step} {folder.parent}")

    module.save = save


def after_progress(module):
    plain = module.Progress.phase

    def phase(self, title, total=None):
        tell("phase", title)
        return plain(self, title, total)

    module.Progress.phase = phase


def after_accumulation(module):
    import torch

    plain, shares, at = module.Accumulation._run, module.Accumulation._shares, [0]

    def run(self, step, factors):
        at[0] = step + 1
        return plain(self, step, factors)

    def small(self, micro_batch, stack):
        asked = fault()
        if asked.get("kind") == "memory" and at[0] >= asked["step"] and len(micro_batch.examples) > asked["rows"]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return shares(self, micro_batch, stack)

    module.Accumulation._run, module.Accumulation._shares = run, small


def without_locks():
    """Locks of the system fail as on a network's file system that has none."""
    import fcntl

    plain = fcntl.flock

    def flock(file, operation):
        if fault().get("kind") == "locks":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return plain(file, operation)

    fcntl.flock = flock


def with_another_clock():
    """The time of day jumps after so many events; the monotonic clock goes on, as it does."""
    plain, plain_ns = time.time, time.time_ns

    def by():
        asked = fault()
        return asked["by"] if asked.get("kind") == "clock" and _events[0] >= asked["event"] else 0

    time.time = lambda: plain() + by()
    time.time_ns = lambda: plain_ns() + int(by() * 10**9)


AFTER = {
    "finetune.train.loop": after_loop,
    "finetune.train.checkpoint": after_checkpoint,
    "finetune.train.accumulation": after_accumulation,
    "finetune.core.progress": after_progress,
}


class _After(importlib.abc.MetaPathFinder):
    """Changes modules when they have been loaded."""

    busy = ""

    def find_spec(self, name, path=None, target=None):
        if name not in AFTER or name == self.busy:
            return None
        self.busy = name
        spec = importlib.util.find_spec(name)
        self.busy = ""
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            AFTER[name](module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _After())
without_locks()
with_another_clock()
