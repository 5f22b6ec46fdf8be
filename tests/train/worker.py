"""One process of a training run, for tests that start processes: trains, then writes what it came to.

``python -m tests.train.worker MODEL RUN OPTIONS``: a tiny model's folder, the run's folder, and as JSON options of
training, `chat` for the other task, `shard` to split the model, `dtype`, options of `compute`,
`stop: [rank, step]` to ask one process to stop, and `hang: [rank, step]` to let one stand still.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from finetune.core.compute import ComputeOptions
from finetune.core.errors import Interrupted
from finetune.core.runtime import make_deterministic
from finetune.core.signals import stop_on_signals
from finetune.train import loop
from tests.train import workbench


def main(model: str, run: str, changes: str) -> int:
    """Returns the exit code that the command line would."""
    make_deterministic(True)
    options, folder, rank = json.loads(changes), Path(run), int(os.environ.get("RANK", 0))
    bench = (workbench.chat if options.pop("chat", False) else workbench.classification)(Path(model))
    hang_rank, hang_step = options.pop("hang", (None, 0))
    if hang_rank == rank:
        hang(hang_step)
    stop_rank, stop_step = options.pop("stop", (None, 0))
    options["dtype"] = getattr(torch, options.pop("dtype", "float32"))
    options["compute"] = ComputeOptions(**options.pop("compute", {}))
    if stop_rank == rank:
        stop_itself(stop_step)
    with stop_on_signals() as stop:
        try:
            fitted = workbench.fit(bench, folder, stop=stop, **options)
        except Interrupted as interrupted:
            print(interrupted, flush=True)
            return interrupted.exit_code
    if options.get("shard") and int(os.environ["WORLD_SIZE"]) > 1:
        assert all(isinstance(value, DTensor) for value in fitted.model.parameters())
    save_file(fitted.weights, folder / f"weights-{rank}.safetensors")
    (folder / f"facts-{rank}.json").write_text(json.dumps(fitted.trained.facts))
    return 0


def hang(step: int) -> None:
    """Let this process never come to step ``step`` (from 0)."""
    run = loop.Accumulation.run

    def hung(self, at, *about):
        if at == step:
            time.sleep(600)
        return run(self, at, *about)

    loop.Accumulation.run = hung


def stop_itself(step: int) -> None:
    """Send this process SIGTERM in the middle of step ``step`` (from 0)."""
    run = loop.Accumulation.run

    def signalled(self, at, *about):
        if at == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return run(self, at, *about)

    loop.Accumulation.run = signalled


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
