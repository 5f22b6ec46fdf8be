"""A study: variants under seeds, every way a run can end, and what is done again."""

from __future__ import annotations

import json
import shutil
from datetime import date
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer

from finetune import recipe
from finetune.core.errors import DiskFull
from finetune.core.run_dir import StudyDir
from finetune.core.runtime import Runtime
from finetune.results.schema import RunResult
from finetune.runner.resources import Resources
from finetune.runner.result import summary
from finetune.study import study
from finetune.study.rescoring import rescore
from finetune.study.running import run_study
from finetune.tasks.chat import Chat
from finetune.tasks.classification import Classification
from finetune.train import checkpoint
from tests import tiny


@pytest.fixture
def start(tmp_path):
    """start(recipe file, 'train.epochs=2') -> what the study came to."""

    def run(path, *overrides):
        return run_study(recipe.load(path, overrides), tmp_path / "runs")

    return run


def variant_of(outcome, name):
    return next(variant for variant in outcome.results.to_json()["variants"] if variant["name"] == name)


def only_full(topics):
    topics.write_text("\n".join(line for line in topics.read_text().splitlines() if "linear:" not in line))
    return topics


def test_every_variant_runs_under_every_seed(topics, start, tmp_path):
    outcome = start(topics, "seeds=[3, 7]")
    assert outcome.folder == tmp_path / "runs" / "topics"
    assert outcome.failed == []
    assert {(variant.name, run.seed) for variant in outcome.results.variants for run in variant.runs} == {
        ("linear", 3),
        ("linear", 7),
        ("full", 3),
        ("full", 7),
    }
    assert not outcome.folder.joinpath("base").exists()  # a new head has learnt nothing before
    result = json.loads((outcome.folder / "full" / "seed-7" / "result.json").read_text())
    assert result["streams"] == {"split": 0, "init": 7, "order": 7, "dropout": 7, "noise": 7}
    assert set(result["phases"]) == {"load", "train", "evaluate"}
    assert result["training"]["steps"] == 24 and result["training"]["examples"] == 24 * 16
    assert not (outcome.folder / "full" / "seed-7" / "checkpoints").exists()


def test_the_untuned_base_model_is_scored_once_where_it_means_something(chats, start):
    outcome = start(chats)
    base = variant_of(outcome, "base")
    [run] = base["runs"]
    assert (run["seed"], run["status"]) == (None, "finished")
    assert base["parameters"]["trainable"] == 0
    assert (outcome.folder / "base" / "predictions" / "test.parquet").exists()
    tuned = variant_of(outcome, "full")["runs"]
    assert all(run["scores"]["test/loss"] < base["runs"][0]["scores"]["test/loss"] for run in tuned)
    assert all(run["status"] == "finished" for run in tuned)
    shutil.rmtree(outcome.folder)
    assert not start(chats, "scoring.base=false", "seeds=1").folder.joinpath("base").exists()


def test_a_run_that_learns_nothing_is_degenerate(topics, start):
    outcome = start(only_full(topics), "train.learning_rate=1.0e-12")
    assert [run["status"] for run in outcome.failed] == ["degenerate", "degenerate"]
    assert all("always giving the commonest label gets 0.333" in run["reason"] for run in outcome.failed)
    variant = variant_of(outcome, "full")
    assert (variant["failures"]["count"], variant["failures"]["n"]) == (2, 2)
    found = variant["estimates"]["test/accuracy"]
    assert found["n"] == 0 and found["mean"] is None  # no run works, so there is nothing that it gives when it does
    scores = [run["scores"]["test/accuracy"] for run in variant["runs"]]
    assert found["expected"]["mean"] == sum(scores) / 2


def test_a_chat_run_no_better_than_the_base_model_is_degenerate(chats, start):
    outcome = start(chats, "train.learning_rate=1.0e-12", "seeds=1")
    [run] = outcome.failed
    assert run["status"] == "degenerate"
    assert run["reason"].startswith("rouge_l ") and "the untuned base model has " in run["reason"]


