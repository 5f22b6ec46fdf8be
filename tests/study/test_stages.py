"""Stages: trained once, shared, resumed, part of what a run is, and refused where they make no sense."""

import json

import pytest
import torch

from finetune import recipe as recipes
from finetune.core.errors import FinetuneError, InputError, Interrupted
from finetune.core.progress import Progress
from finetune.core.run_dir import read_json
from finetune.models import ModelOptions, load_base
from finetune.runner.resources import Resources
from finetune.study import running, stages
from finetune.study.preflight import split_seed
from finetune.study.rescoring import rescore
from finetune.study.running import run_study
from finetune.study.stages import chain
from tests import tiny

SHORT = {"max_steps": 4, "min_steps": 0, "evaluations": 0}


def domain(folder, **changes):
    return {
        "name": "domain",
        "data": {"train": {"path": str(folder / "plain.csv")}},
        "task": {"type": "language", "max_length": 16},
        "train": {**SHORT, "learning_rate": 1e-2},
        **changes,
    }


def intermediate(folder, **changes):
    return {
        "name": "topics",
        "data": {"train": {"path": str(folder / "plain.csv")}},
        "task": {"type": "classification", "max_length": 32},
        "train": {**SHORT, "learning_rate": 1e-2},
        **changes,
    }


@pytest.fixture
def written(tmp_path, encoder_folder):
    """Writes a recipe with the given stages, and loads it."""
    tiny.write_csv(tmp_path / "news.csv", tiny.sentences(40))
    tiny.write_csv(tmp_path / "plain.csv", tiny.sentences(40, seed=3))

    def write(*wanted, model=encoder_folder, overrides=(), **changes):
        content = {
            "name": "staged",
            "seeds": 2,
            "model": {"source": str(model), "dtype": "float32", "device": "cpu", "new": ["cls"]},
            "data": {"train": {"path": str(tmp_path / "news.csv")}, "split": {"test": 12}},
            "task": {"type": "classification", "max_length": 32},
            "strategy": {"type": "full"},
            "train": SHORT,
            "stages": list(wanted),
            **changes,
        }
        (tmp_path / "recipe.yaml").write_text(json.dumps(content))  # JSON is YAML too
        return recipes.load(tmp_path / "recipe.yaml", overrides)

    return write


def trainings(monkeypatch):
    """The names of the stages that are trained from here on."""
    seen, plain = [], stages._train

    def watched(recipe, stage, *rest):
        seen.append(stage.name)
        plain(recipe, stage, *rest)

    monkeypatch.setattr(stages, "_train", watched)
    return seen


def test_a_stage_is_trained_once_for_all_seeds_and_variants_that_share_it(written, tmp_path, monkeypatch):
    seen = trainings(monkeypatch)
    both = {"full": {}, "linear": {"strategy": {"type": "linear"}}, "plain": {"stages": []}}
    outcome = run_study(written(domain(tmp_path), variants=both), tmp_path / "runs")
    assert seen == ["domain"] and not [run for run in outcome.failed if run["status"] == "error"]
    [place] = (tmp_path / "runs" / "staged" / "stages").iterdir()
    assert read_json(place / "result.json")["training"]["steps"] == 4
    assert not (place / "checkpoints").exists(), "they are of no use any more"


def test_runs_start_from_what_the_stage_made(written, tmp_path, encoder_folder):
    recipe = written(domain(tmp_path), strategy={"type": "linear", "solver": "steps"})
    outcome = run_study(recipe, tmp_path / "runs")
    [place] = (outcome.folder / "stages").iterdir()
    options = ModelOptions(source=str(encoder_folder)), ModelOptions(source=str(place / "model"))
    before, after = (load_base(each, "AutoModel").model.state_dict() for each in options)
    assert any(not torch.equal(after[name], before[name]) for name in before), "the stage has learnt"
    plain = run_study(written(strategy={"type": "linear", "solver": "steps"}, name="plain"), tmp_path / "runs")
    nll = [
        [run["scores"]["test/nll"] for run in found.results.to_json()["variants"][0]["runs"]]
        for found in (outcome, plain)
    ]
    assert all(staged != other for staged, other in zip(*nll, strict=True))


def test_stages_follow_each_other(written, tmp_path, monkeypatch):
    seen = trainings(monkeypatch)
    run_study(written(domain(tmp_path), intermediate(tmp_path)), tmp_path / "runs")
    assert seen == ["domain", "topics"]
    two = {"one": {"stages": [domain(tmp_path)]}, "two": {}}
    run_study(written(domain(tmp_path), intermediate(tmp_path), name="other", variants=two), tmp_path / "runs")
    assert seen[2:] == ["domain", "topics"], "variants share the stages that they have in common"


