"""The auxiliary loss of mixtures of experts: transformers' own of one example, whatever it is computed beside."""

import sys
from dataclasses import replace

import pytest
import torch

from finetune.core.compute import ComputeOptions
from finetune.core.examples import Batch
from finetune.replicas.stacked import CannotStack
from finetune.tasks.chat import ChatOptions
from finetune.train.load_balance import LoadBalance, balance, find_routers
from tests import tiny
from tests.replicas.groups import Variant, far
from tests.train import workbench
from tests.train.test_processes import came_to, two_processes
from tests.train.workbench import fit, furthest, same, without_seconds

FAMILIES = ("Mixtral", "Qwen3Moe", "Olmoe")
HALF = ComputeOptions(moe_auxiliary_loss=0.5)
ROUNDING = 2e-5
LORA = {"type": "adapter", "rank": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: tiny.save_moe(tmp_path_factory.mktemp(name) / "model", name) for name in FAMILIES}


@pytest.fixture(scope="module")
def benches(folders):
    return {name: shortened(workbench.chat(folder)) for name, folder in folders.items()}


def shortened(bench):
    """The bench with two of three examples cut down to little more than the answer, so that they share rows."""
    return replace(bench, examples=[tail(one) if number % 3 else one for number, one in enumerate(bench.examples)])


def tail(example):
    size = int(example.weight) + 4
    inputs = {name: values[-size:] for name, values in example.inputs.items()}
    return replace(example, inputs=inputs, target=example.target[-size:], origin=None)


@pytest.fixture
def bench(benches):
    return benches["Mixtral"]


def added(bench, model, examples, packing=True):
    """What is added to the losses of examples in one batch, and their losses."""
    task = bench.task if packing else unpacked(bench).task
    own = LoadBalance.of(model, 1.0)
    batch = task.arranged(model, task.collate(examples))
    with own.recording():
        losses = task.losses(model, batch)
    return own.losses(batch, examples), losses


def unpacked(bench):
    """The bench with one example a row."""
    task = type(bench.task)(ChatOptions(**{**bench.task.options.model_dump(), "packing": False}))
    task.adopt(bench.task)
    return replace(bench, task=task)


def of_transformers(model, example):
    """What transformers' own function makes of each layer of its own model, given the example and nothing else."""
    ids = torch.tensor(example.inputs["input_ids"]).long()[None]
    found = model(input_ids=ids, output_router_logits=True, use_cache=False)
    loss = sys.modules[type(model).__module__].load_balancing_loss_func
    each = [loss((layer,), model.num_experts, model.num_experts_per_tok) for layer in found.router_logits]
    return sum(each) / len(each), found.aux_loss


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_of_one_example_it_is_transformers_own_times_its_label_tokens(benches, family):
    bench, model = benches[family], benches[family].model()
    for example in bench.examples[:4]:
        found, _ = added(bench, model, [example])
        wanted = example.weight * of_transformers(model, example)[0]
        torch.testing.assert_close(found, wanted[None], rtol=ROUNDING, atol=0)
        ours, theirs = gradients(model, found.sum()), gradients(model, wanted)
        assert any("gate" in name for name in ours) and ours.keys() == theirs.keys()
        assert furthest(ours, theirs) < ROUNDING


@pytest.mark.parametrize("family", FAMILIES)
def test_with_one_layer_it_is_what_transformers_model_adds(tmp_path, family):
    bench = workbench.chat(tiny.save_moe(tmp_path / "model", family, num_hidden_layers=1))
    model, example = bench.model(), bench.examples[0]
    wanted = example.weight * of_transformers(model, example)[1]
    torch.testing.assert_close(added(bench, model, [example])[0], wanted[None], rtol=ROUNDING, atol=0)


def test_layers_that_prefer_different_experts_do_not_make_up_for_each_other():
    example = torch.zeros(1, 6, dtype=torch.long)
    batch = Batch({"input_ids": example}, example, example)
    layers = [10 * torch.eye(4)[number].expand(6, 4) for number in range(4)]
    assert balance(layers, 1, batch).item() == pytest.approx(4.0, abs=1e-2)