def test_a_run_that_explodes_is_diverged(topics, start):
    outcome = start(
        only_full(topics),
        "train={learning_rate: 1.0e+6, min_steps: 60, clip: null, warmup: 0.0, schedule: constant, evaluations: 0}",
        "data.split.validation=0",
    )
    assert [run["status"] for run in outcome.failed] == ["diverged", "diverged"]
    for run in outcome.failed:
        assert "the loss exploded" in run["reason"] or " became " in run["reason"]
        kept = json.loads((outcome.folder / "full" / f"seed-{run['seed']}" / "result.json").read_text())
        assert kept["status"] == "diverged" and kept["training"]["steps"] < 60
    assert variant_of(outcome, "full")["failures"]["count"] == 2
    report = (outcome.folder / "report" / "report.md").read_text()
    assert all(run["reason"].partition(":")[0] in report for run in outcome.failed)


def test_an_exception_ends_its_run_and_no_other(topics, start, monkeypatch):
    losses = Classification.losses

    def break_second(self, model, batch):
        raise RuntimeError("a cosmic ray <hit>")

    original = study.run

    def run(variant, replicas, *rest):
        broken = any(replica.streams.seed == 1 for replica in replicas)
        monkeypatch.setattr(Classification, "losses", break_second if broken else losses)
        return original(variant, replicas, *rest)

    monkeypatch.setattr(study, "run", run)
    outcome = start(only_full(topics), "seeds=3")
    [failed] = outcome.failed
    assert (failed["variant"], failed["seed"], failed["status"]) == ("full", 1, "error")
    assert failed["reason"] == "RuntimeError: a cosmic ray <hit>"
    result = json.loads((outcome.folder / "full" / "seed-1" / "result.json").read_text())
    assert "break_second" in result["traceback"]
    assert [run["status"] for run in variant_of(outcome, "full")["runs"]] == ["finished", "error", "finished"]
    assert variant_of(outcome, "full")["failures"]["count"] == 1
    assert "a cosmic ray &lt;hit&gt;" in (outcome.folder / "report" / "index.html").read_text()

    monkeypatch.setattr(study, "run", original)
    monkeypatch.setattr(Classification, "losses", losses)
    finished = outcome.folder / "full" / "seed-0" / "result.json"
    before = finished.stat().st_mtime_ns
    again = start(topics, "seeds=3")
    assert again.failed == []
    assert finished.stat().st_mtime_ns == before


def test_an_exception_in_a_group_is_that_of_the_run_it_comes_from(topics, start, monkeypatch):
    """Its neighbours are trained again, each alone."""
    original, groups = study.run, []

    def run(variant, replicas, *rest):
        groups.append([replica.streams.seed for replica in replicas])
        if any(replica.streams.seed == 1 for replica in replicas):
            raise RuntimeError("a cosmic ray")
        return original(variant, replicas, *rest)

    monkeypatch.setattr(study, "run", run)
    outcome = start(only_full(topics), "seeds=3", "train.replicas=3")
    assert groups == [[0, 1, 2], [0], [1], [2]]
    assert [run["status"] for run in variant_of(outcome, "full")["runs"]] == ["finished", "error", "finished"]


def test_seeds_are_trained_in_groups_and_those_that_are_missing_later(topics, start, monkeypatch):
    original, groups = study.run, []

    def run(variant, replicas, *rest):
        groups.append([variant.name, *(replica.streams.seed for replica in replicas)])
        return original(variant, replicas, *rest)

    monkeypatch.setattr(study, "run", run)
    outcome = start(topics, "seeds=3", "train.replicas=2")
    assert groups == [["linear", 0, 1], ["linear", 2], ["full", 0, 1], ["full", 2]]
    assert outcome.failed == []
    shutil.rmtree(outcome.folder / "full" / "seed-1")
    groups.clear()
    start(topics, "seeds=5", "train.replicas=8")
    assert groups == [["linear", 3, 4], ["full", 1, 3, 4]], "how many at once is no part of what a run is"


@pytest.mark.parametrize(("processes", "groups"), [(1, [[0, 4], [1], [2, 5]]), (2, [[0], [4], [1], [2], [5]])])
def test_interrupted_runs_go_on_beside_others_at_the_same_step(topics, tmp_path, processes, groups, monkeypatch):
    """Also where a crash came when one had its newest checkpoint, and the other not yet."""
    monkeypatch.setattr("finetune.runner.autotune.choose_compiled", lambda *_: (False, "not here"))
    resolved = recipe.load(topics, ["seeds=6", "train.replicas=2"])
    folder = StudyDir(tmp_path / "runs")
    for seed, step in ((0, 6), (2, 4), (2, 5), (4, 6), (5, 3), (5, 4)):
        checkpoint.save(folder.run("full", seed).checkpoints, step, {}, {"weights": {"w": torch.ones(1)}})
    accelerator = SimpleNamespace(num_processes=processes, is_main_process=True, device=torch.device("cpu"))
    runtime = Runtime(accelerator, torch.float32, tmp_path)
    found = study.Study(resolved, folder, Resources(), runtime, {("full", 3): {"status": "finished"}}, {})
    assert list(found.groups(resolved.variants[1])) == groups


