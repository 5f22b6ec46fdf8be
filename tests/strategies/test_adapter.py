"""Adapters: LoRA beside frozen weights, through peft."""

import json
from types import SimpleNamespace

import peft
import pytest
import torch
import transformers
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune.core.registry import STRATEGIES
from finetune.models import ModelOptions, head_parameters, load_base
from finetune.runner.run import save_model
from finetune.strategies.base import trained_parameters
from tests import tiny
from tests.examples import Example

EXAMPLES = {
    "adapter": Example({"rank": 4}),
    "adapter/adalora": Example({"method": "adalora", "rank": 4}, rate=0.1, falls=0.98),
    "adapter/ia3": Example({"method": "ia3", "dropout": 0.0}, rate=0.1, falls=0.998),
    "adapter/ln-tuning": Example({"method": "ln-tuning", "dropout": 0.0}, rate=3e-2, falls=0.998),
    "adapter/prefix": Example(
        {"method": "prefix", "dropout": 0.0, "options": {"num_virtual_tokens": 4}}, rate=3e-2, falls=0.98
    ),
    "adapter/prompt": Example(
        {"method": "prompt", "dropout": 0.0, "options": {"num_virtual_tokens": 4}}, rate=3e-2, falls=0.999
    ),
}

LINEAR = {
    # build: the names, within a block, of the layers that learn; and those outside the blocks
    "bert": (
        [f"attention.self.{name}" for name in ("query", "key", "value")]
        + [f"{name}.dense" for name in ("attention.output", "intermediate", "output")],
        ["bert.pooler.dense"],
    ),
    "llama": (
        [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")],
        [],
    ),
    "gpt2": (["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"], []),
}
LINEAR["llama-classifier"] = LINEAR["llama"]
BLOCKS = {"bert": "bert.encoder.layer", "llama": "model.layers", "gpt2": "transformer.h"}


def adapted(made):
    """The names of the layers that have an adapter."""
    ends = (".lora_A.default.weight", ".lora_embedding_A.default")
    names = {name.removeprefix("base_model.model.") for name in made.trained}
    return {name.removesuffix(end) for name in names for end in ends if name.endswith(end)}


def heads(made):
    return {name for name in made.trained if "lora_" not in name}


@pytest.mark.parametrize("build", LINEAR)
def test_all_linear_layers_but_head_and_output_get_an_adapter(prepare, build):
    made = prepare(build, "adapter", rank=4)
    inside, outside = LINEAR[build]
    blocks = BLOCKS[build.partition("-")[0]]
    assert adapted(made) == {f"{blocks}.{number}.{name}" for number in range(2) for name in inside} | set(outside)
    prefix = "base_model.model."
    wanted = {f"{prefix}{name}" for name in made.head}
    assert {name.replace(".modules_to_save.default", "") for name in heads(made)} == wanted
    shapes = [value.shape for name, value in trained_parameters(made.model).items() if "lora_A" in name]
    assert shapes and all(shape[0] == 4 for shape in shapes)


def test_an_encoder_decoder_gets_adapters_in_both_halves(prepare):
    names = adapted(prepare("t5", "adapter"))
    assert len(names) == 2 * (4 + 2) + 3 * (8 + 2)  # attention, cross attention and feed-forward layers
    assert not any(name in ("lm_head", "shared") for name in names)


def test_frozen_weights_are_those_of_the_base_model(prepare):
    made = prepare("bert", "adapter")
    frozen = {
        name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".original_module", ""): value
        for name, value in made.model.named_parameters()
        if name not in made.trained
    }
    assert frozen.keys() == dict(made.base.named_parameters()).keys()
    assert all(torch.equal(value, frozen[name]) for name, value in made.base.named_parameters())


@pytest.mark.parametrize("build", ["bert", "llama", "llama-classifier", "gpt2", "t5", "t5-classifier"])
def test_an_adapter_changes_nothing_before_it_has_learnt(prepare, logits, build):
    made = prepare(build, "adapter", rank=4)
    assert torch.equal(logits(made.model), logits(made.base))
    second = [value for name, value in trained_parameters(made.model).items() if "lora_B" in name]
    assert second and not any(value.any() for value in second)


