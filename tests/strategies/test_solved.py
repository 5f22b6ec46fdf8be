"""A probe that is solved: once for all seeds, the same from wherever it starts, with every kind of head that is one
linear layer."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finetune import recipe as recipes
from finetune.core.errors import InputError
from finetune.core.run_dir import read_json
from finetune.study.rescoring import rescore
from finetune.study.running import run_study
from tests import tiny

SOLVED = "variants.linear={strategy: {type: linear}}"


@pytest.fixture
def solved(topics, tmp_path):
    """Runs the study with a solved probe alone; its folder."""
    lines = topics.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("  full:", "  linear:"))]
    topics.write_text("\n".join([*kept, "  linear: {strategy: {type: linear}}"]) + "\n")

    def run(*overrides, name="runs"):
        outcome = run_study(recipes.load(topics, list(overrides)), tmp_path / name)
        assert [run["reason"] for run in outcome.failed if run["status"] == "error"] == []
        return outcome.folder

    return run


def results(folder, seeds=(0, 1)):
    return [read_json(folder / "linear" / f"seed-{seed}" / "result.json") for seed in seeds]


def test_it_is_solved_once_and_stored_for_each_seed(solved, monkeypatch):
    from finetune.train import solving

    times = []
    once = solving.fit
    monkeypatch.setattr(solving, "fit", lambda *arguments: times.append(1) or once(*arguments))
    folder = solved()
    one, other = results(folder)
    assert len(times) == 1 and one["scores"] == other["scores"] and one["status"] == "finished"
    assert one["training"]["solved"]["solver"] == "lbfgs" and one["identity"] is None
    weights = [load_file(folder / f"linear/seed-{seed}/model/trained.safetensors") for seed in (0, 1)]
    assert set(weights[0]) == {"classification_head.weight", "classification_head.bias"}
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    tables = [(folder / f"linear/seed-{seed}/predictions/test.parquet").read_bytes() for seed in (0, 1)]
    assert tables[0] == tables[1]


def test_how_it_pools_is_found_out_and_told(solved):
    pooling = results(solved())[0]["pooling"]
    assert pooling["mode"] in ("mean", "cls", "max") and "cross-validation" in pooling["reason"]
    assert results(solved("task.pooling=max", name="said"))[0]["pooling"] == {
        "mode": "max", "normalise": False, "reason": "the recipe says so"
    }  # fmt: skip


def test_sentence_transformers_files_are_followed(solved, encoder_folder, tmp_path):
    import shutil

    folder = shutil.copytree(encoder_folder, tmp_path / "sentences")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    pooling = results(solved(f"model.source={folder}"))[0]["pooling"]
    assert (pooling["mode"], pooling["normalise"]) == ("cls", True) and "sentence-transformers" in pooling["reason"]


def test_a_causal_model_is_read_off_its_last_token(solved, decoder_folder):
    pooling = results(solved(f"model.source={decoder_folder}"))[0]["pooling"]
    assert pooling["mode"] == "last" and "causal" in pooling["reason"]


@pytest.mark.parametrize("save", [tiny.save_encoder, tiny.save_decoder], ids=["with bias", "without"])
def test_the_models_own_head_is_solved_where_it_is_one_layer(solved, save, tmp_path):
    one, other = results(solved(f"model.source={save(tmp_path / 'model')}", "task.pooling=model"))
    assert "pooling" not in one and one["scores"] == other["scores"]
    assert one["scores"]["test/nll"] < np.log(3)


def test_a_head_of_more_layers_is_refused_with_the_cure(solved, tmp_path):
    from transformers import RobertaConfig, RobertaModel

    folder = tmp_path / "roberta"
    size = tiny.save_tokenizer(folder)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    RobertaModel(RobertaConfig(vocab_size=size, pad_token_id=0, **shape)).save_pretrained(folder)
    with pytest.raises(
        InputError, match=r"classifier\.dense, classifier\.out_proj[\s\S]*pooling: auto[\s\S]*solver: steps"
    ):
        solved(f"model.source={folder}", "task.pooling=model")
    assert results(solved(f"model.source={folder}"))[0]["status"] in ("finished", "degenerate")


def test_seeds_with_splits_of_their_own_have_fits_of_their_own(solved):
    one, other = results(solved("vary=[split]"))
    assert one["training"]["solved"]["validated"] != other["training"]["solved"]["validated"]


def test_a_seed_that_is_added_later_gets_the_same(solved):
    first = results(solved("seeds=1"), [0])[0]
    again = results(solved("seeds=3"), [0, 1, 2])
    assert again[0] == first and all(each["scores"] == first["scores"] for each in again)


def test_it_is_scored_again_as_it_was(solved):
    folder = solved()
    before = results(folder)
    for table in folder.glob("linear/*/predictions/test.parquet"):
        table.unlink()
    rescore(folder)
    assert [each["scores"] for each in results(folder)] == [each["scores"] for each in before]


def test_a_mitigation_of_steps_is_refused(solved):
    with pytest.raises(InputError, match=r"'label-smoothing' is about training in steps[\s\S]*solver: steps"):
        solved("mitigations=[{type: label-smoothing}]")


def test_features_are_computed_once_for_what_differs_in_nothing_they_depend_on(solved, monkeypatch, topics):
    from finetune.train import solving

    computed = []
    extract = solving.extract
    monkeypatch.setattr(solving, "extract", lambda *arguments: computed.extend(arguments[4]) or extract(*arguments))
    topics_text = topics.read_text()
    topics.write_text(topics_text + "  mean: {strategy: {type: linear}, task: {pooling: mean}}\n")
    solved()
    assert sorted(computed) == ["cls", "max", "mean"]


def test_tuning_pools_as_cross_validation_prefers_where_it_is_asked_to(solved):
    tuned = "variants.linear.strategy={type: full}"
    folder = solved(tuned, "task.pooling=auto", "train.max_steps=4", "train.min_steps=4")
    one, other = results(folder)
    assert "cross-validation" in one["pooling"]["reason"] and one["pooling"] == other["pooling"]
    assert read_json(folder / "linear/seed-0/model/pooling.json") == one["pooling"]


def test_a_spread_of_zero_by_construction_is_told_and_not_tested(topics, tmp_path):
    text = topics.read_text().replace(
        "{type: linear, solver: steps}, task: {pooling: model}, train: {learning_rate: 0.1}", "{type: linear}"
    )
    topics.write_text(text + "  max: {strategy: {type: linear}, task: {pooling: max}}\n")
    results = run_study(recipes.load(topics, ["seeds=3"]), tmp_path / "runs").results
    probe = results.variant("linear")
    found = probe.estimates["test/accuracy"]
    assert (found.sd, found.ci_seeds, found.sd_ci, found.sd_corrected) == (None, None, None, None)
    assert found.ci[0] < found.mean < found.ci[1], "of the examples, which are what is left to be new"
    assert "a seed changes nothing" in found.reason and probe.stability == "undecided"
    assert len(probe.runs) == 3
    rows = {(row.left, row.right): row for row in results.comparisons if row.metric == "accuracy"}
    tuned, solved = rows["linear", "full"], rows["linear", "max"]
    assert tuned.ci[0] < tuned.difference < tuned.ci[1] and tuned.p_spread is None
    assert "over examples" in solved.method or "no example" in solved.reason
    page = (tmp_path / "runs" / "topics" / "report" / "report.md").read_text(encoding="utf-8")
    assert "a seed changes nothing" in page and "pools tokens by max; the recipe says so" in page
