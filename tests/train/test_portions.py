"""The training loss of each source: exact, by run, and however a step is cut into micro-batches."""

import json

import numpy as np
import pytest
import torch

from finetune import load_recipe
from finetune.core.examples import Example
from finetune.results.compute import results_of
from finetune.results.portions import portion_losses
from finetune.results.reading import read_study
from finetune.study.running import run_study
from finetune.train.portions import PortionLosses, Portions
from tests import tiny


class Alone:
    """A runtime of one process."""

    class accelerator:
        reduce = staticmethod(lambda value, how: value)


def example(number, weight):
    return Example(number, {"input_ids": np.zeros(1, int)}, 0, weight, "")


def test_losses_are_means_by_run_and_source():
    found = PortionLosses(Portions(["a", "b", "c"], np.array([0, 1, 1, 0])), 2, torch.device("cpu"))
    found.add([example(0, 1.0), example(1, 2.0)], torch.tensor([0, 0]), torch.tensor([3.0, 8.0]))
    found.add([example(3, 3.0), example(2, 1.0)], torch.tensor([0, 1]), torch.tensor([5.0, 7.0]))
    assert found.means(Alone) == [{"a": 2.0, "b": 4.0, "c": None}, {"a": None, "b": 7.0, "c": None}]
    found.begin()
    assert found.means(Alone)[0] == {"a": None, "b": None, "c": None}


def test_what_is_not_finite_is_null():
    found = PortionLosses(Portions(["a"], np.array([0])), 1, torch.device("cpu"))
    found.add([example(0, 1.0)], torch.tensor([0]), torch.tensor([float("nan")]))
    assert found.means(Alone) == [{"a": None}]


@pytest.fixture
def mixed(chats, tmp_path):
    """The chat recipe over two sources, of which the second is learnt from twice."""
    tiny.write_chats(tmp_path / "more.jsonl", 30, seed=5)
    text = chats.read_text().replace(
        "train: {path: chats.jsonl}", "train: [{path: chats.jsonl}, {path: more.jsonl, weight: 2}]"
    )
    chats.write_text(text.replace("validation: 8}", "validation: 8, stratify: portion}"))
    return chats


def rows(folder, seed=0):
    lines = (folder / f"chats/full/seed-{seed}/metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == "train"]


def test_a_run_logs_them_and_the_report_shows_them(mixed, tmp_path):
    overrides = ["train.micro_batch_size=8", "train.micro_batch_size=3"]
    for number, override in enumerate(overrides):
        run_study(load_recipe(mixed, [override]), tmp_path / str(number))
    whole, parts = rows(tmp_path / "0"), rows(tmp_path / "1")
    for one, other in zip(whole, parts, strict=True):
        low, high = min(filter(None, one["portions"].values())), max(filter(None, one["portions"].values()))
        assert low - 1e-5 <= one["loss"] <= high + 1e-5, "the whole is a mean of its sources"
        assert one["portions"] == pytest.approx(other["portions"], rel=1e-3)
    study = read_study(tmp_path / "0" / "chats")
    results = results_of(study)
    first, second = portion_losses(study, results)
    assert (first.source, second.source, second.weight) == ("chats", "more", 2.0)
    assert first.examples + second.examples == study.data["splits"]["train"]["examples"]
    assert first.held_out_examples + second.held_out_examples == 16
    scores = [run.scores["test/loss"] for run in study.variants["full"]]
    assert min(first.held_out.mean, second.held_out.mean) <= np.mean(scores)
    assert max(first.held_out.mean, second.held_out.mean) >= np.mean(scores)
    page = (tmp_path / "0" / "chats" / "report" / "report.md").read_text()
    assert "Losses by source" in page and "| more" in page.replace("|  more", "| more")


def test_one_source_has_none(chats, tmp_path):
    run_study(load_recipe(chats, ["seeds=1"]), tmp_path / "out")
    assert "portions" not in rows(tmp_path / "out")[0]
    study = read_study(tmp_path / "out" / "chats")
    assert portion_losses(study, results_of(study)) == []
