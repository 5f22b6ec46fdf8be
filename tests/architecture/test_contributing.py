"""The example in CONTRIBUTING.md is a strategy that works, so that whoever copies it starts from something right."""

import re
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from finetune.core import registry
from finetune.core.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def norms(tmp_path, monkeypatch):
    """The example, imported as the file a reader would make of it, and found by a registry of its own."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "example").mkdir()
    (tmp_path / "example" / "norms.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "STRATEGIES", registry.Registry("strategy", "example"))
    strategy = registry.STRATEGIES.get("norms")
    yield strategy(strategy.Options(type="norms"))
    for name in ("example", "example.norms"):
        del sys.modules[name]


def test_the_example_trains_norms_and_head_and_nothing_else(norms):
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    model = norms.prepare(BertForSequenceClassification(config), {"classifier.weight", "classifier.bias"})
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    # Two layers of two norms and the embedding's norm, each with weight and bias, and the head.
    assert len(trained) == 2 * (2 * 2 + 1) + 2
    assert all("LayerNorm" in name or name.startswith("classifier.") for name in trained)


def test_the_example_refuses_a_model_without_norms(norms):
    with pytest.raises(InputError, match="no normalisation layers"):
        norms.prepare(torch.nn.Linear(2, 2), {"weight"})
