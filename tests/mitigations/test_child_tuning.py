"""Child-Tuning: the right weights learn, the right share of them, and the others stay."""

import pytest
import torch

from finetune.core.errors import InputError
from tests.examples import Example
from tests.mitigations.part import Part, make
from tests.replicas.groups import Variant

EXAMPLES = {
    "child-tuning": Example({"fisher_examples": 8}),
    "child-tuning/free": Example({"mode": "F"}),
}

BLOCKS = "bert.encoder.layer."
FREE = frozenset({"classifier.weight", "classifier.bias"})


def variant(folder, model, mitigations, strategy="full", **train):
    return Variant.of(
        folder,
        model,
        "classification",
        {"type": strategy, **({"solver": "steps"} if strategy == "linear" else {})},
        mitigations,
        learning_rate=0.01,
        **train,
    )


def fitted(tmp_path, model, *mitigations, seeds=(0,), **train):
    """The runs' starting weights, and what came of them."""
    this = variant(tmp_path / str(len(list(tmp_path.iterdir()))), model, mitigations, **train)
    group = this.assembled(seeds)
    starts = []
    for number in range(len(seeds)):
        with group.alone(number) as alone:
            starts.append({name: value.detach().clone() for name, value in alone.named_parameters()})
    return list(zip(starts, this.run(seeds, "run"), strict=True))


@pytest.fixture
def part(topics_bench):
    """Mode F, with gradients of one."""

    def at(step=0, **options):
        made = Part(topics_bench, make("child-tuning", mode="F", **options), fresh=FREE)
        for value in made.model.parameters():
            value.grad = torch.ones_like(value)
        made.training_state.step = step
        made.mitigation.gradients()
        return {name: value.grad for name, value in made.model.named_parameters()}

    return at


# F


def test_with_everything_reserved_f_is_plain_training(tmp_path, encoder_folder, monkeypatch):
    monkeypatch.setattr("finetune.replicas.group.FEW", 0.0)  # the same sums in both: of all rows
    free = {"type": "child-tuning", "mode": "F", "reserve": 1.0}
    [(_, plain)], [(_, whole)] = fitted(tmp_path, encoder_folder), fitted(tmp_path, encoder_folder, free)
    assert plain.losses == whole.losses and plain.norms == whole.norms
    assert all(torch.equal(value, whole.weights[name]) for name, value in plain.weights.items())


@pytest.mark.parametrize("reserve", [0.3, 0.7])
def test_f_masks_the_gradients_of_pretrained_weights_and_scales_what_is_left(part, reserve):
    masked = part(reserve=reserve)
    for name in FREE:
        assert torch.equal(masked.pop(name), torch.ones(3, 32) if name.endswith("weight") else torch.ones(3))
    every = torch.cat([value.flatten() for value in masked.values()])
    kept = every != 0
    assert float(kept.float().mean()) == pytest.approx(reserve, abs=4 * (reserve * (1 - reserve) / len(every)) ** 0.5)
    assert torch.allclose(every[kept], torch.tensor(1 / reserve))


def test_f_draws_others_for_each_step_and_parameter(part):
    one, again, other = part(step=3), part(step=3), part(step=4)
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    query, key = (f"{BLOCKS}0.attention.self.{name}.weight" for name in ("query", "key"))
    for left, right in ((one[query], other[query]), (one[query], one[key])):
        both = float(((left != 0) & (right != 0)).float().mean())
        assert both == pytest.approx(0.09, abs=0.04), "as often as chance has it"


# D


