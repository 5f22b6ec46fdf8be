"""Partial tuning: the last blocks, chosen blocks and parts, what matches a pattern; at once, or block by block."""

from fnmatch import fnmatchcase

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open

from finetune.core.hooks import TrainingState
from finetune.core.registry import STRATEGIES
from finetune.replicas.stacked import SeenEmbedding
from finetune.strategies.base import trained_parameters
from finetune.strategies.partial import Partial
from tests import tiny
from tests.contracts.battery import STEPS, Battery
from tests.examples import Example, examples_beside
from tests.replicas.groups import Variant

EXAMPLES = {
    "partial": Example({"last": 1}),
    "partial/unfreeze": Example({"patterns": ["*"], "unfreeze": 0.6}),
}

LAST = {
    # build: (what the last block's names begin with, what lies above it)
    "bert": ("bert.encoder.layer.1.", {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}),
    "llama": ("model.layers.1.", {"model.norm.weight"}),
    "llama-classifier": ("model.layers.1.", {"model.norm.weight"}),
    "gpt2": ("transformer.h.1.", {"transformer.ln_f.weight", "transformer.ln_f.bias"}),
    "t5": ("decoder.block.2.", {"decoder.final_layer_norm.weight"}),
    "t5-classifier": ("transformer.decoder.block.2.", {"transformer.decoder.final_layer_norm.weight"}),
}


def names_of(made):
    return {name for name, _ in made.base.named_parameters()}


@pytest.mark.parametrize("build", LAST)
def test_the_last_block_what_lies_above_and_the_head_learn(prepare, build):
    made = prepare(build, "partial", last=1)
    block, above = LAST[build]
    assert made.trained == {name for name in names_of(made) if name.startswith(block)} | above | made.head
    assert all(torch.equal(value, made.base.state_dict()[name]) for name, value in made.model.state_dict().items())


def test_all_blocks_leave_the_embeddings(prepare):
    made = prepare("bert", "partial", last=2)
    assert names_of(made) - made.trained == {name for name in names_of(made) if "embeddings" in name}


def test_an_encoder_decoder_counts_back_from_the_decoders_end(prepare):
    made = prepare("t5", "partial", last=4)
    frozen = {name for name in names_of(made) if name.startswith(("shared", "encoder.block.0"))}
    assert names_of(made) - made.trained == frozen


@pytest.mark.parametrize(
    "build, patterns", [("bert", ["*.bias"]), ("gpt2", ["*.ln_*", "*.wpe.*"]), ("llama", ["*embed*"])]
)
def test_what_matches_a_pattern_learns(prepare, build, patterns):
    made = prepare(build, "partial", patterns=patterns)
    matching = {name for name in names_of(made) if any(fnmatchcase(name, pattern) for pattern in patterns)}
    assert made.trained == matching | made.head and matching


@pytest.mark.parametrize(
    "build, blocks, starts",
    [
        ("bert", [0], ["bert.encoder.layer.0."]),
        ("bert", [0, "layer.1"], ["bert.encoder.layer."]),
        ("llama", [-1], ["model.layers.1."]),
        ("t5-classifier", [0, -1], ["transformer.encoder.block.0.", "transformer.decoder.block.2."]),
        ("t5", ["decoder.block.0"], ["decoder.block.0."]),
    ],
)
def test_chosen_blocks_learn_and_nothing_above_them(prepare, build, blocks, starts):
    made = prepare(build, "partial", blocks=blocks)
    assert made.trained == {name for name in names_of(made) if name.startswith(tuple(starts))} | made.head