def test_it_is_least_where_all_experts_are_used_alike():
    example = torch.zeros(1, 4, dtype=torch.long)
    even = torch.eye(4) * 1e-3  # each token has its own expert, by next to nothing
    batch = Batch({"input_ids": example}, example, example)
    assert balance([even], 1, batch).item() == pytest.approx(1.0, abs=1e-3)
    assert balance([10 * torch.eye(4)[:1].expand(4, 4)], 1, batch).item() == pytest.approx(4.0, abs=1e-2)


@pytest.mark.parametrize("packing", [True, False])
def test_what_stands_beside_an_example_or_behind_it_does_not_matter(bench, packing):
    model, examples = bench.model(), bench.examples[:7]
    assert bench.task.packs(model) and len(bench.task.collate(examples).example) < len(examples)
    alone = [added(bench, model, [example])[0] for example in examples]
    together, _ = added(bench, model, examples, packing)
    torch.testing.assert_close(together, torch.cat(alone), rtol=ROUNDING, atol=0)
    ours, theirs = gradients(model, together.sum()), gradients(model, sum(alone).sum())
    assert furthest(ours, theirs) < ROUNDING


def test_virtual_tokens_and_padding_are_no_examples():
    example = torch.tensor([[0, 0, 1], [2, -1, -1]])
    batch = Batch({"input_ids": example}, example, example)
    logits = torch.randn(2, 3, 4)
    before = torch.cat([torch.full((2, 5, 4), 7.0), logits], 1)
    found = balance([before.reshape(-1, 4)], 2, batch)
    torch.testing.assert_close(found, balance([logits.reshape(-1, 4)], 2, batch))
    own = Batch({}, example[:1, :1], example[:1, :1])
    torch.testing.assert_close(found[2:], balance([logits[1, :1]], 2, own))


def test_the_first_step_logs_the_mean_of_both_losses_over_label_tokens(bench, tmp_path):
    model = bench.model()
    extra, losses = (each.sum().item() for each in added(bench, model, bench.examples))
    weight = sum(example.weight for example in bench.examples)
    found = fit(bench, tmp_path, compute=HALF, max_steps=1, batch_size=len(bench.examples))
    assert found.column("loss")[0] == pytest.approx((losses + 0.5 * extra) / weight, rel=ROUNDING)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("packing", [True, False])
def test_training_does_not_depend_on_parts_and_rows(bench, tmp_path, parts, packing):
    whole = fit(bench, tmp_path / "whole", compute=HALF)
    cut = bench if packing else unpacked(bench)
    found = fit(cut, tmp_path / "cut", compute=HALF, micro_batch_size=parts)
    assert furthest(whole.weights, found.weights) < 1e-4
    for name in ("loss", "gradient_norm"):
        assert found.column(name) == pytest.approx(whole.column(name), rel=1e-3)


def test_without_it_nothing_is_watched_and_no_bit_changes(bench, tmp_path):
    assert LoadBalance.of(bench.model(), 0.0) is None
    plain = fit(bench, tmp_path / "plain")
    zero = fit(bench, tmp_path / "zero", compute=ComputeOptions(moe_auxiliary_loss=0))
    assert same(plain.weights, zero.weights) and without_seconds(plain.rows) == without_seconds(zero.rows)
    assert not same(plain.weights, fit(bench, tmp_path / "half", compute=HALF).weights)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_computed_again_counts_once(benches, tmp_path, family, dtype):
    about = {"dtype": dtype, "max_steps": 3, "micro_batch_size": 3}
    again = ComputeOptions(moe_auxiliary_loss=0.5, gradient_checkpointing=True)
    plain = fit(benches[family], tmp_path / "plain", compute=HALF, **about)
    found = fit(benches[family], tmp_path / "again", compute=again, **about)
    assert same(plain.weights, found.weights) and without_seconds(plain.rows) == without_seconds(found.rows)


