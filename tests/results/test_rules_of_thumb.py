"""Rules of thumb are answered where variants differ in that alone; elsewhere a variant is named that would show it."""

import copy
import dataclasses
import json

import pytest
import yaml

from finetune import recipe as recipes
from finetune.report.sections.rules_of_thumb import sections
from finetune.results.compute import results_of
from finetune.results.reading import read_study
from finetune.results.rules_of_thumb import rules_of_thumb
from tests import tiny
from tests.fabricated import topics

PLAIN = {
    "data": {"split": {"train": 40}},
    "strategy": {"type": "full"},
    "train": {"epochs": 3.0, "min_steps": 100, "max_steps": None, "learning_rate": 1e-4, "batch_size": 16},
}


@pytest.fixture
def answered(tmp_path):
    """answered(lora={"learning_rate": 1e-3}, ...) -> the rules by their first word, where `full` is PLAIN."""

    def answer(path=("train",), accuracies=None, **changes):
        made = topics(tmp_path / "topics")
        resolved = yaml.safe_load((made.path / "resolved.yaml").read_text())
        for name, entry in resolved["variants"].items():
            entry["recipe"] = copy.deepcopy(PLAIN)
            entry["recipe"]["name"] = name  # so that nothing but `full` and what changes can be a pair
            section = entry["recipe"]
            for key in path:
                section = section[key]
            section |= changes.get(name, {})
            if name in changes or name == "full":
                entry["recipe"]["name"] = "same"
        (made.path / "resolved.yaml").write_text(yaml.safe_dump(resolved))
        for variant, scores in (accuracies or {}).items():
            for seed, score in zip(made.seeds, scores, strict=True):
                made.run(variant, seed, score)
        study = read_study(made.path)
        return study, results_of(study)

    return answer


def by_word(study, results):
    return {each.rule.split()[0]: each for each in rules_of_thumb(study, results)}


def test_without_evidence_the_variant_is_named_that_would_show_it(answered):
    found = by_word(*answered())
    assert list(found) == ["More", "Small", "High", "Train"] and not any(each.shown for each in found.values())
    assert found["More"].variant.startswith("full-half: {data: {split: {train: 60}}}")
    assert found["Small"].variant.startswith("full-small-batch: {train: {batch_size: 4}}")
    assert found["High"].variant.startswith("full-high-rate: {train: {learning_rate: 0.0005}}")
    assert found["Train"].variant.startswith("full-twice: {train: {epochs: 6, min_steps: 200}}")


def test_the_variants_that_are_named_are_valid(answered, tmp_path, encoder_folder):
    path = tiny.write_topics(tmp_path, encoder_folder)
    for each in by_word(*answered()).values():
        [(name, change)] = yaml.safe_load(each.variant).items()
        whole = json.dumps({**change, "strategy": {"type": "full"}})  # JSON is YAML too
        path.write_text(path.read_text() + f"  {name}: {whole}\n")
    assert len(recipes.load(path).variants) == 6


def test_more_data(answered):
    found = by_word(*answered(("data", "split"), linear={"train": 10}))["More"]
    assert found.shown and found.answer.startswith("full (40 examples) against linear (10 examples): +14.8")
    assert found.answer.endswith("5 seeds: more training examples did better.")


def test_small_batches_with_the_gap_that_overfitting_leaves(answered):
    found = by_word(*answered(linear={"batch_size": 64}))["Small"]
    assert found.shown and "linear (batches of 64) against full (batches of 16): " in found.answer
    assert "a larger batch did worse." in found.answer
    assert "Batches of 16 (full): the validation loss ends +0." in found.answer


def test_high_rates_by_spread_and_failures(answered):
    scores = {"lora": [0.95, 0.60, 0.93, 0.70, 0.85], "full": [0.94, 0.94, 0.94, 0.94, 0.94]}
    found = by_word(*answered(accuracies=scores, lora={"learning_rate": 1e-2}))["High"]
    assert found.shown and found.answer.startswith("0.01 (lora): SD 1") and "0.0001 (full): SD 1.0" in found.answer
    assert "0 of 5 failed" in found.answer and found.answer.endswith("the higher rate scatters more.")


def test_enough_epochs_and_no_difference(answered):
    found = by_word(*answered(lora={"epochs": 1.0}))["Train"]
    assert found.shown and found.answer.startswith("full (epochs 3) against lora (epochs 1): +1.2")
    assert found.answer.endswith("[\N{MINUS SIGN}1.9, +4.3], 5 seeds: longer training is not shown to matter.")


def test_two_options_at_once_show_nothing(answered):
    found = by_word(*answered(lora={"epochs": 1.0, "learning_rate": 1e-3}))
    assert not found["Train"].shown and not found["High"].shown


def test_the_report_has_a_section_with_both(answered):
    [section] = sections(*answered(lora={"epochs": 1.0}))
    bullets, told, code = section.blocks
    assert section.title == "What this study says about rules of thumb"
    answers = dict(bullets.items)
    assert answers["Train for enough epochs."].startswith("full (epochs 3)")
    assert answers["More data make a better model."] == "Not answered by this study."
    assert code.text.startswith("variants:\n  full-half: ") and "Not answered" in told.text


def test_nothing_is_said_where_nothing_was_scored(tmp_path):
    made = topics(tmp_path / "topics")
    study = read_study(made.path)
    empty = results_of(study)
    assert rules_of_thumb(study, empty)
    assert rules_of_thumb(study, dataclasses.replace(empty, tasks=[])) == []