INSIDE_BERT = [f"{part}.LayerNorm" for part in ("attention.output", "output")]
NORMS = {
    "bert": ["bert.embeddings.LayerNorm"] + [f"bert.encoder.layer.{n}.{own}" for n in range(2) for own in INSIDE_BERT],
    "llama": ["model.norm"]
    + [f"model.layers.{n}.{own}_layernorm" for n in range(2) for own in ("input", "post_attention")],
    "gpt2": ["transformer.ln_f"] + [f"transformer.h.{n}.ln_{own}" for n in range(2) for own in (1, 2)],
    "t5": ["encoder.final_layer_norm", "decoder.final_layer_norm"]
    + [f"encoder.block.{n}.layer.{own}.layer_norm" for n in range(2) for own in range(2)]
    + [f"decoder.block.{n}.layer.{own}.layer_norm" for n in range(3) for own in range(3)],
}
TABLES = {
    "bert": [f"bert.embeddings.{what}_embeddings" for what in ("word", "position", "token_type")],
    "llama": ["model.embed_tokens"],
    "gpt2": ["transformer.wte", "transformer.wpe"],
    "t5": ["shared"],
    "t5-classifier": ["transformer.shared"],
}


@pytest.mark.parametrize(
    "part, build, modules",
    [("norm", *each) for each in NORMS.items()] + [("embeddings", *each) for each in TABLES.items()],
)
def test_norms_and_embeddings_are_found_in_every_build(prepare, part, build, modules):
    made = prepare(build, "partial", parts=part)
    assert made.trained == {name for name in names_of(made) if name.rpartition(".")[0] in modules} | made.head
    assert {name.rpartition(".")[0] for name in made.trained - made.head} == set(modules)


@pytest.mark.parametrize("build, count", [("bert", 1 + 2 * 8 + 1 + 1), ("gpt2", 2 * 6 + 1)])
def test_bitfit_trains_every_bias_and_the_head(prepare, build, count):
    """BERT: embeddings' norm, six layers and two norms in each block, pooler, head. GPT-2: four layers and two norms in
    each block, last norm."""
    made = prepare(build, "partial", parts="bias")
    biases = {name for name in made.trained if name.endswith(".bias")}
    assert len(biases) == count and made.trained == biases | made.head
    assert all(made.model.get_parameter(name).ndim == 1 for name in biases)


@pytest.mark.parametrize("build", ["bert", "llama-classifier", "t5-classifier"])
def test_the_head_alone_is_the_linear_probe(prepare, build):
    assert prepare(build, "partial", parts=["head"]).trained == prepare(build, "linear", solver="steps").trained


@pytest.mark.parametrize("build", ["llama", "gpt2", "t5"])
def test_tied_output_embeddings_learn_with_the_input_embeddings(prepare, build):
    made = prepare(build, "partial", parts="embeddings")
    output = made.model.get_output_embeddings().weight
    assert output is made.model.get_input_embeddings().weight and output.requires_grad


def test_several_together_are_their_union(prepare):
    ways = {"blocks": [0], "last": 1, "parts": ["norm", "bias"], "patterns": ["*query*"]}
    apart = [prepare("bert", "partial", **{key: value}).trained for key, value in ways.items()]
    assert prepare("bert", "partial", **ways).trained == set().union(*apart)
    assert len(set(map(len, apart))) == 4, "or some would add nothing"


def test_blocks_and_patterns_together_are_their_union(prepare):
    union = prepare("bert", "partial", last=1).trained | prepare("bert", "partial", patterns=["*.bias"]).trained
    assert prepare("bert", "partial", last=1, patterns=["*.bias"]).trained == union


def test_more_blocks_than_there_are_are_refused(refusal):
    problem = refusal("bert", "partial", last=3)
    assert problem.path == "strategy.last" and "is 3, but this model has 2 blocks" in problem.found


def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_name(refusal):
    problem = refusal("bert", "partial", patterns=["*.bias", "bert.encoder.layer.*.atention.self.query.weight"])
    assert problem.path == "strategy.patterns.1" and "matches no parameter" in problem.found
    assert "did you mean 'bert.encoder.layer.*.attention.self.query.weight'" in problem.advice