def test_d_lets_the_right_share_of_the_blocks_learn_and_the_rest_stays_to_the_bit(tmp_path, encoder_folder):
    """Of each run its own share, side by side, and under weight decay."""
    runs = fitted(tmp_path, encoder_folder, {"type": "child-tuning", "reserve": 0.25, "fisher_examples": 6},
                  seeds=(0, 1, 2), weight_decay=0.1)  # fmt: skip
    children = []
    for start, came in runs:
        blocks = [name for name in start if name.startswith(BLOCKS)]
        moved = torch.cat([(came.weights[name] != start[name]).flatten() for name in blocks])
        assert float(moved.float().mean()) == pytest.approx(0.25, abs=0.005)
        children.append(moved)
        others = [name for name in start if name not in blocks]
        assert "classifier.weight" in others and "bert.embeddings.word_embeddings.weight" in others
        assert all(not torch.equal(came.weights[name], start[name]) for name in others)
    assert not torch.equal(children[0], children[1])


def test_d_chooses_by_the_mean_squared_gradient_of_single_examples(topics_bench):
    part = Part(topics_bench, make("child-tuning", reserve=0.3, fisher_examples=5), fresh=FREE)
    names = [name for name, _ in part.model.named_parameters() if name.startswith(BLOCKS)]
    information = torch.zeros(sum(part.model.get_parameter(name).numel() for name in names))
    count = len(topics_bench.examples)
    for number in range(5):
        part._gradients([topics_bench.examples[number * count // 5]])
        information += torch.cat([part.model.get_parameter(name).grad.flatten() for name in names]) ** 2
        part.model.zero_grad()
    found = torch.cat([part.mitigation._child[name].flatten() for name in names])
    assert int(found.sum()) == round(0.3 * len(found))
    assert float(information[found].min()) >= float(information[~found].max()) > 0
    batch = part.training_state.examples[:5]
    part._gradients(batch)
    of_a_batch = torch.cat([part.model.get_parameter(name).grad.flatten() for name in names]) ** 2
    assert float(of_a_batch[found].min()) < float(of_a_batch[~found].max()), "that would have been another choice"


def test_d_leaves_no_gradients_behind(topics_bench):
    part = Part(topics_bench, make("child-tuning", fisher_examples=2), fresh=FREE)
    assert all(value.grad is None for value in part.model.parameters())


def test_the_child_is_fixed_and_goes_on_from_a_checkpoint(topics_bench):
    part = Part(topics_bench, make("child-tuning", fisher_examples=3), fresh=FREE)
    before = part.mitigation.state()
    with torch.no_grad():
        for value in part.model.parameters():
            value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        part.losses().sum().backward()
        part.mitigation.gradients()
        part.mitigation.stepped(0.1)
    assert all(torch.equal(value, before[name]) for name, value in part.mitigation.state().items())
    moved = Part(topics_bench, make("child-tuning", fisher_examples=3), fresh=FREE, model=part.model)
    assert any(not torch.equal(value, before[name]) for name, value in moved.mitigation.state().items())
    moved.mitigation.resume(before)
    assert all(torch.equal(value, before[name]) for name, value in moved.mitigation.state().items())


def test_weights_without_information_never_learn_under_d(topics_bench):
    """Even where there are not enough others."""
    model = topics_bench.model()
    dead = f"{BLOCKS}1.output.dense.weight"
    model.get_parameter(dead).register_hook(torch.zeros_like)
    part = Part(topics_bench, make("child-tuning", reserve=1.0, fisher_examples=2), fresh=FREE, model=model)
    assert not part.mitigation._child[dead].any()
    assert part.mitigation._child[f"{BLOCKS}1.intermediate.dense.weight"].all()


@pytest.mark.parametrize("mode", ["D", "F"])
@pytest.mark.parametrize("strategy", ["linear", "adapter"])
def test_strategies_that_leave_pretrained_weights_alone_are_refused(tmp_path, encoder_folder, strategy, mode):
    this = variant(tmp_path, encoder_folder, [{"type": "child-tuning", "mode": mode}], strategy)
    with pytest.raises(InputError) as error:
        this.assembled()
    (problem,) = error.value.problems
    assert problem.path == "mitigations.0.type" and "pretrained weights that learn" in problem.found
