"""Re-initialised top blocks: these change, as the architecture draws them, and nothing else does."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.mitigations.reinit import Reinit
from finetune.models import ModelOptions, load_base
from tests import tiny
from tests.examples import Example

EXAMPLES = {"reinit": Example({"layers": 1})}

WIDE = {"hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 128, "initializer_range": 0.05}
BUILDS = {
    # build: (how it is saved, its Auto class, the last block, what lies above it)
    "bert": (
        lambda folder: tiny.save_encoder(folder, **WIDE),
        AutoModelForSequenceClassification,
        "bert.encoder.layer.2",
        ["bert.pooler"],
    ),
    "llama": (lambda folder: tiny.save_decoder(folder, **WIDE), AutoModelForCausalLM, "model.layers.2", ["model.norm"]),
    "gpt2": (
        lambda folder: tiny.save_gpt2(folder, n_embd=64, initializer_range=0.05),
        AutoModelForCausalLM,
        "transformer.h.1",
        ["transformer.ln_f"],
    ),
    "t5": (
        lambda folder: tiny.save_t5(folder, d_model=64, d_kv=16, d_ff=128),
        AutoModelForSeq2SeqLM,
        "decoder.block.2",
        ["decoder.final_layer_norm"],
    ),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    made = {}

    def make(build):
        if build not in made:
            save, auto, _, _ = BUILDS[build]
            head = {"num_labels": 3} if auto is AutoModelForSequenceClassification else {}
            base = load_base(ModelOptions(source=str(save(tmp_path_factory.mktemp(build)))), auto.__name__, **head)
            with torch.no_grad():  # as if pretrained: nothing is where an initialisation would put it
                for parameter in base.model.parameters():
                    parameter += 1 + torch.rand(parameter.shape, generator=torch.Generator().manual_seed(0))
            made[build] = base
        return made[build]

    return make


@pytest.fixture
def redraw(bases):
    def drawn(build, seed=0, **options):
        base = bases(build)
        model = base.copy(Streams(3))
        before = {name: value.clone() for name, value in model.named_parameters()}
        with Streams(seed).globally("init", 1):
            Reinit(Reinit.Options(type="reinit", **options)).prepare(model, set(base.new), "mitigations.0")
        after = dict(model.named_parameters())
        changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
        return SimpleNamespace(model=model, after=after, changed=changed)

    return drawn


@pytest.mark.parametrize("build", BUILDS)
def test_only_the_last_block_and_what_lies_above_change(redraw, build):
    _, _, block, above = BUILDS[build]
    made = redraw(build, layers=1)
    assert made.changed == {
        name for name in made.after if name.startswith(tuple(f"{part}." for part in (block, *above)))
    }


def test_more_blocks_change_when_asked(redraw):
    made = redraw("bert")  # 2 by default
    assert made.changed == redraw("bert", layers=2).changed
    assert any(name.startswith("bert.encoder.layer.1.") for name in made.changed)
    assert not any(name.startswith(("bert.encoder.layer.0.", "bert.embeddings", "classifier")) for name in made.changed)


@pytest.mark.parametrize("build", BUILDS)
def test_each_weight_is_drawn_as_the_architecture_draws_it(redraw, build):
    made = redraw(build, layers=1)
    torch.manual_seed(1)
    fresh = type(made.model)(made.model.config)
    for name in made.changed:
        drawn, wanted = made.after[name].detach(), fresh.get_parameter(name).detach()
        assert float(drawn.mean()) == pytest.approx(float(wanted.mean()), abs=0.02), name
        assert float(drawn.std()) == pytest.approx(float(wanted.std()), rel=0.1), name


def test_weights_are_as_wide_as_the_configuration_says(redraw):
    made = redraw("bert", layers=2)
    weights = [value.detach() for name, value in made.after.items() if name in made.changed and value.ndim == 2]
    assert all(float(value.std()) == pytest.approx(0.05, rel=0.05) for value in weights)
    norms = [name for name in made.changed if "LayerNorm" in name]
    assert all(torch.equal(made.after[name], torch.full((64,), float(name.endswith("weight")))) for name in norms)
    biases = [name for name in made.changed if name.endswith("dense.bias")]
    assert biases and not any(made.after[name].any() for name in biases)


def test_the_seed_decides_and_the_global_state_does_not(redraw):
    torch.manual_seed(5)
    one = redraw("llama", seed=1, layers=2)
    torch.manual_seed(6)
    again, other = redraw("llama", seed=1, layers=2), redraw("llama", seed=2, layers=2)
    assert all(torch.equal(value, again.after[name]) for name, value in one.after.items())
    matrices = {name for name in one.changed if one.after[name].ndim == 2}
    assert matrices and not any(torch.equal(one.after[name], other.after[name]) for name in matrices)


def test_more_blocks_than_there_are_are_refused(redraw):
    with pytest.raises(InputError) as error:
        redraw("bert", layers=4)
    (problem,) = error.value.problems
    assert problem.path == "mitigations.0.layers" and "is 4, but this model has 3 blocks" in problem.found
