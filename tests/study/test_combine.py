"""Soups and ensembles of a variant's finished seeds: what they are, when they are made, and when they are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import peft
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from finetune import recipe
from finetune.cli.output import finish
from finetune.core.errors import InputError
from finetune.core.run_dir import StudyDir, read_json, write_json
from finetune.evaluate import store
from finetune.runner.resources import Resources
from finetune.study import combine, study
from finetune.study.combine import check_combining
from finetune.study.preflight import preflight
from finetune.study.rescoring import rescore
from finetune.study.running import run_study
from tests import tiny

ALL = "mitigations=[{type: soup, method: both}, {type: ensemble}]"
KINDS = ["ensemble", "soup-greedy", "soup-uniform"]
QUICK = ["train.replicas=3", "train.compile=false", "train.min_steps=24"]
STUDY = ["seeds=3", "vary=[order, dropout]", *QUICK, ALL]


@pytest.fixture(scope="module")
def made(tmp_path_factory, encoder_folder):
    """A finished study of three seeds with every combination, and its recipe; tests work on copies."""
    folder = tmp_path_factory.mktemp("combined")
    path = tiny.write_topics(folder, encoder_folder)
    lora = "  lora: {strategy: {type: adapter, rank: 4}, train: {learning_rate: 0.03}}\n"
    path.write_text(path.read_text().replace("  full: {strategy: {type: full}}\n", "") + lora)
    outcome = run_study(recipe.load(path, STUDY), folder / "runs")
    assert outcome.failed == []
    return path, outcome


@pytest.fixture
def again(made, tmp_path):
    """again('seeds=4') -> what a copy of the study comes to when it is run once more; `again.folder`: the copy."""
    path, outcome = made
    folder = shutil.copytree(outcome.folder, tmp_path / "runs" / outcome.folder.name)

    def run(*overrides):
        return run_study(recipe.load(path, [*STUDY, *overrides]), tmp_path / "runs")

    run.folder = StudyDir(folder)
    return run


@pytest.fixture
def made_now(monkeypatch):
    """What is combined from here on: (variant, kind)."""
    names, original = [], combine.FinishedRuns.combine

    def note(self, wanted):
        names.append((self.variant.name, wanted.kind))
        return original(self, wanted)

    monkeypatch.setattr(combine.FinishedRuns, "combine", note)
    return names


def combined(outcome, variant):
    found = next(one for one in outcome.results.to_json()["variants"] if one["name"] == variant)
    return {one["kind"]: one for one in found["combined"]}


def variant_of(outcome, name):
    return next(one for one in outcome.results.to_json()["variants"] if one["name"] == name)


def delta(weights, name):
    """What a LoRA adapter of rank 4 adds to a layer: (alpha / r) B A, with alpha = 2 r."""
    start = f"base_model.model.{name}"
    return 2 * weights[f"{start}.lora_B.weight"] @ weights[f"{start}.lora_A.weight"]


def adapters(outcome):
    places = [outcome.folder / "lora" / f"seed-{seed}" / "model" for seed in range(3)]
    return [load_file(place / "adapter_model.safetensors") for place in places]


LAYER = "bert.encoder.layer.1.attention.self.query"


def souped(outcome):
    """The layer's weights in the soup."""
    return load_file(outcome.folder / "lora/soup-uniform/model/model.safetensors")[f"{LAYER}.weight"]


def test_everything_asked_for_is_made_and_is_no_run(made):
    _, outcome = made
    for name in ("linear", "lora"):
        variant, found = variant_of(outcome, name), combined(outcome, name)
        assert sorted(found) == KINDS
        assert [run["seed"] for run in variant["runs"]] == [0, 1, 2]
        assert variant["failures"]["n"] == 3 and variant["estimates"]["test/accuracy"]["n"] == 3
        for one in found.values():
            assert set(one["seeds"]) <= {0, 1, 2} and one["of"] == [0, 1, 2] and one["status"] == "finished"
            scores = [run["scores"]["test/accuracy"] for run in variant["runs"]]
            gain = one["gain"]["test/accuracy"]
            assert gain["mean_seed"] == pytest.approx(np.mean(scores))
            assert gain["mean"] == pytest.approx(one["scores"]["test/accuracy"] - np.mean(scores))
            assert gain["ci"] is not None and one["gain"]["test/nll"]["ci"] is not None
            assert one["gain"]["test/macro_f1"]["ci"] is None
    for text in ("report.md", "index.html"):
        assert "Soups and ensembles" in (outcome.folder / "report" / text).read_text()