@pytest.mark.parametrize("change", ["seed", "data", "before"])
def test_a_stage_that_depends_on_something_else_is_another(written, tmp_path, monkeypatch, change):
    seen, first = trainings(monkeypatch), domain(tmp_path)
    last = intermediate(tmp_path)
    if change == "seed":
        other = [first, {**last, "seed": 1}]
    elif change == "data":
        other = [first, {**last, "data": {"train": {"path": str(tmp_path / "news.csv")}}}]
    else:
        other = [{**first, "train": {**first["train"], "learning_rate": 5e-3}}, last]
    run_study(written(first, last, variants={"a": {}, "b": {"stages": other}}), tmp_path / "runs")
    assert seen == ["domain", "topics", *(["domain"] if change == "before" else []), "topics"]


def test_a_variants_digest_tells_its_stages_apart(written, tmp_path):
    one, other = written(domain(tmp_path)), written(domain(tmp_path, seed=1))
    assert one.variants[0].digest != other.variants[0].digest != written().variants[0].digest


def test_an_interrupted_stage_goes_on_where_it_was(written, tmp_path, monkeypatch):
    recipe = written(domain(tmp_path), overrides=["stages.0.train.max_steps=6"])
    whole = run_study(recipe, tmp_path / "whole")
    opened, stops = running.stop_on_signals, []

    from contextlib import contextmanager

    @contextmanager
    def watched(answer):
        with opened(answer) as stop:
            stops.append(stop)
            yield stop

    monkeypatch.setattr(running, "stop_on_signals", watched)

    class Stopping(Progress):
        def step(self, done, note=""):
            if done == 3 and note and stops:  # a step of training says how it went
                stops[-1].requested = True

    with pytest.raises(Interrupted):
        run_study(recipe, tmp_path / "parts", Stopping())
    [place] = (tmp_path / "parts" / "staged" / "stages").iterdir()
    assert list((place / "checkpoints").iterdir()) and not (place / "result.json").exists()
    parts = run_study(recipe, tmp_path / "parts")
    assert read_json(place / "result.json")["training"]["resumed"] == 1
    for one, other in zip(*(found.results.to_json()["variants"][0]["runs"] for found in (whole, parts)), strict=True):
        assert one["scores"] == other["scores"]


def test_an_adapter_is_merged_into_what_comes_out(written, tmp_path):
    adapter = domain(tmp_path, strategy={"type": "adapter", "rank": 2})
    outcome = run_study(written(adapter), tmp_path / "runs")
    [place] = (outcome.folder / "stages").iterdir()
    assert (place / "model" / "config.json").exists() and not (place / "model" / "adapter_config.json").exists()


def test_a_finished_study_can_be_scored_again(written, tmp_path):
    outcome = run_study(written(domain(tmp_path)), tmp_path / "runs")
    more = f"evaluate=[{{name: more, data: {{path: {tmp_path / 'plain.csv'}}}}}]"
    found = rescore(outcome.folder, [more])
    for run in found.results.to_json()["variants"][0]["runs"]:
        assert {"test/accuracy", "more/accuracy"} <= set(run["scores"])


def test_a_stage_that_diverges_ends_the_variant_with_its_reason(written, tmp_path):
    broken = domain(tmp_path, train={**SHORT, "learning_rate": 1e30})
    with pytest.raises(FinetuneError, match="stage 'domain' diverged"):
        run_study(written(broken), tmp_path / "runs")


