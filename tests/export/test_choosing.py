"""Which run is taken away: named, best by validation, or a soup; never the best on the test set."""

from __future__ import annotations

import json

import pytest

from finetune.core.errors import InputError
from finetune.export.choosing import choose
from tests import fabricated


def validate(study, variant: str, scores: dict[int, float], select: str = "loss") -> None:
    """Give runs one validation each, and a folder for the model."""
    for seed, score in scores.items():
        folder = study.path / variant / f"seed-{seed}"
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if json.loads(line)["kind"] == "train"]
        record = {
            "kind": "evaluation",
            "step": 96,
            "epoch": 2.4,
            "seconds": 9.0,
            "scores": {"loss": 1.0, select: score},
        }
        (folder / "metrics.jsonl").write_text("\n".join([*kept, json.dumps(record), ""]), encoding="utf-8")
    for run in (study.path / variant).iterdir():
        (run / "model").mkdir(exist_ok=True)


@pytest.fixture
def study(tmp_path):
    """Three variants under three seeds; seed 2 of `full` is best by validation and worst on the test set."""
    made = fabricated.Fabricator(tmp_path / "topics", [1, 2, 3], {"lora": "adapter", "full": "full"})
    made.study()
    for variant in ("lora", "full"):
        for seed, accuracy in ((1, 0.9), (2, 0.6), (3, 0.95)):
            made.run(variant, seed, accuracy)
    validate(made, "full", {1: 0.5, 2: 0.2, 3: 0.9})
    return made


def test_the_default_is_the_best_by_validation_and_not_on_the_test_set(study):
    found = choose(study.path, "full")
    assert found.seed == 2 and "best by validation, loss 0.2, of 3 seeds" in found.reason
    assert choose(study.path, "full", best=True).seed == 2


def test_a_metric_that_is_better_where_it_is_higher(study, tmp_path):
    text = (study.path / "resolved.yaml").read_text()
    (study.path / "resolved.yaml").write_text(text.replace("epochs: 3.0", "epochs: 3.0\n        select: accuracy"))
    validate(study, "full", {1: 0.5, 2: 0.2, 3: 0.9}, "accuracy")
    assert choose(study.path, "full").seed == 3


def test_a_failed_run_is_not_chosen_among(study):
    study.run("full", 2, None, "diverged", "the loss is not finite")
    found = choose(study.path, "full")
    assert found.seed == 1 and "of 2 seeds (1 failed)" in found.reason


def test_without_validation_the_first_is_taken_and_that_is_said(study):
    for seed in (1, 2, 3):
        folder = study.path / "lora" / f"seed-{seed}"
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["kind"] == "train"]
        (folder / "metrics.jsonl").write_text("\n".join([*kept, ""]))
        (folder / "model").mkdir()
    found = choose(study.path, "lora")
    assert found.seed == 1 and found.reason == "seed 1, the first, as no run was validated"
    with pytest.raises(InputError, match="--best-validation: the runs of variant 'lora' have no validation scores"):
        choose(study.path, "lora", best=True)


def test_a_named_seed(study):
    assert choose(study.path, "full", seed=3).reason == "seed 3, as asked for"


def soup(study, kind: str) -> None:
    folder = study.path / "full" / kind
    (folder / "model").mkdir(parents=True)
    result = {"kind": kind, "status": "finished", "reason": None, "seeds": [1, 3], "of": [1, 2, 3], "scores": {}}
    (folder / "result.json").write_text(json.dumps(result))


def test_a_soup(study):
    soup(study, "soup-uniform")
    assert choose(study.path, "full", soup=True).reason == "soup-uniform of seeds 1, 3"
    soup(study, "soup-greedy")
    found = choose(study.path, "full", soup=True)
    assert found.seed is None and found.reason == "soup-greedy of seeds 1, 3" and found.title == "full, soup"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({}, "--variant: study 'topics' has 2 variants\n    choose one of: lora, full"),
        ({"variant": "ful"}, "has no variant 'ful'\n    did you mean 'full'?"),
        ({"variant": "full", "seed": 9}, "no run under seed 9\n    its runs: 1, 2, 3"),
        ({"variant": "full", "seed": 1, "soup": True}, "exclude each other"),
        ({"variant": "full", "soup": True}, "--soup: variant 'full' has no soup\n    add a variant with mitigations"),
        ({"variant": "lora", "seed": 1}, "holds no saved model\n    restore its model/ folder"),
    ],
)
def test_what_is_not_there(how, said, study):
    with pytest.raises(InputError) as error:
        choose(study.path, **how)
    assert said in str(error.value)


def test_a_study_that_saves_no_models(study):
    text = (study.path / "resolved.yaml").read_text()
    (study.path / "resolved.yaml").write_text(text.replace("epochs: 3.0", "epochs: 3.0\n        save_model: false"))
    with pytest.raises(InputError, match=r"holds no saved model\n    write train.save_model: true"):
        choose(study.path, "lora", seed=1)


def test_an_unfinished_study(study):
    (study.path / "full" / "seed-3" / "result.json").unlink()
    with pytest.raises(InputError) as error:
        choose(study.path, "full")
    assert "not finished: 1 of 3 runs of variant 'full' are missing" in str(error.value)
    assert "or name a finished one with --seed, such as 1" in str(error.value)
    assert choose(study.path, "full", seed=1).seed == 1
    with pytest.raises(InputError, match="seed 3 of variant 'full' is not finished"):
        choose(study.path, "full", seed=3)


@pytest.mark.parametrize(("status", "advice"), [("degenerate", "name one with --seed, or "), ("diverged", "    ")])
def test_where_no_run_works_only_what_may_be_had_is_offered(study, status, advice):
    for seed in (1, 2, 3):
        study.run("full", seed, 0.2 if status == "degenerate" else None, status, "so it is")
    with pytest.raises(InputError) as error:
        choose(study.path, "full")
    assert f"no run of variant 'full' works ({status})\n" in str(error.value)
    assert f"{advice}try another --variant" in str(error.value)


def test_a_failed_run_is_refused(study):
    study.run("full", 2, None, "diverged", "the loss is not finite")
    with pytest.raises(InputError, match="has failed: diverged: the loss is not finite"):
        choose(study.path, "full", seed=2)
