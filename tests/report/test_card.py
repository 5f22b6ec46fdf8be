"""The model card: the hub's own library reads it, and its numbers are those of results.json."""

import json
import re
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard

from finetune.metrics import unit
from finetune.report import build, card
from finetune.results.ranking import best_variant
from finetune.results.reading import read_study
from finetune.results.schema import PoolingResult

EVIL = '---\n<script>alert("1")</script>: "&\'|`*\u202e'


def with_recipe(study, **sections):
    """Gives every variant of the study these recipe sections."""
    path = study.path / "resolved.yaml"
    resolved = yaml.safe_load(path.read_text(encoding="utf-8"))
    for variant in resolved["variants"].values():
        variant["recipe"] |= sections
    path.write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")


def written(study):
    return (study.path / "report/model-card.md").read_text(encoding="utf-8")


def built(study):
    """(results, card as the hub's library reads it)."""
    results = build(study.path)
    return results, ModelCard(written(study))


def test_the_hub_reads_every_number_with_its_interval(study):
    results, read = built(study)
    full = results.variant("full")
    assert read.data.model_name == "topics-full"
    found = {result.metric_name.partition(",")[0]: result for result in read.data.eval_results}
    assert len(found) == len(read.data.eval_results) == 3
    for metric in ("accuracy", "macro_f1", "nll"):
        estimate, result = full.estimates[f"test/{metric}"], found[unit(metric).label]
        assert result.metric_value == estimate.mean
        assert result.metric_args["seeds"] == estimate.n == 5
        assert result.metric_args["ci"] == list(estimate.ci)
        assert result.metric_args["level"] == 0.95 and result.metric_args["sd"] == estimate.sd
        assert result.metric_name.endswith(f"mean of 5 seeds {unit(metric).interval(estimate.ci)}")
        assert result.dataset_split == "test" and result.dataset_args["examples"] == 200
    assert found["macro-F1"].metric_type == "f1" and found["macro-F1"].metric_args["average"] == "macro"


def test_what_the_library_writes_again_is_the_same(study):
    _, read = built(study)
    content = ModelCard(str(read))
    assert content.data.to_dict() == read.data.to_dict()
    assert content.data.to_dict()["model-index"] == yaml.safe_load(written(study).split("---\n")[1])["model-index"]


def test_the_text_has_the_same_numbers_as_the_metadata(study):
    results, read = built(study)
    full = results.variant("full")
    for metric in ("accuracy", "macro_f1", "nll"):
        found, shown = full.estimates[f"test/{metric}"], unit(metric)
        assert f"| {shown.number(found.mean)} | {shown.interval(found.ci)} |" in read.text
    for run in full.runs:
        assert f"| {run.seed} | finished | {unit('accuracy').number(run.scores['test/accuracy'])} |" in read.text
    assert re.search(r"\n\*\*.*\.\*\* full (reaches|has the highest score)", read.text)


def test_a_hub_model_and_data_set_are_named(study):
    with_recipe(
        study,
        model={"source": "org/base-model@abc123"},
        data={"train": {"path": "hub:nyu-mll/glue@main", "subset": "rte"}},
        task={"type": "classification"},
    )
    _, read = built(study)
    data = read.data.to_dict()
    assert data["base_model"] == "org/base-model" and data["datasets"] == ["nyu-mll/glue"]
    assert data["pipeline_tag"] == "text-classification" and data["library_name"] == "transformers"
    (result, *_) = read.data.eval_results
    assert (result.dataset_type, result.dataset_config) == ("nyu-mll/glue", "rte")
    assert result.task_type == "text-classification"
    assert "from org/base-model" in read.text


def test_an_adapter_is_a_peft_model_that_generates_text(study):
    with_recipe(study, task={"type": "chat"})
    results = build(study.path)
    text = card.render(read_study(study.path), results, results.variant("lora"))
    data = ModelCard(text).data.to_dict()
    assert data["library_name"] == "peft" and data["pipeline_tag"] == "text-generation"
    assert data["model-index"][0]["name"] == "topics-lora" and data["tags"] == ["finetune", "adapter"]