def unevenness(bench, model):
    """By how much the busiest expert gets more tokens than if all got as many, of held-out examples; over layers."""
    routers, shares = find_routers(model), []
    hooks = [router.register_forward_hook(lambda _, __, found: shares.append(found[2])) for router in routers]
    batch = bench.task.arranged(model, bench.task.collate(bench.held_out))
    real = (batch.example >= 0).flatten()
    with torch.no_grad():
        bench.task.losses(model, batch)
    for hook in hooks:
        hook.remove()
    busiest = [torch.bincount(found[-len(real) :][real].flatten()).max() / real.sum() for found in shares[-2:]]
    return float(sum(busiest)) - 1  # of 4 experts each token gets 2: half of all is an even share


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_are_used_more_evenly_with_it(benches, tmp_path, family):
    bench, about = benches[family], {"max_steps": 40, "learning_rate": 5e-3}
    asked = ComputeOptions(moe_auxiliary_loss=0.05)
    plain = fit(bench, tmp_path / "plain", **about)
    found = fit(bench, tmp_path / "found", compute=asked, **about)
    assert unevenness(bench, found.model) < unevenness(bench, plain.model) / 2
    assert found.column("loss")[-1] < plain.column("loss")[0] / 1.5, "and it learns"


def test_a_second_pass_with_noise_is_not_watched(bench):
    model, examples = bench.model(), bench.examples[:3]
    own, batch = LoadBalance.of(model, 1.0), bench.task.arranged(model, bench.task.collate(examples))
    with own.recording():
        bench.task.losses(model, batch)
        bench.task.losses(model, bench.task.collate(bench.examples[3:9]))
    torch.testing.assert_close(own.losses(batch, examples), added(bench, model, examples)[0])


def variant(folders, folder, strategy, coefficient=0.5, task="chat", mitigations=(), **train):
    compute = {"moe_auxiliary_loss": coefficient}
    return Variant.of(folder, folders["Mixtral"], task, strategy, mitigations, compute, **train)


@pytest.mark.parametrize("mitigation", [[], [{"type": "r3f"}]])
def test_seeds_side_by_side_are_the_runs_they_would_be_alone(folders, tmp_path, mitigation):
    this = variant(folders, tmp_path, LORA, mitigations=mitigation)
    together = this.run([0, 1], "together")
    for seed, found in enumerate(together):
        [alone] = this.run([seed], "alone")
        assert far(found, alone) < 1e-4
    assert together[0].losses != together[1].losses


def test_routers_that_learn_are_trained_run_by_run(folders, tmp_path):
    this = variant(folders, tmp_path, {"type": "full"})
    with pytest.raises(CannotStack):
        this.run([0, 1], "together")
    assert this.run([0], "alone")[0].losses


def test_frozen_layers_count_too_and_are_not_remembered(folders, tmp_path):
    top = {"type": "partial", "last": 1}
    this = variant(folders, tmp_path / "this", top)
    assert this.assembled().prefix is None and variant(folders, tmp_path / "plain", top, 0.0).assembled().prefix
    [found], [computed] = this.run([0], "run"), this.like(prefix_cache=False).run([0], "computed")
    assert found.losses == computed.losses


@pytest.mark.parametrize(
    "task", ["classification", "token-classification", "multiple-choice", "embedding", "language", "label-words"]
)
@pytest.mark.parametrize("strategy", [{"type": "full"}, {"type": "adapter", "method": "prompt"}])
def test_in_every_task_it_is_added_to_the_mean_loss(folders, tmp_path, task, strategy):
    about = {"strategy": strategy, "task": task, "batch_size": 32, "max_steps": 1, "min_steps": 1}
    [plain] = variant(folders, tmp_path / "plain", coefficient=0.0, **about).run([0], "run")
    [found] = variant(folders, tmp_path / "found", **about).run([0], "run")
    assert 0.5 * 1.9 < found.losses[0] - plain.losses[0] < 0.5 * 4, "even use of 2 experts each is 2, and 4 the most"


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
def test_two_processes_train_as_one(folders, tmp_path, shard):
    options = {"batch_size": 5, "micro_batch_size": 2, "max_steps": 6}
    one = fit(workbench.chat(folders["Mixtral"]), tmp_path / "one", compute=HALF, **options)
    compute = {"moe_auxiliary_loss": 0.5, "gradient_checkpointing": shard}
    done = two_processes(folders["Mixtral"], tmp_path / "two", chat=True, shard=shard, compute=compute, **options)
    assert done.returncode == 0, done.stderr
    first, second = came_to(tmp_path / "two")
    assert furthest(first, second) == 0 and furthest(first, one.weights) < 1e-5
