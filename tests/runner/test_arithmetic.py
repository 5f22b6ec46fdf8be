"""What `compute:` asks for and something else cannot do is refused by name, before anything is loaded."""

import json

import pytest
import yaml

from finetune import recipe
from finetune.core.errors import InputError
from finetune.study.preflight import preflight
from scripts._families.zoo import FAMILIES
from tests import tiny

BF16 = ["model.dtype=bfloat16", "compute.weights=bfloat16"]


def refused(path, *overrides):
    with pytest.raises(InputError) as caught:
        preflight(recipe.load(path, ["variants=null", "strategy={type: full}", *overrides]))
    return [(problem.path, problem.found) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("overrides", "at", "reason"),
    [
        (["compute.gradient_checkpointing=true", "strategy={type: linear, mode: linearised}"],
         "compute.gradient_checkpointing", "strategy 'linear' takes derivatives inside the pass"),
        (["compute.gradient_checkpointing=true", "train.compile=true"],
         "compute.gradient_checkpointing", "blocks are to be compiled"),
        (["model.dtype=float32", "compute.weights=bfloat16"],
         "compute.weights", "is bfloat16, and the arithmetic is float32"),
        ([*BF16, "train.optimizer=prodigy", "train.learning_rate=1"],
         "compute.weights", "is bfloat16, and prodigy keeps all in float32"),
        (["compute.states=8bit", "train.optimizer=schedule-free"],
         "compute.states", "is 8bit, and schedule-free keeps all in float32"),
        ([*BF16, "mitigations=[{type: ema}]"], "compute.weights", "'ema' computes with weights itself"),
        ([*BF16, "mitigations=[{type: l2-sp}]"], "compute.weights", "'l2-sp' computes with weights itself"),
        (["compute.offload=true", "model.device=cpu"], "compute.offload", "on cpu all is in the host's memory"),
        (["compute.tf32=true", "model.device=cpu"], "compute.tf32", "there is no TF32 on cpu"),
        (["compute.attention=flash", "model.device=cpu"], "compute.attention", "this runs on cpu"),
        (["compute.shard=true", "train.optimizer=muon"],
         "compute.shard", "muon computes a step from whole matrices"),
        (["compute.shard=true", "mitigations=[{type: mixout}]"], "compute.shard", "'mixout' computes with whole"),
        (["compute.shard=true", "strategy={type: linear, mode: linearised}"],
         "compute.shard", "'linear' computes with whole weights"),
        (["compute.shard=true", "strategy={type: linear, mode: lp-ft}"], "compute.shard", "a probe is solved"),
        (["compute.shard=true", "compute.states=8bit"], "compute.shard", "rounding weights or states"),
        (["compute.shard=true", "train.compile=true"], "compute.shard", "blocks are to be compiled"),
        (["model.dtype=float16", "train.optimizer=prodigy", "train.learning_rate=1"],
         "model.dtype", "prodigy counts all steps"),
    ],
)  # fmt: skip
def test_it_is_refused_by_name(topics, overrides, at, reason):
    [(path, found)] = refused(topics, *overrides)
    assert path == at and reason in found


def test_a_cache_of_what_was_learnt_cannot_be_computed_again(tmp_path):
    tiny.save_decoder(tmp_path / "model")
    tiny.write_chats(tmp_path / "chats.jsonl", 20)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: {source: model}\ndata: {train: {path: chats.jsonl}, split: {test: 5}}\n"
        "task: {type: chat, prompt: prompt, completion: completion}\n"
        "strategy: {type: adapter, method: prefix}\n"
        "compute: {gradient_checkpointing: true}\n"
    )
    with pytest.raises(InputError, match="in a cache, which cannot be computed again"):
        preflight(recipe.load(path))


def test_all_that_is_wrong_is_said_at_once(topics):
    treated = ("mitigations=[{type: ema}, {type: l2-sp}]", "compute.attention=flash")
    found = refused(topics, *BF16, "compute.tf32=true", "model.device=cpu", *treated)
    paths = [path for path, _ in found]
    assert paths == ["compute.attention", "compute.weights", "compute.weights", "compute.tf32"]


def solved(topics, setting):
    """A recipe whose probe is solved, with a setting of `compute`."""
    content = yaml.safe_load(topics.read_text())
    content = {key: value for key, value in content.items() if key not in ("train", "variants")}
    content["model"]["source"] = str(topics.parent / content["model"]["source"])
    content["data"]["train"]["path"] = str(topics.parent / content["data"]["train"]["path"])
    return recipe.load({**content, "name": "solved", "strategy": {"type": "linear"}, "compute": setting})


