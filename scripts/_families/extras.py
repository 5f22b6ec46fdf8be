"""What eight families are tried with besides: preferences, a kill, parts of a batch, two processes, added tokens."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scripts._families import rows
from scripts._families.rows import Differs, recipe, study
from scripts._families.zoo import TOPICS, Family, sentences

OF = ("BERT", "DeBERTa-v2", "Gemma 3", "GPT-2", "Llama", "Mamba", "OPT", "Qwen3-MoE")
NEAR = 1e-4
"""How far apart two weights may lie after so few steps that were summed up in another order."""
MINUTES = 5


def task_of(family: Family) -> str:
    return "classification" if family.kind == "encoder" else "chat"


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "full" / "seed-0" / "model" / "model.safetensors")


def same(one: Path, other: Path, within: float) -> str:
    """Hold two studies' weights against each other."""
    left, right = weights(one), weights(other)
    gap = max(float((left[name] - right[name]).abs().max()) for name in left)
    if left.keys() != right.keys() or not gap <= within:
        raise Differs(f"weights lie {gap:.2g} apart")
    return rows.WORKS


def accumulation(family: Family, folder: Path) -> str:
    """Parts of three examples, against the batch as a whole."""
    model = family.make(folder / "model")
    whole = study(recipe(folder / "whole", task_of(family), ["full"], model))
    return same(study(recipe(folder / "parts", task_of(family), ["full"], model, micro_batch_size=3)), whole, NEAR)


def two_processes(family: Family, folder: Path) -> str:
    """Against one."""
    path = recipe(folder, task_of(family), ["full"], family.make(folder / "model"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [*launcher, "finetune", "run", str(path), "--output", str(folder / "two")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * MINUTES)
    if not (folder / "two" / "study" / "full" / "seed-0" / "model").exists():  # so few steps need not teach anything
        errors = [line for line in done.stderr.splitlines() if "Error" in line] or [f"exit code {done.returncode}"]
        raise Differs(errors[0].strip())
    return same(folder / "two" / "study", study(path), NEAR)


def kill(family: Family, folder: Path) -> str:
    """SIGKILL after the first checkpoints; what goes on is bit by bit what was never interrupted."""
    train = {"max_steps": 40, "checkpoint_seconds": 0.0, "learning_rate": 1e-3}
    path = recipe(folder, task_of(family), ["full"], family.make(folder / "model"), **train)
    command = [sys.executable, "-m", "finetune", "run", str(path), "--output", str(folder / "killed")]
    checkpoints = folder / "killed" / "study" / "full" / "seed-0" / "checkpoints"
    with open(folder / "said", "w") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        until = time.monotonic() + 60 * MINUTES
        while not list(checkpoints.glob("step-0000000[2-9]")) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        ended = process.poll()
        os.kill(process.pid, signal.SIGKILL) if ended is None else None
    if ended is not None:
        raise Differs(f"ended with {ended} before it could be killed")
    went_on = study(path, "killed")
    result = json.loads((went_on / "full" / "seed-0" / "result.json").read_text(encoding="utf-8"))
    if not result["training"]["resumed"]:
        raise Differs("started over instead of going on")
    return same(went_on, study(path), 0)


def added_tokens(family: Family, folder: Path) -> str:
    """A base whose tokenizer and embeddings have grown, on texts with the new words."""
    task = task_of(family)
    path = recipe(folder, task, ["full"], family.make(folder / "model", added=3))
    with open(folder / "data.csv", "w", newline="", encoding="utf-8") as file:
        new = [(f"harbour{number % 3} {text}", topic) for number, (text, topic) in enumerate(sentences(32))]
        csv.writer(file).writerows([("text", "label"), *new])
    rows.compare(path, study(path), "full", task)
    return rows.WORKS


def preference(family: Family, folder: Path) -> str:
    """DPO, by which the chosen answers have to gain on the rejected ones."""
    path = recipe(folder, "chat", ["full"], family.make(folder / "model"), max_steps=12, learning_rate=1e-3)
    with open(folder / "data.csv", "w", newline="", encoding="utf-8") as file:
        worse = [sorted(set(TOPICS) - {topic})[number % 2] for number, (_, topic) in enumerate(sentences(32))]
        pairs = [(*pair, other) for pair, other in zip(sentences(32), worse, strict=True)]
        csv.writer(file).writerows([("text", "label", "worse"), *pairs])
    content = json.loads(path.read_text(encoding="utf-8"))
    content["task"]["rejected"] = "worse"
    content["variants"] = {"full": {"strategy": {"type": "preference", "of": {"type": "full"}}}}
    path.write_text(json.dumps(content), encoding="utf-8")
    done = study(path)
    rows.compare(path, done, "full", "chat")
    log = (done / "full" / "seed-0" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [row["loss"] for row in map(json.loads, log) if row["kind"] == "train"]
    if not sum(losses[-3:]) / 3 < losses[0]:
        raise Differs(f"the loss went from {losses[0]:.4g} to {losses[-3:]}")
    return rows.WORKS


EXTRAS = {
    "preference": preference,
    "kill and resume": kill,
    "accumulation": accumulation,
    "two processes": two_processes,
    "added tokens": added_tokens,
}


def extras_of(family: Family) -> list[str]:
    """Those that could fit."""
    if family.name not in OF:
        return []
    return [name for name in EXTRAS if name != "preference" or family.kind == "decoder"]
