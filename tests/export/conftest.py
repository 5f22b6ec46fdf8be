"""Tiny studies that tests take models away from, each run once."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.export import engine
from tests import tiny
from tests.export.here import here
from tests.export.studies import let_it_count, run_tiny

HEADS = {
    "full": {"strategy": {"type": "full"}},
    "partial": {"strategy": {"type": "partial", "last": 1}},
    "lora": {"strategy": {"type": "adapter", "rank": 2}, "train": {"learning_rate": 5e-2}},
    "probe": {"strategy": {"type": "linear", "solver": "steps"}, "task": {"pooling": "model"}},
    "mean": {"strategy": {"type": "linear"}, "task": {"pooling": "mean"}},
    "lp-ft": {"strategy": {"type": "linear", "mode": "lp-ft"}, "task": {"pooling": "model"}},
    "prefix": {"strategy": {"type": "adapter", "method": "prefix", "options": {"num_virtual_tokens": 2}}},
}


@pytest.fixture(autouse=True)
def _engines(request, monkeypatch):
    """Engines run here, but for tests that ask for ``own_process``."""
    if "own_process" not in request.fixturenames:
        monkeypatch.setattr(engine, "_run", here)


@pytest.fixture
def own_process():
    """Engines run in processes of their own, as they do for a person."""


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """Tiny base models by what they are."""
    place = tmp_path_factory.mktemp("models")
    made = {
        "encoder": tiny.save_encoder(place / "encoder"),
        "framed": tiny.save_framed(place / "framed"),
        "masked": tiny.save_masked(place / "masked"),
        "decoder": tiny.save_decoder(place / "decoder"),
        "encoder-decoder": tiny.save_encoder_decoder(place / "encoder-decoder"),
        "bart": tiny.save_bart(place / "bart"),
    }
    (made["encoder"] / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n", encoding="utf-8")
    (made["encoder"] / "LICENSE").write_text("MIT, in short.\n", encoding="utf-8")
    return made


@pytest.fixture(scope="session")
def topics(tmp_path_factory, models) -> Path:
    """A classification study with a variant of every strategy that leaves a model, and two seeds."""
    folder = tmp_path_factory.mktemp("topics")
    return let_it_count(run_tiny(folder, models["framed"], "classification", HEADS))


@pytest.fixture(scope="session")
def chats(tmp_path_factory, models) -> Path:
    """A chat study with full tuning and LoRA."""
    variants = {name: HEADS[name] for name in ("full", "lora")}
    folder = tmp_path_factory.mktemp("chats")
    return let_it_count(run_tiny(folder, models["decoder"], "chat", variants, seeds=1))


@pytest.fixture(scope="session")
def topics_cut(tmp_path_factory, models) -> Path:
    """A classification study in which a few texts only are longer than the limit."""
    folder = tmp_path_factory.mktemp("cut")
    variants = {"full": HEADS["full"]}
    study = run_tiny(folder, models["framed"], "classification", variants, seeds=1, options={"max_length": 12})
    return let_it_count(study)
