"""The sections on how training went by step: losses, learning rates and gradient norms."""

import numpy as np

from finetune.report import html
from finetune.report.blocks import Document, Panels, Verdict
from finetune.report.sections import curves, overfitting, steps
from tests.results.stores import lose, read


def training(made):
    """All sections on training, top to bottom."""
    study, results = read(made)
    return [section for part in (curves, steps, overfitting) for section in part.sections(study, results)]


def test_they_stand_with_and_without_validation(trained):
    lose(trained, "full", 1, [2.0, 1.0], [])
    assert [section.id for section in training(trained)] == ["curves", "steps"]
    lose(trained, "full", 1, [2.0, 1.0], [1.3])
    assert [section.id for section in training(trained)] == ["curves", "steps", "overfitting"]


def test_a_panel_for_each_variant(trained):
    for seed in (1, 2, 3):
        lose(trained, "full", seed, [1.0, 1.0], [1.0 + seed / 10])
    lose(trained, "lora", 1, [1.0, 1.0], [], status="diverged")
    losses, others, _ = training(trained)
    assert losses.title == "Training curves" and "one line per seed" in losses.blocks[0].caption
    assert [len(block.drawings) for block in others.blocks if isinstance(block, Panels)] == [2, 2]


def test_nothing_recorded_is_said(trained):
    (trained.path / "full/seed-1").mkdir(parents=True)
    [section] = training(trained)
    assert section.title == "Training curves" and "No training step" in section.blocks[0].text


def test_many_seeds_of_many_variants_stay_small(fabricator):
    made = fabricator(list(range(20)), {f"variant-{number}": "full" for number in range(6)})
    for variant in made.variants:
        for seed in made.seeds:
            folder = made.path / variant / f"seed-{seed}"
            made.metrics(folder, np.random.default_rng(seed), steps=2000)
            made.json(f"{variant}/seed-{seed}/result.json", {"status": "finished", "scores": {}, "training": {}})
    page = html.render(Document("many", Verdict("undecided", "", "", []), [], training(made)))
    assert len(page.encode()) < 300_000
