"""`finetune explain` answers in the words of the field, and what it says to write is a recipe."""

import pytest
import yaml

from finetune.cli import main
from finetune.cli.words import KINDS, WORDS, meant
from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS
from finetune.recipe import load

BASE = {
    "name": "words",
    "model": {"source": "org/name"},
    "data": {"train": {"path": "a.csv"}, "split": {"test": 0.2}},
    "task": {"type": "classification"},
    "strategy": {"type": "full"},
}

ASKED = [
    *("full", "partial", "adapter", "task-specific", "linear", "adaptive", "adaptive-domain", "behavioural"),
    *("lora", "dora", "lp-ft", "bitfit", "dpo", "schedule-free", "ipo", "orpo", "kto", "simpo", "setfit"),
]


def said(capsys, name):
    assert main(["explain", name]) == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ASKED)
def test_every_word_of_the_field_is_answered(capsys, name):
    assert "in a recipe:" in said(capsys, name)


@pytest.mark.parametrize("word", WORDS)
def test_what_it_says_to_write_is_valid(word):
    written = yaml.safe_load(WORDS[word].write)
    data = {**BASE["data"], "split": {**BASE["data"]["split"], **written.get("data", {}).get("split", {})}}
    assert load({**BASE, **written, "data": data}).variants


@pytest.mark.parametrize("word", WORDS)
def test_an_entry_says_what_is_meant_and_from_where(capsys, monkeypatch, word):
    monkeypatch.setenv("COLUMNS", "60")
    entry, found = WORDS[word], said(capsys, word)
    assert found.startswith(f"in the field's words: {word} ")
    assert " ".join(entry.says.split()) in found and entry.says.endswith(".")
    assert f"Source: {entry.source}" in found and not entry.source.endswith(".")
    assert " ".join(entry.write.split()) in found, "not wrapped, so that it can be copied"


def test_no_word_means_two_things():
    every = [word for name, entry in WORDS.items() for word in (name, *entry.also)]
    assert len(set(every)) == len(every)
    plugins = {*STRATEGIES.all(), *MITIGATIONS.all(), *TASKS.all()}
    hidden = plugins & {also for entry in WORDS.values() for also in entry.also}
    assert hidden == set(), "a plug-in is found under its own name"


@pytest.mark.parametrize(
    ("written", "word"),
    [
        ("Full Fine-Tuning", "full"),
        ("domain_adaptive", "adaptive-domain"),
        ("Adaptive fine-tuning", "adaptive-domain"),
        ("behavioral", "behavioural"),
        ("LoRA", "lora"),
        ("linear probing", "linear"),
        ("PEFT", "adapter"),
        ("nothing-like-it", None),
    ],
)
def test_case_and_spelling_do_not_matter(written, word):
    assert meant(written) == word


def test_a_plug_in_of_that_name_follows(capsys):
    found = said(capsys, "linear")
    assert found.startswith("in the field's words: linear ") and "strategy linear in a recipe: strategy:" in found


def test_a_method_that_only_peft_knows_is_answered_too(capsys):
    found = said(capsys, "vera")
    assert "strategy: {type: adapter, method: vera}" in found and "VeraConfig" in found


def test_the_kinds_that_the_readme_names_are_these():
    from pathlib import Path

    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for kind in KINDS:
        assert f"`{kind}`" in readme
