"""The sections on training, and the overfitting gap by hand."""

import json

import numpy as np
import pytest

from finetune.report import html
from finetune.report.blocks import Document, Panels, Table, Verdict
from finetune.report.reading import read_study
from finetune.report.sections import training

RESULTS = {"level": 0.95}


def write(made, variant, seed, train, validation, **facts):
    """A finished run of one epoch of two steps after another, with these losses, validated after every epoch."""
    result = made.run(variant, seed, 0.9, facts.pop("status", "finished"))
    result["training"] |= {"best_step": None, **facts}
    made.json(f"{variant}/seed-{seed}/result.json", result)
    rows = []
    for step, loss in enumerate(train, start=1):
        row = {"kind": "train", "step": step, "epoch": step / 2, "learning_rate": 1e-4, "gradient_norm": 1.0}
        rows.append({**row, "loss": loss, "tokens": 10, "seconds": 1.0})
        if step % 2 == 0 and validation:
            scores = {"loss": validation[step // 2 - 1]}
            rows.append({"kind": "evaluation", "step": step, "epoch": step / 2, "scores": scores, "seconds": 1.0})
    path = made.path / variant / f"seed-{seed}" / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def made(fabricator):
    return fabricator([1, 2, 3], {"full": "full", "lora": "adapter"})


def runs(made, variant="full"):
    return read_study(made.path).variants[variant]


def test_the_gap_by_hand(made):
    write(made, "full", 1, [2.0, 1.0, 0.6, 0.4, 0.2, 0.1], [1.3, 0.9, 1.2], best_step=4, stopped_early=True)
    gap = training.gap_of(runs(made)[0])
    assert (gap.train, gap.validation) == (pytest.approx(0.15), 1.2)  # (.2 + .1) / 2
    assert gap.end == pytest.approx(1.05) and gap.kept == pytest.approx(0.4)  # 0.9 - (.6 + .4) / 2
    assert gap.rise == pytest.approx(0.3) and (gap.kept_step, gap.last_step, gap.stopped_early) == (4, 6, True)


def test_where_the_last_weights_are_kept_both_gaps_are_one(made):
    write(made, "full", 1, [2.0, 1.0, 0.6, 0.4], [1.3, 1.5])
    gap = training.gap_of(runs(made)[0])
    assert gap.kept == gap.end == pytest.approx(1.0) and gap.kept_step == gap.last_step == 4


def test_a_validation_within_an_epoch_looks_one_epoch_back(made):
    write(made, "full", 1, [8.0, 4.0, 2.0], [1.0])
    path = made.path / "full/seed-1/metrics.jsonl"
    evaluation = {"kind": "evaluation", "step": 3, "epoch": 1.5, "scores": {"loss": 5.0}, "seconds": 1.0}
    with open(path, "a", encoding="utf-8") as log:
        log.write(json.dumps(evaluation) + "\n")
    assert training.gap_of(runs(made)[0]).train == pytest.approx(3.0)  # steps 2 and 3, after epoch 0.5


@pytest.mark.parametrize("status", ["diverged", "error", "interrupted"])
def test_runs_that_came_to_no_end_have_no_gap(made, status):
    write(made, "full", 1, [2.0, 1.0], [1.3], status=status)
    assert training.gap_of(runs(made)[0]) is None


def test_without_validation_there_is_no_gap(made):
    write(made, "full", 1, [2.0, 1.0], [])
    assert training.gap_of(runs(made)[0]) is None and training.overfitting_of(runs(made), 0.95) is None
    assert [section.id for section in training.sections(read_study(made.path), RESULTS)] == ["curves", "steps"]


def test_validation_losses_that_are_not_finite_do_not_count(made):
    write(made, "full", 1, [2.0, 1.0, 0.5, 0.5], [1.3, None])
    assert training.gap_of(runs(made)[0]).validation == 1.3


def test_over_seeds_it_is_an_estimate(made):
    for seed, last in ((1, 1.0), (2, 1.5), (3, 2.0)):
        write(made, "full", seed, [1.0, 1.0], [last], best_step=2, stopped_early=seed == 1)
    found = training.overfitting_of(runs(made), 0.95)
    # gaps 0, .5 and 1: mean .5, SD .5, t(0.975, 2) = 4.302653, half width 4.302653 * .5 / sqrt(3)
    assert found["end"]["mean"] == pytest.approx(0.5)
    assert found["end"]["ci"] == pytest.approx((0.5 - 1.242069, 0.5 + 1.242069), abs=1e-6)
    assert (found["n"], found["stopped_early"], found["kept_step"]) == (3, 1, 2)
    json.dumps(found, allow_nan=False)


def test_sections_and_table(made):
    for seed in (1, 2, 3):
        write(made, "full", seed, [1.0, 1.0], [1.0 + seed / 10])
    write(made, "lora", 1, [1.0, 1.0], [], status="diverged")
    sections = training.sections(read_study(made.path), RESULTS)
    assert [section.id for section in sections] == ["curves", "steps", "overfitting"]
    assert sections[0].title == "Training curves" and "one line per seed" in sections[0].blocks[0].caption
    assert [len(block.drawings) for block in sections[1].blocks if isinstance(block, Panels)] == [2, 2]
    [table] = [block for block in sections[2].blocks if isinstance(block, Table)]
    [row] = table.rows
    assert [cell.text for cell in row[:4]] == ["full", "1.000", "1.200", "+0.200"] and row[0].colour == 0
    assert row[3].small == "[\N{MINUS SIGN}0.048, +0.448]" and (row[5].small, row[6].small) == ("at most 0.000", "of 2")


def test_nothing_recorded_is_said(made):
    (made.path / "full/seed-1").mkdir(parents=True)
    [section] = training.sections(read_study(made.path), RESULTS)
    assert section.title == "Training curves" and "No training step" in section.blocks[0].text


def test_many_seeds_of_many_variants_stay_small(fabricator):
    made = fabricator(list(range(20)), {f"variant-{number}": "full" for number in range(6)})
    for variant in made.variants:
        for seed in made.seeds:
            folder = made.path / variant / f"seed-{seed}"
            made.metrics(folder, np.random.default_rng(seed), steps=2000)
            made.json(f"{variant}/seed-{seed}/result.json", {"status": "finished", "scores": {}, "training": {}})
    sections = training.sections(read_study(made.path), RESULTS)
    page = html.render(Document("many", Verdict("undecided", "", "", []), [], sections))
    assert len(page.encode()) < 300_000