def test_what_opens_a_model_and_what_it_does_are_facts_of_the_study(study):
    data = study.data()
    data["libraries"] = {"full": "transformers", "linear": "finetune", "lora": "peft"}
    data["tasks"][0]["pipeline_tag"] = "fill-mask"
    study.json("data.json", data)
    results = build(study.path)
    for name, library in data["libraries"].items():
        found = card.metadata(read_study(study.path), results, results.variant(name))
        assert (found["library_name"], found["pipeline_tag"]) == (library, "fill-mask")
        assert found["model-index"][0]["results"][0]["task"]["type"] == "fill-mask"


def test_an_older_study_that_does_not_say_it_claims_no_library(study):
    results = build(study.path)
    names = ("full", "linear", "lora")
    found = {name: card.metadata(read_study(study.path), results, results.variant(name)) for name in names}
    assert "library_name" not in found["linear"], "a probe is no transformers model"
    assert (found["full"]["library_name"], found["lora"]["library_name"]) == ("transformers", "peft")
    pooled = replace(results.variant("full"), pooling=PoolingResult("mean", False, "asked for"))
    assert "library_name" not in card.metadata(read_study(study.path), results, pooled)


def test_folders_of_the_machine_stay_private(study):
    with_recipe(
        study,
        model={"source": "/home/me/models/base"},
        data={"train": {"path": "/home/me/secret/news.csv"}, "test": {"path": "~/held/out.tsv"}},
    )
    data = study.data()
    for split in data["splits"].values():
        split["source"] = "/home/me/secret/news.csv"
    study.json("data.json", data)
    _, read = built(study)
    assert "/home" not in written(study) and "secret" not in written(study)
    assert "base_model" not in read.data.to_dict() and "datasets" not in read.data.to_dict()
    assert read.data.eval_results[0].dataset_name == "out.tsv"
    assert "from base:" in read.text


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("org/name", "org/name"),
        ("org/name@v1.0", "org/name"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("/home/me/model", None),
        ("./model", None),
        ("../model", None),
        ("~/model", None),
        ("package:some_package/model", None),
        ("org/name/weights.gguf", None),
        ("weights.gguf", None),
        ("", None),
    ],
)
def test_what_is_an_id_on_the_hub(source, found):
    assert card.hub_id(source) == found


def test_further_held_out_data_has_its_own_entry(fabricator):
    made = fabricator([1, 2, 3], {"full": "full"}, tasks=("test", "tweets"))
    other = {"name": "tweets", "data": {"path": "hub:org/tweets", "subset": "short"}}
    with_recipe(made, data={"train": {"path": "news.csv"}}, evaluate=[other])
    for seed in made.seeds:
        made.run("full", seed, 0.9)
    _, read = built(made)
    found = {(result.dataset_name, result.dataset_config) for result in read.data.eval_results}
    assert found == {("news.csv", None), ("org/tweets", "short")}


def test_hostile_names_stay_text(fabricator):
    name = EVIL.replace("/", "").replace("\n", " ")
    made = fabricator([1, 2, 3], {name: "full"}, name=EVIL)
    for seed in (1, 2):
        made.run(name, seed, 0.9)
    made.run(name, 3, None, "error", EVIL)
    results, read = built(made)
    assert read.data.model_name == f"{EVIL}-{name}"
    outside = re.sub(r"^(`{3,})yaml\n.*?\n\1$", "", read.text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)<(?!/?details>|/?summary>)", outside)
    assert "\u202e" not in read.text
    assert "1 of 3" in read.text and results.variants[0].failures.count == 1


def test_one_seed_has_no_interval_and_no_score_no_card(fabricator):
    made = fabricator([1], {"full": "full"})
    build(made.path)
    assert not (made.path / "report/model-card.md").exists()
    made.run("full", 1, 0.9)
    _, read = built(made)
    assert read.data.eval_results[0].metric_name == "accuracy, one seed"
    assert "ci" not in read.data.eval_results[0].metric_args


def test_the_same_bytes_twice(study):
    build(study.path)
    first = written(study)
    build(study.path)
    assert written(study) == first
    json.dumps(card.metadata(read_study(study.path), build(study.path), best_variant(build(study.path))))


def test_training_again_is_told_by_a_prediction_interval(study):
    results, _ = built(study)
    found = best_variant(results).estimates["test/accuracy"]
    low, high = found.prediction
    assert low < found.ci_seeds[0] and high > found.ci_seeds[1], "one run strays further than a mean"
    shown = unit("accuracy").interval(found.prediction)
    assert shown in written(study) and "one more run" in written(study)
