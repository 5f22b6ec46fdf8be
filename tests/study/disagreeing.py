"""Processes that measure different arithmetic: run as a program, `finetune run` with a clock of each process's own.

Prints the arithmetic that was used.
"""

import os
import sys

from finetune.cli import main
from finetune.core.arithmetic import PARTS, Measured, Parts
from finetune.core.runtime import Runtime
from finetune.models import devices
from finetune.runner import autotune


def disagree() -> int:
    first = os.environ["RANK"] == "0"
    devices.measured_for = lambda width: Measured(1.0, 2.0 if first else 0.25)
    devices.parts_for = lambda width, dtype: Parts({size: float(size == PARTS[0 if first else -1]) for size in PARTS})
    autotune.LONG = 0  # so that it is worth measuring
    used, autocast = set(), Runtime.autocast
    Runtime.autocast = lambda self: used.add(str(self.dtype)) or autocast(self)
    code = main(sys.argv[1:])
    print(f"process {os.environ['RANK']} used {sorted(used)}")
    return code


if __name__ == "__main__":
    sys.exit(disagree())
