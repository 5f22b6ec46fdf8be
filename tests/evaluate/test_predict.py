"""Scoring: one row for each example in its place, whatever the batch size, and nothing random about it."""

import numpy as np
import pytest
import torch

from finetune.core.errors import Interrupted
from finetune.core.examples import Prediction
from finetune.core.progress import Progress
from finetune.core.signals import StopRequest
from finetune.evaluate.metrics import score
from finetune.evaluate.predict import predict, table_of
from finetune.replicas.group import ReplicaGroup
from tests.train import workbench


@pytest.fixture(scope="module")
def topics(encoder_folder):
    return workbench.classification(encoder_folder, dropout=True)


@pytest.fixture(scope="module")
def chat(decoder_folder):
    """With weights large enough that each prompt is answered differently."""
    bench = workbench.chat(decoder_folder)
    with torch.no_grad():
        for weight in bench.base.model.parameters():
            weight.mul_(8 if weight.ndim > 1 else 1)
    return bench


@pytest.fixture
def runtime(tmp_path):
    return workbench.make_runtime(tmp_path)


def table(model, *arguments, **named):
    """What one run says."""
    [found] = predict(ReplicaGroup(model), *arguments, **named)
    return found


@pytest.mark.parametrize("bench", ["topics", "chat"])
def test_batch_size_does_not_change_scores(request, runtime, bench):
    """Padding, and with it the other examples of a batch, must not reach an example's row."""
    bench = request.getfixturevalue(bench)
    model = bench.model()
    one, *others = [table(model, bench.task, bench.examples, size, runtime) for size in (1, 3, 64)]
    for other in others:
        assert other.prediction == one.prediction and other.score.tolist() == one.score.tolist()
        np.testing.assert_allclose(other.loss, one.loss, rtol=1e-5, atol=1e-5)
        if one.probabilities is not None:
            np.testing.assert_allclose(other.probabilities, one.probabilities, atol=1e-6)
        names = bench.task.options.metrics
        assert score(other, names) == pytest.approx(score(one, names), rel=1e-5)
    assert len(set(one.prediction)) > 1, "otherwise any order of rows would pass"


@pytest.mark.parametrize("bench", ["topics", "chat"])
def test_every_row_belongs_to_its_example(request, runtime, bench):
    """Scored one by one, in an order of our own, and held against the table."""
    bench = request.getfixturevalue(bench)
    model = bench.model()
    shuffled = [bench.examples[index] for index in np.random.default_rng(0).permutation(len(bench.examples))]
    found = table(model, bench.task, shuffled, 4, runtime)
    assert found.example.tolist() == [example.number for example in shuffled]
    assert found.reference == [example.reference for example in shuffled]
    assert found.weight.tolist() == [example.weight for example in shuffled]
    for row, example in enumerate(shuffled[:6]):
        alone = table(model, bench.task, [example], 1, runtime)
        assert alone.prediction == [found.prediction[row]] and alone.score[0] == found.score[row]
        assert alone.loss[0] == pytest.approx(found.loss[row], rel=1e-5)


def test_losses_are_those_that_training_minimises(chat, runtime):
    model = chat.model().eval()
    with torch.no_grad():
        expected = chat.task.losses(model, chat.task.collate(chat.examples))
    found = table(model, chat.task, chat.examples, 5, runtime, answers=False)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)
    total = sum(example.weight for example in chat.examples)
    assert score(found, ["loss"])["loss"] == pytest.approx(float(expected.sum()) / total, rel=1e-5)


def test_probabilities_and_scores_of_classes(topics, runtime):
    found = table(topics.model(), topics.task, topics.examples, 8, runtime)
    assert found.labels == topics.task.labels == ("money", "space", "sport")
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-6)
    best = found.probabilities.argmax(1)
    assert found.prediction == [found.labels[index] for index in best]
    right = np.array(found.prediction) == np.array(found.reference)
    assert found.score.tolist() == right.astype(float).tolist()
    assert score(found, ["accuracy", "nll"]) == {
        "accuracy": right.mean(),
        "nll": pytest.approx(found.loss.mean(), rel=1e-6),
    }
    targets = [found.labels.index(reference) for reference in found.reference]
    np.testing.assert_allclose(found.loss, -np.log(found.probabilities[range(len(targets)), targets]), rtol=1e-4)


def test_dropout_is_off_and_no_gradient_is_kept(topics, runtime):
    model = topics.model().train()
    first, second = (table(model, topics.task, topics.examples, 8, runtime).loss.tolist() for _ in range(2))
    assert first == second and not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_longest_come_first_and_alike_in_length(topics, runtime, monkeypatch):
    seen = []
    original = topics.task.predict

    def watch(model, examples, *arguments):
        seen.append([example.length for example in examples])
        return original(model, examples, *arguments)

    monkeypatch.setattr(topics.task, "predict", watch)
    table(topics.model(), topics.task, topics.examples, 7, runtime)
    flat = [length for batch in seen for length in batch]
    assert flat == sorted(flat, reverse=True) and [len(batch) for batch in seen] == [7] * 6 + [6]


def test_without_answers_nothing_is_generated(chat, runtime, monkeypatch):
    model = chat.model()
    with_answers = table(model, chat.task, chat.examples, 8, runtime)
    monkeypatch.setattr(model, "generate", lambda **_: pytest.fail("generated"))
    without = table(model, chat.task, chat.examples, 8, runtime, answers=False)
    assert without.loss.tolist() == with_answers.loss.tolist()


def test_bfloat16_is_used_where_asked_for(topics, tmp_path):
    model = topics.model()
    exact, rough = (
        table(model, topics.task, topics.examples, 8, workbench.make_runtime(tmp_path, dtype)).loss
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(rough, exact, rtol=0.05)


def test_a_request_to_stop_is_heard_between_batches(topics, tmp_path, monkeypatch):
    stop = StopRequest()
    batches = []

    class Told(Progress):
        def step(self, done, note=""):
            batches.append(done)
            stop.requested = done == 2

    runtime = workbench.make_runtime(tmp_path, stop=stop, progress=Told())
    with pytest.raises(Interrupted, match="stopped while scoring"):
        table(topics.model(), topics.task, topics.examples, 8, runtime)
    assert batches == [1, 2]


def test_a_model_whose_likelihoods_are_no_numbers_is_still_scored(topics, runtime):
    """A diverged run counts, so it has to get through."""
    model = topics.model()
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    found = table(model, topics.task, topics.examples, 8, runtime)
    assert np.isnan(found.loss).all() and set(found.prediction) <= set(topics.task.labels)
    assert 0 <= score(found, ["accuracy"])["accuracy"] <= 1


def test_answers_without_likelihoods_have_a_score_and_no_loss(topics):
    said = [Prediction(topics.task.labels[0], None) for _ in topics.held_out]
    found = table_of(topics.task, topics.held_out, said)
    assert found.loss is None and found.probabilities is None and found.margin is None
    assert found.score.tolist() == [float(topics.task.labels[0] == each.reference) for each in topics.held_out]
    with pytest.raises(ValueError, match="loss has 1 rows"):
        table_of(topics.task, topics.held_out, [Prediction("", 1.0), *said[1:]])


def test_where_the_loss_is_the_score_there_has_to_be_one(topics, monkeypatch):
    monkeypatch.setattr(type(topics.task), "example_score", "loss")
    with pytest.raises(ValueError, match="scored by their losses, and there are none"):
        table_of(topics.task, topics.held_out, [Prediction("", None) for _ in topics.held_out])
