"""Every method of peft's, found in peft itself: what it trains, where it starts, what it saves, and what is refused."""

import copy
import warnings
from functools import lru_cache
from itertools import product
from types import SimpleNamespace

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch.nn.functional import cross_entropy

from finetune.core.errors import FinetuneError, InputError
from finetune.core.hooks import TrainingHooks, TrainingState
from finetune.core.registry import STRATEGIES
from finetune.models import ModelOptions, skeleton
from finetune.strategies.adapters import quantised
from finetune.strategies.adapters.adalora import Allocation
from finetune.strategies.adapters.methods import REFUSED, checked, find
from finetune.strategies.adapters.settings import KINDS
from finetune.strategies.base import trained_parameters
from finetune.train.optimizer import make_optimizer
from finetune.train.options import TrainOptions
from tests.contracts.battery import Battery
from tests.replicas.groups import Variant, far

NAMES = sorted(kind.value.lower() for kind in PEFT_TYPE_TO_CONFIG_MAPPING)
SMALL = {
    # what a model of 32 features needs, or a method has no default for
    "c3a": {"block_size": 8},
    "fourierft": {"n_frequency": 100},
    "miss": {"r": 8},
    "psoft": {"r": 4},
    "road": {"group_size": 8},
    "shira": {"r": 4},
    "trainable_tokens": {"token_indices": [9, 17]},
    "vblora": {"vector_length": 16},
    "waveft": {"n_frequency": 100},
}
KNOWN = ["adalora", "boft", "dora", "fourierft", "ia3", "ln_tuning", "loha", "lokr", "lora", "lora+"]
KNOWN += ["oft", "p_tuning", "pissa", "prefix", "prompt", "rslora", "vera"]
"""Those that are promised by name, tried on an encoder with a head and on a language model."""
METHODS = sorted({*KNOWN, *NAMES} - REFUSED.keys())
PROMPTS = {"cartridge", "p_tuning", "prefix", "prefix_tuning", "prompt", "prompt_tuning"}
ELSEWHERE = PROMPTS | {"c3a", "fourierft", "unilora", "vblora"}
"""Methods that do not promise to start as the base model, since what they add is drawn and not zero."""
HEADLESS = {"adaption_prompt", "trainable_tokens"}
"""Methods that leave no room for a new head."""
LOOKING = {"adamss", "frod", "shira"}
"""Methods that look at weights or draws when they are set up, which a dry run has none of."""
IDS = torch.tensor([[9, 17, 33, 70, 2], [12, 55, 8, 91, 2]])


def options_of(method):
    return {"method": method, "options": SMALL.get(method, {})}


RANKED = {**SMALL, "supertuning": {"r": 4}}
"""A method that has a scale and dropout only where it has a rank."""


ALIKE = {("lora+", "method"), ("psoft", "alpha")}
"""LoRA+ differs from LoRA in its rates alone, see below; psoft starts from what it divides by its scale, and multiplies
by that again."""


def builds(method):
    return ["bert", "llama"] if method in KNOWN else ["llama" if method in HEADLESS else "llama-classifier"]


each = pytest.mark.parametrize("build, method", [(build, method) for method in METHODS for build in builds(method)])


