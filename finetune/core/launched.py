"""Facts that a launcher (torchrun, accelerate launch, mpirun) gives of the processes that it has started."""

from __future__ import annotations

import os
import sys
import time

RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""Variables in which launchers give a process its number; those that Accelerate reads too."""

STARTED = ("LOCAL_RANK", "ACCELERATE_DYNAMO_MODE")
"""Variables that torchrun sets, and `accelerate launch` also for a process that it starts alone."""

PATIENCE = 5.0
"""Seconds that a process leaves to the first one, to say what is wrong, and to the launcher, to end all the others."""


def rank() -> int:
    """Give this process's number; 0 is the first, or the only one."""
    return int(next((os.environ[name] for name in RANKS if os.environ.get(name)), "0"))


def launched() -> bool:
    """Tell whether a launcher waits for this process, and reports it as crashed unless its exit code is 0."""
    return any(name in os.environ for name in STARTED)


def let_the_first_speak() -> str:
    """Wait, in all processes but the first: what is wrong with all of them is said once, and then they are ended.

    What goes on after this has something to say that the first process does not know; returns how to begin.
    """
    if rank() == 0:
        return ""
    try:
        time.sleep(PATIENCE)
    except KeyboardInterrupt:  # the first process has spoken, and the launcher ends us
        sys.exit(130)
    return f"process {rank()}: "
