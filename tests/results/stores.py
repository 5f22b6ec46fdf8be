"""What runs of a fabricated study stored, written by hand; and studies in which it says something."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.evaluate.store import Predictions
from finetune.results.compute import results_of
from finetune.results.reading import read_study

TASKS = ("test", "tweets", "mails")
PETS = ("cat", "dog", "fish")
TOPICS = ("sport", "tech", "politics")

SCORES = {1: (0.90, 0.80), 2: (0.91, 0.71), 3: (0.92, 0.62)}
"""Accuracy by seed in domain, where they agree, and out of it, where they do not; drops .1, .2 and .3."""


def read(made):
    """A study as it was read, and its results."""
    study = read_study(made.path)
    return study, results_of(study)


def predict(made, variant, seed, predictions, references=None, task="test", examples=None):
    """Other predictions for a run, in any order of examples."""
    n = len(predictions)
    predictions, references = list(predictions), list(predictions if references is None else references)
    store = Predictions(
        example=np.arange(n) if examples is None else np.asarray(examples),
        prediction=predictions,
        reference=references,
        score=np.array([p == r for p, r in zip(predictions, references, strict=True)], dtype=float),
    )
    path = made.path / variant / f"seed-{seed}" / "predictions" / f"{task}.parquet"
    store.write(path)
    pq.write_table(pq.ParquetFile(path).read().take(np.random.default_rng(seed).permutation(n)), path)


def believe(folder, task, sureness, accuracy, seed=0, n=200, order=None):
    """Predictions that are ``sureness`` sure, and right in that share; rows in the given order.

    Returns what is stored in order of examples: probabilities (n, 3) and the right label's number (n,).
    """
    rng = np.random.default_rng(seed)
    right, hit = rng.integers(3, size=n), rng.random(n) < accuracy
    chosen = np.where(hit, right, (right + rng.integers(1, 3, size=n)) % 3)
    sure = np.clip(sureness + rng.uniform(-0.05, 0.05, size=n), 0.34, 0.999)
    probabilities = np.repeat(((1 - sure) / 2)[:, None], 3, axis=1)
    probabilities[np.arange(n), chosen] = sure
    order = np.arange(n) if order is None else order
    rows = probabilities[order].astype(np.float32)
    table = pa.table(
        {
            "example": order,
            "prediction": [TOPICS[label] for label in chosen[order]],
            "reference": [TOPICS[label] for label in right[order]],
            "score": hit[order].astype(float),
            "probabilities": pa.array(list(rows), pa.list_(pa.float32())),
            "loss": -np.log(probabilities[np.arange(n), right])[order],
            "weight": np.ones(n),
        }
    )
    path = folder / "predictions" / f"{task}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"labels": json.dumps(TOPICS)}), path)
    return probabilities, right


def answer(made, variant, seed, answers, labels=PETS, task="test", scores=None):
    """A run whose ``answers`` are (predicted, true), stored out of order."""
    said, true = zip(*answers, strict=True)
    right = [float(one == other) for one, other in zip(said, true, strict=True)] if scores is None else scores
    folder = made.path / variant / f"seed-{seed}"
    if not (folder / "result.json").exists():
        made.run(variant, seed, 0.5)
    result = json.loads((folder / "result.json").read_text())
    result["scores"][f"{task}/accuracy"] = float(np.nan_to_num(np.mean(right)))
    (folder / "result.json").write_text(json.dumps(result))
    order = np.random.default_rng(seed).permutation(len(said))
    n = len(said)
    columns = {"example": np.arange(n), "prediction": said, "reference": true, "score": right}
    more = {"loss": np.zeros(n), "weight": np.ones(n), "probabilities": pa.nulls(n, pa.list_(pa.float32()))}
    table = (
        pa.table({**columns, **more})
        .take(pa.array(order))
        .replace_schema_metadata({"labels": json.dumps(labels), "key": ""})
    )
    pq.write_table(table, folder / "predictions" / f"{task}.parquet")


def keep(made, inputs, task="test", references=None, clusters=None):
    """The study's own table of what is held out, out of order."""
    n = len(inputs)
    columns = {
        "example": pa.array(range(n), pa.int64()),
        "input": pa.array(inputs, pa.string()),
        "reference": pa.array(references or [None] * n, pa.string()),
        "group": pa.array(clusters or [None] * n, pa.string()),
    }
    path = made.path / "examples" / f"{task}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns).take(pa.array(list(reversed(range(n))))), path)


