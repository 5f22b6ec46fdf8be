"""Which streams matter is found by trying, so that no list of techniques has to be kept."""

from __future__ import annotations

import pytest

from finetune import recipe as recipes
from finetune.core.progress import Progress
from finetune.core.runtime import open_runtime
from finetune.core.signals import StopRequest
from finetune.diagnose.sources import CLUSTERED, SILENT, find_sources
from finetune.models import processor
from finetune.runner.resources import Resources


@pytest.fixture
def found(tmp_path):
    """found(recipe file, "linear", "train.epochs=2") -> the sources of that variant, by name."""

    def find(path, name, *overrides):
        variants = recipes.load(path, overrides).variants
        recipe = next(variant.recipe for variant in variants if variant.name == name)
        runtime = open_runtime(*processor(recipe.model), Progress(), StopRequest(), tmp_path)
        return find_sources(recipe, Resources(), runtime)

    return find


def random(sources):
    return {stream for stream, why in sources.items() if why is None}


def test_an_encoder_with_a_new_head_and_dropout(topics, found):
    sources = found(topics, "full")
    assert random(sources) == {"split", "init", "order", "dropout"}
    assert sources["noise"] == SILENT["noise"]


def test_a_decoder_without_head_and_dropout(chats, found, tmp_path):
    sources = found(chats, "full")
    assert random(sources) == {"split", "order"}
    assert sources["init"] == SILENT["init"] and sources["dropout"] == SILENT["dropout"]
    assert not list(tmp_path.glob("**/metrics.jsonl")), "what was tried is thrown away"


def test_techniques_bring_their_own(chats, found):
    assert random(found(chats, "full", "mitigations=[{type: mixout}]")) == {"split", "order", "noise"}
    assert random(found(chats, "full", "mitigations=[{type: neftune}]")) == {"split", "order", "dropout"}
    assert random(found(chats, "full", "mitigations=[{type: ema}]")) == {"split", "order"}
    adapter = "strategy={type: adapter, method: lora, rank: 2, dropout: 0.0}"
    assert random(found(chats, "adapter", adapter)) == {"split", "init", "order"}


def test_a_split_that_draws_nothing_is_none(chats, found, tmp_path):
    own = f"data={{test: {{path: {tmp_path / 'chats.jsonl'}}}, leaks: allow}}"
    sources = found(chats, "full", "data.split={test: 0, validation: 0}", own)
    assert sources["split"] == SILENT["split"] and random(sources) == {"order"}


def test_clusters_of_held_out_examples_keep_their_split(topics, found):
    assert found(topics, "full", "task.group=label", "data.leaks=allow")["split"] == CLUSTERED
