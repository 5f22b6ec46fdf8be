"""DPO and its relatives: losses are those of the papers and of trl; of DPO, from log 2 to every pair told apart."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn.functional import log_softmax

import finetune
from finetune import recipe as recipes
from finetune.core.errors import InputError
from finetune.core.hooks import TrainingHooks, TrainingState
from finetune.core.progress import Progress
from finetune.core.randomness import Streams
from finetune.core.registry import MITIGATIONS, STRATEGIES
from finetune.core.run_dir import RunDir
from finetune.core.runtime import open_runtime
from finetune.core.signals import StopRequest
from finetune.evaluate.metrics import score
from finetune.evaluate.predict import predict
from finetune.evaluate.store import read
from finetune.models import ModelOptions, load_base, load_tokenizer
from finetune.replicas.group import ReplicaGroup
from finetune.runner.reference import Reference
from finetune.strategies.base import set_training_mode, trained_parameters
from finetune.study.preflight import preflight
from finetune.tasks.chat import Chat
from finetune.tasks.conversation import IGNORED
from tests import tiny
from tests.examples import Example
from tests.replicas.groups import Variant, far

EXAMPLES = {
    "preference": Example({"of": {"type": "adapter", "rank": 4}}),
    "preference/ipo": Example({"method": "ipo", "of": {"type": "adapter", "rank": 4}}),
    "preference/orpo": Example({"method": "orpo", "of": {"type": "adapter", "rank": 4}}),
    "preference/kto": Example({"method": "kto", "beta": 1.0, "of": {"type": "adapter", "rank": 4}}),
    "preference/simpo": Example({"method": "simpo", "of": {"type": "adapter", "rank": 4}}),
}


ADAPTER, FULL, PARTIAL = {"type": "adapter", "rank": 4}, {"type": "full"}, {"type": "partial", "last": 1}
TOPICS, ANSWERS = sorted(tiny.WORDS), [" bank", " moon", " team"]
"""What each topic is answered with: as many tokens each, or the shorter would be the likelier from the start."""
ROWS = tiny.sentences(12)
DATA = {
    "prompt": [f"{text}:" for text, _ in ROWS],
    "completion": [ANSWERS[TOPICS.index(topic)] for _, topic in ROWS],
    # Which answer is the better one depends on the prompt alone.
    "rejected": [ANSWERS[TOPICS.index(topic) - 1] for _, topic in ROWS],
}
TASK = {"type": "chat", "prompt": "prompt", "completion": "completion", "rejected": "rejected"}
LOG_2 = math.log(2)


def started(folder, of=ADAPTER, beta=0.1, rows=DATA, options=None, **config):
    """A model, as training starts from it under the strategy, with its task and pairs."""
    task, said = Chat(Chat.Options(template="none", **TASK), pairs=True), options or {}
    data, options = tiny.dataset(**rows), ModelOptions(source=str(folder), dtype="float32")
    task.fit(tiny.splits(data), load_tokenizer(options))
    examples = task.encode(data, "data.train", training=True).examples
    plugin = STRATEGIES.get("preference")
    strategy = plugin(plugin.Options.model_validate({"type": "preference", "of": of, "beta": beta, **said}))
    base = load_base(options, task.architecture, **task.model_config(), **config)
    streams = Streams(0)
    with streams.globally("init", 1):
        model = strategy.prepare(base.copy(streams), set())
    set_training_mode(model)
    parameters, hooks = trained_parameters(model), TrainingHooks(strategy.hooks)
    training_state = TrainingState(model, parameters, frozenset(), [streams], 10, lambda _: None, examples)
    hooks.begin(training_state)

    def losses():
        batch = task.collate(examples)
        objective = hooks.objective(task, model, batch)
        with hooks.passing(SimpleNamespace(), batch):
            return hooks.losses(task, model, batch, objective)

    return SimpleNamespace(**locals())


def shake(model, seed=0):
    """Move what learns, as if training had."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in trained_parameters(model).values():
            value += 0.1 * torch.randn(value.shape, generator=generator)


def margin(model, example):
    """By how much the chosen answer is likelier, from plain logits of each answer alone."""
    found = []
    for ids, labels in zip(example.parts(example.inputs["input_ids"]), example.parts(example.target), strict=True):
        with torch.no_grad():
            steps = log_softmax(model(torch.from_numpy(ids)[None].long()).logits[0], -1)
        found.append(sum(float(steps[place - 1, labels[place]]) for place in (labels != IGNORED).nonzero()[0]))
    return found[0] - found[1]


# The loss


@pytest.mark.parametrize("of", [ADAPTER, FULL, PARTIAL, {**ADAPTER, "dropout": 0.5}])
def test_at_the_start_every_pair_costs_log_2(decoder_folder, of):
    losses = started(decoder_folder, of).losses()
    assert losses.requires_grad and losses.tolist() == pytest.approx([LOG_2] * len(ROWS), abs=1e-6)


