"""When memory runs out, work goes on in smaller parts, with the same losses; other errors stop it as ever."""

import pytest
import torch

from finetune.core.errors import Interrupted
from finetune.core.memory import out_of_memory
from finetune.core.progress import Progress
from finetune.core.signals import StopRequest
from finetune.evaluate.predict import predict
from finetune.replicas.group import ReplicaGroup
from finetune.strategies.base import train_only, trained_parameters
from finetune.train.loop import train
from finetune.train.meters import read_rows
from tests.train.workbench import fit, furthest, make_runtime, options, replica

ERRORS = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:116] . DefaultCPUAllocator: can't allocate memory: you tried"),
}


class Told(Progress):
    """What a person is told."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def small(model, rows, error=ERRORS["gpu"], backward=False):
    """Memory of ``model`` for so many rows; the list of what it was asked for."""
    asked = []

    def check(count):
        asked.append(count)
        if count > rows:
            raise error

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits):
            return logits.clone()

        @staticmethod
        def backward(ctx, gradient):
            check(len(gradient))
            return gradient

    if backward:
        model.classifier.register_forward_hook(lambda *arguments: Backward.apply(arguments[-1]))
    else:
        model.register_forward_pre_hook(lambda *arguments: check(len(arguments[-1]["input_ids"])), with_kwargs=True)
    return asked


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_training_goes_on_in_smaller_parts_with_the_same_losses(dropout_bench, tmp_path, error, backward):
    """Eight rows do not fit, nor do four: two at once, with the masks of dropout that eight would have had."""
    whole = fit(dropout_bench, tmp_path / "whole", max_steps=5)
    assert whole.trained.facts["part"] is None
    model = dropout_bench.model(0)
    asked = small(model, 3, error, backward)
    found = fit(dropout_bench, tmp_path / "small", model=model, max_steps=5)
    assert asked[:3] == [8, 4, 2] and set(asked[2:]) == {2}, "and it is not tried again"
    assert found.trained.facts["part"] == 2
    assert found.column("loss") == pytest.approx(whole.column("loss"), rel=1e-5)
    assert found.column("tokens") == whole.column("tokens")
    assert furthest(found.weights, whole.weights) < 1e-4


def test_what_half_a_batch_has_left_behind_is_not_counted_twice(topics_bench, tmp_path):
    """The second part of the third step fails, when the first has its gradients already."""
    whole = fit(topics_bench, tmp_path / "whole", max_steps=5)
    model, calls = topics_bench.model(0), []

    def once(*_):
        calls.append(1)
        if len(calls) == 6:
            raise ERRORS["gpu"]

    model.register_forward_pre_hook(once)
    found = fit(topics_bench, tmp_path / "small", model=model, max_steps=5, micro_batch_size=4)
    assert found.trained.facts["part"] == 2
    assert found.column("gradient_norm") == pytest.approx(whole.column("gradient_norm"), rel=1e-4)
    assert furthest(found.weights, whole.weights) < 1e-4


def test_the_size_is_kept_when_the_run_goes_on(topics_bench, tmp_path):
    whole = fit(topics_bench, tmp_path / "whole", max_steps=6)
    asked = []

    class AfterThree(StopRequest):
        requested = property(lambda self: asked.append(1) or len(asked) == 3, lambda self, value: None)

    model = topics_bench.model(0)
    small(model, 4)
    with pytest.raises(Interrupted):
        fit(topics_bench, tmp_path / "parts", model=model, max_steps=6, stop=AfterThree())
    model = topics_bench.model(0)
    asked = small(model, 4)
    found = fit(topics_bench, tmp_path / "parts", model=model, max_steps=6)
    assert set(asked) == {4}, "eight were not tried again"
    assert found.column("loss") == pytest.approx(whole.column("loss"), rel=1e-5)


def test_a_person_is_told(topics_bench, tmp_path):
    told, group = Told(), ReplicaGroup(topics_bench.model(0))
    small(group.model, 5)
    runtime = make_runtime(tmp_path, progress=told)
    train(group, topics_bench.task, topics_bench.examples, options(max_steps=2), [replica(tmp_path)], runtime, None)
    assert told.lines == ["out of memory: going on with parts of 4 examples"]


def test_runs_side_by_side_go_on_too(topics_bench, tmp_path):
    """Three times eight rows do not fit, three times four do."""
    models = [topics_bench.model(seed) for seed in range(3)]
    for model in models:
        train_only(model, {"classifier.weight", "classifier.bias"})
    weights = [{n: p.detach().clone() for n, p in trained_parameters(model).items()} for model in models]
    group = ReplicaGroup.stack(models[0], weights)
    asked = small(group.model, 13)
    replicas = [replica(tmp_path / str(seed), seed) for seed in range(3)]
    train(group, topics_bench.task, topics_bench.examples, options(max_steps=4), replicas, make_runtime(tmp_path), None)
    assert asked[:2] == [24, 12] and set(asked[1:]) == {12}
    for seed, each in enumerate(replicas):
        model = topics_bench.model(seed)
        train_only(model, {"classifier.weight", "classifier.bias"})
        alone = fit(topics_bench, tmp_path / f"alone-{seed}", seed, model=model, max_steps=4)
        assert [row["loss"] for row in read_rows(each.folder.metrics)] == pytest.approx(alone.column("loss"), rel=1e-5)


def test_one_example_that_does_not_fit_is_an_error(topics_bench, tmp_path):
    model = topics_bench.model(0)
    asked = small(model, 0)
    with pytest.raises(torch.OutOfMemoryError):
        fit(topics_bench, tmp_path, model=model)
    assert asked == [8, 4, 2, 1]


@pytest.mark.parametrize("error", [RuntimeError("shapes cannot be multiplied"), ZeroDivisionError("no")], ids=str)
def test_other_errors_are_raised_at_once(topics_bench, tmp_path, error):
    model = topics_bench.model(0)
    asked = small(model, 4, error)
    with pytest.raises(type(error), match=str(error)):
        fit(topics_bench, tmp_path, model=model)
    assert asked == [8] and not out_of_memory(error)


# Scoring


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_scoring_goes_on_in_smaller_batches(topics_bench, tmp_path, error):
    """Fifteen examples in batches of eight, of which three fit."""
    runtime, group = make_runtime(tmp_path), ReplicaGroup(topics_bench.model(0))
    [whole] = predict(group, topics_bench.task, topics_bench.held_out, 8, runtime)
    asked = small(group.model, 3, error)
    [found] = predict(group, topics_bench.task, topics_bench.held_out, 8, runtime)
    assert asked[:3] == [8, 4, 2]
    assert found.prediction == whole.prediction and list(found.example) == list(whole.example)
    assert found.loss == pytest.approx(whole.loss, rel=1e-5)


def test_generating_goes_on_in_smaller_batches(chat_bench, tmp_path):
    runtime, group = make_runtime(tmp_path), ReplicaGroup(chat_bench.model(0))
    [whole] = predict(group, chat_bench.task, chat_bench.held_out, 8, runtime)
    plain, asked = chat_bench.task.generate, []

    def generate(model, examples, device):
        asked.append(len(examples))
        if len(examples) > 3:
            raise ERRORS["gpu"]
        return plain(model, examples, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_bench.task, "generate", generate)
        [found] = predict(group, chat_bench.task, chat_bench.held_out, 8, runtime)
    assert asked[:3] == [8, 4, 2] and found.prediction == whole.prediction


def test_scoring_raises_what_cannot_be_helped(topics_bench, tmp_path):
    runtime = make_runtime(tmp_path)
    for rows, error, wanted in ((0, ERRORS["cpu"], [8, 4, 2, 1]), (3, ValueError("else"), [8])):
        group = ReplicaGroup(topics_bench.model(0))
        asked = small(group.model, rows, error)
        with pytest.raises(type(error)):
            predict(group, topics_bench.task, topics_bench.held_out, 8, runtime)
        assert asked == wanted
