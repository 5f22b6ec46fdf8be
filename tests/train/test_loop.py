"""The training loop on tiny real models: accumulation, seeds, schedule, evaluation, best weights, divergence, facts."""

import gc
import weakref

import numpy as np
import pytest
import torch

from finetune.core.progress import Progress
from finetune.core.randomness import Streams
from finetune.replicas.group import ReplicaGroup
from finetune.train import accumulation, loop
from finetune.train.batching import plan_batches
from finetune.train.dropout import Masks
from finetune.train.loop import train
from finetune.train.meters import read_rows
from finetune.train.schedules import rate_factor
from finetune.train.state import Validation
from tests.train.workbench import fit, furthest, make_runtime, options, replica, same, scores, without_seconds


class Witness(torch.optim.AdamW):
    """AdamW that remembers the gradients it was given at each step."""

    gradients: list

    def step(self, closure=None):
        self.gradients.append([p.grad.clone() for group in self.param_groups for p in group["params"]])
        return super().step(closure)


@pytest.fixture
def gradients(monkeypatch):
    """The gradients of every step, as the optimizer gets them."""
    seen = []
    monkeypatch.setattr(Witness, "gradients", seen, raising=False)
    monkeypatch.setattr(torch.optim, "AdamW", Witness)
    return seen


# Accumulation