@pytest.mark.parametrize(
    "build, options, path, said, advice",
    [
        (
            "llama",
            {"parts": "bias"},
            "strategy.parts",
            "is bias, and this model and task have none",
            "embeddings or norm",
        ),
        ("t5-classifier", {"parts": ["norm", "bias"]}, "strategy.parts.1", "is bias", "embeddings or head or norm"),
        ("llama", {"parts": ["head"]}, "strategy.parts.0", "is head", "embeddings or norm"),
        ("bert", {"blocks": [1, 2]}, "strategy.blocks.1", "is 2, but this model has 2 blocks", "0 to 1"),
        ("bert", {"blocks": ["layer.11"]}, "strategy.blocks.0", "no block 'layer.11'", "bert.encoder.layer.1"),
        ("bert", {"parts": "head", "unfreeze": 0.5}, "strategy.unfreeze", "all at one height", "last: 2"),
        ("llama", {"blocks": [1], "unfreeze": "epoch"}, "strategy.unfreeze", "all at one height", "last: 2"),
    ],
)
def test_what_the_model_does_not_have_is_refused(refusal, build, options, path, said, advice):
    problem = refusal(build, "partial", **options)
    assert problem.path == path and said in problem.found and advice in problem.advice


@pytest.mark.parametrize(
    "options", [{}, {"last": None}, {"patterns": []}, {"last": 0}, {"blocks": [], "parts": []}, {"unfreeze": 0.5}]
)
def test_options_that_train_nothing_are_refused(options):
    with pytest.raises(ValidationError, match=r"nothing says what learns|greater than or equal to 1"):
        Partial.Options(type="partial", **options)


@pytest.mark.parametrize("unfreeze", [0, 1.5, -0.5, "step"])
def test_a_schedule_that_there_is_not_is_refused(unfreeze):
    with pytest.raises(ValidationError):
        Partial.Options(type="partial", last=1, unfreeze=unfreeze)


# Gradual unfreezing


def training_state(made, steps=100, epoch=7):
    """Training of what a strategy has prepared, as far as a schedule needs it."""
    made.strategy.begin(
        TrainingState(made.model, trained_parameters(made.model), frozenset(), (), steps, print, (), epoch=epoch)
    )
    return made.strategy


@pytest.mark.parametrize(
    "build, options, levels",
    [
        ("bert", {"last": 2}, ["pooler classifier", "layer.1", "layer.0"]),
        ("bert", {"patterns": ["*"]}, ["pooler classifier", "layer.1", "layer.0", "embeddings"]),
        ("llama", {"blocks": [0, 1]}, ["layers.1", "layers.0"]),
        ("gpt2", {"patterns": ["*"]}, ["ln_f", "h.1", "h.0", "wte wpe"]),
        (
            "t5-classifier",
            {"last": 4},
            [
                "classification_head decoder.final_layer_norm",
                *(f"decoder.block.{n}" for n in (2, 1, 0)),
                "encoder.block.1 encoder.final_layer_norm",
            ],
        ),
    ],
)
def test_blocks_begin_to_learn_from_the_top(prepare, build, options, levels):
    made = prepare(build, "partial", unfreeze="epoch", **options)
    assert set().union(*made.strategy.levels) == made.trained
    assert sum(map(len, made.strategy.levels)) == len(made.trained)
    for names, own in zip(made.strategy.levels, levels, strict=True):
        assert all(any(f".{part}." in f".{name}" for part in own.split()) for name in names)
        assert all(any(f".{part}." in f".{name}" for name in names) for part in own.split())


@pytest.mark.parametrize(
    "unfreeze, begins", [(0.5, [0, 17, 33, 50]), (1.0, [0, 33, 67, 100]), ("epoch", [0, 7, 14, 21]), (None, [0] * 4)]
)
def test_when_they_begin_to(prepare, unfreeze, begins):
    strategy = training_state(prepare("bert", "partial", patterns=["*"], unfreeze=unfreeze))
    assert [strategy.begins(level) for level in range(4)] == begins


