"""A copy of weights lies where it takes no room on their device, and is exact."""

import gc
from pathlib import Path

import pytest
import torch

from finetune.train import checkpoint, weights
from finetune.train.loop import _Training
from tests.train.test_resume import SETTINGS, stopped
from tests.train.workbench import fit, same, without_seconds


def mapped():
    """How many tensors of this process lie in files that nobody else can see."""
    gc.collect()
    return sum(".tensor-" in line and "(deleted)" in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["on disk", "in memory"])
def test_a_copy_is_exact_and_is_overwritten_in_place(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(weights, "IN_MEMORY", limit)
    before, first = mapped(), {"a": torch.randn(3, 5), "b": torch.randn(7).bfloat16()}
    kept = weights.keep(first, tmp_path)
    assert mapped() - before == (2 if limit == 0 else 0)
    assert same(kept, first) and all(value.device.type == "cpu" for value in kept.values())
    places = {name: value.data_ptr() for name, value in kept.items()}
    assert all(places[name] != value.data_ptr() for name, value in first.items())
    second = {name: value + 1 for name, value in first.items()}
    again = weights.keep(second, tmp_path, kept)
    assert same(again, second) and {name: value.data_ptr() for name, value in again.items()} == places
    assert not list(tmp_path.iterdir()), "the files have no names any more"
    del kept, again
    assert mapped() == before


def test_the_best_weights_may_lie_on_disk(dropout_bench, tmp_path, monkeypatch):
    """In training, in its checkpoints, and when it goes on from one, as if they were in memory."""
    in_memory = fit(dropout_bench, tmp_path / "memory", **SETTINGS)
    monkeypatch.setattr(weights, "IN_MEMORY", 0)
    most, judge = [], _Training._judge

    def watched(self, found, validation):
        judge(self, found, validation)
        most.append(mapped())

    monkeypatch.setattr(_Training, "_judge", watched)
    stopped(dropout_bench, tmp_path / "disk", 7, **SETTINGS)
    assert most[0] > 0
    saved = checkpoint.load(tmp_path / "disk" / "checkpoints")[1]
    assert saved["best"].keys() == saved["weights"].keys()
    on_disk = fit(dropout_bench, tmp_path / "disk", **SETTINGS)
    assert same(on_disk.weights, in_memory.weights) and on_disk.trained.facts["best_step"]
    assert without_seconds(on_disk.rows) == without_seconds(in_memory.rows)
    assert max(most) == most[0], "a better one takes the place of the one before"
