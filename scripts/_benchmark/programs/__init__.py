"""What runs in the measured processes: `python -m scripts._benchmark.programs.NAME SPEC RESULT`, two JSON files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Facts = dict[str, Any]


def answer(program: Callable[[Facts], Facts]) -> None:
    """Read the specification, run ``program`` on it, write what it returns."""
    spec, result = map(Path, sys.argv[1:])
    facts = program(json.loads(spec.read_text(encoding="utf-8")))
    result.write_text(json.dumps(facts), encoding="utf-8")


def device_memory_bytes() -> int | None:
    """The most memory that torch has had allocated on the GPU; None without one."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def shared_arguments(spec: Facts) -> Facts:
    """Training arguments that belong to the work, not to the contestant, and those that keep it from doing anything
    else: saving, logging, reporting, drawing a progress bar."""
    import torch

    return {
        "output_dir": spec["output"],
        "num_train_epochs": spec["epochs"],
        "learning_rate": spec["learning_rate"],
        "warmup_steps": spec["warmup"],  # below 1 it is a share
        "weight_decay": spec["weight_decay"],
        "seed": spec["seed"],
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def stopwatch() -> Any:
    """A callback with the ``seconds`` between the beginning and the end of training proper."""
    import time

    import torch
    from transformers import TrainerCallback

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    class Stopwatch(TrainerCallback):
        seconds = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = now()

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.seconds = now() - self.began

    return Stopwatch()
