"""One run: how it is built, judged, scored and written down."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finetune import models, recipe
from finetune.core.errors import InputError
from finetune.core.progress import Progress
from finetune.core.randomness import Streams
from finetune.core.run_dir import RunDir
from finetune.core.runtime import open_runtime
from finetune.core.signals import StopRequest
from finetune.evaluate.store import Predictions
from finetune.evaluate.store import read as read_predictions
from finetune.replicas.group import Replica, ReplicaGroup
from finetune.runner.build import count_parameters, to_device
from finetune.runner.resources import Resources
from finetune.runner.run import judge, run, save_model
from finetune.runner.session import Session
from finetune.strategies.base import trained_parameters
from finetune.study.preflight import split_seed
from finetune.tasks.trivial import Trivial
from finetune.train.state import Trained


class Bench:
    """Everything that a run of a recipe is given."""

    def __init__(self, path, folder, *overrides):
        self.resolved = recipe.load(path, overrides)
        self.variant = self.resolved.variants[-1]
        self.recipe = self.variant.recipe
        resources = Resources()
        self.data = resources.data(
            self.recipe, split_seed(self.resolved, self.resolved.variants[0], self.resolved.seeds[0])
        )
        self.base = resources.base(self.recipe.model, self.data.task)
        self.folder = RunDir(folder)
        runtime = open_runtime(*models.processor(self.recipe.model), Progress(), StopRequest(), folder.parent)
        self.runtime = runtime.at("a run", models.choose_dtype(self.recipe.model, runtime.device))

    @property
    def session(self):
        return Session(self.recipe, self.base, self.data, self.runtime)

    def build(self, seed=0):
        built = self.session.build(Streams(seed))
        return built.model, built.strategy

    def run(self, seed=0, other_seeds=None, untuned=None):
        replicas = [Replica(Streams(seed), self.folder)]
        [result] = run(self.variant, replicas, self.session, other_seeds or {}, untuned)
        return result


@pytest.fixture
def bench(topics, tmp_path):
    """bench('train.epochs=2') -> what a run of the last variant, full tuning, is given."""
    return lambda *overrides: Bench(topics, tmp_path / "run", *overrides)


def test_a_run_writes_its_result_last_and_leaves_no_checkpoint(bench):
    made = bench("train.checkpoint_seconds=0")
    result = made.run()
    folder = made.folder
    assert folder.read_result() == result
    assert result["status"] == "finished"
    assert (result["variant"], result["seed"], result["strategy"]) == ("full", 0, "full")
    assert result["digest"] == made.variant.digest
    assert not folder.checkpoints.exists()
    newest = max((path for path in folder.path.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
    assert newest == folder.result


def test_runs_side_by_side_are_the_runs_that_each_would_be_alone(bench, topics, tmp_path):
    made = bench("train.checkpoint_seconds=0")
    replicas = [Replica(Streams(seed), RunDir(tmp_path / f"together-{seed}")) for seed in (0, 1)]
    found = run(made.variant, replicas, made.session, {}, None)
    for replica, result in zip(replicas, found, strict=True):
        alone = made.run(replica.streams.seed)
        assert replica.folder.read_result() == result and not replica.folder.checkpoints.exists()
        same = ("variant", "seed", "status", "digest", "parameters", "identity", "streams")
        assert {name: result[name] for name in same} == {name: alone[name] for name in same}
        assert result["scores"] == pytest.approx(alone["scores"], abs=1e-4)
        counted = ("steps", "examples", "tokens", "best_step", "stopped_early")
        assert {name: result["training"][name] for name in counted} == {
            name: alone["training"][name] for name in counted
        }
        assert (result["training"]["replicas"], alone["training"]["replicas"]) == (2, 1)
        one, other = (read_predictions(folder.predictions("test")) for folder in (replica.folder, made.folder))
        assert one.prediction == other.prediction and np.allclose(one.loss, other.loss, atol=1e-4)
        weights, others = (load_file(folder.model / "model.safetensors") for folder in (replica.folder, made.folder))
        assert weights.keys() == others.keys()
        assert all(torch.allclose(weights[name], others[name], atol=1e-4) for name in weights)
    assert found[0]["scores"] != found[1]["scores"]


def test_scores_come_from_the_prediction_store(bench):
    made = bench()
    result = made.run()
    stored = read_predictions(made.folder.predictions("test"))
    assert result["scores"]["test/accuracy"] == pytest.approx(stored.score.mean())
    assert result["scores"]["test/nll"] == pytest.approx(stored.loss.mean())
    assert stored.prediction == [stored.labels[row] for row in stored.probabilities.argmax(1)]
    assert stored.example.tolist() == list(range(30))


def test_the_saved_model_is_the_one_that_was_scored(bench, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    made = bench()
    made.run()
    folder = made.folder.model
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    stored = read_predictions(made.folder.predictions("test"))
    examples = made.data.held_out["test"].examples
    text = tokenizer.decode(examples[0].inputs["input_ids"], skip_special_tokens=True)
    with torch.inference_mode():
        found = model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0]
    assert np.allclose(found, stored.probabilities[0], atol=1e-5)
    assert [model.config.id2label[number] for number in range(3)] == list(stored.labels) == ["money", "space", "sport"]


def test_validation_picks_the_weights(bench):
    """With a rate that ruins the end of training, the kept weights are those of the best evaluation."""
    made = bench("train={min_steps: 30, evaluations: 15, learning_rate: 0.03, schedule: constant, batch_size: 16}")
    best = made.run()
    assert best["training"]["best_step"] % 2 == 0
    last = bench("train={min_steps: 30, evaluations: 15, learning_rate: 0.03, schedule: constant, keep: last}").run()
    assert last["training"]["best_step"] is None


def test_a_task_without_validation_keeps_the_last_weights(bench):
    made = bench("data.split.validation=0")
    assert made.session.validation(ReplicaGroup(torch.nn.Linear(1, 1))) is None
    assert made.run()["training"]["best_step"] is None
    made = bench("train.evaluations=0")
    assert made.session.validation(ReplicaGroup(torch.nn.Linear(1, 1))) is None


def test_seeds_differ_in_their_heads_and_share_their_base(bench):
    made = bench()
    first, second, again = (dict(made.build(seed)[0].named_parameters()) for seed in (0, 1, 0))
    differing = {name for name in first if not torch.equal(first[name], second[name])}
    assert "classifier.weight" in differing
    assert all(name.startswith(("classifier.", "bert.pooler.")) for name in differing)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_what_is_frozen_is_held_in_the_compute_dtype(bench):
    made = bench("variants.full.strategy={type: partial, last: 1}", "model.dtype=bfloat16")
    model, _ = made.build()
    dtypes = {(value.requires_grad, value.ndim > 1): value.dtype for value in model.parameters()}
    assert dtypes[True, True] == dtypes[True, False] == torch.float32
    assert dtypes[False, True] == torch.bfloat16
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert {value.dtype for norm in norms for value in norm.parameters()} == {torch.float32}
    assert all(buffer.dtype != torch.bfloat16 for buffer in model.buffers())
    assert next(to_device(torch.nn.Linear(2, 2), made.runtime).parameters()).dtype == torch.float32


def test_mitigations_come_before_the_strategy(bench):
    plain = bench().build()[0]
    made = bench("mitigations=[{type: reinit, layers: 1}]", "variants.full.strategy={type: partial, last: 1}")
    model, _ = made.build()
    changed = {
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1 and not torch.equal(parameter, plain.get_parameter(name))
    }
    assert any(".layer.1." in name for name in changed) and not any(".layer.0." in name for name in changed)
    assert not any(".layer.0." in name for name in trained_parameters(model))
    counts = count_parameters(model)
    assert counts["trainable"] == sum(p.numel() for p in trained_parameters(model).values()) < counts["total"]


@pytest.mark.parametrize("strategy", ["linear, solver: steps", "adapter", "partial, last: 1"])
def test_a_mitigation_whose_changes_would_stay_frozen_is_refused(bench, strategy):
    made = bench("mitigations=[{type: reinit, layers: 2}]", f"variants.full.strategy={{type: {strategy}}}")
    with pytest.raises(InputError, match="leaves frozen") as caught:
        made.build()
    assert caught.value.problems[0].path == "mitigations"


def judged(scores, *, mean=1.0, majority=None, untuned=None, metrics=("accuracy",), diverged=None, trivial=None):
    def right(share):
        return np.arange(300) < round(300 * share)

    same = None if majority is None else Trivial("always giving the commonest label", "accuracy", right(majority))
    examples = [SimpleNamespace(reference="B-x O" if number % 2 else "O O") for number in range(300)]
    data = SimpleNamespace(held_out={"test": SimpleNamespace(examples=examples)}, trivial={"test": same})
    data.task = SimpleNamespace(trivial_answers=lambda examples: trivial and [trivial] * 300)
    made = SimpleNamespace(task=SimpleNamespace(metrics=list(metrics)))
    return judge(Trained(diverged, {}), scores, {"test": right(mean)}, data, made, untuned)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ({"scores": {"test/accuracy": 0.4}, "mean": 0.4, "majority": 1 / 3}, "finished", None),
        # 110 of 300: chance alone is so good one time in eight.
        (
            {"scores": {"test/accuracy": 11 / 30}, "mean": 11 / 30, "majority": 1 / 3},
            "degenerate",
            "accuracy 0.367 on 'test'; always giving the commonest label gets 0.333, and so few examples do not show",
        ),
        ({"scores": {}, "mean": 1 / 3, "majority": 1 / 3}, "degenerate", "accuracy 0.333 on 'test'; always"),
        ({"scores": {"test/mcc": 0.0}, "metrics": ["mcc"], "mean": 0.2, "majority": 0.3}, "degenerate", "accuracy 0.2"),
        (
            {"scores": {"test/accuracy": 0.9}, "mean": 0.9, "majority": 0.3, "diverged": "the loss became nan"},
            "diverged",
            "the loss",
        ),
        ({"scores": {"test/rouge_l": 0.3}, "metrics": ["rouge_l"], "untuned": {"test/rouge_l": 0.2}}, "finished", None),
        (
            {"scores": {"test/rouge_l": 0.2}, "metrics": ["rouge_l"], "untuned": {"test/rouge_l": 0.2}},
            "degenerate",
            "rouge_l 0.2 on 'test'; the untuned base model has 0.2",
        ),
        ({"scores": {"test/entity_f1": 0.01}, "metrics": ["entity_f1"], "trivial": "O O"}, "finished", None),
        (
            {"scores": {"test/entity_f1": 0.0}, "metrics": ["entity_f1"], "trivial": "O O"},
            "degenerate",
            "entity_f1 0 on 'test'; answers that take no learning get 0",
        ),
        (
            {"scores": {"test/token_accuracy": 0.75}, "metrics": ["token_accuracy"], "trivial": "O O"},
            "degenerate",
            "token_accuracy 0.75 on 'test'; answers that take no learning get 0.75",
        ),
        ({"scores": {"test/loss": 2.0}, "metrics": ["loss"], "trivial": "O O"}, "finished", None),
        ({"scores": {"test/loss": 1.0}, "metrics": ["loss"], "untuned": {"test/loss": 2.0}}, "finished", None),
        ({"scores": {"test/loss": 2.5}, "metrics": ["loss"], "untuned": {"test/loss": 2.0}}, "degenerate", "loss 2.5"),
    ],
)
def test_how_a_run_is_judged(arguments, status, said):
    found, reason = judged(**arguments)
    assert found == status
    assert reason is None if said is None else reason.startswith(said)


@pytest.mark.parametrize(
    ("share", "status", "said"),
    [
        (0.5, "finished", None),
        (0.97, "degenerate", ", and so few examples do not show that it is less"),
        (1.0, "degenerate", "squared error 1.1"),
        (1.2, "degenerate", "always giving the training mean gets 1.1"),
        (math.nan, "degenerate", "squared error nan"),
    ],
)
def test_numbers_are_held_against_the_mean_by_their_errors(share, status, said):
    """On 60 examples, whose squared errors are ``share`` of the mean's, up to noise."""
    random = np.random.default_rng(0)
    errors = random.chisquare(1, 60)
    errors *= 1.1 / errors.mean()
    own = errors * random.uniform(0.5, 1.5, 60)
    own *= share * 1.1 / own.mean()
    same = Trivial("always giving the training mean", "squared error", errors, higher_is_better=False)
    data = SimpleNamespace(held_out={"test": SimpleNamespace(examples=[])}, trivial={"test": same})
    data.task = SimpleNamespace(trivial_answers=lambda examples: None)
    made = SimpleNamespace(task=SimpleNamespace(metrics=["pearson"]))
    found, reason = judge(Trained(None, {}), {}, {"test": own if share != 1 else errors}, data, made, None)
    assert found == status and (reason is None if said is None else said in reason)


def test_a_score_that_is_no_number_is_left_out(bench, monkeypatch):
    made = bench()
    model, _ = made.build()
    ordinary = made.data.task.predict

    def predict(*arguments):
        found = ordinary(*arguments)
        return [replace(one, loss=math.nan) for one in found]

    monkeypatch.setattr(made.data.task, "predict", predict)
    [(scores, measured, *_)] = made.session.score(ReplicaGroup(model), [made.folder])
    assert set(measured) == {"test"} and 0 <= measured["test"].mean() <= 1
    assert set(scores) == {"test/accuracy", "test/macro_f1", "test/mcc"}
    assert isinstance(read_predictions(made.folder.predictions("test")), Predictions)


def test_a_model_is_saved_whole_or_not_at_all(bench):
    made = bench()
    model, strategy = made.build()
    folder = made.folder.model
    save_model(strategy, model, made.data, folder)
    before = (folder / "model.safetensors").read_bytes()

    def save(model, place):
        place.mkdir(parents=True)
        (place / "model.safetensors").write_bytes(b"half")
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        save_model(SimpleNamespace(save=save), model, made.data, folder)
    assert (folder / "model.safetensors").read_bytes() == before