def test_the_uniform_soup_is_the_mean_of_the_weights(made):
    _, outcome = made
    seeds = [load_file(outcome.folder / "linear" / f"seed-{seed}" / "model/trained.safetensors") for seed in range(3)]
    soup = load_file(outcome.folder / "linear/soup-uniform/model/trained.safetensors")
    assert soup.keys() == seeds[0].keys()
    for name, value in soup.items():
        mean = torch.stack([seed[name].double() for seed in seeds]).mean(0)
        assert not torch.allclose(seeds[0][name], seeds[1][name])
        assert torch.allclose(value.double(), mean, atol=1e-6)


def test_of_adapters_it_is_the_mean_of_the_products_and_not_of_the_factors(made, encoder_folder):
    _, outcome = made
    seeds = adapters(outcome)
    base = AutoModelForSequenceClassification.from_pretrained(encoder_folder, num_labels=3)
    added = souped(outcome) - base.get_submodule(LAYER).weight.detach()
    wanted = torch.stack([delta(seed, LAYER) for seed in seeds]).mean(0)
    naive = delta({name: torch.stack([seed[name] for seed in seeds]).mean(0) for name in seeds[0]}, LAYER)
    assert torch.allclose(added, wanted, atol=1e-6)
    assert float((added - naive).norm() / wanted.norm()) > 0.1


def test_it_is_what_peft_makes_of_the_same_adapters(made, encoder_folder):
    """peft's `cat`, which writes the mean of products as one adapter of three times the rank."""
    _, outcome = made
    base = AutoModelForSequenceClassification.from_pretrained(encoder_folder, num_labels=3)
    own = base.get_submodule(LAYER).weight.detach().clone()
    config = peft.PeftConfig.from_pretrained(outcome.folder / "lora/seed-0/model")
    config.modules_to_save = None  # `cat` refuses models with heads of their own
    model = peft.get_peft_model(base, config, adapter_name="0")
    for number, weights in enumerate(adapters(outcome)):
        if number:
            model.add_adapter(str(number), config)
        own_factors = {name: value for name, value in weights.items() if ".lora_" in name}
        peft.set_peft_model_state_dict(model, own_factors, adapter_name=str(number))
    model.add_weighted_adapter(["0", "1", "2"], [1 / 3] * 3, "soup", combination_type="cat")
    layer = model.get_submodule(f"base_model.model.{LAYER}")
    assert layer.r["soup"] == 12
    assert torch.allclose(souped(outcome) - own, layer.get_delta_weight("soup"), atol=1e-6)


def test_the_heads_of_adapters_are_averaged_too(made):
    _, outcome = made
    soup = load_file(outcome.folder / "lora/soup-uniform/model/model.safetensors")["classifier.weight"]
    heads = [seed["base_model.model.classifier.weight"] for seed in adapters(outcome)]
    assert torch.allclose(soup, torch.stack(heads).mean(0), atol=1e-6)


def test_the_greedy_soup_is_no_worse_on_validation_than_the_best_seed(made):
    _, outcome = made
    for name in ("linear", "lora"):
        result = read_json(outcome.folder / name / "soup-greedy" / "result.json")
        scores = {tuple(one["seeds"]): one["score"] for one in result["validated"]}
        assert {(0,), (1,), (2,)} <= set(scores)
        assert scores[tuple(result["seeds"])] <= min(scores[seed,] for seed in range(3)), "of a loss, less is better"


def test_a_soup_of_one_seed_is_that_seed_to_the_bit(made, again):
    for name in ("linear", "lora"):
        for seed in (1, 2):
            result = again.folder.run(name, seed)
            write_json(result.result, result.read_result() | {"status": "degenerate"})
    outcome = again()
    for name in ("linear", "lora"):
        single = again.folder.run(name, 0)
        for kind, found in combined(outcome, name).items():
            assert (found["seeds"], found["of"]) == ([0], [0])
            same = store.read(again.folder.combined(name, kind).predictions("test"))
            wanted = store.read(single.predictions("test"))
            assert np.array_equal(same.probabilities, wanted.probabilities) and same.prediction == wanted.prediction
            assert np.array_equal(same.loss, wanted.loss)
            assert found["scores"] == single.read_result()["scores"]
            assert all(gain["mean"] == 0 for gain in found["gain"].values())