@pytest.mark.parametrize("save", [tiny.save_gpt2, tiny.save_decoder])
def test_the_base_models_dropout_is_off(tmp_path, save):
    shares = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.5)
    folder = save(tmp_path, **(shares if save is tiny.save_gpt2 else {"attention_dropout": 0.5}))
    for of in (FULL, ADAPTER):
        made = started(folder, of)
        assert made.losses().tolist() == pytest.approx([LOG_2] * len(ROWS), abs=1e-6)
        shake(made.model)
        assert torch.equal(made.losses(), made.losses())
    plain = made.base.copy(Streams(0)).train()
    batch = made.task.collate(made.examples)
    assert not torch.equal(made.task.losses(plain, batch), made.task.losses(plain, batch))


@pytest.mark.parametrize("of", [ADAPTER, FULL])
@pytest.mark.parametrize("beta", [0.1, 2.5])
def test_the_loss_is_that_of_the_paper(decoder_folder, of, beta):
    """Equation 7, computed pair by pair from the two models' plain logits."""
    made = started(decoder_folder, of, beta)
    shake(made.model)
    frozen = made.base.copy(Streams(0)).eval()
    wanted = []
    for example in made.examples:
        moved = margin(made.model.eval(), example) - margin(frozen, example)
        wanted.append(-math.log(1 / (1 + math.exp(-beta * moved))))
    assert max(abs(loss - LOG_2) for loss in wanted) > 0.01
    assert made.losses().tolist() == pytest.approx(wanted, abs=2e-5)


@pytest.mark.parametrize("of", [ADAPTER, FULL])
def test_the_model_that_learns_is_left_as_it_was(decoder_folder, of):
    made = started(decoder_folder, of)
    shake(made.model)
    before = {name: (value.data_ptr(), value.detach().clone()) for name, value in made.parameters.items()}
    modes = [module.training for module in made.model.modules()]
    made.losses()
    assert modes == [module.training for module in made.model.modules()]
    for name, (place, value) in before.items():
        assert made.parameters[name].data_ptr() == place and torch.equal(made.parameters[name], value)


class Known:
    """A task whose pairs have known log-likelihoods: (N, 2) before training, and as they are now."""

    def __init__(self, before, now):
        self.before, self.now = torch.tensor(before), torch.tensor(now, requires_grad=True)

    def margins(self, model, batch):
        found = self.now if torch.is_grad_enabled() else self.before
        return found[:, 0] - found[:, 1]


nats = st.floats(-40, 0, width=32)
likelihoods = st.lists(st.tuples(nats, nats, nats, nats), min_size=1, max_size=5)


@given(likelihoods, st.floats(0.01, 3))
def test_a_step_raises_chosen_and_lowers_rejected_answers(rows, beta):
    """The gradient is beta * sigmoid(-beta * m), the same both ways (section 4): the more wrong, the larger."""
    plugin = STRATEGIES.get("preference")
    strategy = plugin(plugin.Options(type="preference", beta=beta))
    model = torch.nn.Linear(1, 1)
    strategy.begin(
        TrainingState(model, dict(model.named_parameters()), frozenset(), [Streams(0)], 1, lambda _: None, [])
    )
    task = Known([row[:2] for row in rows], [row[2:] for row in rows])
    losses = strategy.objective(task, model, {})()
    losses.sum().backward()
    for loss, slopes, (chosen, rejected, *now) in zip(losses.tolist(), task.now.grad, rows, strict=True):
        moved = (now[0] - now[1]) - (chosen - rejected)
        strength = beta / (1 + math.exp(beta * moved))
        assert slopes.tolist() == pytest.approx([-strength, strength], rel=1e-3, abs=1e-6)
        assert loss == pytest.approx(math.log1p(math.exp(-beta * moved)), rel=1e-3, abs=1e-5)


def test_a_real_step_widens_the_margins(decoder_folder):
    made = started(decoder_folder, FULL)
    batch = made.task.collate(made.examples)
    before = made.task.margins(made.model, batch).detach()
    made.losses().mean().backward()
    with torch.no_grad():
        for value in made.parameters.values():
            value -= 0.05 * value.grad
        widened = made.task.margins(made.model, batch) - before
        assert float(widened.mean()) > 0 and float(made.losses().mean()) < LOG_2


