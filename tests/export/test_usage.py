"""What the card says of use: its code answers as the trained model does, and is asked as that was in training."""

from __future__ import annotations

import pytest

import finetune
from finetune.export import programs
from finetune.export.exporting import export
from tests.export.here import printed
from tests.export.studies import FULL, let_it_count, run_tiny

TEXT = "Write a text of your own here."


def exported(place, model, task, form="transformers", variant=None, **options):
    """Run a study, export its model to `tuned`, and give the card."""
    variants = FULL if variant is None else {"own": variant}
    study = let_it_count(run_tiny(place / "study", model, task, variants, seeds=1, options=options))
    export(study, place / "tuned", form)
    return (place / "tuned" / "README.md").read_text(encoding="utf-8")


ORDER = {"ordinal": ["money", "sport", "space"]}
ORDINAL = {
    "transformers": {"strategy": {"type": "full"}},
    "sentence-transformers": {"strategy": {"type": "linear", "solver": "steps"}, "task": {"pooling": "mean"}},
    "onnx": {"strategy": {"type": "full"}},
}


@pytest.mark.parametrize("form", [pytest.param(each, marks=[pytest.mark.slow] * (each == "onnx")) for each in ORDINAL])
def test_labels_in_order_are_named_as_the_study_does(form, models, tmp_path, monkeypatch):
    """The head has an output less than labels, and the likeliest of them is none."""
    monkeypatch.setattr(programs, "_example", lambda trained: "a match of the team with a goal")
    exported(tmp_path, models["framed"], "classification", form, ORDINAL[form], **ORDER)
    if form == "onnx":
        code = tmp_path / "tuned" / "README.md"
        code.write_text(code.read_text(encoding="utf-8").replace("…", "a match of the team with a goal"))
    [said] = finetune.predict(tmp_path / "study/runs/tiny/own/seed-0", ["a match of the team with a goal"])
    assert printed(tmp_path) == f"['{said['prediction']}']\n"


LIKELIHOODS = {
    "turns": {},
    "joined": {"template": "none"},
    "calibrated": {"calibrate": "contextual", "content_free": "nothing at all"},
}


@pytest.mark.parametrize("how", LIKELIHOODS)
def test_labels_as_words_are_chosen_by_the_card_as_by_the_study(how, models, tmp_path):
    card = exported(tmp_path, models["decoder"], "label-words", **LIKELIHOODS[how])
    [said] = finetune.predict(tmp_path / "tuned", [TEXT])
    assert printed(tmp_path) == f"{said['prediction']}\n"
    assert (
        ".generate(" not in card and f"```text\n{TEXT}\nTopic:\n```" in card and "finetune predict tuned FILE" in card
    )


@pytest.mark.parametrize("likelihood", ["sum", "mean"])
def test_choices_are_chosen_by_the_card_as_by_the_study(likelihood, models, tmp_path):
    exported(tmp_path, models["decoder"], "multiple-choice/likelihood", likelihood=likelihood)
    choices = ["the first choice", "the second one"]
    [said] = finetune.predict(tmp_path / "tuned", [{"question": TEXT, "choices": choices}])
    assert printed(tmp_path).strip() == choices["AB".index(said["prediction"])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "model", "options"),
    [("label-words", "decoder", {}), ("classification", "framed", {"pair": "label"})],
)
def test_the_code_for_a_graph_runs(task, model, options, models, tmp_path):
    card = exported(tmp_path, models[model], task, "onnx", **options)
    assert printed(tmp_path) and ('["…"], ["…"]' in card) == bool(options)


def test_a_prefix_is_put_before_the_text(models, tmp_path):
    card = exported(tmp_path, models["bart"], "seq2seq", prefix="translate: ")
    assert f"tokenizer('translate: {TEXT}'" in card and "began with 'translate: ' in training" in card


SYSTEM = 'You are brief, and say "no".'


@pytest.mark.parametrize("form", ["transformers", "gguf-f16"])
def test_a_system_message_is_put_before_the_conversation(form, models, tmp_path):
    card = exported(tmp_path, models["decoder"], "chat", form, system=SYSTEM)
    assert repr({"role": "system", "content": SYSTEM}) in card and f"```text\n{SYSTEM}\n```" in card
    if form == "gguf-f16":
        assert f'SYSTEM """{SYSTEM}"""' in (tmp_path / "tuned" / "Modelfile").read_text()


def test_the_pooling_of_vectors_is_named(models, tmp_path):
    card = exported(tmp_path, models["framed"], "embedding")
    assert "POOLING" not in card and "by itself (mean)" in card