@pytest.mark.parametrize("bench", ["topics_bench", "chat_bench"])
@pytest.mark.parametrize("size", [1, 3])
def test_accumulation_changes_neither_loss_nor_gradient(request, tmp_path, gradients, bench, size):
    bench = request.getfixturevalue(bench)
    whole = fit(bench, tmp_path / "whole", max_steps=3, clip=None)
    at_once = list(gradients)
    gradients.clear()
    parts = fit(bench, tmp_path / "parts", max_steps=3, clip=None, micro_batch_size=size)
    np.testing.assert_allclose(parts.column("loss"), whole.column("loss"), rtol=1e-5)
    for together, accumulated in zip(at_once, gradients, strict=True):
        for left, right in zip(together, accumulated, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
    assert furthest(parts.weights, whole.weights) < 1e-4


def test_the_loss_is_the_mean_over_label_tokens_of_the_whole_batch(chat_bench, tmp_path):
    """Not the mean of the parts' means, which would weigh short answers more."""
    weights = [each.weight for each in chat_bench.examples]
    assert len(set(weights)) > 2
    fitted = fit(chat_bench, tmp_path, max_steps=1, learning_rate=1e-12, micro_batch_size=2)
    batch = [chat_bench.examples[index] for index in plan_batches(chat_bench.examples, options(), Streams(0)).batch(0)]
    with torch.no_grad():
        losses = chat_bench.task.losses(chat_bench.model(0).eval(), chat_bench.task.collate(batch))
    expected = float(losses.sum()) / sum(each.weight for each in batch)
    assert fitted.column("loss") == [pytest.approx(expected, rel=1e-5)]
    of_means = np.mean([float(loss) / each.weight for loss, each in zip(losses, batch, strict=True)])
    assert abs(of_means - expected) > 1e-4, "the two differ here, so the test can tell them apart"


# Seeds


def test_the_same_seed_gives_the_same_run_bit_by_bit(dropout_bench, tmp_path):
    first, second = (fit(dropout_bench, tmp_path / name, seed=3, evaluations=2) for name in "ab")
    assert same(first.weights, second.weights)
    assert without_seconds(first.rows) == without_seconds(second.rows)


def test_the_global_random_state_has_no_say(dropout_bench, tmp_path):
    first = fit(dropout_bench, tmp_path / "a", seed=3, max_steps=4)
    torch.manual_seed(999)
    np.random.seed(999)
    assert same(first.weights, fit(dropout_bench, tmp_path / "b", seed=3, max_steps=4).weights)


@pytest.mark.parametrize("stream", ["init", "order", "dropout"])
def test_each_stream_alone_makes_seeds_differ(dropout_bench, tmp_path, stream):
    first, second = (
        fit(dropout_bench, tmp_path / str(seed), streams=Streams(seed, frozenset({stream})), max_steps=4)
        for seed in (1, 2)
    )
    assert not same(first.weights, second.weights)


def test_without_any_stream_that_varies_seeds_are_one_run(dropout_bench, tmp_path):
    first, second = (
        fit(dropout_bench, tmp_path / str(seed), streams=Streams(seed, frozenset()), max_steps=4) for seed in (1, 2)
    )
    assert same(first.weights, second.weights)


def test_dropout_is_drawn_anew_for_every_step_and_example(dropout_bench, tmp_path, monkeypatch):
    """One seed for each of a batch's examples, in every step; how the batch is cut into parts has no say in them."""
    drawn = []

    class Watched(Masks):
        def __init__(self, seeds, positions):
            drawn.extend(seeds[:, 0].tolist())
            super().__init__(seeds, positions)

    monkeypatch.setattr(accumulation, "Masks", Watched)
    fit(dropout_bench, tmp_path / "parts", max_steps=3, micro_batch_size=4)
    in_parts = set(drawn)
    assert len(in_parts) == len(drawn) == 3 * 8
    drawn.clear()
    fit(dropout_bench, tmp_path / "whole", max_steps=3)
    assert set(drawn) == in_parts and len(drawn) == 3 * 8


# Arithmetic, schedule, clipping


def test_training_learns(topics_bench, chat_bench, tmp_path):
    for bench in (topics_bench, chat_bench):
        losses = fit(bench, tmp_path / bench.task.name, max_steps=40, learning_rate=5e-3).column("loss")
        assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_bfloat16_is_close_to_float32_and_keeps_float32_weights(topics_bench, tmp_path):
    exact = fit(topics_bench, tmp_path / "exact", max_steps=6, learning_rate=5e-4)
    rough = fit(topics_bench, tmp_path / "rough", max_steps=6, learning_rate=5e-4, dtype=torch.bfloat16)
    np.testing.assert_allclose(rough.column("loss"), exact.column("loss"), rtol=0.03)
    assert rough.column("loss") != exact.column("loss"), "bfloat16 was really used"
    assert {value.dtype for value in rough.weights.values() if value.is_floating_point()} == {torch.float32}


def test_the_rate_in_the_log_is_the_one_used(topics_bench, tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(loop, "set_rate", lambda optimizer, rate: used.append(rate))
    fitted = fit(topics_bench, tmp_path, max_steps=10, warmup=0.3, schedule="cosine", learning_rate=0.02)
    assert fitted.column("learning_rate") == used == [0.02 * rate_factor(step, 10, 0.3, "cosine") for step in range(10)]


def test_no_gradient_is_longer_than_clip(topics_bench, tmp_path, gradients):
    free = fit(topics_bench, tmp_path / "free", clip=None, max_steps=4).column("gradient_norm")
    limit = min(free) / 2
    gradients.clear()
    clipped = fit(topics_bench, tmp_path / "clipped", clip=limit, max_steps=4)
    norms = [float(torch.cat([each.flatten() for each in step]).norm()) for step in gradients]
    assert len(norms) == 4 and all(0.99 * limit < norm <= limit for norm in norms)
    assert min(clipped.column("gradient_norm")) > limit, "the log has the norm as it was found"


def test_a_gradient_under_clip_is_left_alone(topics_bench, tmp_path, gradients):
    fit(topics_bench, tmp_path / "free", clip=None, max_steps=2)
    free = list(gradients)
    gradients.clear()
    fit(topics_bench, tmp_path / "clipped", clip=1e6, max_steps=2)
    assert all(
        torch.equal(a, b) for left, right in zip(free, gradients, strict=True) for a, b in zip(left, right, strict=True)
    )


def test_weights_stored_transposed_are_clipped_and_restored_too(topics_bench, tmp_path):
    plain = fit(topics_bench, tmp_path / "plain", clip=0.05, evaluations=4)
    model = topics_bench.model()
    weight = model.classifier.weight
    weight.data = weight.data.T.contiguous().T
    turned = fit(topics_bench, tmp_path / "turned", model=model, clip=0.05, evaluations=4)
    assert turned.column("loss") == pytest.approx(plain.column("loss"), rel=1e-5)
    assert furthest(turned.weights, plain.weights) < 1e-5


def test_parts_that_are_frozen_do_not_drop_out(dropout_bench, tmp_path):
    """A probe over frozen features sees the same features in training as in scoring."""
    model = dropout_bench.model()
    model.bert.requires_grad_(False)
    modes = []
    model.bert.register_forward_hook(lambda module, *_: modes.append((module.training, model.dropout.training)))
    before = {name: value.clone() for name, value in model.bert.state_dict().items()}
    fit(dropout_bench, tmp_path, model=model, max_steps=3)
    assert modes == [(False, True)] * 3
    assert same(before, model.bert.state_dict())


# Evaluation, best weights, early stopping


def test_evaluation_during_training_does_not_change_training(dropout_bench, tmp_path):
    never = fit(dropout_bench, tmp_path / "never", evaluations=0, keep="last")
    often = fit(dropout_bench, tmp_path / "often", evaluations=5, keep="last")
    assert same(never.weights, often.weights)
    assert never.column("loss") == often.column("loss")


@pytest.mark.parametrize("evaluations, steps", [(1, [12]), (2, [6, 12]), (5, [2, 5, 7, 10, 12]), (50, [*range(1, 13)])])
def test_evaluations_are_spread_evenly_and_the_last_is_at_the_end(topics_bench, tmp_path, evaluations, steps):
    fitted = fit(topics_bench, tmp_path, evaluations=evaluations)
    assert fitted.column("step", "evaluation") == steps


def overfitting(bench, folder, **changes):
    """A run whose validation loss rises again."""
    return fit(bench, folder, learning_rate=0.02, max_steps=30, schedule="constant", evaluations=15, **changes)


def test_the_weights_that_are_kept_are_those_that_scored_best(topics_bench, tmp_path):
    fitted = overfitting(topics_bench, tmp_path)
    losses = [row["loss"] for row in fitted.column("scores", "evaluation")]
    best = int(np.argmin(losses))
    assert best < len(losses) - 1, "otherwise best and last are the same"
    assert fitted.trained.facts["best_step"] == fitted.column("step", "evaluation")[best]
    assert scores(topics_bench, ReplicaGroup(fitted.model), make_runtime(tmp_path))[0]["loss"] == losses[best]


def test_the_last_weights_are_kept_when_asked_for(topics_bench, tmp_path):
    fitted = overfitting(topics_bench, tmp_path, keep="last")
    last = fitted.column("scores", "evaluation")[-1]["loss"]
    assert scores(topics_bench, ReplicaGroup(fitted.model), make_runtime(tmp_path))[0]["loss"] == last
    assert fitted.trained.facts["best_step"] is None and fitted.trained.facts["steps"] == 30


def test_the_metric_that_selects_decides(topics_bench, tmp_path):
    fitted = overfitting(topics_bench, tmp_path, select="accuracy")
    accuracies = [row["accuracy"] for row in fitted.column("scores", "evaluation")]
    assert fitted.trained.facts["best_step"] == fitted.column("step", "evaluation")[int(np.argmax(accuracies))]
    assert scores(topics_bench, ReplicaGroup(fitted.model), make_runtime(tmp_path))[0]["accuracy"] == max(accuracies)


def test_early_stopping_stops_and_keeps_the_best(topics_bench, tmp_path):
    fitted = overfitting(topics_bench, tmp_path, early_stopping={"patience": 2})
    losses = [row["loss"] for row in fitted.column("scores", "evaluation")]
    facts = fitted.trained.facts
    assert facts["stopped_early"] and facts["steps"] < 30
    assert len(losses) == int(np.argmin(losses)) + 3, "two evaluations after the best one"
    assert scores(topics_bench, ReplicaGroup(fitted.model), make_runtime(tmp_path))[0]["loss"] == min(losses)


# Divergence


class Breaking:
    """A task whose loss is no number in one forward pass."""

    def __init__(self, task, forward):
        self.task, self.left = task, forward

    def __getattr__(self, name):
        return getattr(self.task, name)

    def losses(self, model, batch):
        self.left -= 1
        return self.task.losses(model, batch) * (float("nan") if self.left == 0 else 1.0)


def test_a_loss_that_is_no_number_ends_training_before_it_reaches_the_weights(topics_bench, tmp_path):
    """The third batch brings it; the second step's weights are kept."""
    fine, model = fit(topics_bench, tmp_path / "fine"), topics_bench.model()
    runtime, task = make_runtime(tmp_path / "broken"), Breaking(topics_bench.task, 3)
    [trained] = train(
        ReplicaGroup(model), task, topics_bench.examples, options(), [replica(tmp_path / "broken")], runtime, None
    )
    assert trained.diverged == "the loss became nan at step 3" and trained.facts["steps"] == 2
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
    assert not same(model.state_dict(), topics_bench.model().state_dict()), "two steps were taken"
    rows = read_rows(tmp_path / "broken" / "metrics.jsonl")
    assert [row["loss"] for row in rows] == [*fine.column("loss")[:2], None]
    assert rows[-1]["step"] == 3 and rows[-1]["gradient_norm"] is None


def test_a_huge_learning_rate_diverges_with_a_reason_and_finite_weights(topics_bench, tmp_path):
    fitted = fit(topics_bench, tmp_path, learning_rate=1e30, warmup=0.0, clip=None, evaluations=3)
    assert "at step 2" in fitted.trained.diverged
    assert all(bool(torch.isfinite(value).all()) for value in fitted.weights.values())
    assert fitted.rows[-1]["step"] == 2


def test_an_exploding_loss_ends_training(chat_bench, tmp_path):
    fitted = fit(
        chat_bench,
        tmp_path,
        max_steps=60,
        learning_rate=3.0,
        clip=None,
        divergence={"window": 5, "explode_factor": 2.0},
    )
    assert "the loss exploded" in fitted.trained.diverged and fitted.trained.facts["steps"] < 60


def test_a_diverged_run_is_not_given_its_best_weights_back(topics_bench, tmp_path):
    """What is scored has to be what training came to; the report counts it as failed."""
    outcomes = []
    for keep in ("best", "last"):
        scripted = iter([1.0, 2.0, 3.0])
        validation = Validation(lambda scores=scripted: [{"loss": next(scores)}], "loss", False)
        model, task = topics_bench.model(), Breaking(topics_bench.task, 6)
        chosen, runtime = options(evaluations=6, keep=keep), make_runtime(tmp_path / keep)
        [trained] = train(
            ReplicaGroup(model), task, topics_bench.examples, chosen, [replica(tmp_path / keep)], runtime, validation
        )
        assert trained.diverged and trained.facts["best_step"] is None
        outcomes.append(model.state_dict())
    assert same(*outcomes)


# Facts and log


def test_the_log_has_the_documented_rows(topics_bench, tmp_path):
    fitted = fit(topics_bench, tmp_path, max_steps=12, evaluations=2)
    training, evaluation = ([row for row in fitted.rows if row["kind"] == kind] for kind in ("train", "evaluation"))
    assert [set(row) for row in training] == [
        {"kind", "step", "epoch", "loss", "learning_rate", "gradient_norm", "tokens", "seconds"}
    ] * 12
    assert [set(row) for row in evaluation] == [{"kind", "step", "epoch", "scores", "seconds"}] * 2
    assert [row["step"] for row in training] == [*range(1, 13)]
    assert training[5]["epoch"] == evaluation[0]["epoch"] == 1.0, "48 examples in batches of 8"
    assert set(evaluation[0]["scores"]) == {"loss", "accuracy"}
    seconds = [row["seconds"] for row in fitted.rows]
    assert seconds == sorted(seconds)


def test_a_long_run_logs_about_a_thousand_steps(topics_bench, tmp_path):
    rows = fit(
        topics_bench,
        tmp_path,
        max_steps=2500,
        batch_size=1,
        epochs=1000.0,
        divergence={"window": 1, "explode_factor": 1.01},
    )
    assert rows.trained.diverged
    steps = rows.column("step")
    assert steps[0] == 1 and all(step % 2 == 0 for step in steps[1:-1])


def test_tokens_padding_and_examples_are_counted(topics_bench, tmp_path):
    fitted = fit(topics_bench, tmp_path, max_steps=9, micro_batch_size=3, length_window=1)
    lengths = np.array([each.length for each in topics_bench.examples])
    plan = plan_batches(topics_bench.examples, options(length_window=1), Streams(0))
    batches = [plan.batch(step) for step in range(9)]
    facts = fitted.trained.facts
    assert facts["examples"] == 72 and facts["steps"] == 9 and facts["epochs"] == 1.5
    assert facts["tokens"] == sum(lengths[batch].sum() for batch in batches) == fitted.column("tokens")[-1]
    parts = [part for batch in batches for part in np.array_split(np.sort(lengths[batch]), 3)]
    rectangles = sum(len(part) * part.max() for part in parts)
    assert facts["padding"] == pytest.approx(1 - facts["tokens"] / rectangles, abs=1e-4) and facts["padding"] > 0
    assert facts["tokens_per_second"] > 0 and facts["resumed"] == 0 and not facts["stopped_early"]


def test_the_progress_line_is_told_every_step(topics_bench, tmp_path):
    class Told(Progress):
        steps, notes, begun = [], [], []

        def start(self, title, steps):
            self.begun.append((title, steps))

        def step(self, done, note=""):
            self.steps.append(done)
            self.notes.append(note)

    runtime = make_runtime(tmp_path, progress=Told(), title="full, seed 0")
    train(
        ReplicaGroup(topics_bench.model()),
        topics_bench.task,
        topics_bench.examples,
        options(max_steps=3),
        [replica(tmp_path)],
        runtime,
        None,
    )
    assert Told.begun == [("full, seed 0", 3)] and Told.steps == [0, 1, 2, 3]
    assert Told.notes[-1].startswith("loss ") and Told.notes[-1].endswith(" tokens/s")


def test_a_trained_model_is_let_go(topics_bench, tmp_path):
    """The accelerator, which serves all runs of a study, must not keep each run's model and optimizer."""
    runtime = make_runtime(tmp_path)
    model = topics_bench.model()
    train(
        ReplicaGroup(model),
        topics_bench.task,
        topics_bench.examples,
        options(max_steps=1),
        [replica(tmp_path)],
        runtime,
        None,
    )
    left = weakref.ref(model)
    del model
    gc.collect()
    assert left() is None


def test_without_validation_nothing_is_selected(topics_bench, tmp_path):
    runtime = make_runtime(tmp_path)
    few = options(evaluations=3, max_steps=3)
    [trained] = train(
        ReplicaGroup(topics_bench.model()),
        topics_bench.task,
        topics_bench.examples,
        few,
        [replica(tmp_path)],
        runtime,
        None,
    )
    assert trained.facts["best_step"] is None and trained.diverged is None


def test_a_validation_that_never_gives_a_number_keeps_the_last_weights(topics_bench, tmp_path):
    validation = Validation(lambda: [{"loss": float("nan")}], "loss", False)
    runtime = make_runtime(tmp_path)
    few = options(evaluations=3, max_steps=3)
    arguments = (topics_bench.task, topics_bench.examples, few, [replica(tmp_path)], runtime)
    model = topics_bench.model()
    [trained] = train(ReplicaGroup(model), *arguments, validation)
    assert trained.facts["best_step"] is None
    assert same(model.state_dict(), fit(topics_bench, tmp_path / "b", max_steps=3).weights)


def test_one_example_is_enough(topics_bench, tmp_path):
    runtime = make_runtime(tmp_path)
    [trained] = train(
        ReplicaGroup(topics_bench.model()),
        topics_bench.task,
        topics_bench.examples[:1],
        options(max_steps=2),
        [replica(tmp_path)],
        runtime,
        None,
    )
    assert trained.facts["examples"] == 2 and trained.facts["epochs"] == 2.0