def test_reduced_precision_does_not_mistake_one_model_for_the_other(decoder_folder):
    """Autocast remembers what it made of a parameter, which has two values here."""
    made = started(decoder_folder, FULL, beta=1.0)
    shake(made.model)
    batch, strategy = made.task.collate(made.examples), made.strategy
    margins = []
    for there in (strategy._at_the_start(), nullcontext()):
        with torch.autocast("cpu", torch.bfloat16), there:
            margins.append(made.task.margins(made.model, batch).detach())
    with torch.autocast("cpu", torch.bfloat16):
        made.task.loss_path(made.model)
        losses = made.losses()
    wanted = -torch.nn.functional.logsigmoid(margins[1] - margins[0])
    assert torch.allclose(losses, wanted, rtol=1e-3) and (wanted - LOG_2).abs().max() > 0.1
    losses.mean().backward()
    assert all(value.grad is not None and value.grad.any() for value in made.parameters.values())


# The same as trl


@pytest.fixture(scope="module")
def trainer(tmp_path_factory, decoder_folder):
    """trl's own, over the same texts, a moved model and the one it started from; and ours."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    made = started(decoder_folder, FULL, beta=0.3)
    shake(made.model)
    columns = zip(DATA, ("prompt", "chosen", "rejected"), strict=True)
    theirs = DPOTrainer(
        model=made.base.copy(Streams(0)),
        ref_model=made.base.copy(Streams(0)),
        args=DPOConfig(str(tmp_path_factory.mktemp("trl")), beta=0.3, use_cpu=True, bf16=False, report_to=[]),
        train_dataset=Dataset.from_dict({name: DATA[own] for own, name in columns}),
        processing_class=made.task.tokenizer,
    )
    theirs.model.load_state_dict(made.model.state_dict())
    return theirs, made


def test_pairs_are_tokenised_as_trl_does(trainer):
    theirs, made = trainer
    for row, example in zip(theirs.train_dataset, made.examples, strict=True):
        ids = [own.tolist() for own in example.parts(example.inputs["input_ids"])]
        assert ids == [row["prompt_ids"] + row[name] for name in ("chosen_ids", "rejected_ids")]


def test_every_pair_has_the_loss_it_has_in_trl(trainer):
    theirs, made = trainer
    rows = list(theirs.train_dataset)
    with torch.no_grad():
        wanted = [float(theirs.compute_loss(theirs.model, theirs.data_collator([row]))) for row in rows]
    assert max(wanted) - min(wanted) > 0.05
    assert made.losses().tolist() == pytest.approx(wanted, abs=1e-5)


def test_the_gradient_is_that_of_trl(trainer):
    theirs, made = trainer
    theirs.model.zero_grad()
    theirs.compute_loss(theirs.model, theirs.data_collator(list(theirs.train_dataset))).backward()
    made.losses().mean().backward()
    slopes = {name: value.grad for name, value in theirs.model.named_parameters()}
    for name, value in made.parameters.items():
        assert torch.allclose(value.grad, slopes[name], rtol=1e-3, atol=1e-6), name


def test_rewards_are_those_of_trl(trainer):
    theirs, made = trainer
    for own in theirs._metrics.values():
        own.clear()
    with torch.no_grad():
        theirs.compute_loss(theirs.model, theirs.data_collator(list(theirs.train_dataset)))
    logged = {name: values[-1] for own in theirs._metrics.values() for name, values in own.items()}
    runtime = open_runtime(torch.device("cpu"), torch.float32, Progress(), StopRequest(), Path())
    task, pairs = Chat.fitted(made.task.options, made.task.tokenizer, (), None, False), made.examples
    task.marker, task.special = made.task.marker, made.task.special
    found = predict(ReplicaGroup(made.model.eval()), task, pairs, 5, runtime, answers=False)
    [rewarded] = Reference(made.base, task, made.strategy.reward_scale, 5, runtime).rewarded(found, pairs)
    scores = score(rewarded, ["reward_accuracy", "reward_margin", "preference_loss"])
    assert 0 < scores["reward_accuracy"] < 1
    assert scores["reward_accuracy"] == pytest.approx(logged["rewards/accuracies"])
    assert scores["reward_margin"] == pytest.approx(logged["rewards/margins"], abs=1e-5)
    assert scores["preference_loss"] == pytest.approx(float(made.losses().mean().detach()), abs=1e-5)


# Its relatives

UNEVEN = {**DATA, "rejected": [f"{answer} of the cup" for answer in DATA["rejected"]]}
"""Rejected answers of more tokens."""
RELATIVES = ("ipo", "orpo", "kto", "simpo")


def relative(folder, method, rows=UNEVEN, **options):
    """What :func:`started` gives, of another method and all that learns, which has moved."""
    made = started(folder, FULL, 0.3, rows, {"method": method, **options})
    shake(made.model)
    return made


def make_likelier(made):
    """Raise all answers, or KTO's reference point would be nothing."""
    for _ in range(5):
        loss = made.task.pair_losses(made.model, made.task.collate(made.examples)).mean()
        slopes = torch.autograd.grad(loss, list(made.parameters.values()))
        with torch.no_grad():
            for value, slope in zip(made.parameters.values(), slopes, strict=True):
                value -= 0.1 * slope