def test_what_one_seed_says_is_not_computed_again(again):
    """On other hardware than tests run on, the same weights may say something else in the last bit."""
    for seed in (1, 2):
        shutil.rmtree(again.folder.run("lora", seed).path)
    shutil.rmtree(again.folder.combined("lora", "soup-uniform").path)
    path = again.folder.run("lora", 0).predictions("test")
    marked, key = store.read(path), pq.read_schema(path).metadata[b"key"].decode()
    replace(marked, loss=marked.loss + 1).write(path, key)
    again("seeds=1")
    soup = store.read(again.folder.combined("lora", "soup-uniform").predictions("test"))
    assert np.array_equal(soup.loss, marked.loss + 1)


def test_the_ensemble_is_the_mean_of_the_stored_probabilities(made):
    _, outcome = made
    folder = StudyDir(outcome.folder)
    seeds = [store.read(folder.run("lora", seed).predictions("test")) for seed in range(3)]
    found = store.read(folder.combined("lora", "ensemble").predictions("test"))
    mean = np.mean([seed.probabilities.astype(np.float64) for seed in seeds], axis=0)
    assert np.allclose(found.probabilities, mean, rtol=1e-6)
    assert found.prediction == [found.labels[best] for best in mean.argmax(axis=1)]
    result = read_json(folder.combined("lora", "ensemble").result)
    assert result["scores"]["test/nll"] == pytest.approx(found.loss.mean())
    assert not folder.combined("lora", "ensemble").model.exists()


def test_what_is_there_is_not_made_again(again, made_now, made):
    assert again().results == made[1].results
    assert made_now == []


def test_a_seed_more_is_a_reason_to_make_it_again(again, made_now):
    outcome = again("seeds=4")
    assert sorted(made_now) == [(name, kind) for name in ("linear", "lora") for kind in KINDS]
    assert combined(outcome, "linear")["soup-uniform"]["seeds"] == [0, 1, 2, 3]


def test_what_was_broken_off_is_made_and_the_rest_stays(again, made_now):
    again.folder.combined("lora", "soup-uniform").result.unlink()
    again()
    assert made_now == [("lora", "soup-uniform")]


def test_a_combination_added_to_a_finished_study_trains_nothing(again, monkeypatch):
    for kind in KINDS:
        shutil.rmtree(again.folder.combined("linear", kind).path)
    assert combined(again("mitigations=[]"), "linear") == {}
    monkeypatch.setattr(study, "run", lambda *_: pytest.fail("it was trained again"))
    assert sorted(combined(again(), "linear")) == KINDS


def test_failed_seeds_are_left_out_and_it_is_said(again, monkeypatch):
    result = again.folder.run("linear", 1)
    write_json(result.result, result.read_result() | {"status": "diverged", "reason": "on purpose"})
    said = []
    monkeypatch.setattr("finetune.core.progress.Progress.say", lambda self, line: said.append(line))
    found = combined(again(), "linear")
    assert found["soup-uniform"]["seeds"] == found["ensemble"]["seeds"] == [0, 2]
    assert any("linear, soup-uniform · of seeds 0, 2; left out, because failed: seed 1" in line for line in said)


def test_nothing_is_made_where_every_seed_failed(again):
    for seed in range(3):
        result = again.folder.run("linear", seed)
        write_json(result.result, result.read_result() | {"status": "degenerate"})
    before = read_json(again.folder.combined("linear", "ensemble").result)
    again()
    assert read_json(again.folder.combined("linear", "ensemble").result) == before