def test_the_first_factor_comes_from_the_init_stream(prepare):
    def first(seed):
        made = prepare("llama", "adapter", seed=seed)
        return {name: value for name, value in trained_parameters(made.model).items() if "lora_A" in name}

    torch.manual_seed(5)
    one = first(1)
    torch.manual_seed(6)
    again, other = first(1), first(2)
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not any(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("alpha, scale", [(None, 2.0), (6.0, 1.5), (1.0, 0.25)])
def test_the_update_is_alpha_over_rank(prepare, logits, shake, alpha, scale):
    made = prepare("llama", "adapter", rank=4, alpha=alpha, targets=["q_proj"])
    shake(made.model)
    layer = made.model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    a, b = (factor["default"].weight for factor in (layer.lora_A, layer.lora_B))
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    wanted = x @ layer.base_layer.weight.T + scale * x @ a.T @ b.T
    assert torch.allclose(layer(x), wanted, atol=1e-6)


def test_dropout_goes_to_the_adapters_input(prepare):
    layer = prepare("llama", "adapter", dropout=0.3).model.get_submodule("base_model.model.model.layers.0.mlp.up_proj")
    assert layer.lora_dropout["default"].p == 0.3


@pytest.mark.parametrize(
    "build, targets, wanted",
    [
        ("bert", ["query", "value"], ["attention.self.query", "attention.self.value"]),
        ("bert", "query", ["attention.self.query"]),
        ("bert", "output.dense", ["attention.output.dense", "output.dense"]),
        ("gpt2", ["c_attn"], ["attn.c_attn"]),
    ],
)
def test_named_layers_get_an_adapter(prepare, build, targets, wanted):
    made = prepare(build, "adapter", targets=targets)
    assert adapted(made) == {f"{BLOCKS[build]}.{number}.{name}" for number in range(2) for name in wanted}


def test_a_full_name_and_embeddings_can_be_named(prepare, logits):
    made = prepare("llama", "adapter", targets=["model.layers.1.mlp.up_proj", "embed_tokens"])
    assert adapted(made) == {"model.layers.1.mlp.up_proj", "model.embed_tokens"}
    assert torch.equal(logits(made.model), logits(made.base))


@pytest.mark.parametrize("targets", [["query", "quary"], "quary", ["uery"], ["classifier"]])
def test_targets_that_match_nothing_are_refused(refusal, targets):
    problem = refusal("bert", "adapter", targets=targets)
    wrong = targets if isinstance(targets, str) else targets[-1]
    assert problem.path == "strategy.targets" and f"'{wrong}' matches no layer" in problem.found
    assert ("did you mean 'query'" in problem.advice) == (wrong != "classifier")
    assert "choose from: dense, key, query, value" in problem.advice


@pytest.mark.parametrize(
    "build, auto",
    [
        ("bert", AutoModelForSequenceClassification),
        ("llama-classifier", AutoModelForSequenceClassification),
        ("llama", AutoModelForCausalLM),
        ("gpt2", AutoModelForCausalLM),
    ],
)
def test_peft_loads_the_saved_folder_onto_the_base_model(prepare, bases, shake, logits, tmp_path, build, auto):
    made = prepare(build, "adapter", rank=4)
    shake(made.model)
    made.strategy.save(made.model, tmp_path)
    plain = auto.from_pretrained(bases(build).folder, **bases(build).config)
    assert torch.equal(logits(peft.PeftModel.from_pretrained(plain, tmp_path)), logits(made.model))
    assert not torch.allclose(logits(made.model), logits(made.base))


@pytest.mark.parametrize("build", ["bert", "llama", "llama-classifier", "gpt2", "t5-classifier"])
def test_only_what_learnt_is_saved_and_it_is_enough(prepare, shake, logits, tmp_path, build):
    made = prepare(build, "adapter", seed=1, rank=2)
    shake(made.model)
    made.strategy.save(made.model, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    with safe_open(file, "pt") as saved:
        names = set(saved.keys())
    assert names == {name.replace(".default", "").replace(".modules_to_save", "") for name in made.trained}
    size = sum(value.numel() for value in trained_parameters(made.model).values()) * 4
    assert size < file.stat().st_size < size + 20_000
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 2
    fresh = prepare(build, "adapter", seed=2, rank=2)
    fresh.strategy.restore(fresh.model, tmp_path)
    assert torch.equal(logits(fresh.model), logits(made.model))


def test_an_adapter_on_a_gguf_model_is_saved_without_the_network(tmp_path):
    base = load_base(ModelOptions(source=str(tiny.save_gguf(tmp_path / "tiny.gguf"))), "AutoModelForCausalLM")
    plugin = STRATEGIES.get("adapter")
    strategy = plugin(plugin.Options(type="adapter", targets=["q_proj", "embed_tokens"]))
    model = strategy.prepare(base.model, set())
    strategy.save(model, tmp_path / "model")
    with safe_open(tmp_path / "model" / "adapter_model.safetensors", "pt") as saved:
        assert all("lora_" in name for name in saved.keys())  # noqa: SIM118  (a file, not a dictionary)


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
HEADS = {
    "one layer": ("Bert", {}),
    "a module of layers": ("Camembert", {}),
    "a layer before it": ("DistilBert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    "one that peft calls score": ("Llama", {"num_key_value_heads": 2}),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_classifiers_adapter_is_loaded_from_its_folder_alone(tmp_path, head):
    """By one call of peft's, which is told neither the base model nor how many labels there are."""
    family, shape = HEADS[head]
    size = tiny.save_tokenizer(tmp_path / "base")
    shape = shape if "dim" in shape else {**SMALL, **shape}
    config = getattr(transformers, f"{family}Config")(vocab_size=size, pad_token_id=0, **shape)
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "base")
    recipe = {"model": str(tmp_path / "base"), "labels": {0: "a", 1: "b", 2: "c"}}
    base = transformers.AutoModelForSequenceClassification.from_pretrained(recipe["model"], id2label=recipe["labels"])
    strategy = STRATEGIES.get("adapter")(STRATEGIES.get("adapter").Options(type="adapter", rank=2))
    model = strategy.prepare(base, head_parameters(base))
    with torch.no_grad():
        for value in trained_parameters(model).values():
            value += 0.1 * torch.randn(value.shape)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "base")
    data = SimpleNamespace(task=SimpleNamespace(tokenizer=tokenizer))
    save_model(strategy, model, data, tmp_path / "run" / "model")
    again = peft.AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    ids = torch.arange(10, 22)[None]
    assert torch.allclose(again.eval()(input_ids=ids).logits, model.eval()(input_ids=ids).logits, atol=1e-6)
    assert again.config.id2label == recipe["labels"]
    assert not [path for path in (tmp_path / "run" / "model").glob("*.safetensors") if path.name[:7] != "adapter"]
