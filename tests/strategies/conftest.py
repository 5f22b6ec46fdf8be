"""Tiny models of every build, and ways to look at what a strategy did with them."""

from types import SimpleNamespace

import pytest
import torch
from transformers import T5ForConditionalGeneration

from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.core.registry import STRATEGIES
from finetune.models import ModelOptions, head_parameters, load_base
from finetune.strategies.base import trained_parameters
from tests import tiny

CLASSIFIER = "AutoModelForSequenceClassification"
CAUSAL = "AutoModelForCausalLM"
BUILDS = {
    # name: (how it is saved, its Auto class)
    "bert": (tiny.save_encoder, CLASSIFIER),
    "llama": (tiny.save_decoder, CAUSAL),
    "llama-classifier": (tiny.save_decoder, CLASSIFIER),
    "gpt2": (tiny.save_gpt2, CAUSAL),
    "t5": (tiny.save_t5, "AutoModelForSeq2SeqLM"),
    "t5-classifier": (tiny.save_t5, CLASSIFIER),
}


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    """Base models by build; never changed, only copied."""
    made = {}

    def make(build):
        if build not in made:
            save, architecture = BUILDS[build]
            folder = save(tmp_path_factory.mktemp(build))
            head = {"num_labels": 3, "pad_token_id": 0} if architecture == CLASSIFIER else {}
            base = load_base(ModelOptions(source=str(folder)), architecture, **head)
            made[build] = SimpleNamespace(base=base, folder=folder, config=head)
        return made[build]

    return make


@pytest.fixture(scope="session")
def prepare(bases):
    """A copy of a base model as a strategy prepares it: what a run does before it trains."""

    def prepared(build, type, seed=0, **options):
        base, architecture = bases(build).base, BUILDS[build][1]
        plugin = STRATEGIES.get(type)
        strategy = plugin(plugin.Options(type=type, **options))
        streams = Streams(seed)
        model = base.copy(streams)
        head = head_parameters(model, base.new) if architecture == CLASSIFIER else set(base.new)
        with streams.globally("init", 1):
            model = strategy.prepare(model, head)
        return SimpleNamespace(
            model=model, strategy=strategy, head=head, base=base.copy(streams), trained=set(trained_parameters(model))
        )

    return prepared


@pytest.fixture
def refusal(prepare):
    """The one problem that a strategy refuses a model with."""

    def refused(*arguments, **options):
        with pytest.raises(InputError) as error:
            prepare(*arguments, **options)
        (problem,) = error.value.problems
        return problem

    return refused


@pytest.fixture(scope="session")
def logits():
    """What a model makes of the same few texts, (2, ...)."""

    def compute(model):
        ids = torch.tensor([[9, 17, 33, 70, 2], [12, 55, 8, 91, 2]])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        plain = model.get_base_model() if hasattr(model, "get_base_model") else model
        if isinstance(plain, T5ForConditionalGeneration):
            inputs["decoder_input_ids"] = ids
        with torch.no_grad():
            return model.eval()(**inputs).logits

    return compute


@pytest.fixture
def shake():
    """Changes every trained parameter, as training would."""

    def change(model):
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in trained_parameters(model).values():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)

    return change
