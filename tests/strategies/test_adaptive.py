"""Adaptive rates: what each method sets, which factors parameters get, and what is refused."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from finetune import recipe as recipes
from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.runner.autotune import choose_speed
from finetune.strategies.adaptive import Adaptive
from finetune.strategies.blocks import find_blocks
from finetune.study.preflight import preflight
from finetune.train.optimizer import make_optimizer, set_rate
from finetune.train.options import TrainOptions
from tests.examples import Example
from tests.replicas.groups import Variant

EXAMPLES = {
    "adaptive": Example({"method": "layerwise"}, rate=3e-3),
    "adaptive/groups": Example({"method": "groups", "groups": [{"pattern": "*embed*", "factor": 0.5}]}),
    # Prodigy takes more than a few steps to find its rate.
    "adaptive/prodigy": Example({"method": "prodigy"}, rate=1.0, train={"prodigy": {"d0": 3e-4}}),
    "adaptive/schedule-free": Example({"method": "schedule-free"}),
}

BUILDS = ["bert", "llama", "llama-classifier", "gpt2", "t5"]


def factors(made):
    return {name: made.strategy.rate(name) for name in made.trained}


@pytest.mark.parametrize("build", BUILDS)
def test_every_parameter_learns_and_none_has_changed(prepare, build):
    made = prepare(build, "adaptive", method="plateau")
    assert made.trained == {name for name, _ in made.base.named_parameters()}
    assert all(torch.equal(value, made.base.state_dict()[name]) for name, value in made.model.state_dict().items())
    assert set(factors(made).values()) == {1.0}


def test_the_saved_folder_is_a_model_that_transformers_loads(prepare, shake, logits, tmp_path):
    made = prepare("bert", "adaptive", method="prodigy")
    shake(made.model)
    made.strategy.save(made.model, tmp_path)
    assert torch.equal(logits(AutoModelForSequenceClassification.from_pretrained(tmp_path)), logits(made.model))


# Layer-wise


@pytest.mark.parametrize("build", BUILDS)
def test_layerwise_rates_are_geometric_from_the_top_block_to_the_embeddings(prepare, build):
    made = prepare(build, "adaptive", method="layerwise", decay=0.5)
    found, blocks = factors(made), find_blocks(made.model)
    assert len(blocks) >= 2
    for below, block in enumerate(reversed(blocks), start=1):
        own = {factor for name, factor in found.items() if name.startswith(f"{block}.")}
        assert own == {0.5**below}
    embeddings = {factor for name, factor in found.items() if "embed" in name or ".wte" in name or "shared" in name}
    assert embeddings == {0.5 ** (len(blocks) + 1)}
    assert {found[name] for name in made.head} <= {1.0}


def test_the_default_decay_is_a_twentieth_less(prepare):
    made = prepare("bert", "adaptive", method="layerwise")
    assert sorted(set(factors(made).values()), reverse=True) == pytest.approx([1, 0.95, 0.95**2, 0.95**3])


def test_the_optimizer_uses_the_rates(prepare):
    made = prepare("bert", "adaptive", method="layerwise", decay=0.5)
    named = dict(made.model.named_parameters())
    optimizer = make_optimizer(named, TrainOptions(), 1, made.strategy)
    set_rate(optimizer, 0.8)
    names = {id(value): name for name, value in named.items()}
    rates = {names[id(value)]: group["lr"] for group in optimizer.param_groups for value in group["params"]}
    assert rates == {name: 0.8 * factor for name, factor in factors(made).items()}


# Groups


def test_a_group_is_what_its_pattern_matches_first(prepare):
    groups = [{"pattern": "*.attention.*", "factor": 2.0}, {"pattern": "bert.encoder.*", "factor": 0.5}]
    made = prepare("bert", "adaptive", method="groups", groups=groups)
    for name, factor in factors(made).items():
        assert factor == (2.0 if ".attention." in name else 0.5 if "encoder" in name else 1.0)


def test_a_pattern_that_matches_nothing_is_refused_with_what_is_near(refusal):
    groups = [{"pattern": "*", "factor": 0.5}]
    problem = refusal("bert", "adaptive", method="groups", groups=[{"pattern": "*.atention.*", "factor": 2.0}, *groups])
    assert problem.path == "strategy.groups.0.pattern" and "'*.atention.*' matches no parameter" in problem.found
    assert "bert.encoder.layer.*.attention.self.query.weight" in problem.advice
    problem = refusal("bert", "adaptive", method="groups", groups=[*groups, {"pattern": "*.bias", "factor": 2.0}])
    assert problem.path == "strategy.groups.1.pattern" and "in groups above it" in problem.found


def test_a_model_without_blocks_has_no_layerwise_rates(prepare, monkeypatch):
    monkeypatch.setattr("finetune.strategies.rates.find_blocks", lambda _: [])
    with pytest.raises(InputError, match=r"strategy\.method.*no blocks"):
        prepare("bert", "adaptive", method="layerwise")


# In training


@pytest.fixture(scope="module")
def full(tmp_path_factory, encoder_folder):
    """The run of full tuning with AdamW, and its variant."""
    variant = Variant.of(tmp_path_factory.mktemp("full"), encoder_folder, "classification", {"type": "full"})
    return variant, variant.run([0], "full")[0]


@pytest.mark.parametrize(
    "said", [{"method": "layerwise", "decay": 1.0}, {"method": "groups", "groups": [{"pattern": "*", "factor": 1.0}]}]
)
def test_factors_of_one_train_as_full_tuning_does_to_the_bit(full, encoder_folder, tmp_path, said):
    variant = Variant.of(tmp_path, encoder_folder, "classification", {"type": "adaptive", **said})
    [came], [again] = variant.run([0], "ones"), [full[1]]
    assert came.losses == again.losses
    # The rows of the embedding that no example uses only decay; full tuning makes up for that at once, at the end.
    assert all(torch.allclose(came.weights[name], value, atol=1e-7, rtol=0) for name, value in again.weights.items())
    assert all(torch.equal(came.weights[n], v) for n, v in again.weights.items() if "word_embeddings" not in n)


def test_a_lower_factor_moves_less(full, encoder_folder, tmp_path):
    groups = [{"pattern": "*.encoder.*", "factor": 0.01}]
    said = {"type": "adaptive", "method": "groups", "groups": groups}
    [came] = Variant.of(tmp_path, encoder_folder, "classification", said).run([0], "slow")
    start = dict(full[0].assembled().model.named_parameters())
    for name in ("bert.encoder.layer.0.output.dense.weight", "bert.encoder.layer.1.attention.self.value.weight"):
        moved = [float((run.weights[name] - start[name].detach()).abs().mean()) for run in (came, full[1])]
        assert moved[0] < 0.05 * moved[1]


def test_embeddings_that_no_example_uses_decay_at_the_rate_that_falls(encoder_folder, tmp_path, monkeypatch):
    """They are not trained one by one, and the decay is made up for; held against training them like all others."""
    train = {"evaluations": 6, "learning_rate": 0.05, "warmup": 0.0, "weight_decay": 0.5, "keep": "last"}
    said = {"type": "adaptive", "method": "plateau"}
    variant = Variant.of(tmp_path, encoder_folder, "classification", said, **train)
    [quick] = variant.run([0], "quick")
    rates = [row["learning_rate"] for row in quick.rows if row["kind"] == "train"]
    assert min(rates[:-1]) < max(rates), "it fell while there was something to decay"
    monkeypatch.setattr(Adaptive, "optimizer_only", False)
    [slow] = variant.run([0], "slow")
    for name, value in slow.weights.items():
        torch.testing.assert_close(quick.weights[name], value, rtol=1e-5, atol=1e-6)


# What the method sets in a recipe


def load(topics, strategy, train="{evaluations: 5}", mitigations="[]"):
    """The recipe of a study without variants."""
    said = f"strategy: {{type: adaptive, {strategy}}}\ntrain: {train}\nmitigations: {mitigations}\n"
    topics.write_text(topics.read_text().partition("train: {epochs")[0] + said)
    return recipes.load(topics)


def refused(topics, *said):
    with pytest.raises(InputError) as caught:
        preflight(load(topics, *said))
    [problem] = caught.value.problems
    assert problem.where == f"{topics}:{line_of(topics, problem.path)}"
    return problem


def line_of(topics, path):
    """Number of the line that begins with a section's name."""
    lines = topics.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.startswith(f"{path.partition('.')[0]}:"))