# Mistakes


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([{"name": "a"}, {"name": "a"}], "'a' is given twice"),
        ([{"name": "a", "after": "a"}], "starts from 'a', which starts from it or comes later: a cycle"),
        ([{"name": "a", "after": "b"}, {"name": "b"}], "'a' starts from 'b', which starts from it or comes later"),
        ([{"name": "a"}, {"name": "b", "after": "aa"}], "there is no stage called 'aa'"),
        ([{"name": "a"}, {"name": "b"}, {"name": "c", "after": "a"}], "nothing starts from 'b'"),
        ([{"name": "a", "train": {"select": "rouge_l"}}], "neither `loss` nor a metric"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_stages_that_make_no_sense_are_refused(written, tmp_path, wanted, message):
    with pytest.raises(InputError) as error:
        written(*[{**domain(tmp_path), **changes} for changes in wanted])
    assert message in str(error.value) and "stages." in str(error.value)


def test_a_mistake_inside_a_stage_is_told_at_its_place(written, tmp_path):
    with pytest.raises(InputError, match=r"recipe.yaml:1: stages.0.task.text"):
        run_study(written(domain(tmp_path, task={"type": "language", "text": "body"})), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_order_is_that_of_after():
    def stage(name, after=None):
        return recipes.Stage.model_construct(name=name, after=after)

    assert chain([]) == []
    assert chain([stage("a"), stage("b"), stage("c")]) == [0, 1, 2]
    assert chain([stage("a"), stage("b", "a"), stage("c", "a")]) == [0, 2]


# Stages over the runs' own examples


PROBE = {"strategy": {"type": "linear"}, "train": {}}


def contrastive(**changes):
    return {
        "name": "pairs",
        "task": {"type": "embedding", "label": "label", "drawn": 3, "max_length": 32},
        "train": {**SHORT, "learning_rate": 1e-2},
        **changes,
    }


def learnt_from(monkeypatch):
    """By name of the stage, the texts that each training of one has learnt from, and those that it was shown beside."""
    seen, plain = [], stages._train

    def watched(session, stage, *rest):
        data = session.data
        read = {name: list(table["text"]) for name, table in {**data.learnt, **data.tables}.items()}
        seen.append((stage.name, read))
        plain(session, stage, *rest)

    monkeypatch.setattr(stages, "_train", watched)
    return seen


def test_a_stage_without_data_learns_from_each_splits_own_training_examples(written, tmp_path, monkeypatch):
    seen = learnt_from(monkeypatch)
    recipe = written(contrastive(), **PROBE, vary=["split", "init"], seeds=3)
    outcome = run_study(recipe, tmp_path / "runs")
    assert not [run for run in outcome.failed if run["status"] == "error"]
    assert [name for name, _ in seen] == ["pairs"] * 3 and len(list((outcome.folder / "stages").iterdir())) == 3
    resources, variant = Resources(), recipe.variants[0]
    for seed, (_, read) in zip(recipe.seeds, seen, strict=True):
        data = resources.data(variant.recipe, split_seed(recipe, variant, seed))
        assert read == {"train": list(data.learnt["train"]["text"])}
        assert not set(read["train"]) & set(data.tables["test"]["text"])
    assert len({tuple(read["train"]) for _, read in seen}) == 3
    bases = {run["base"] for run in (read_json(path) for path in outcome.folder.glob("*/seed-*/result.json"))}
    assert len(bases) == 3, "each starts from its own"
    assert run_study(recipe, tmp_path / "runs").results == outcome.results and len(seen) == 3


def test_seeds_of_one_split_share_what_their_stage_made(written, tmp_path, monkeypatch):
    seen = learnt_from(monkeypatch)
    split = {"data": {"train": {"path": str(tmp_path / "news.csv")}, "split": {"test": 12, "validation": 6}}}
    run_study(written(contrastive(), **PROBE, **split), tmp_path / "runs")
    [(_, read)] = seen
    assert {name: len(texts) for name, texts in read.items()} == {"train": 22, "validation": 6}


def test_its_split_is_the_runs_also_where_its_task_looks_at_other_columns(written, tmp_path, monkeypatch):
    """What is a duplicate is for the run's own task to say: otherwise the two would divide other rows."""
    seen = learnt_from(monkeypatch)
    rows = [(f"{text} {number % 2}", text, topic) for number, (text, topic) in enumerate(tiny.sentences(20) * 2)]
    content = "\n".join(["text,body,label", *(",".join(row) for row in rows)])
    (tmp_path / "two.csv").write_text(content, encoding="utf-8")
    data = {"train": {"path": str(tmp_path / "two.csv")}, "split": {"test": 12}}
    stage = contrastive(task={"type": "embedding", "text": "body", "label": "label", "drawn": 3, "max_length": 32})
    recipe = written(stage, data=data, **PROBE)
    run_study(recipe, tmp_path / "runs")
    data = Resources().data(recipe.variants[0].recipe, 0)
    [(_, read)] = seen
    assert read["train"] == list(data.learnt["train"]["text"])


def test_runs_after_a_stage_of_their_own_are_scored_again_from_it(written, tmp_path):
    recipe = written(contrastive(), **PROBE, vary=["split", "init"])
    outcome = run_study(recipe, tmp_path / "runs")
    before = [run["scores"] for run in outcome.results.to_json()["variants"][0]["runs"]]
    for path in outcome.folder.glob("*/seed-*/predictions/*.parquet"):
        path.unlink()
    found = rescore(outcome.folder)
    assert [run["scores"] for run in found.results.to_json()["variants"][0]["runs"]] == before


def test_what_it_cannot_learn_from_is_told_at_its_place(written, tmp_path):
    broken = contrastive(task={"type": "embedding", "label": "topic"})
    with pytest.raises(InputError, match=r"recipe.yaml:1: stages.0.task.label"):
        run_study(written(broken), tmp_path / "runs")


def test_a_probe_on_what_has_seen_its_examples_does_not_ask_them_for_its_penalty(written, tmp_path):
    """Left out, they would still be known to the features: the weakest penalty would always look best."""
    domain_first = {**contrastive(), "task": {"type": "language", "text": "text"}, "name": "domain"}
    for number, (stage, told) in enumerate(((contrastive(), False), (domain_first, True))):
        outcome = run_study(written(stage, **PROBE, seeds=1), tmp_path / str(number))
        [path] = outcome.folder.glob("*/seed-0/result.json")
        solved = read_json(path)["training"]["solved"]
        assert (solved["folds"] > 1) is told and (told or solved["strength"] == 1.0)
