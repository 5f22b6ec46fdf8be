"""The form transformers: every task that its classes can express is loaded by them and answers as it was scored."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from finetune.core.errors import InputError
from finetune.export.exporting import export
from tests.export.studies import FULL, MODELS, let_it_count, run_tiny


@pytest.mark.parametrize("task", MODELS)
def test_every_task_is_taken_away(task, models, tmp_path):
    study = let_it_count(run_tiny(tmp_path / "study", models[MODELS[task]], task, FULL, seeds=1))
    found = export(study, tmp_path / "out", "transformers").certificate
    about = found["agreement"]
    assert about["same"] >= 0.99 and about["near"] == 1 and about["read"] == 1
    assert about["examples"] > 0 and about["difference"] < 1e-3
    kinds = {"weights", "data", "recipe", "base"}
    assert found["digests"].keys() == kinds and all(found["digests"].values())


CHOOSING = {
    "label-words": {},
    "label-words/calibrated": {},
    "multiple-choice": {},
    "multiple-choice/likelihood": {"likelihood": "mean"},
}


@pytest.mark.parametrize("task", CHOOSING)
def test_what_is_chosen_is_what_the_study_has_stored(task, models, tmp_path):
    """Calibrated, or by the mean over tokens, where the task says so."""
    model = models["framed" if task == "multiple-choice" else "decoder"]
    study = let_it_count(run_tiny(tmp_path / "study", model, task, FULL, seeds=1, options=CHOOSING[task]))
    found = export(study, tmp_path / "out", "transformers").certificate
    assert found["as_scored"] == {"same": 1, "of": found["agreement"]["examples"]}
    assert found["agreement"]["same"] == found["agreement"]["near"] == found["agreement"]["read"] == 1


def test_wrong_choices_are_those_that_were_drawn_whichever_rows_are_asked(models, tmp_path):
    options = {"draw": 2, "choices": "choices", "answer": "question"}
    study = run_tiny(tmp_path / "study", models["framed"], "multiple-choice", FULL, seeds=1, options=options)
    found = export(let_it_count(study), tmp_path / "out", "transformers", examples=5).certificate
    assert found["as_scored"] == {"same": 1, "of": 5} and found["agreement"]["read"] == 1


@pytest.mark.parametrize("variant", ["full", "partial", "lora", "probe", "lp-ft"])
def test_every_strategy_is_taken_away(variant, topics, tmp_path):
    found = export(topics, tmp_path / "out", "transformers", variant, seed=0)
    assert found.certificate["agreement"]["same"] == 1
    kept = json.loads((tmp_path / "out" / "config.json").read_text())
    assert kept["architectures"] == ["BertForSequenceClassification"]
    assert kept["id2label"] == {"0": "money", "1": "space", "2": "sport"}
    assert not [file for file in (tmp_path / "out").iterdir() if "adapter" in file.name or file.name == "finetune.json"]


def test_plain_transformers_loads_it(topics, tmp_path):
    export(topics, tmp_path / "out", "transformers", "lora", seed=1)
    ask = transformers.pipeline("text-classification", str(tmp_path / "out"), device="cpu")
    [found] = ask(["a match of the team with a goal"])
    assert found["label"] in ("money", "space", "sport")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.model_max_length == 32
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.float32


@pytest.mark.parametrize(
    ("variant", "reason", "instead"),
    [
        ("mean", "no class", "sentence-transformers"),
        ("prefix", "learnt tokens", "adapter"),
    ],
)
def test_what_its_classes_cannot_express_is_refused(variant, reason, instead, topics, tmp_path):
    with pytest.raises(InputError, match=reason) as refused:
        export(topics, tmp_path / "out", "transformers", variant, seed=0)
    assert instead in str(refused.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("variant", ["full", "lora"])
def test_a_chat_model_is_taken_away_with_its_template_and_its_end(variant, chats, tmp_path):
    found = export(chats, tmp_path / "out", None, variant)
    assert found.form == "transformers" and found.certificate["agreement"]["generated"] == 1
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    kept = transformers.GenerationConfig.from_pretrained(tmp_path / "out")
    assert "<|im_start|>" in tokenizer.chat_template
    assert kept.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>") and not kept.do_sample
    assert tokenizer.model_max_length == 128  # not what training examples were cut at
