"""Checkpoints: exact, complete or absent, whatever goes wrong while one is written."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from finetune.core.errors import DiskFull
from finetune.train import checkpoint

TENSORS = {
    "weights": {"layer.0.weight": torch.randn(3, 4), "bias": torch.randn(3).to(torch.bfloat16)},
    "optimizer": {"0": {"step": torch.tensor(7.0), "exp_avg": torch.randn(3, 4).T}, "11": {"step": 3}},
    "best": {},
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def save(folder, step, **state):
    checkpoint.save(folder, step, {"step": step, **state}, {"weights": {"w": torch.full((2,), float(step))}})


def newest(folder):
    state, tensors = checkpoint.load(folder)
    assert tensors["weights"]["w"].tolist() == [state["step"]] * 2, "state and tensors belong together"
    return state["step"]


def test_what_was_saved_comes_back_bit_by_bit(folder):
    state = {"position": {"step": 3, "seconds": 0.1 + 0.2}, "replica": {"best_score": None, "waited": 2}}
    checkpoint.save(folder, 3, state, TENSORS)
    back, tensors = checkpoint.load(folder)
    assert back == state
    for name, value in TENSORS["weights"].items():
        assert torch.equal(tensors["weights"][name], value) and tensors["weights"][name].dtype == value.dtype
    assert torch.equal(tensors["optimizer"]["0"]["exp_avg"], TENSORS["optimizer"]["0"]["exp_avg"])
    assert tensors["optimizer"]["0"]["step"] == 7.0 and tensors["optimizer"]["11"]["step"] == 3


def test_without_a_checkpoint_there_is_nothing(folder):
    assert checkpoint.load(folder) is None
    folder.mkdir()
    assert checkpoint.load(folder) is None


def test_only_the_newest_is_kept(folder):
    for step in (9, 10, 100):
        save(folder, step)
    assert [path.name for path in folder.iterdir()] == ["step-00000100"] and newest(folder) == 100


def test_no_file_holds_pickle(folder):
    checkpoint.save(folder, 3, {}, TENSORS)
    written = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert set(written) == {"state.json", "tensors.safetensors"}
    json.loads(written["state.json"])
    header = int.from_bytes(written["tensors.safetensors"][:8], "little")
    assert "weights/bias" in json.loads(written["tensors.safetensors"][8 : 8 + header])
    assert not any(content.startswith((b"PK", b"\x80")) for content in written.values())


class Crash(BaseException):
    """As abrupt as SIGKILL: no handler of the code under test runs."""


def crash(*_, **__):
    raise Crash


CALLS = [(checkpoint, "save_file"), (checkpoint, "_sync"), (os, "replace"), (json, "dumps")]


@pytest.mark.parametrize("where, name", CALLS, ids=[name for _, name in CALLS])
@pytest.mark.parametrize("step", [2, 1], ids=["the next step", "the same step again"])
def test_a_crash_while_writing_leaves_the_one_before(folder, monkeypatch, where, name, step):
    save(folder, 1)
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(where, name, crash)
        save(folder, step, again=True)
    assert newest(folder) == 1 and "again" not in checkpoint.load(folder)[0]
    save(folder, 2)
    assert newest(folder) == 2 and [path.name for path in folder.iterdir()] == ["step-00000002"], "nothing is left over"


def test_a_crash_while_the_former_is_removed_leaves_the_new_one(folder, monkeypatch):
    save(folder, 1)
    remove = shutil.rmtree

    def cut_short(path, **arguments):
        if path.name == "step-00000001":
            (path / "state.json").unlink()
            raise Crash
        remove(path, **arguments)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(shutil, "rmtree", cut_short)
        save(folder, 2)
    assert newest(folder) == 2
    save(folder, 3)
    assert [path.name for path in folder.iterdir()] == ["step-00000003"]


def test_the_former_is_removed_only_when_the_new_one_is_complete(folder, monkeypatch):
    save(folder, 1)
    remove, at_removal = shutil.rmtree, []

    def look_first(path, **arguments):
        if path.exists():
            at_removal.append((path.name, newest(folder)))
        remove(path, **arguments)

    monkeypatch.setattr(shutil, "rmtree", look_first)
    save(folder, 2)
    assert at_removal == [("step-00000001", 2)]


def test_the_same_step_saved_again_replaces_what_was_saved(folder):
    save(folder, 5)
    save(folder, 5, validated=True)
    assert checkpoint.load(folder)[0] == {"step": 5, "validated": True}
    save(folder, 5, validated="twice")
    assert checkpoint.load(folder)[0]["validated"] == "twice" and len(list(folder.iterdir())) == 1
    save(folder, 6)
    assert newest(folder) == 6


def test_a_half_written_folder_is_no_checkpoint(folder):
    save(folder, 1)
    (folder / ".step-00000002.tmp").mkdir()
    (folder / ".step-00000002.tmp" / "state.json").write_text("{")
    assert newest(folder) == 1
    save(folder, 3)
    assert [path.name for path in folder.iterdir()] == ["step-00000003"]


FULL = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=["the system's", "safetensors'"])
def test_a_full_disk_is_told_and_costs_nothing(folder, monkeypatch, error):
    def full(tensors, path):
        path.write_bytes(b"half")
        raise error

    save(folder, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(
            DiskFull, match=r"the disk that holds .*checkpoints is full.* Free some room and run the same"
        ):
            save(folder, 2)
    assert newest(folder) == 1
    assert [path.name for path in folder.iterdir()] == ["step-00000001"], "room is given back"


def test_what_was_loaded_does_not_hold_the_file(folder):
    """A file that is still mapped keeps its room on the disk after newer checkpoints have replaced it."""
    save(folder, 1)
    loaded = checkpoint.load(folder)
    assert str(folder) not in Path("/proc/self/maps").read_text() and loaded


def test_other_errors_stay_what_they_are(folder, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(checkpoint, "save_file", refused)
    with pytest.raises(PermissionError):
        save(folder, 1)
    assert list(folder.iterdir()) == []
