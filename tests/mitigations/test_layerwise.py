"""Layer-wise decay: rates fall by the same share from block to block, down to the embeddings."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from finetune.core.errors import InputError
from finetune.core.hooks import TrainingHooks
from finetune.mitigations.layerwise import LayerwiseDecay
from finetune.train.optimizer import make_optimizer, set_rate
from finetune.train.options import TrainOptions
from tests import tiny
from tests.examples import Example
from tests.mitigations.steps import EXACT
from tests.replicas.groups import Variant, far

EXAMPLES = {"layerwise-decay": Example({"decay": 0.5})}

DECAY = 0.5
MODELS = {
    # build: (how it is saved, its Auto class, beginnings of names from the top of the model to the bottom)
    "bert": (
        lambda folder: tiny.save_encoder(folder, num_hidden_layers=3),
        AutoModelForSequenceClassification,
        [("classifier", "bert.pooler"), *((f"bert.encoder.layer.{number}.",) for number in (2, 1, 0)), ("bert.embed",)],
    ),
    "llama": (
        lambda folder: tiny.save_decoder(folder, tie_word_embeddings=False),
        AutoModelForCausalLM,
        [("lm_head", "model.norm"), ("model.layers.1.",), ("model.layers.0.",), ("model.embed_tokens",)],
    ),
    "gpt2": (
        tiny.save_gpt2,
        AutoModelForCausalLM,
        [("transformer.ln_f",), ("transformer.h.1.",), ("transformer.h.0.",), ("transformer.w",)],
    ),
    "t5": (
        tiny.save_t5,
        AutoModelForSeq2SeqLM,
        [
            ("decoder.final_layer_norm",),
            *((f"decoder.block.{number}.",) for number in (2, 1, 0)),
            ("encoder.block.1.", "encoder.final_layer_norm"),
            ("encoder.block.0.",),
            ("shared",),
        ],
    ),
}


def checked(model, decay=DECAY, fresh=frozenset()):
    made = LayerwiseDecay(LayerwiseDecay.Options(type="layerwise-decay", decay=decay))
    made.check(model, fresh, "mitigations.0")
    return made


@pytest.mark.parametrize("build", MODELS)
def test_rates_are_geometric_from_the_head_to_the_embeddings(build, tmp_path):
    save, auto, parts = MODELS[build]
    model = auto.from_pretrained(save(tmp_path))
    made = checked(model)
    for name, _ in model.named_parameters():
        [depth] = [number for number, starts in enumerate(parts) if name.startswith(starts)]
        assert made.rate(name) == DECAY**depth, name


def test_steps_shrink_as_rates_do(tmp_path):
    """AdamW's first step is the learning rate in size, of each parameter its own."""
    save, auto, parts = MODELS["bert"]
    model = auto.from_pretrained(save(tmp_path))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    options = TrainOptions(weight_decay=0.0)
    optimizer = make_optimizer(dict(model.named_parameters()), options, hooks=TrainingHooks([checked(model)]))
    set_rate(optimizer, 1e-2)
    for value in model.parameters():
        value.grad = torch.ones_like(value)
    optimizer.step()
    for depth, starts in enumerate(parts):
        moved = [(before[name] - value).abs() for name, value in model.named_parameters() if name.startswith(starts)]
        assert moved and all(torch.allclose(one, torch.tensor(1e-2 * DECAY**depth), rtol=1e-2) for one in moved)


def test_of_1_it_is_plain_adamw(tmp_path, encoder_folder):
    full = {"type": "full"}
    said = [{"type": "layerwise-decay", "decay": 1.0}]
    treated = Variant.of(tmp_path / "treated", encoder_folder, "classification", full, said)
    plain = Variant.of(tmp_path / "plain", encoder_folder, "classification", full)
    [one], [other] = treated.run([0], "run"), plain.run([0], "run")
    assert one.losses == other.losses and far(one, other) < EXACT


def test_adapters_learn_as_the_blocks_they_are_in(tmp_path, encoder_folder):
    said = [{"type": "layerwise-decay", "decay": DECAY}]
    group = Variant.of(tmp_path, encoder_folder, "classification", {"type": "adapter"}, said).assembled([0, 1])
    learning = [name for name, value in group.model.named_parameters() if value.requires_grad]
    rates = {name: group.hooks.rate(name) for name in learning}
    for part, rate in (("layer.0.", DECAY**2), ("layer.1.", DECAY), ("classifier", 1.0)):
        assert {value for name, value in rates.items() if part in name} == {rate}


def test_it_is_refused_where_only_the_head_learns(tmp_path, encoder_folder):
    said = [{"type": "layerwise-decay"}]
    variant = Variant.of(tmp_path, encoder_folder, "classification", {"type": "linear", "solver": "steps"}, said)
    with pytest.raises(InputError) as error:
        variant.assembled()
    [problem] = error.value.problems
    assert problem.path == "mitigations.0" and "nothing to slow down" in problem.found


def test_it_is_refused_for_a_model_without_blocks():
    model = torch.nn.ModuleDict({"embeddings": torch.nn.Embedding(5, 3), "head": torch.nn.Linear(3, 2)})
    with pytest.raises(InputError, match="no blocks are found"):
        checked(model)