@pytest.mark.parametrize(("rate", "status"), [("1.0e-12", "degenerate"), ("1.0e-2", "finished")])
def test_what_would_only_repeat_itself_is_not_run_again(topics, start, monkeypatch, rate, status):
    arguments = (only_full(topics), f"train.learning_rate={rate}", "seeds=1")
    first = start(*arguments)
    assert [run["status"] for run in variant_of(first, "full")["runs"]] == [status]
    monkeypatch.setattr(study, "run", lambda *_: pytest.fail("it was run again"))
    assert start(*arguments).results == first.results


def test_a_full_disk_ends_the_study_and_keeps_what_was_finished(topics, start, monkeypatch):
    original = study.run

    def run(variant, replicas, *rest):
        if any(replica.streams.seed == 1 for replica in replicas):
            raise OSError(28, "No space left on device")
        return original(variant, replicas, *rest)

    monkeypatch.setattr(study, "run", run)
    with pytest.raises(DiskFull, match=r"is full; what was saved before is intact"):
        start(only_full(topics))
    folder = topics.parent / "runs" / "topics" / "full"
    assert (folder / "seed-0" / "result.json").exists() and not (folder / "seed-1" / "result.json").exists()
    monkeypatch.setattr(study, "run", original)
    assert start(topics).failed == []


def test_seeds_that_share_a_run_are_found_whatever_the_order(chats, start):
    """The seed that comes later is the one in error, also when it is added afterwards."""
    chats.write_text("vary: [dropout]\n" + chats.read_text())
    assert start(chats, "seeds=[5]").failed == []
    [failed] = start(chats, "seeds=[5, 2]").failed
    assert (failed["seed"], failed["status"]) == (2, "error")
    assert "as seed 5" in failed["reason"]


def test_what_is_said_of_a_run():
    result = {"status": "finished", "reason": None, "seconds": 2.04, "scores": {"test/accuracy": 0.5, "test/nll": 1.0}}
    assert summary("lora, seed 0", result, "accuracy") == "lora, seed 0 · test/accuracy 0.5 · 2.0 s"
    failed = {"status": "error", "reason": "it broke", "seconds": None, "scores": {}}
    assert summary("lora, seed 0", failed, "accuracy") == "lora, seed 0 · no scores · error: it broke"


def test_failed_runs_are_those_that_did_not_learn():
    statuses = ("finished", "degenerate", "diverged", "error", "interrupted")
    runs = [RunResult(seed, status, None, None, None, {}) for seed, status in enumerate(statuses)]
    results = SimpleNamespace(variants=[SimpleNamespace(name="a", runs=runs, combined=[])])
    outcome = study.StudyOutcome(SimpleNamespace(), results)
    assert [run["status"] for run in outcome.failed] == ["degenerate", "diverged", "error"]


def test_the_date_that_a_template_prints_is_that_of_the_first_day(tmp_path, start, monkeypatch):
    model = tiny.save_decoder(tmp_path / "dated")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = "{{ strftime_now('%Y-%m-%d') }}\n" + tokenizer.chat_template
    tokenizer.save_pretrained(model)
    recipe_file, shown = tiny.write_chat_study(tmp_path, model), []
    encode = Chat.encode

    def seen(task, *arguments, **keywords):
        found = encode(task, *arguments, **keywords)
        shown.append(task.tokenizer.decode(found.examples[0].prompt)[:10])
        return found

    monkeypatch.setattr(Chat, "encode", seen)
    quick = ["train.min_steps=1", "train.evaluations=0", "task.max_new_tokens=1", "scoring.base=false"]
    begun = start(recipe_file, "seeds=1", *quick)
    written = begun.folder / "environment.json"
    content = json.loads(written.read_text())
    assert set(shown) == {content["date"]} == {str(date.today())}
    written.write_text(json.dumps({**content, "date": "2020-05-06"}))
    shown.clear()
    start(recipe_file, "seeds=2", *quick)
    rescore(begun.folder)
    assert set(shown) == {"2020-05-06"} == {json.loads(written.read_text())["date"]}
