"""Adapters on families whose layers are not all run as layers, or of which peft has no table."""

import pytest
import torch
import transformers as tf

from finetune.core.errors import InputError
from finetune.core.registry import STRATEGIES
from finetune.strategies.base import trained_parameters

SHAPE = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2}
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
JAMBA = {
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "num_experts": 2,
    "mamba_dt_rank": 4,
    "use_mamba_kernels": False,
}
FAMILIES = {
    "Mamba": {**SHAPE, "state_size": 8},
    "Mamba2": {**SHAPE, "state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8},
    "FalconMamba": {**SHAPE, "state_size": 8},
    "Jamba": {**SHAPE, **ATTENTION, **JAMBA},
    "Phi3": {**SHAPE, **ATTENTION, "pad_token_id": 0},
}


def made(kind, **options):
    torch.manual_seed(0)
    model = getattr(tf, f"{kind}ForCausalLM")(getattr(tf, f"{kind}Config")(**FAMILIES[kind]))
    plugin = STRATEGIES.get("adapter")
    return plugin(plugin.Options(type="adapter", **options)).prepare(model, set())


def learning(model):
    """Names of what learns, by whether a pass over a text gives it a gradient."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model(input_ids=torch.arange(5, 29)[None]).logits.pow(2).mean().backward()
    trained = trained_parameters(model)
    moved = {name for name, value in trained.items() if value.grad is not None and value.grad.any()}
    return moved, trained.keys() - moved


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_usual_places_are_those_that_a_family_runs(kind):
    moved, dead = learning(made(kind, rank=2))
    assert moved and dead == set()


@pytest.mark.parametrize(("kind", "layer"), [("Mamba", "out_proj"), ("Mamba2", "out_proj"), ("FalconMamba", "dt_proj")])
def test_a_place_that_is_passed_by_is_refused_with_those_that_fit(kind, layer):
    with pytest.raises(InputError) as error:
        made(kind, targets=[layer])
    (problem,) = error.value.problems
    assert problem.path == "strategy.targets" and f"'{layer}' is read by this" in problem.found
    assert problem.advice.endswith("write in_proj")


@pytest.mark.parametrize("kind", ["Mamba", "Phi3"])
def test_a_method_of_which_peft_has_no_table_says_which_layers_there_are_and_takes_them(kind):
    with pytest.raises(InputError) as error:
        made(kind, method="ia3")
    (problem,) = error.value.problems
    assert problem.path == "strategy.targets" and problem.advice.startswith("write strategy.targets: all-linear, or")
    named = problem.advice.partition("[")[2].rstrip("]").split(", ")
    for targets in ("all-linear", named):
        assert learning(made(kind, method="ia3", targets=targets))[1] == set()


@pytest.mark.parametrize("method", ["prompt", "p-tuning"])
def test_virtual_tokens_need_no_attention(method):
    assert learning(made("Mamba", method=method))[0]