@pytest.mark.parametrize(
    "method, optimizer, schedule, rate",
    [
        ("plateau", "adamw", "plateau", 5e-5),
        ("schedule-free", "schedule-free", "constant", 5e-5),
        ("prodigy", "prodigy", "linear", 1.0),
        ("layerwise", "adamw", "linear", 5e-5),
    ],
)
def test_the_method_is_written_into_train(topics, tmp_path, method, optimizer, schedule, rate):
    resolved = load(topics, f"method: {method}")
    train = resolved.variants[0].recipe.train
    assert (train.optimizer, train.schedule, train.learning_rate) == (optimizer, schedule, rate)
    assert (train.evaluations, train.epochs) == (5, 3.0), "the rest stays as it was said"
    written = tmp_path / "resolved.yaml"
    written.write_text(resolved.to_yaml())
    assert recipes.read_resolved(written).variants[0].recipe.train == train
    assert preflight(resolved).parameters["adaptive"]["trainable"] > 0


@pytest.mark.parametrize(
    "said, path, found",
    [
        (("method: prodigy", "{optimizer: adamw}"), "train.optimizer", "is 'adamw', and this adaptive"),
        (("method: prodigy", "{learning_rate: 2.0e-5}"), "train.learning_rate", "a scale of what it finds"),
        (("method: schedule-free", "{schedule: cosine}"), "train.schedule", "'cosine', and Schedule-Free wants"),
        (("method: schedule-free", "{betas: [0.0, 0.9]}"), "train.betas", "begins with 0"),
        (("method: plateau", "{schedule: linear}"), "train.schedule", "is 'linear', and this adaptive"),
        (("method: plateau", "{evaluations: 2}"), "train.schedule", "never falls"),
        (("method: plateau", "{optimizer: schedule-free}"), "train.schedule", "is 'plateau', and Schedule-Free"),
        (("method: layerwise", "{prodigy: {d0: 0.1}}"), "train.prodigy", "the optimizer is adamw"),
        (("method: layerwise", "{plateau: {patience: 2}}"), "train.plateau", "the schedule is linear"),
        (("method: layerwise", "{optimizer: prodigy}"), "strategy", "Prodigy finds one for all"),
        (("method: prodigy", "{}", "[{type: layerwise-decay}]"), "mitigations.0", "Prodigy finds one for all"),
        (("method: schedule-free", "{}", "[{type: ema}]"), "mitigations.0", "as Schedule-Free itself does"),
        (("method: prodigy, decay: 0.9",), "strategy", "decay belongs to method layerwise"),
        (("method: plateau, groups: [{pattern: '*', factor: 2}]",), "strategy", "groups belong to method groups"),
        (("method: groups",), "strategy", "has no groups"),
        (("method: groups, groups: [{pattern: '*.bais', factor: 2}]",), "strategy.groups.0.pattern", "matches no"),
    ],
)
def test_what_contradicts_is_refused_at_its_line(topics, said, path, found):
    problem = refused(topics, *said)
    assert problem.path == path and found in problem.found and problem.advice