def lose(made, variant, seed, train, validation, **facts):
    """A finished run of one epoch of two steps after another, with these losses, validated after every epoch."""
    result = made.run(variant, seed, 0.9, facts.pop("status", "finished"))
    result["training"] |= {"steps": len(train), "best_step": None, **facts}
    made.json(f"{variant}/seed-{seed}/result.json", result)
    rows = []
    for step, loss in enumerate(train, start=1):
        row = {"kind": "train", "step": step, "epoch": step / 2, "learning_rate": 1e-4, "gradient_norm": 1.0}
        rows.append({**row, "loss": loss, "tokens": 10, "seconds": 1.0})
        if step % 2 == 0 and validation:
            scores = {"loss": validation[step // 2 - 1]}
            rows.append({"kind": "evaluation", "step": step, "epoch": step / 2, "scores": scores, "seconds": 1.0})
    path = made.path / variant / f"seed-{seed}" / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _score(made, folder, result, tasks, values):
    """Give a run these accuracies."""
    exact = {f"{task}/accuracy": value for task, value in zip(tasks, values, strict=True) if value is not None}
    result["scores"] = {name: v for name, v in result["scores"].items() if "accuracy" not in name} | exact
    made.json(f"{folder}/result.json", result)


@pytest.fixture
def three_sets(fabricator):
    """Six seeds of two variants on three sets, and the base model: full is ahead everywhere."""
    made = fabricator(list(range(1, 7)), {"linear": "linear", "full": "full"}, tasks=TASKS)
    for seed in made.seeds:
        made.run("linear", seed, 0.6)
        made.run("full", seed, 0.9)
    made.base(0.3)
    return made


@pytest.fixture
def alike(fabricator):
    """Three seeds of two variants on two sets, and the base model; all predictions are the same."""
    made = fabricator([1, 2, 3], {"lora": "adapter", "full": "full"}, tasks=("test", "tweets"))
    for variant in made.variants:
        for seed in made.seeds:
            made.run(variant, seed, 0.9)
    made.base(0.3)
    return made


@pytest.fixture
def sure(study):
    """full is overconfident, lora is calibrated, linear has stored no probabilities."""
    for seed in study.seeds:
        believe(study.path / f"full/seed-{seed}", "test", 0.95, 0.7, seed)
        believe(study.path / f"lora/seed-{seed}", "test", 0.8, 0.8, seed)
    return study


@pytest.fixture
def combine(study):
    """combine('lora', 'soup-uniform', accuracy, seeds=[1, 2]): a combination beside the variant's seeds."""

    def write(variant, kind, accuracy, seeds=(1, 2, 3, 4, 5), of=(1, 2, 3, 4, 5), status="finished", reason=None):
        folder = study.path / variant / kind
        rng = np.random.default_rng(17)
        result = study.result(folder, variant, None, "adapter", accuracy, rng, status, reason)
        result |= {"kind": kind, "seeds": list(seeds), "of": list(of)}
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
        return result

    return write


@pytest.fixture
def shifted(fabricator):
    """shifted(tasks, scores): a study of one variant in domain and out of it, and its results."""

    def build(tasks=("test", "tweets"), scores=SCORES, higher=True, base=None):
        made = fabricator(list(scores), {"full": "full"}, tasks=tasks)
        data = made.data()
        for task in data["tasks"]:
            task["split"] = "test" if task["name"] == "test" else "evaluate"
            task["metrics"][0]["higher_is_better"] = higher
        made.json("data.json", data)
        for seed, values in scores.items():
            _score(made, f"full/seed-{seed}", made.run("full", seed, 0.9), tasks, values)
        if base:
            _score(made, "base", made.base(0.5), tasks, base)
        return read(made)

    return build


@pytest.fixture
def pets(fabricator):
    """Two variants of two seeds over five animals: the fish is always a cat, one dog is wrong in one variant."""
    made = fabricator([1, 2], {"full": "full", "lora": "adapter"}, labels=PETS, examples=5)
    true = ["cat", "dog", "dog", "fish", "cat"]
    for seed, said in ((1, ["cat", "dog", "dog", "cat", "cat"]), (2, ["cat", "dog", "dog", "cat", "dog"])):
        answer(made, "full", seed, list(zip(said, true, strict=True)))
    for seed, said in ((1, ["cat", "cat", "dog", "cat", "cat"]), (2, ["cat", "cat", "dog", "dog", "cat"])):
        answer(made, "lora", seed, list(zip(said, true, strict=True)))
    keep(made, ["a cat sat", "one dog", "two dogs", "a fish\n swam", "x" * 300])
    return made


@pytest.fixture
def trained(fabricator):
    """A study of two variants and three seeds, to fill with losses."""
    return fabricator([1, 2, 3], {"full": "full", "lora": "adapter"})