def test_before_it_learns_a_parameter_has_no_gradient(prepare):
    made = prepare("bert", "partial", last=2, unfreeze=0.2)
    strategy = training_state(made)
    for step, learning in ((0, 1), (9, 1), (10, 2), (19, 2), (20, 3), (99, 3)):
        for parameter in strategy.training_state.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        strategy.training_state.step = step
        strategy.gradients()
        with_one = {name for name, value in strategy.training_state.parameters.items() if value.grad is not None}
        assert with_one == set().union(*strategy.levels[:learning])


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_in_training_each_block_stays_bit_for_bit_until_its_step(tmp_path, request, monkeypatch, kind):
    folder = tiny.save_encoder_decoder(tmp_path / "model") if "-" in kind else request.getfixturevalue(f"{kind}_folder")
    options = Example({"patterns": ["*"], "unfreeze": 0.75})
    monkeypatch.setitem(examples_beside(STRATEGIES, "partial"), "partial/mine", options)
    battery = Battery(tmp_path, folder, "partial/mine", "classification")
    fresh = battery.fresh(1)
    levels, before = fresh.strategy.levels, dict(fresh.model.named_parameters())
    assert len(levels) == (6 if "-" in kind else 4)
    begins = [round(level / (len(levels) - 1) * 12) for level in range(len(levels))]
    for done in [*begins[1:], STEPS]:  # the run stops just before a level begins, and goes on from there
        outcome = battery.run(1, "run", stop_at=done if done < STEPS else None)
        changed = {name for name, value in outcome.weights.items() if not torch.equal(value, before[name])}
        frozen = set().union(*(names for begin, names in zip(begins, levels, strict=True) if begin >= done))
        assert not changed & frozen
        assert len(changed) > 0.8 * len(outcome.trained - frozen)


@pytest.mark.parametrize("unfreeze", [None, 0.5])
def test_embeddings_that_learn_later_are_not_taken_for_some_that_decay_all_along(tmp_path, encoder_folder, unfreeze):
    """Rows of tokens that no example has are decayed at once for all steps, where they learn in all steps."""
    strategy = {"type": "partial", "patterns": ["*"], "unfreeze": unfreeze}
    group = Variant.of(tmp_path, encoder_folder, "classification", strategy).assembled()
    assert any(isinstance(module, SeenEmbedding) for module in group.model.modules()) == (unfreeze is None)


@pytest.mark.parametrize("build", LAST)
def test_only_what_learnt_is_saved_and_it_is_enough(prepare, shake, logits, tmp_path, build):
    made = prepare(build, "partial", seed=1, last=1)
    shake(made.model)
    made.strategy.save(made.model, tmp_path)
    [file] = tmp_path.iterdir()
    with safe_open(file, "pt") as saved:
        assert set(saved.keys()) == made.trained
    size = sum(made.model.get_parameter(name).numel() for name in made.trained) * 4
    assert size < file.stat().st_size < size + 20_000
    fresh = prepare(build, "partial", seed=2, last=1)
    fresh.strategy.restore(fresh.model, tmp_path)
    assert torch.equal(logits(fresh.model), logits(made.model))


@pytest.mark.parametrize("part", ["bias", "norm", "embeddings", "head"])
def test_parts_train_in_bfloat16(encoder_folder, tmp_path, monkeypatch, part):
    """A normalisation whose bias alone learns takes both in float32; matrices that are frozen stay in bfloat16."""
    monkeypatch.setitem(examples_beside(STRATEGIES, "partial"), "partial/part", Example({"parts": part}))
    outcome = Battery(tmp_path, encoder_folder, "partial/part", "classification").run(1, "run", dtype=torch.bfloat16)
    assert outcome.last < outcome.first
    types = {name: value.dtype for name, value in outcome.model.named_parameters()}
    assert {types[name] for name in outcome.trained} == {torch.float32}
    frozen = {name for name, value in outcome.model.named_parameters() if value.ndim > 1} - outcome.trained
    assert {types[name] for name in frozen} == {torch.bfloat16} and outcome.changed() <= outcome.trained