def theirs_of(kind, config, folder, made, rows=UNEVEN, reference=True):
    """A trainer of trl's over the same texts and models."""
    from datasets import Dataset

    columns = zip(rows, ("prompt", "chosen", "rejected"), strict=True)
    theirs = kind(
        model=made.base.copy(Streams(0)),
        **({"ref_model": made.base.copy(Streams(0))} if reference else {}),
        args=config(str(folder), use_cpu=True, bf16=False, report_to=[]),
        train_dataset=Dataset.from_dict({name: rows[own] for own, name in columns}),
        processing_class=made.task.tokenizer,
    )
    theirs.model.load_state_dict(made.model.state_dict())
    return theirs


def test_ipo_is_that_of_trl(tmp_path, decoder_folder):
    from functools import partial

    from trl import DPOConfig, DPOTrainer

    made = relative(decoder_folder, "ipo")
    theirs = theirs_of(DPOTrainer, partial(DPOConfig, beta=0.3, loss_type="ipo"), tmp_path, made)
    with torch.no_grad():
        batches = [theirs.data_collator([row]) for row in theirs.train_dataset]
        wanted = [float(theirs.compute_loss(theirs.model, batch)) for batch in batches]
    assert max(wanted) - min(wanted) > 0.05
    assert made.losses().tolist() == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def by_hand(made, example, model):
    """Log-likelihoods of both answers and how many tokens they have, from plain logits."""
    found = []
    for ids, labels in zip(example.parts(example.inputs["input_ids"]), example.parts(example.target), strict=True):
        with torch.no_grad():
            steps = log_softmax(model(torch.from_numpy(ids)[None].long()).logits[0], -1)
        places = (labels != IGNORED).nonzero()[0]
        found += [sum(float(steps[place - 1, labels[place]]) for place in places), len(places)]
    return found


@pytest.mark.parametrize("method", RELATIVES)
def test_losses_are_computed_from_the_answers_alone(decoder_folder, method):
    """From the papers' formulas, in Python's own numbers; KTO's reference point is 0 here, and tested below."""
    made = relative(decoder_folder, method)
    made.strategy._point = (0, torch.tensor(0.0))
    frozen, wanted = made.base.copy(Streams(0)).eval(), []
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    for example in made.examples:
        chosen, many, rejected, others = by_hand(made, example, made.model.eval())
        before, _, worse, _ = by_hand(made, example, frozen)
        one, other = math.exp(chosen / many), math.exp(rejected / others)
        odds = math.log(one / (1 - one)) - math.log(other / (1 - other))
        wanted.append(
            {
                "ipo": ((chosen - before) / many - (rejected - worse) / others - 1 / 0.6) ** 2,
                "orpo": -chosen / many - 0.3 * math.log(sigmoid(odds)),
                "kto": 1 - (sigmoid(0.3 * (chosen - before)) + sigmoid(-0.3 * (rejected - worse))) / 2,
                "simpo": -math.log(sigmoid(0.3 * (chosen / many - rejected / others) - 1)),
            }[method]
        )
    assert max(wanted) - min(wanted) > 0.01 and UNEVEN["rejected"] != DATA["rejected"]
    assert made.losses().tolist() == pytest.approx(wanted, rel=1e-5, abs=2e-5)


