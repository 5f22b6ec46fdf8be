"""Faults that are planted between writing and certifying an export are all caught, and leave nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.export.certificate import NotCertified
from finetune.export.exporting import export
from finetune.export.forms.adapter import Adapter
from finetune.export.forms.sentence_transformers import SentenceTransformers
from finetune.export.forms.transformers import Transformers


@pytest.fixture
def planted(monkeypatch):
    """``planted(form, fault)``: that form's folders are written, and then spoilt by ``fault(folder, trained)``."""

    def plant(form, fault):
        own = form.write

        def write(self, trained, folder):
            own(self, trained, folder)
            fault(folder, trained)

        monkeypatch.setattr(form, "write", write)

    return plant


def refused(tmp_path: Path, *how: Any, match: str) -> None:
    """Export, and expect a refusal that leaves nothing."""
    study, form, variant = how
    place = tmp_path / "models" / "out"
    with pytest.raises(NotCertified, match=match) as error:
        export(study, place, form, variant, seed=0)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir()), "a folder is left"


def change_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes one out."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content = {key: value for key, value in {**content, **changes}.items() if value is not None}
    path.write_text(json.dumps(content), encoding="utf-8")


def change_weights(path: Path, change) -> None:
    weights = load_file(path)
    save_file(change(weights), path, metadata={"format": "pt"})


def test_without_a_fault_nothing_is_refused(topics, tmp_path):
    assert export(topics, tmp_path / "out", "transformers", "full", seed=0).certificate["agreement"]["same"] == 1


def test_labels_in_another_order(topics, tmp_path, planted):
    def fault(folder, trained):
        names = list(reversed(trained.labels))
        change_json(
            folder / "config.json",
            id2label={str(number): label for number, label in enumerate(names)},
            label2id={label: number for number, label in enumerate(names)},
        )

    planted(Transformers, fault)
    refused(tmp_path, topics, "transformers", "full", match="the order of labels")


def test_an_adapter_that_is_not_merged(topics, tmp_path, planted):
    """The base model's weights stand where the merged ones belong; the head is right."""

    def fault(folder, trained):
        base = {name: value for name, value in trained.model.get_base_model().state_dict().items()}
        plain = {name.replace(".base_layer", ""): value for name, value in base.items() if "lora_" not in name}
        change_weights(
            folder / "model.safetensors",
            lambda weights: {name: plain.get(name, value).contiguous().clone() for name, value in weights.items()},
        )

    planted(Transformers, fault)
    refused(tmp_path, topics, "transformers", "lora", match="numbers differ")


def test_a_head_that_is_not_the_trained_one(topics, tmp_path, planted):
    def fault(folder, trained):
        def drawn(weights):
            torch.manual_seed(3)
            return weights | {"classifier.weight": torch.randn_like(weights["classifier.weight"])}

        change_weights(folder / "model.safetensors", drawn)

    planted(Transformers, fault)
    refused(tmp_path, topics, "transformers", "full", match="have to be|numbers differ")


@pytest.mark.parametrize("change", [{"model_max_length": 6}, {"model_max_length": 64}, {"truncation_side": "left"}])
def test_another_length_or_side(change, topics_cut, tmp_path, planted):
    """A single cut text is enough, whatever the label of the others."""
    planted(Transformers, lambda folder, trained: change_json(folder / "tokenizer_config.json", **change))
    refused(tmp_path, topics_cut, "transformers", "full", match="reads other tokens")


def test_a_tokenizer_that_lowers_nothing(topics, tmp_path, planted):
    """Another tokenizer: the token before every text is missing."""

    def fault(folder, trained):
        change_json(folder / "tokenizer.json", post_processor=None)

    planted(Transformers, fault)
    refused(tmp_path, topics, "transformers", "full", match="reads other tokens")


@pytest.mark.parametrize("mode", ["pooling_mode_cls_token", "pooling_mode_max_tokens"])
def test_wrong_pooling(mode, topics, tmp_path, planted):
    def fault(folder, trained):
        change_json(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, **{mode: True})

    planted(SentenceTransformers, fault)
    refused(tmp_path, topics, "sentence-transformers", "mean", match="have to be|pooling")


def test_a_missing_head(topics, tmp_path, planted):
    def fault(folder, trained):
        change_weights(
            folder / "2_Dense" / "model.safetensors",
            lambda weights: {name: torch.zeros_like(value) for name, value in weights.items()},
        )

    planted(SentenceTransformers, fault)
    refused(tmp_path, topics, "sentence-transformers", "mean", match="have to be|numbers differ")


def test_an_adapter_beside_another_head(topics, tmp_path, planted):
    def fault(folder, trained):
        change_weights(
            folder / "adapter_model.safetensors",
            lambda weights: {name: value * (0 if "classifier" in name else 1) for name, value in weights.items()},
        )

    planted(Adapter, fault)
    refused(tmp_path, topics, "adapter", "lora", match="have to be|numbers differ")


TEMPLATES = {
    "another role's heading": ("<|im_start|>assistant", "<|im_start|>model"),
    "without what asks": ("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", ""),
    "without the end of turns": ("<|im_end|>\n{% endfor %}", "\n{% endfor %}"),
    "a line too much": ("{{ message['role'] }}\n", "{{ message['role'] }}\n\n"),
}


@pytest.mark.parametrize("words", TEMPLATES)
def test_a_wrong_template(words, chats, tmp_path, planted):
    def fault(folder, trained):
        path = folder / "chat_template.jinja"
        former = path.read_text(encoding="utf-8")
        changed = former.replace(*TEMPLATES[words])
        assert changed != former
        path.write_text(changed, encoding="utf-8")

    planted(Transformers, fault)
    refused(tmp_path, chats, "transformers", "full", match="the chat template")


@pytest.mark.parametrize("end", [None, 0])
def test_a_missing_end_token(end, chats, tmp_path, planted):
    """Generation would go on behind every answer."""

    def fault(folder, trained):
        change_json(folder / "generation_config.json", eos_token_id=end)
        change_json(folder / "config.json", eos_token_id=end)

    planted(Transformers, fault)
    refused(tmp_path, chats, "transformers", "full", match="does not stop")


def test_a_generation_config_that_writes_something_else(chats, tmp_path, planted):
    def fault(folder, trained):
        change_json(folder / "generation_config.json", suppress_tokens=list(range(300)))

    planted(Transformers, fault)
    refused(tmp_path, chats, "transformers", "full", match="that it generates")


def test_weights_that_are_no_numbers(topics, tmp_path, planted):
    def fault(folder, trained):
        change_weights(
            folder / "model.safetensors",
            lambda weights: weights | {"classifier.bias": torch.full_like(weights["classifier.bias"], torch.nan)},
        )

    planted(Transformers, fault)
    refused(tmp_path, topics, "transformers", "full", match="have to be|numbers differ")
