"""One measurement: the processes a contestant runs, and the figures, memory and score that come of them."""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts._benchmark import jobs, ours
from scripts._benchmark.corpus import Corpus, write_rows
from scripts._benchmark.jobs import Case, Contestant
from scripts._benchmark.measure import Spent, run_fresh

T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 15: 2.131}
"""Student's t, two-sided 95 %, by degrees of freedom; for as many seeds as the cases have."""

Measurement = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
"""Of the checkout, whose code is measured."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""For everybody: all that is needed is here, and looking on the hub first would cost a peer time."""


def environment(folder: Path) -> dict[str, str]:
    """Variables of a measured process: caches of its own, so that nobody finds what a former round has left there."""
    cache = folder / "cache"
    ours = {"FINETUNE_CACHE": str(cache / "finetune"), "XDG_CACHE_HOME": str(cache)}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**OFFLINE, **ours, "HF_HOME": str(cache / "huggingface"), "PYTHONPATH": path}


@dataclass
class Workshop:
    """A temporary folder with the models and examples, and a fresh place for each measurement."""

    folder: Path
    corpus: Corpus
    limit: float | None = None
    """Seconds after which a program is given up."""

    def prepare(self) -> dict[str, Any]:
        """Write the model folders; returns what this machine is."""
        models = self.folder / "models"
        models.mkdir(parents=True)
        return self.program("prepare", {"folder": str(models)}, self.folder)[0]

    def model(self, case: Case) -> Path:
        return self.folder / "models" / ("smollm2" if case.job == "b" else "minilm")

    def data(self, case: Case, folder: Path) -> tuple[Path, Path]:
        """The case's training and held-out examples, as files in ``folder``."""
        if case.job == "b":
            train, held_out = self.corpus.gsm8k("train", case.examples), self.corpus.gsm8k("test", case.held_out)
        elif case.job == "e":
            # Scored here are the training pairs, of which there are enough; the classifier learnt from the others.
            train, held_out = self.corpus.rte("val", 64), self.corpus.rte("train", case.held_out)
        elif case.job == "f":
            train, held_out = self.corpus.bbc("train", case.examples), self.corpus.bbc("test", case.held_out)
        else:
            train, held_out = self.corpus.rte("train", case.examples), self.corpus.rte("val", case.held_out)
        return write_rows(folder / "train.jsonl", train), write_rows(folder / "held_out.jsonl", held_out)

    def program(self, name: str, spec: dict[str, Any], folder: Path) -> tuple[dict[str, Any], Spent]:
        """Run one of programs/ in a fresh process."""
        asked, told = folder / f"{name}-spec.json", folder / f"{name}-result.json"
        own = {**spec, "settings": dict(spec.get("settings", {}))}
        threads = own["settings"].pop(jobs.THREADS, None)
        asked.write_text(json.dumps(own), encoding="utf-8")
        module = f"scripts._benchmark.programs.{name}"
        command = [sys.executable, "-m", module, str(asked), str(told)]
        variables = environment(folder) | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
        spent = run_fresh(command, folder / f"{name}.log", variables, limit=self.limit)
        return json.loads(told.read_text(encoding="utf-8")), spent

    def tuned(self) -> Path:
        """A full-tuned MiniLM for the contestants of job e, made once."""
        place = self.folder / "tuned"
        if not place.exists():
            case = Case("e", "tuning", "seconds", jobs.OURS, held_out=64)
            train, held_out = self.data(case, place / "data")
            recipe = ours.recipe(case, [0], self.model(case), train, held_out, save_model=True)
            path = ours.write_recipe(place, recipe)
            run_fresh(
                [*ours.command(), "run", str(path), "--output", str(place)], place / "log", environment(place), ours.RAN
            )
        return next((place / "study").glob("*/seed-0/model"))


def measure(case: Case, contestant: Contestant, number: int, shop: Workshop) -> Measurement:
    """Let one contestant do the work of a case once, in round ``number``. Raises :class:`~.measure.Failed`."""
    folder = shop.folder / "now"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if case.job == "d":
        return _start_up(case, number, shop, folder)
    if case.job == "e":
        return _scoring(case, contestant, shop, folder)
    seeds = list(range(case.seeds)) if case.seeds > 1 else [number]
    do: Callable[..., Measurement] = _study if contestant.program == "finetune" else _peer_study
    return do(case, contestant, seeds, shop, folder)


