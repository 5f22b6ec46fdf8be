"""Scores sentence pairs with a tuned classifier: from texts to labels, the model being loaded already."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.models import processor
from scripts._benchmark.corpus import LABELS, Row, read_rows
from scripts._benchmark.programs import Facts, answer, device_memory_bytes

Scorer = Callable[[], list[str]]
"""Scores all pairs once; what loads has been done."""


def run(spec: Facts) -> Facts:
    """Load, then score once; the clock runs from the texts to the labels."""
    began = time.perf_counter()
    rows = read_rows(spec["held_out"])
    score = {"finetune": ours, "pipeline": pipeline, "trainer": trainer}[spec["program"]](spec, rows)
    ready = time.perf_counter()
    labels = score()
    seconds = time.perf_counter() - ready
    right = sum(label == row["label"] for label, row in zip(labels, rows, strict=True))
    return {
        "seconds_of_start": ready - began,
        "scoring_seconds": seconds,
        "examples": len(rows),
        "accuracy": right / len(rows),
        "held_out": len(rows),
        "labels": "".join(str(LABELS.index(label)) for label in labels),
        "device_memory_bytes": device_memory_bytes(),
    }


def ours(spec: Facts, rows: list[Row]) -> Scorer:
    """The path on which `finetune run` scores a held-out task, at its defaults."""
    from datasets import Dataset

    from finetune import recipe as recipes
    from finetune.core.progress import Progress
    from finetune.core.runtime import make_deterministic, open_runtime
    from finetune.core.signals import StopRequest
    from finetune.evaluate.predict import predict
    from finetune.models import ModelOptions, load_base
    from finetune.replicas.group import ReplicaGroup
    from finetune.runner.build import to_device
    from finetune.runner.resources import Resources

    [variant] = recipes.load(Path(spec["recipe"])).variants
    recipe = variant.recipe
    runtime = open_runtime(*processor(recipe.model), Progress(), StopRequest(), Path(spec["output"]) / "cache")
    make_deterministic(recipe.train.deterministic)
    task = Resources().data(recipe, recipe.data.split.seed).task
    base = load_base(ModelOptions(source=spec["tuned"]), task.architecture, **task.model_config())
    group = ReplicaGroup(to_device(base.model, runtime))
    data = Dataset.from_list([{**row, "example": number} for number, row in enumerate(rows)])

    def score() -> list[str]:
        examples = task.encode(data, "data.test", training=False).examples
        [found] = predict(group, task, examples, recipe.scoring.batch_size, runtime)
        return found.prediction

    return score


def pipeline(spec: Facts, rows: list[Row]) -> Scorer:
    """transformers.pipeline. `sorted`: the caller sorts by length, which the pipeline does not."""
    from transformers import pipeline

    settings = dict(spec["settings"])
    by_length = settings.pop("sorted", False)
    classify = pipeline("text-classification", model=spec["tuned"], **settings)
    pairs = [{"text": row["sentence1"], "text_pair": row["sentence2"]} for row in rows]

    def score() -> list[str]:
        order = list(range(len(pairs)))
        if by_length:
            order.sort(key=lambda number: -sum(map(len, pairs[number].values())))
        found = classify([pairs[number] for number in order], truncation=True, max_length=spec["max_length"])
        labels = {number: entry["label"] for number, entry in zip(order, found, strict=True)}
        return [labels[number] for number in range(len(pairs))]

    return score


def trainer(spec: Facts, rows: list[Row]) -> Scorer:
    """transformers.Trainer.predict."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    from scripts._benchmark.programs.trainer import encode

    tokenizer = AutoTokenizer.from_pretrained(spec["tuned"])
    model = AutoModelForSequenceClassification.from_pretrained(spec["tuned"])
    scratch = tempfile.mkdtemp(dir=spec["output"])
    cpu = not torch.cuda.is_available()
    arguments = TrainingArguments(scratch, use_cpu=cpu, report_to="none", disable_tqdm=True, **spec["settings"])
    scorer = Trainer(model=model, args=arguments, processing_class=tokenizer)

    def score() -> list[str]:
        found: Any = scorer.predict(encode(spec["held_out"], tokenizer, spec["max_length"])).predictions
        return [LABELS[number] for number in found.argmax(-1)]

    return score


if __name__ == "__main__":
    answer(run)