def test_a_plateau_is_told_by_validation_examples(topics):
    topics.write_text(topics.read_text().replace("validation: 12, ", ""))
    assert "no validation examples" in refused(topics, "method: plateau").found


def test_a_stage_is_trained_as_its_strategy_wants(topics):
    stage = "{name: before, data: {train: {path: news.csv}}, task: {type: classification}, strategy: {type: adaptive"
    text = topics.read_text().partition("variants:")[0] + "strategy: {type: full}\n"
    topics.write_text(text + f"stages: [{stage}, method: prodigy}}}}]\n")
    stages = recipes.load(topics).variants[0].recipe.stages
    assert (stages[0].train.optimizer, stages[0].train.learning_rate) == ("prodigy", 1.0)
    topics.write_text(text + f"stages: [{stage}, method: plateau}}}}]\n")
    with pytest.raises(InputError, match=r"stages\.0\.train\.schedule: there are no validation examples"):
        recipes.load(topics)


@pytest.mark.parametrize("method", ["prodigy", "plateau"])
@pytest.mark.parametrize("replicas", [3, "auto"])
def test_a_rate_that_one_run_finds_is_not_shared_by_others(encoder_folder, tmp_path, method, replicas):
    said, train = {"type": "adaptive", "method": method}, {"evaluations": 5, "replicas": replicas}
    variant = Variant.of(tmp_path, encoder_folder, "classification", said, learning_rate=1.0, **train)
    runs = [Streams(seed) for seed in range(3)]
    speed = choose_speed(variant.session(), runs)
    assert speed.replicas == 1 and f"{method} trains one run at a time" in speed.reason
    assert speed.telling == (replicas == 3)