def _study(case: Case, contestant: Contestant, seeds: list[int], shop: Workshop, folder: Path) -> Measurement:
    """Ours: one `finetune run` for all seeds."""
    train, held_out = shop.data(case, folder)
    recipe = ours.recipe(case, seeds, shop.model(case), train, held_out, save_model=case.job == "b")
    path = ours.write_recipe(folder, recipe)
    overrides = [f"{name}={value}" for name, value in contestant.settings.items()]
    command = [*ours.command(), "run", str(path), *overrides, "--output", str(folder)]
    spent = run_fresh(command, folder / "finetune.log", environment(folder), ours.RAN)
    runs = ours.read_study(folder / "study")
    trained = [run["training"] for run in runs]
    # What is solved has seen each example once, and is done with it.
    _same_work(case, [training["examples"] * (case.epochs if "solved" in training else 1) for training in trained])
    machine = json.loads((folder / "study" / "environment.json").read_text(encoding="utf-8"))
    on_gpu = "cuda" in machine["device"]
    score = (
        _answers(case, shop, folder, next((folder / "study").glob("*/seed-*/model")))
        if case.job == "b"
        else _accuracy([run["scores"]["test/accuracy"] for run in runs], case.held_out)
    )
    return {
        "figures": {
            "tokens_per_second": statistics.mean(training["tokens_per_second"] for training in trained),
            "seconds": spent.seconds,
            "seconds_after_start": spent.ended - ours.began_training(folder / "study"),
        },
        "peak_memory_bytes": spent.peak_memory_bytes,
        "device_memory_bytes": max(run["peak_memory_bytes"] for run in runs) if on_gpu else None,
        "score": score,
        "facts": {
            "training": trained,
            "phases": [run["phases"] for run in runs],
            "trainable": runs[0]["parameters"]["trainable"],
            "dtype": machine["dtype"],
            "dtype_reason": machine["dtype_reason"],
        },
    }


def _peer_study(case: Case, contestant: Contestant, seeds: list[int], shop: Workshop, folder: Path) -> Measurement:
    """A peer: its script once for each seed, one after the other."""
    train, held_out = shop.data(case, folder)
    runs, costs = [], []
    for seed in seeds:
        if case.job == "f":
            train = _own_draw(case, seed, shop, folder)
        spec = peer_spec(case, contestant, seed, shop.model(case), train, held_out, folder / f"seed-{seed}")
        found, spent = shop.program(contestant.program, spec, folder)
        runs.append(found)
        costs.append(spent)
    _same_work(case, [run["examples"] for run in runs])
    score = (
        _answers(case, shop, folder, Path(runs[0]["adapter"]))
        if case.job == "b"
        else _accuracy([run["accuracy"] for run in runs], case.held_out)
    )
    on_device = [run["device_memory_bytes"] for run in runs if run["device_memory_bytes"] is not None]
    return {
        "figures": {
            **_rate(runs),
            "seconds": sum(spent.seconds for spent in costs),
            "seconds_after_start": sum(run["seconds_after_start"] for run in runs),
        },
        "peak_memory_bytes": max(spent.peak_memory_bytes for spent in costs),
        "device_memory_bytes": max(on_device, default=None),
        "score": score,
        "facts": {"runs": runs},
    }


def _own_draw(case: Case, seed: int, shop: Workshop, folder: Path) -> Path:
    """The examples that our run under ``seed`` draws out of the pool, as a file."""
    pool, held_out = folder / "train.jsonl", folder / "held_out.jsonl"
    path = ours.write_recipe(folder, ours.recipe(case, [seed], shop.model(case), pool, held_out))
    return write_rows(folder / f"drawn-{seed}.jsonl", ours.drawn(path, seed))


