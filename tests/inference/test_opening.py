"""Models that are no runs of ours: folders of transformers, adapters, and what their configurations say."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

import finetune
from finetune.core.errors import FinetuneError, InputError
from finetune.inference.loading import open_model
from tests import tiny

TEXTS = [text for text, _ in tiny.sentences(12, seed=5)]
EXACTLY = ("model.dtype=float32",)
"""As what is compared with; by itself a model answers in what is fastest here."""


def classifier(folder, encoder, **config):
    """A folder of transformers, as anybody saves it."""
    torch.manual_seed(1)
    settings = AutoConfig.from_pretrained(encoder, **config)
    model = AutoModelForSequenceClassification.from_pretrained(encoder, config=settings)
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return model.eval()


def logits(model, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in TEXTS])


def test_a_classifier_of_transformers(tmp_path, encoder_folder):
    labels = {0: "no", 1: "perhaps", 2: "yes"}
    model = classifier(tmp_path, encoder_folder, id2label=labels, label2id={v: k for k, v in labels.items()})
    wanted = logits(model, tmp_path).softmax(-1).numpy()
    found = finetune.predict(tmp_path, TEXTS, EXACTLY, probabilities=True)
    assert [row["prediction"] for row in found] == [labels[each] for each in wanted.argmax(1)]
    np.testing.assert_allclose([[*row["probabilities"].values()] for row in found], wanted, atol=1e-5)


def test_several_labels_and_numbers(tmp_path, encoder_folder):
    several = classifier(tmp_path / "a", encoder_folder, num_labels=3, problem_type="multi_label_classification")
    found = finetune.predict(tmp_path / "a", TEXTS, EXACTLY, probabilities=True)
    wanted = logits(several, tmp_path / "a").sigmoid().numpy()
    np.testing.assert_allclose([[*row["probabilities"].values()] for row in found], wanted, atol=1e-5)
    number = classifier(tmp_path / "b", encoder_folder, num_labels=1)
    found = finetune.predict(tmp_path / "b", TEXTS, EXACTLY)
    np.testing.assert_allclose([row["prediction"] for row in found], logits(number, tmp_path / "b")[:, 0], atol=1e-5)


def test_exports_of_other_engines_and_other_certificates_are_refused(tmp_path, encoder_folder):
    classifier(tmp_path, encoder_folder, num_labels=2)
    said = {"format": 1, "form": "gguf-f16", "asked": {}, "engine": {"name": "llama.cpp"}, "decision": {}}
    for content, wanted in (
        (said, "is an export as gguf-f16, which llama.cpp answers"),
        ({**said, "format": 2}, "is no certificate of this version's exports"),
        ({"format": 1, "form": "transformers"}, "is no certificate of this version's exports"),
        ([], "is no certificate of this version's exports"),
        ("{", "certificate.json"),
    ):
        (tmp_path / "certificate.json").write_text(content if content == "{" else json.dumps(content))
        with pytest.raises((InputError, FinetuneError), match=wanted):
            finetune.predict(tmp_path, TEXTS)


def test_a_bare_encoder_gives_vectors(encoder_folder):
    found = finetune.predict(encoder_folder, TEXTS)
    assert {len(row["vector"]) for row in found} == {32} and set(found[0]) == {"vector"}


def test_an_adapter_with_and_without_labels(tmp_path, encoder_folder):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(2)
    settings = AutoConfig.from_pretrained(encoder_folder, num_labels=3)
    base = AutoModelForSequenceClassification.from_pretrained(encoder_folder, config=settings)
    asked = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights=False)
    model = get_peft_model(base, asked).eval()
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(encoder_folder).save_pretrained(tmp_path)
    wanted = logits(model, encoder_folder).softmax(-1).numpy()
    found = finetune.predict(tmp_path, TEXTS, EXACTLY, probabilities=True)
    np.testing.assert_allclose([[*row["probabilities"].values()] for row in found], wanted, atol=1e-5)
    assert found[0]["prediction"].startswith("LABEL_")
    settings.id2label = {0: "a", 1: "b", 2: "c"}
    settings.save_pretrained(tmp_path)
    named = finetune.predict(tmp_path, TEXTS, EXACTLY)
    assert [row["prediction"] for row in named] == ["abc"[each] for each in wanted.argmax(1)]


def test_what_answers_nothing_is_refused(tmp_path):
    folder = tiny.save_masked(tmp_path)
    with pytest.raises(InputError, match="answers nothing by itself"):
        open_model(str(folder))
    assert open_model(str(folder), ["task={type: embedding, label: label}"]).task.name == "embedding"


def test_a_decoder_talks(decoder_folder, tmp_path):
    assert open_model(str(decoder_folder)).talks
    plain = tiny.save_decoder(tmp_path, chat=False)
    assert open_model(str(plain)).task.options.template == "none"


def test_a_head_that_is_not_there_is_refused(tmp_path, encoder_folder):
    config = json.loads((encoder_folder / "config.json").read_text())
    for path in encoder_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(InputError, match=r"has no weights for .* that was not trained for classification"):
        open_model(str(tmp_path))