def test_heads_drawn_afresh_are_told_about(topics, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("finetune.core.progress.Progress.say", lambda self, line: said.append(line))
    topics.write_text("\n".join(line for line in topics.read_text().splitlines() if "full:" not in line))
    run_study(recipe.load(topics, [*QUICK, "mitigations=[{type: soup}]"]), tmp_path / "runs")
    assert any("linear, soup-uniform · every seed has drawn a head of its own" in line for line in said)


def test_what_fails_is_recorded_told_and_tried_again(again, monkeypatch, capsys):
    again.folder.combined("lora", "soup-uniform").result.unlink()

    def break_it(self, seeds):
        raise RuntimeError("a cosmic ray")

    with monkeypatch.context() as broken:
        broken.setattr(combine.FinishedRuns, "mean", break_it)
        outcome = again()
    [failed] = outcome.failed
    assert (failed["variant"], failed["kind"], failed["status"]) == ("lora", "soup-uniform", "error")
    assert failed["reason"] == "RuntimeError: a cosmic ray"
    assert finish(outcome) == 1 and "lora, soup-uniform: error: RuntimeError: a cosmic ray" in capsys.readouterr().out
    assert variant_of(outcome, "lora")["failures"]["count"] == 0
    assert "a cosmic ray" in (outcome.folder / "report" / "report.md").read_text()
    assert again().failed == []


def test_a_model_that_is_gone_is_told(again):
    again.folder.combined("linear", "soup-uniform").result.unlink()
    shutil.rmtree(again.folder.run("linear", 2).model)
    [failed] = again().failed
    assert "the model of seed 2" in failed["reason"] and "is gone" in failed["reason"]


def test_another_held_out_task_is_scored_too(again, tmp_path):
    other = tiny.write_csv(tmp_path / "other.csv", tiny.sentences(24, seed=5))
    before = read_json(again.folder.combined("lora", "soup-uniform").result)["scores"]
    outcome = rescore(again.folder.path, [f"evaluate=[{{name: other, data: {{path: {json.dumps(str(other))}}}}}]"])
    for name in ("linear", "lora"):
        for kind in KINDS:
            found = combined(outcome, name)[kind]
            assert found["gain"]["other/accuracy"]["ci"] is not None
    assert before.items() <= combined(outcome, "lora")["soup-uniform"]["scores"].items()


def test_runs_from_different_pretrained_weights_have_no_mean(again):
    again.folder.combined("lora", "soup-uniform").result.unlink()
    result = again.folder.run("lora", 1)
    write_json(result.result, result.read_result() | {"base": "0123456789abcdef" * 2})
    with pytest.raises(InputError) as error:
        again()
    [problem] = error.value.problems
    assert problem.path == "mitigations.0" and "seed 1 from 01234567" in problem.found and "seeds 0, 2" in problem.found


CLASSIFYING = {
    "train.save_model=false": ["averages the seeds' saved models", "train.save_model: true"],
    "data.split.validation=0": ["chooses seeds by validation examples", "data.split.validation"],
    "train.evaluations=0": ["train.evaluations is 0", "1 or more"],
    "vary=[split, init]": ["each other's test examples", "split out of `vary`"],
}


@pytest.mark.parametrize("override", CLASSIFYING)
def test_what_cannot_be_made_is_refused_before_anything_is_trained(topics, override):
    with pytest.raises(InputError) as error:
        preflight(recipe.load(topics, [ALL, override]))
    found = str(error.value)
    assert all(part in found for part in CLASSIFYING[override]), found
    assert all(problem.path.startswith("mitigations.") and problem.where for problem in error.value.problems)


def test_quantised_weights_cannot_hold_a_mean(topics):
    resolved = recipe.load(topics, ["variants.full.strategy={type: adapter, method: qlora}", ALL])
    quantised = resolved.variants[1].recipe
    with pytest.raises(InputError, match="too few bits") as error:
        check_combining(quantised, Resources().data(quantised, 0))
    assert [problem.path for problem in error.value.problems] == ["mitigations.0"]


def test_an_ensemble_needs_no_model(topics):
    preflight(recipe.load(topics, ["mitigations=[{type: ensemble}]", "train.save_model=false"]))


def test_texts_have_no_mean(chats):
    with pytest.raises(InputError, match="the task 'chat' has none"):
        preflight(recipe.load(chats, ["mitigations=[{type: ensemble}]"]))
    preflight(recipe.load(chats, ["mitigations=[{type: soup}]"]))


def test_nothing_is_looked_at_where_nothing_is_to_be_combined(made):
    path, outcome = made
    variant = recipe.load(path, ["seeds=3", "mitigations=[]"]).variants[0]
    assert list(combine.combine(variant, {}, StudyDir(outcome.folder), None, None, None)) == []