def peer_spec(
    case: Case, contestant: Contestant, seed: int, model: Path, train: Path, held_out: Path, output: Path
) -> dict[str, Any]:
    """What a peer's script is told: the same work as our recipe says, and the contestant's own settings."""
    chat = case.job == "b"
    return {
        "model": str(model),
        "train": str(train),
        "held_out": str(held_out),
        "output": str(output),
        "strategy": case.strategy,
        "rank": jobs.RANK,
        "alpha": jobs.ALPHA,
        "last_blocks": jobs.LAST_BLOCKS,
        "epochs": case.epochs,
        "batch": jobs.CHAT_BATCH if chat else jobs.BATCH,
        "max_length": {"b": jobs.CHAT_MAX_LENGTH, "f": jobs.FEW_MAX_LENGTH}.get(case.job, jobs.MAX_LENGTH),
        "learning_rate": case.learning_rate,
        "warmup": jobs.WARMUP,
        "weight_decay": jobs.WEIGHT_DECAY,
        "seed": seed,
        "settings": contestant.settings,
    }


def _rate(runs: list[dict[str, Any]]) -> dict[str, float]:
    """The mean tokens per second, where a peer's script counts tokens."""
    rates = [run["tokens"] / run["training_seconds"] for run in runs if "tokens" in run]
    return {"tokens_per_second": statistics.mean(rates)} if rates else {}


def _same_work(case: Case, trained: list[int]) -> None:
    """Whoever learns from fewer examples would seem faster, or slower."""
    if set(trained) != {case.examples * case.epochs}:
        raise RuntimeError(f"trained on {trained} examples where {case.examples * case.epochs} were asked for")


def _answers(case: Case, shop: Workshop, folder: Path, adapter: Path) -> dict[str, Any]:
    spec = {"model": str(shop.model(case)), "adapter": str(adapter), "held_out": str(folder / "held_out.jsonl")}
    return shop.program("answers", spec, folder)[0]["score"]


def _accuracy(values: list[float], held_out: int) -> dict[str, Any]:
    """The mean; with a 95 % interval over the seeds (Student's t), or over the examples of one seed (Wilson)."""
    mean = statistics.mean(values)
    if len(values) == 1:
        low, high = wilson(mean, held_out)
    else:
        half = T_975[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
        low, high = mean - half, mean + half
    return {"name": "accuracy", "value": mean, "low": low, "high": high, "values": values}


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def _start_up(case: Case, number: int, shop: Workshop, folder: Path) -> Measurement:
    """`finetune --help`, or `finetune check` of a recipe that has never been seen, or seen once."""
    command, log = [*ours.command(), "--help"], folder / "log"
    caches = environment(folder)
    if "check" in case.name:
        train, held_out = shop.data(case, folder / f"round-{number}")
        recipe = ours.recipe(case, range(5), shop.model(case), train, held_out)
        command = [*ours.command(), "check", str(ours.write_recipe(folder, recipe))]
        if "again" in case.name:
            run_fresh(command, log, caches)
    spent = run_fresh(command, log, caches)
    return {
        "figures": {"seconds": spent.seconds},
        "peak_memory_bytes": spent.peak_memory_bytes,
        "device_memory_bytes": None,
        "score": None,
        "facts": {"command": command[len(ours.command()) :]},
    }


def _scoring(case: Case, contestant: Contestant, shop: Workshop, folder: Path) -> Measurement:
    """From texts to labels with a classifier that is loaded already."""
    train, held_out = shop.data(case, folder)
    recipe = ours.recipe(case, [0], shop.model(case), train, held_out)
    spec = {
        "program": contestant.program,
        "recipe": str(ours.write_recipe(folder, recipe)),
        "tuned": str(shop.tuned()),
        "held_out": str(held_out),
        "output": str(folder),
        "max_length": jobs.MAX_LENGTH,
        "settings": contestant.settings,
    }
    found, spent = shop.program("scoring", spec, folder)
    return {
        "figures": {"examples_per_second": found["examples"] / found["scoring_seconds"], "seconds": spent.seconds},
        "peak_memory_bytes": spent.peak_memory_bytes,
        "device_memory_bytes": found["device_memory_bytes"],
        "score": _accuracy([found["accuracy"]], found["held_out"]),
        "facts": found,
    }