def steps_of(prepare, logits, build, **options):
    """A model before and after four steps of training under those options."""
    found = prepare(build, "adapter", seed=1, **options)
    found.gap = float((logits(found.model) - logits(found.base)).abs().max())
    found.before = {name: value.detach().clone() for name, value in found.model.named_parameters()}
    optimizer, found.losses = torch.optim.Adam(trained_parameters(found.model).values(), lr=0.01), []
    torch.manual_seed(1)  # what dropout draws
    for _ in range(4):
        outputs = found.model.train()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
        scores = outputs[:, :-1].flatten(0, 1) if build == "llama" else outputs
        loss = cross_entropy(scores, IDS[:, 1:].flatten() if build == "llama" else torch.tensor([0, 1]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.losses.append(float(loss.detach()))
    return found


@pytest.fixture(scope="module")
def trained(prepare, logits):
    """A model before and after some steps of training, done once."""
    made = {}

    def train(build, method):
        if (build, method) not in made:
            made[build, method] = steps_of(prepare, logits, build, **options_of(method))
        return made[build, method]

    return train


@each
def test_it_starts_as_the_base_model_where_it_promises_to(trained, build, method):
    assert (trained(build, method).gap < 1e-6) == (method not in ELSEWHERE)


@each
def test_it_learns_beside_weights_that_stay_as_they_are(trained, build, method):
    made = trained(build, method)
    assert made.losses[-1] < made.losses[0]
    changed = {name for name, value in made.model.named_parameters() if not torch.equal(value, made.before[name])}
    assert changed <= made.trained
    assert len(changed) > 0.5 * len(made.trained)


@pytest.fixture(scope="module")
def plain(prepare, logits):
    """Each method with what :func:`shared` changes, unchanged."""
    return lru_cache(None)(lambda method: steps_of(prepare, logits, builds(method)[0], **shared(method)))


def shared(method):
    return {"method": method, "options": RANKED.get(method, {})}


@pytest.mark.parametrize("method, kind", [pair for pair in product(METHODS, ["method", *KINDS]) if pair not in ALIKE])
def test_what_adapters_share_means_something_to_each_that_takes_it(plain, prepare, logits, method, kind):
    """Rank, scale and dropout change what is learnt or are refused; and each method trains something else than LoRA."""
    found, options = find(method.replace("-", "_"), "strategy.method"), shared(method)
    name = kind if kind == "method" else found.option(kind)
    if kind == "method":
        changed = {"method": "lora" if method != "lora" else "rslora", "options": {}}
    else:
        default = getattr(found.fields.get(name), "default", None)
        changed = {**options, kind: {"rank": 4 if default == 2 else 2, "alpha": 3.0, "dropout": 0.5}[kind]}
    if name is None or name in options["options"]:
        with pytest.raises(InputError):
            prepare(builds(method)[0], "adapter", seed=1, **changed)
        return
    one, other = plain(method), steps_of(prepare, logits, builds(method)[0], **changed)
    assert one.losses != other.losses or one.trained != other.trained, f"{kind} means nothing to {method}"


@each
def test_what_is_saved_is_enough_under_another_seed_and_for_peft(trained, prepare, logits, tmp_path, build, method):
    made = trained(build, method)
    made.strategy.save(made.model, tmp_path)
    fresh = prepare(build, "adapter", seed=2, **options_of(method))
    wanted = logits(made.model)
    assert not torch.allclose(logits(fresh.model), wanted, atol=1e-4)
    fresh.strategy.restore(fresh.model, tmp_path)
    assert torch.equal(logits(fresh.model), wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = logits(peft.PeftModel.from_pretrained(copy.deepcopy(made.base), tmp_path))
    # From peft what follows virtual tokens comes first.
    assert torch.allclose(loaded[:, -5:] if build == "llama" else loaded, wanted, atol=1e-5)


@each
def test_a_dry_run_finds_the_same_parameters(trained, bases, build, method):
    made, base = trained(build, method), bases(build)
    auto = "AutoModelForCausalLM" if build == "llama" else "AutoModelForSequenceClassification"
    plugin = STRATEGIES.get("adapter")
    empty = skeleton(ModelOptions(source=str(base.folder)), auto, **base.config)
    model = plugin(plugin.Options(type="adapter", **options_of(method))).prepare(empty, set(made.head))
    found = {name: value.shape for name, value in trained_parameters(model).items()}
    if method in LOOKING:
        assert found.keys() == made.head
    else:
        assert found == {name: value.shape for name, value in trained_parameters(made.model).items()}


@pytest.mark.parametrize("method", sorted(REFUSED))
def test_methods_that_need_more_than_examples_are_refused(refusal, method):
    problem = refusal("llama", "adapter", method=method)
    assert problem.path == "strategy.method" and REFUSED[method] in problem.found


@pytest.mark.parametrize("method", sorted(HEADLESS))
def test_methods_without_room_for_a_head_are_refused_where_there_is_one(refusal, method):
    problem = refusal("llama-classifier", "adapter", **options_of(method))
    assert problem.path == "strategy.method" and "new head" in problem.found


# What words stand for


@pytest.mark.parametrize("rank, alpha, scale", [(4, None, 8.0), (16, None, 4.0), (4, 6.0, 3.0)])
def test_rank_stabilised_lora_scales_by_the_root_of_the_rank(prepare, rank, alpha, scale):
    model = prepare("llama", "adapter", method="rslora", rank=rank, alpha=alpha).model
    assert model.get_submodule("base_model.model.model.layers.0.mlp.up_proj").scaling["default"] == scale


def test_dora_learns_a_magnitude_for_each_output(prepare):
    made = prepare("llama", "adapter", method="dora", targets="up_proj")
    magnitudes = {name: value for name, value in trained_parameters(made.model).items() if "magnitude" in name}
    base = made.base.get_submodule("model.layers.0.mlp.up_proj").weight
    assert torch.allclose(next(iter(magnitudes.values())), base.norm(dim=1))
    assert len(magnitudes) == 2


def test_pissa_trains_the_principal_part_and_freezes_the_rest(prepare):
    made = prepare("llama", "adapter", method="pissa", rank=4, targets="up_proj")
    layer = made.model.get_submodule("base_model.model.model.layers.0.mlp.up_proj")
    weight = made.base.get_submodule("model.layers.0.mlp.up_proj").weight.detach()
    values = torch.linalg.svdvals(weight)
    update = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert torch.allclose(torch.linalg.svdvals(update.detach())[:4], values[:4], atol=1e-5)
    assert torch.allclose(torch.linalg.svdvals(layer.base_layer.weight)[0], values[4], atol=1e-5)
    assert torch.allclose(layer.base_layer.weight + update, weight, atol=1e-6)


def test_what_pissa_freezes_is_the_same_for_every_seed(prepare):
    """Or seeds could not stand side by side over one frozen model."""
    one, other = (
        dict(prepare("llama", "adapter", method="pissa", seed=seed).model.named_parameters()) for seed in (1, 2)
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    drawn = {"method": "pissa", "options": {"init_lora_weights": "pissa_niter_4"}}
    assert not prepare("llama", "adapter", **drawn).strategy.can_stack


def test_runs_of_pissa_side_by_side_are_those_that_they_would_be_alone(tmp_path, decoder_folder):
    strategy = {"type": "adapter", "method": "pissa", "rank": 4}
    variant = Variant.of(tmp_path, decoder_folder, "classification", strategy, max_steps=3, min_steps=3)
    together = variant.run([0, 1], "together")
    assert max(far(came, variant.run([seed], "alone")[0]) for seed, came in enumerate(together)) < 1e-4


def optimizer_of(made):
    parameters = trained_parameters(made.model)
    return parameters, make_optimizer(parameters, TrainOptions(learning_rate=1e-3), 1, TrainingHooks([made.strategy]))


@pytest.mark.parametrize("ratio", [None, 4.0, 1.0])
def test_lora_plus_lets_b_learn_faster_and_nothing_else(prepare, shake, ratio):
    """AdamW's first step is as long as the rate. Biases, the head, and factors of embeddings keep the plain one."""
    targets = ["query", "value", "word_embeddings"]
    made = prepare("bert", "adapter", method="lora+", ratio=ratio, targets=targets)
    shake(made.model)
    parameters, optimizer = optimizer_of(made)
    before = {name: value.detach().clone() for name, value in parameters.items()}
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = 1e-3 * group["factor"], 0.0
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    steps = {name: float((before[name] - value.detach()).abs().mean()) for name, value in parameters.items()}
    wide = 1e-3 * (ratio or 16.0)
    assert any("classifier.bias" in name or name.endswith(".bias") for name in steps)
    assert any("lora_embedding_B" in name for name in steps)
    assert {name: pytest.approx(wide if ".lora_B." in name else 1e-3, rel=1e-3) for name in steps} == steps


def test_lora_plus_with_ratio_one_is_lora_under_adamw(prepare):
    plus = optimizer_of(prepare("llama", "adapter", method="lora+", ratio=1.0))
    plain = optimizer_of(prepare("llama", "adapter", method="lora"))
    assert plus[0].keys() == plain[0].keys()
    assert [group["factor"] for group in plus[1].param_groups] == [group["factor"] for group in plain[1].param_groups]


def test_a_ratio_without_lora_plus_is_refused():
    with pytest.raises(ValueError, match="ratio is for method lora"):
        STRATEGIES.get("adapter").Options(type="adapter", ratio=2.0)


@pytest.mark.parametrize(
    "method, options, wanted",
    [
        ("loha", {"rank": 4, "alpha": 2.0}, {"r": 4, "alpha": 2}),
        ("oft", {"rank": 4}, {"r": 4, "oft_block_size": 0}),
        ("vera", {"rank": 16, "dropout": 0.1}, {"r": 16, "vera_dropout": 0.1}),
        ("adalora", {"rank": 4}, {"target_r": 4, "init_r": 6, "lora_alpha": 8}),
        ("P-Tuning", {}, {"num_virtual_tokens": 20, "encoder_hidden_size": 32}),
        ("prefix", {"options": {"num_virtual_tokens": 3}}, {"num_virtual_tokens": 3, "prefix_projection": True}),
    ],
)
def test_shared_options_reach_peft_by_its_own_names(prepare, method, options, wanted):
    config = prepare("llama", "adapter", method=method, **options).model.active_peft_config
    assert {name: getattr(config, name) for name in wanted} == wanted


def test_ln_tuning_trains_copies_of_all_norms(prepare):
    made = prepare("bert", "adapter", method="ln_tuning")
    learning = {name for name in made.trained if "ln_tuning" in name}
    assert len(learning) == 2 * (1 + 2 * 2)
    one = next(name for name in learning if "layer.1.output" in name and name.endswith("weight"))
    assert torch.equal(made.model.get_parameter(one), made.base.bert.encoder.layer[1].output.LayerNorm.weight)


def test_ia3_goes_where_its_paper_says(prepare):
    names = {name for name in prepare("llama", "adapter", method="ia3").trained if ".0." in name}
    assert {name.split(".ia3_l")[0].rpartition(".")[2] for name in names} == {"k_proj", "v_proj", "down_proj"}


# What is refused


@pytest.mark.parametrize(
    "options, path, found, advice",
    [
        ({"method": "lorra"}, "strategy.method", "no method 'lorra'", "did you mean 'lora'"),
        ({"method": "ia3", "rank": 4}, "strategy.rank", "has no rank", "feedforward_modules"),
        ({"method": "oft", "alpha": 2.0}, "strategy.alpha", "has no alpha", "oft_block_size"),
        ({"options": {"lora_alhpa": 3}}, "strategy.options.lora_alhpa", "no option", "did you mean 'lora_alpha'"),
        (
            {"options": {"use_dora": 1}},
            "strategy.options.use_dora",
            "is 1; it must be true or false",
            "Enable 'Weight-Decomposed",
        ),
        ({"options": {"lora_alpha": 2.5}}, "strategy.options.lora_alpha", "is 2.5; it must be a whole number", ""),
        ({"options": {"bias": "some"}}, "strategy.options.bias", 'must be "none" or "all" or "lora_only"', ""),
        ({"options": {"rank_pattern": [1]}}, "strategy.options.rank_pattern", "must be a section or null", ""),
        ({"options": {"target_modules": ["q"]}}, "strategy.options.target_modules", "not for a recipe", "targets"),
        ({"options": {"init_lora_weights": "eva"}}, "strategy.options.init_lora_weights", "look at the data", "leave"),
        ({"options": {"init_lora_weights": "zero"}}, "strategy.options.init_lora_weights", '"gaussian"', ""),
        ({"rank": 4, "options": {"r": 4}}, "strategy.options.r", "strategy.rank once more", "leave one"),
        ({"method": "c3a"}, "strategy.method", "block size should be a factor", "block_size"),
        ({"method": "c3a", "options": {"block_size": 7}}, "strategy.method", "block size", "block_size"),
        ({"method": "trainable_tokens"}, "strategy.method", "nothing of", "token_indices"),
        ({"method": "prompt", "targets": "q_proj"}, "strategy.targets", "is put on no layers", "leave it out"),
        (
            {"method": "adalora", "rank": 4, "options": {"init_r": 4}},
            "strategy.options.init_r",
            "not above the 4",
            "write 6",
        ),
    ],
)
def test_one_clear_message_for(refusal, options, path, found, advice):
    problem = refusal("llama", "adapter", **options)
    assert (problem.path, found in problem.found, advice in problem.advice) == (path, True, True), problem


def test_all_wrong_options_are_told_at_once(prepare):
    with pytest.raises(InputError) as error:
        prepare("llama", "adapter", options={"use_dora": "yes", "lora_alhpa": 3})
    assert [problem.path for problem in error.value.problems] == [
        "strategy.options.use_dora",
        "strategy.options.lora_alhpa",
    ]


def test_values_that_a_pattern_of_peft_describes_are_taken(prepare):
    config = prepare("llama", "adapter", options={"init_lora_weights": "pissa_niter_2"}).model.active_peft_config
    assert config.init_lora_weights == "pissa_niter_2"


@given(st.dictionaries(st.sampled_from(["r", "lora_alpha", "use_dora", "bias", "rank_pattern", "x"]), st.integers()))
def test_options_are_taken_as_they_are_or_refused_by_name(options):
    method, wrong = find("lora", "here"), options.keys() - {"r", "lora_alpha"}
    try:
        assert checked(method, options, "here") == options and not wrong
    except InputError as error:
        assert {problem.path for problem in error.problems} == {f"here.{key}" for key in wrong}


@pytest.mark.parametrize("method", ["prefix", "prompt", "p-tuning"])
def test_virtual_tokens_have_no_place_in_an_encoder_decoder(refusal, method):
    problem = refusal("t5-classifier", "adapter", method=method)
    assert problem.path == "strategy.method" and "encoder-decoder" in problem.found


@pytest.mark.parametrize("asked", [{"method": "qlora"}, {"quantize": "8bit"}, {"method": "ia3", "quantize": "4bit"}])
def test_quantised_layers_need_a_gpu(refusal, monkeypatch, asked):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    problem = refusal("llama", "adapter", **asked)
    assert problem.path == "strategy.quantize" and "need a CUDA GPU" in problem.found and "lora" in problem.advice


def test_quantised_layers_need_bitsandbytes_and_a_method_that_takes_them(refusal, monkeypatch):
    problem = refusal("llama", "adapter", method="boft", quantize="4bit")
    assert problem.path == "strategy.quantize" and "cannot put boft" in problem.found
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = quantised.importlib.util.find_spec
    monkeypatch.setattr(
        quantised.importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name)
    )
    assert "pip install bitsandbytes" in refusal("llama", "adapter", method="qlora").advice


# AdaLoRA


def test_adalora_takes_ranks_away_until_the_mean_is_the_one_asked_for(tmp_path, encoder_folder):
    strategy = {"type": "adapter", "method": "adalora", "rank": 2}
    (came,) = Variant.of(tmp_path, encoder_folder, "classification", strategy, max_steps=12, min_steps=12).run([0], "x")
    values = [value for name, value in came.weights.items() if "lora_E" in name]
    assert sum(value.numel() for value in values) == 3 * len(values)
    assert sum(int((value != 0).sum()) for value in values) == 2 * len(values)
    assert len({int((value != 0).sum()) for value in values}) > 1, "some layers matter more than others"


def test_adalora_goes_on_in_every_phase(tmp_path, encoder_folder):
    """16 steps: ranks fall between steps 2 and 8."""
    battery = Battery(tmp_path, encoder_folder, "adapter/adalora", "classification")
    whole = battery.run(1, "whole")
    for stop in (5, 12):
        battery.run(1, "stopped", stop_at=stop)
    resumed = battery.run(1, "stopped")
    assert resumed.losses == whole.losses
    assert all(torch.equal(value, whole.weights[name]) for name, value in resumed.weights.items())


def allocation(made, options, steps=10):
    found = Allocation(options)
    parameters = trained_parameters(made.model)
    found.begin(TrainingState(made.model, parameters, frozenset(), [None], steps, lambda examples: None, []))
    return found, parameters


def test_adalora_keeps_factors_orthogonal_by_pefts_own_loss(prepare, shake):
    made = prepare("llama", "adapter", method="adalora", options={"orth_reg_weight": 0.3})
    shake(made.model)
    found, parameters = allocation(made, {})
    ids = torch.tensor([[9, 17, 33, 70, 2]])
    plain = made.model.base_model.model(input_ids=ids, labels=ids).loss
    total = made.model.base_model(input_ids=ids, labels=ids).loss
    assert total > plain
    gradients = torch.autograd.grad(total, list(parameters.values()))
    made.model.base_model.model(input_ids=ids, labels=ids).loss.backward()
    found.gradients()
    for parameter, wanted in zip(parameters.values(), gradients, strict=True):
        assert torch.allclose(parameter.grad, wanted, atol=1e-6)


def test_adaloras_schedule_follows_from_the_number_of_steps(prepare):
    made = prepare("llama", "adapter", method="adalora")
    found, _ = allocation(made, {}, steps=200)
    assert (found.config.tinit, found.config.tfinal, found.config.total_step) == (30, 100, 200)
    counted = []
    found.tuner = SimpleNamespace(update_and_allocate=counted.append)
    for found.training_state.step in range(3):
        found.stepped(0.1)
    assert counted == [1, 2, 3], "peft counts steps that are done"
    found, _ = allocation(made, {"tinit": 5, "tfinal": 7}, steps=200)
    assert (found.config.tinit, found.config.tfinal) == (5, 7)
    with pytest.raises(Exception, match="tinit 5 and tfinal 7 leave none of 12 steps"):
        allocation(made, {"tinit": 5, "tfinal": 7}, steps=12)


@pytest.mark.parametrize("steps", [2, 3])
def test_adalora_needs_a_step_to_weigh_ranks_in_before_it_takes_them(prepare, steps):
    made = prepare("llama", "adapter", method="adalora")
    with pytest.raises(FinetuneError, match=f"leave none of {steps} steps"):
        allocation(made, {}, steps=steps)
    allocation(made, {}, steps=4)