def test_kto_is_that_of_trl(tmp_path, decoder_folder):
    """Its batch, of which every pair is two examples, and a reference point from the same other answers."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    made = relative(decoder_folder, "kto", desirable=1.2, undesirable=0.7)
    make_likelier(made)
    rows = [
        {"prompt": prompt, "completion": answer, "label": label}
        for prompt, *answers in zip(*UNEVEN.values(), strict=True)
        for answer, label in zip(answers, (True, False), strict=True)
    ]
    theirs = KTOTrainer(
        model=made.base.copy(Streams(0)),
        ref_model=made.base.copy(Streams(0)),
        args=KTOConfig(
            str(tmp_path),
            beta=0.3,
            use_cpu=True,
            bf16=False,
            report_to=[],
            desirable_weight=1.2,
            undesirable_weight=0.7,
            per_device_train_batch_size=len(rows),
            train_sampling_strategy="sequential",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=made.task.tokenizer,
    )
    theirs.model.load_state_dict(made.model.state_dict())
    with torch.no_grad():
        batch = theirs.data_collator(list(theirs.train_dataset))
        wanted = float(theirs.compute_loss(theirs.model, batch))
        kl = float(
            theirs._compute_kl_logps(theirs.model, batch).sub(theirs._compute_kl_logps(theirs.ref_model, batch)).mean()
        )
    made.strategy._point = (0, torch.tensor(max(kl, 0.0)))
    assert kl > 0.01 and made.losses().mean().item() == pytest.approx(wanted, abs=1e-5)


def test_ktos_reference_point_is_the_mean_ratio_of_answers_to_other_prompts(decoder_folder):
    """From plain logits, of each pair's prompt and another one's answers; the same however a batch is cut."""
    made = relative(decoder_folder, "kto")
    make_likelier(made)
    frozen, task, model = made.base.copy(Streams(0)).eval(), made.task, made.model.eval()
    places = Streams(0).numpy("noise", 0, -1).permutation(len(made.examples))[:8].tolist()
    ratios = []
    for one, other in zip(places, [*places[1:], places[0]], strict=True):
        asked, answered = made.examples[one], made.examples[other]
        for ids in answered.parts(answered.inputs["input_ids"]):
            row = torch.tensor([*asked.prompt, *ids[len(answered.prompt) :]])[None].long()
            begin, sums = len(asked.prompt), []
            for each in (model, frozen):
                with torch.no_grad():
                    steps = log_softmax(each(row).logits[0], -1)
                sums.append(sum(float(steps[place - 1, row[0, place]]) for place in range(begin, row.shape[1])))
            ratios.append(sums[0] - sums[1])
    for size in (1, 5):
        made.strategy._point = None
        batch = task.collate(made.examples[:size])
        made.strategy.objective(task, made.model, batch)
        found = float(made.strategy._point[1])
        assert found == pytest.approx(sum(ratios) / len(ratios), abs=1e-4) and found > 0.1


@pytest.mark.parametrize("method", ["orpo", "simpo"])
def test_what_compares_with_nothing_keeps_no_other_model_and_runs_none(decoder_folder, method):
    made = relative(decoder_folder, method)
    assert not hasattr(made.strategy, "start") and made.strategy.reward_scale is None
    with patch.object(Chat, "pair_losses", side_effect=Chat.pair_losses, autospec=True) as passes:
        made.losses()
    assert passes.call_count == 1


@pytest.mark.parametrize("method", RELATIVES)
def test_a_real_step_tells_answers_apart_better(decoder_folder, method):
    made = started(decoder_folder, FULL, 0.3, UNEVEN, {"method": method})
    first = made.losses()
    first.mean().backward()
    before = made.task.margins(made.model, made.task.collate(made.examples)).detach()
    with torch.no_grad():
        for value in made.parameters.values():
            value -= 0.02 * value.grad
        made.training_state.step = 1
        assert float(made.losses().mean()) < float(first.mean())
        assert float((made.task.margins(made.model, made.task.collate(made.examples)) - before).mean()) > 0


@pytest.mark.parametrize("method", RELATIVES)
def test_how_a_batch_is_cut_does_not_matter(tmp_path, decoder_folder, method):
    strategy = {"method": method, "of": FULL}
    whole = variant(tmp_path / "whole", decoder_folder, strategy=strategy, min_steps=4, learning_rate=3e-3)
    parts = variant(
        tmp_path / "parts", decoder_folder, strategy=strategy, min_steps=4, learning_rate=3e-3, micro_batch_size=1
    )
    assert far(whole.run([0], "run")[0], parts.run([0], "run")[0]) < 1e-4


def options_of(**given):
    return STRATEGIES.get("preference").Options.model_validate({"type": "preference", **given})


def test_options_of_a_method_have_its_defaults_and_are_refused_elsewhere():
    assert (options_of().beta, options_of(method="ipo").beta, options_of(method="simpo").beta) == (0.1, 0.1, 2)
    assert options_of(method="simpo", beta=1.5).gamma == 1 and options_of().gamma is None
    assert options_of(method="kto").desirable == 1
    for method in ("dpo", *RELATIVES):
        made = options_of(method=method)
        assert options_of(**made.model_dump(exclude={"type", "of"})) == made, "a resolved recipe says the same"
    for name, method in (("gamma", "dpo"), ("desirable", "simpo"), ("undesirable", "orpo"), ("gamma", "kto")):
        with pytest.raises(ValidationError, match=f"{name} is about method"):
            options_of(**{"method": method, name: 0.5})
    for name, wrong in (("beta", 0), ("beta", math.nan), ("gamma", -1), ("gamma", math.inf), ("desirable", 0)):
        with pytest.raises(ValidationError, match=name):
            options_of(**{"method": "kto" if name == "desirable" else "simpo", name: wrong})


def test_rewards_are_scored_and_chosen_by(tmp_path, decoder_folder):
    """They are measured from the untuned model, which is ahead of itself nowhere."""
    metrics = ["reward_accuracy", "reward_margin", "preference_loss", "preference_accuracy"]
    made = variant(
        tmp_path,
        decoder_folder,
        strategy={"of": FULL, "beta": 0.5, "method": "ipo"},
        task={"metrics": metrics},
        data=ONE_SIDED,
        min_steps=12,
        learning_rate=5e-3,
    )
    session, folder = made.session(), RunDir(tmp_path / "scored")
    [untuned] = session.score(ReplicaGroup(made.assembled().model), [folder])
    wanted = {"reward_accuracy": 0.0, "reward_margin": 0.0, "preference_loss": LOG_2}
    assert {name: untuned.scores[f"test/{name}"] for name in wanted} == pytest.approx(wanted, abs=1e-6)
    kept = read(folder.predictions("test"))
    assert kept.reward.tolist() == pytest.approx([0] * 3, abs=1e-6) and kept.margin.any()
    model = made.assembled().model
    [came] = made.run([0], "run")
    with torch.no_grad():
        for name, value in trained_parameters(model).items():
            value.copy_(came.weights[name])
    [tuned] = session.score(ReplicaGroup(model), [folder])
    after = read(folder.predictions("test"))
    assert after.reward == pytest.approx(0.5 * (after.margin - kept.margin), abs=1e-5)
    assert tuned.scores["test/reward_accuracy"] == 1 and tuned.scores["test/preference_loss"] < LOG_2
    compared = [key for key in session.base.kept if key[0] == "margins"]
    assert len(compared) == 1, "the untuned model is asked once for all runs"


@pytest.mark.parametrize("whose", ["recipe", "set"])
def test_rewards_are_those_of_the_sets_that_ask_for_them(tmp_path, decoder_folder, whose):
    asking, plain = {"metrics": ["reward_margin"]}, {"metrics": ["loss"]}
    other = {"prompt": "asked", "completion": "better", "rejected": "worse", **(asking if whose == "set" else plain)}
    rows = [f"{text}," for text, _ in ROWS], *(DATA[name] for name in ("completion", "rejected"))
    pairs = [dict(zip(("asked", "better", "worse"), row, strict=True)) for row in zip(*rows, strict=True)]
    tmp_path.joinpath("other.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    sets = [
        {"name": "pairs", "data": {"path": "other.jsonl"}, "task": other},
        {"name": "texts", "data": {"path": "other.jsonl"}, "role": "shifted"}
        | {"task": {"type": "language", "text": "asked"}},
    ]
    task = asking if whose == "recipe" else plain
    made = variant(tmp_path, decoder_folder, strategy={"of": FULL, "method": "ipo"}, task=task, evaluate=sets)
    [found] = made.session().score(ReplicaGroup(made.assembled().model), [RunDir(tmp_path / "scored")])
    rewarded = {"recipe": "test", "set": "pairs"}[whose]
    assert found.scores[f"{rewarded}/reward_margin"] == pytest.approx(0, abs=1e-5), "of the untuned model"
    assert found.scores.keys() == {"test/loss", "pairs/loss", "texts/loss", f"{rewarded}/reward_margin"} - {
        f"{rewarded}/loss"
    }


@pytest.mark.parametrize(
    "strategy", [{"method": "orpo"}, {"method": "simpo"}, {"type": "full"}], ids=lambda own: next(iter(own.values()))
)
def test_rewards_need_a_reference(tmp_path, decoder_folder, strategy):
    with pytest.raises(InputError, match="rewards against the untuned model") as caught:
        recipe_of(tmp_path, decoder_folder, strategy=strategy, task={"metrics": ["loss", "reward_margin"]})
    assert [problem.path for problem in caught.value.problems] == ["task.metrics.1"]


def test_conversations_are_compared_by_their_last_answers(tmp_path, decoder_folder):
    own = {"messages": "completion", "prompt": None, "completion": None, "template": "model"}
    with pytest.raises(InputError, match="compares the last answers") as caught:
        recipe_of(tmp_path, decoder_folder, strategy={"method": "ipo"}, task=own)
    assert [problem.path for problem in caught.value.problems] == ["task.learn"]
    for strategy, task in (({"method": "ipo"}, {**own, "learn": "last"}), ({"method": "dpo"}, own)):
        recipe_of(tmp_path, decoder_folder, strategy=strategy, task=task)


# Training


def recipe_of(folder, model, strategy=None, task=None, data=None, evaluate=(), **train):
    """A recipe over pairs whose better answer depends on the prompt, and its file."""
    columns = data or DATA
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    content = {
        "model": {"source": str(model), "dtype": "float32", "device": "cpu"},
        "data": {"train": {"path": "pairs.jsonl"}, "split": {"test": 3}},
        "task": {**TASK, **(task or {})},
        "strategy": {"type": "preference", **(strategy or {})},
        "evaluate": list(evaluate),
        "train": {"epochs": 1, "min_steps": 1, "batch_size": 4, "evaluations": 0, **train},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(content))
    return recipes.load(path)


def variant(folder, model, **changes):
    return Variant(recipe_of(folder, model, **changes).variants[0].recipe, folder)


ONE_SIDED = {**DATA, "completion": [" bank"] * len(ROWS), "rejected": [" team"] * len(ROWS)}
"""For an adapter: on random frozen weights it cannot learn what depends on the prompt."""


@pytest.mark.parametrize("of, rate, data", [(ADAPTER, 1e-2, ONE_SIDED), (FULL, 5e-3, DATA)])
def test_pairs_are_told_apart_in_the_end(tmp_path, decoder_folder, of, rate, data):
    task = {"metrics": ["preference_accuracy", "loss"]}
    train = {"min_steps": 30, "learning_rate": rate}
    made = variant(tmp_path, decoder_folder, strategy={"of": of, "beta": 0.5}, task=task, data=data, **train)
    group, runtime, pairs = made.assembled(), made.runtime(), made.data.train.examples
    before = score(predict(group, made.data.task, pairs, 8, runtime, answers=False)[0], task["metrics"])
    assert before["preference_accuracy"] < 0.5
    [came] = made.run([0], "run")
    assert came.losses[0] == pytest.approx(LOG_2, abs=1e-5) and came.losses[-1] < 0.3
    assert came.predictions.margin.shape == (3,)
    model = made.assembled().model
    with torch.no_grad():
        for name, value in trained_parameters(model).items():
            value.copy_(came.weights[name])
        assert bool((made.data.task.margins(model.eval(), made.data.task.collate(pairs)) > 0).all())


def treated(made, **mitigation):
    """The same variant under a mitigation."""
    options = MITIGATIONS.get(mitigation["type"]).Options(**mitigation)
    return Variant(made.recipe.model_copy(update={"mitigations": [options]}), made.folder, made.resources)


def test_a_group_has_a_model_to_compare_with_for_each_run(tmp_path, decoder_folder):
    """Where runs start from different weights, each is compared with its own start."""
    plain = variant(tmp_path, decoder_folder, strategy={"of": FULL}, min_steps=4, learning_rate=3e-3)
    made = treated(plain, type="reinit", layers=1)
    together = made.run([0, 1], "together")
    apart = [came for seed in (0, 1) for came in made.run([seed], "alone")]
    assert [came.losses[0] for came in together] == pytest.approx([LOG_2] * 2, abs=1e-5)
    assert [far(one, other) for one, other in zip(together, apart, strict=True)] == pytest.approx([0, 0], abs=1e-4)
    assert together[0].facts["replicas"] == 2


@pytest.mark.parametrize("mitigation", [{"type": "mixout", "p": 0.5}, {"type": "neftune"}], ids=lambda own: own["type"])
def test_the_frozen_model_is_that_of_the_start_whatever_is_done_to_passes(tmp_path, decoder_folder, mitigation):
    plain = variant(tmp_path, decoder_folder, strategy={"of": FULL}, min_steps=5, learning_rate=5e-3)
    made, seen, margins = treated(plain, **mitigation), [], Chat.margins

    def watched(task, model, batch):
        found = margins(task, model, batch)
        if not torch.is_grad_enabled():
            seen.append((batch, found))
        return found

    with patch.object(Chat, "margins", watched):
        [came] = made.run([0], "run")
    assert len(seen) == 5 and any(abs(loss - LOG_2) > 1e-3 for loss in came.losses)
    start = made.assembled().model.eval()
    with torch.no_grad():
        for batch, found in seen:
            assert torch.allclose(found, made.data.task.margins(start, batch), atol=1e-4)


def test_what_the_frozen_bottom_makes_of_pairs_is_remembered(tmp_path, decoder_folder):
    made = variant(tmp_path, decoder_folder, strategy={"of": PARTIAL}, epochs=2, learning_rate=3e-3)
    plain = made.like(prefix_cache=False)
    assert made.assembled().prefix is not None and plain.assembled().prefix is None
    assert far(made.run([0], "remembered")[0], plain.run([0], "computed")[0]) < 1e-4


def test_other_strategies_learn_from_the_chosen_answers_and_are_scored_on_pairs(tmp_path, decoder_folder):
    made = variant(tmp_path, decoder_folder, strategy={"of": FULL})
    full = STRATEGIES.get("full").Options(type="full")
    answers = made.like(strategy=full)
    assert all(pair.rejected for pair in made.data.train.examples)
    assert not any(example.rejected for example in answers.data.train.examples)
    [came] = answers.run([0], "answers")
    assert came.predictions.margin is not None and came.losses[0] > 2  # of a token, not of a pair


# What is refused


def refused(folder, model, **changes):
    with pytest.raises(InputError) as caught:
        preflight(recipe_of(folder, model, **changes))
    [problem] = caught.value.problems
    return problem


def test_a_task_without_rejected_answers_is_refused(tmp_path, decoder_folder):
    problem = refused(tmp_path, decoder_folder, task={"rejected": None})
    assert problem.path == "strategy.type" and "this task has no rejected answers" in problem.found
    assert "task.rejected" in problem.advice and problem.where.endswith("recipe.yaml:1")


def test_a_classification_task_is_refused(tmp_path, encoder_folder):
    whole = {"type": "classification", "text": "prompt", "label": "completion"}
    path = tmp_path / "recipe.yaml"
    recipe_of(tmp_path, encoder_folder)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "task": whole}))
    with pytest.raises(InputError) as caught:
        recipes.load(path)
    [problem] = caught.value.problems
    assert problem.path == "strategy.type" and "write task type chat" in problem.advice


def test_comparing_metrics_need_rejected_answers(tmp_path, decoder_folder):
    changes = {"rejected": None, "metrics": ["loss", "preference_accuracy"]}
    with pytest.raises(InputError) as caught:
        recipe_of(tmp_path, decoder_folder, strategy={"type": "full"}, task=changes)
    [problem] = caught.value.problems
    assert problem.path == "task.metrics.1" and "compares chosen with rejected answers" in problem.found


def test_a_missing_column_is_refused_with_its_place(tmp_path, decoder_folder):
    problem = refused(tmp_path, decoder_folder, task={"rejected": "worse"})
    assert problem.path == "task.rejected" and "has no column 'worse'" in problem.found and problem.where


def test_equal_answers_are_refused_with_their_place(tmp_path, decoder_folder):
    data = {**DATA, "rejected": DATA["completion"]}
    problem = refused(tmp_path, decoder_folder, data=data)
    assert problem.path == "task.rejected" and "are the same" in problem.found and problem.where


def test_mistakes_about_what_learns_are_shown_inside_it(tmp_path, decoder_folder):
    problem = refused(tmp_path, decoder_folder, strategy={"of": {**ADAPTER, "targets": ["quary"]}})
    assert problem.path == "strategy.of.targets" and "'quary' matches no layer" in problem.found
    for wrong, place in (({"type": "adapter", "rnk": 4}, "strategy.of.rnk"), ({"type": "dapter"}, "strategy.of.type")):
        with pytest.raises(InputError) as caught:
            recipe_of(tmp_path, decoder_folder, strategy={"of": wrong})
        assert [found.path for found in caught.value.problems] == [place]
        assert "adapter" in caught.value.problems[0].advice or "rank" in caught.value.problems[0].advice


# What may stand inside


def test_what_stands_inside_says_itself_that_it_may():
    allowed = set()
    for name, plugin in STRATEGIES.all().items():
        try:
            STRATEGIES.get("preference").Options.model_validate({"type": "preference", "of": {"type": name}})
            refused = False
        except ValidationError as error:  # other mistakes are about options that it needs
            refused = error.errors()[0]["type"] == "union_tag_invalid"
        allowed |= set() if refused else {name}
        assert refused is not plugin.only_chooses, name
    assert allowed == {"adapter", "full", "partial"}


OTHERS = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from finetune import recipe
from finetune.core.registry import STRATEGIES
from finetune.recipe.reference import markdown

options = recipe.load("recipe.yaml").variants[0].recipe.strategy
config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
model = STRATEGIES.get(options.type)(options).prepare(LlamaForCausalLM(config), set())
print(*(name for name, value in model.named_parameters() if value.requires_grad))
print("its options, `adapter`, `full`, `norms` or `partial`" in markdown())
"""


def test_a_strategy_of_someone_elses_stands_inside(tmp_path):
    """That of CONTRIBUTING.md, in a copy of the package, with nothing else changed."""
    package = Path(finetune.__file__).parent
    shutil.copytree(package, tmp_path / "finetune", ignore=shutil.ignore_patterns("__pycache__"))
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "class Norms(Strategy)" in block
    )
    (tmp_path / "finetune" / "strategies" / "norms.py").write_text(code, encoding="utf-8")
    recipe = {
        "model": {"source": "./model"},
        "data": {"train": {"path": "pairs.jsonl"}, "split": {"test": 2}},
        "task": TASK,
        "strategy": {"type": "preference", "of": {"type": "norms"}},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])}
    done = subprocess.run(
        [sys.executable, "-c", OTHERS], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    trained, said = done.stdout.splitlines()
    assert said == "True" and len(trained.split()) == 3 and all("norm" in name for name in trained.split())