@pytest.mark.parametrize("setting", [{"gradient_checkpointing": True}, {"weights": "bfloat16"}, {"states": "8bit"}])
def test_what_is_solved_has_nothing_to_refuse(topics, setting):
    preflight(solved(topics, setting))


def test_what_is_solved_is_not_split(topics):
    with pytest.raises(InputError, match="a probe is solved from what the whole model gives"):
        preflight(solved(topics, {"shard": True}))


BALANCED = "compute.moe_auxiliary_loss=0.01"
PAIRED = ["task={type: chat, prompt: prompt, completion: topic, rejected: other}", "strategy={type: preference}"]
CLASSES = "task={type: classification, text: prompt, label: topic, max_length: 32}"


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """A recipe for a mixture of experts."""
    folder = tmp_path_factory.mktemp("mixture")
    tiny.save_moe(folder / "model", output_router_logits=True, router_aux_loss_coef=0.02)
    rows = "".join(
        json.dumps({"prompt": text, "topic": topic, "other": "none"}) + "\n" for text, topic in tiny.sentences(30)
    )
    (folder / "rows.jsonl").write_text(rows)
    path = folder / "recipe.yaml"
    path.write_text(
        "seeds: 1\nmodel: {source: model}\ndata: {train: {path: rows.jsonl}, split: {test: 6}}\n"
        "task: {type: chat, prompt: prompt, completion: topic}\nstrategy: {type: full}\n"
        "baselines: {enabled: false}\n"
    )
    return path


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (PAIRED, "'preference' has a loss of pairs of answers"),
        ([CLASSES, "strategy={type: linear}"], "a probe is solved"),
        ([CLASSES, "strategy={type: linear, solver: steps}"], "all that learns is above the routers"),
        ([CLASSES, "strategy={type: linear, mode: linearised}"], "takes derivatives inside the pass"),
        (["train.compile=true"], "blocks are to be compiled"),
    ],
)
def test_where_routers_cannot_be_balanced_it_is_said(mixture, overrides, reason):
    preflight(recipe.load(mixture, overrides))
    [(path, found)] = refused(mixture, *overrides, BALANCED)
    assert path == "compute.moe_auxiliary_loss" and found.startswith("is 0.01, and") and reason in found


@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy={type: adapter, rank: 2}"],
        ["strategy={type: partial, last: 1}"],
        ["compute.gradient_checkpointing=true", "compute.shard=true"],
        [CLASSES, "strategy={type: linear, mode: lp-ft}"],
        ["train.compile=auto"],
    ],
)
def test_elsewhere_they_are_balanced(mixture, overrides):
    preflight(recipe.load(mixture, [*overrides, BALANCED]))


def test_a_model_without_experts_has_nothing_to_balance(topics):
    [(path, found)] = refused(topics, BALANCED)
    assert path == "compute.moe_auxiliary_loss" and "this model has no routers" in found


def test_routers_whose_loss_transformers_does_not_define_are_refused(tmp_path, mixture):
    """DeepSeek's, which has a sigmoid in the softmax's place and balances by a bias."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    shape = FAMILIES["DeepSeek-V3"].shape
    tokenizer = AutoTokenizer.from_pretrained(mixture.parent / "model")
    config = AutoConfig.for_model("deepseek_v3", vocab_size=len(tokenizer), pad_token_id=0, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    [(_, found)] = refused(mixture, f"model.source={tmp_path / 'model'}", BALANCED)
    assert "no routers whose load-balancing loss transformers defines" in found


def test_what_the_configuration_asks_for_and_the_recipe_leaves_out_is_said(mixture, topics):
    said = "base model: its configuration asks for an auxiliary loss of its routers, times 0.02; it is left out"
    assert [line for line in preflight(recipe.load(mixture)).lines() if line.startswith(said)]
    for path, overrides in ((mixture, [BALANCED]), (topics, [])):
        assert not any("auxiliary" in line for line in preflight(recipe.load(path, overrides)).lines())


def test_where_states_are_kept_cannot_change_on_the_way(topics):
    """AdamW's fused kernel keeps them in other shapes, and rounds otherwise."""
    one, other = (
        recipe.load(topics, ["variants=null", "strategy={type: full}", f"compute.offload={value}"]).variants[0]
        for value in ("false", "true")
    )
    assert one.digest != other.digest
