"""Checkpoints: exact, complete or absent, whatever goes wrong while one is written."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from finetune.core.errors import DiskFull, NotWritable
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
    checkpoint.prune(folder)


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


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_and_the_one_before_are_kept(folder):
    for step in (9, 10, 100):
        save(folder, step)
    assert names(folder) == ["step-00000010", "step-00000100"] and newest(folder) == 100


def test_no_file_holds_pickle(folder):
    checkpoint.save(folder, 3, {}, TENSORS)
    written = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files = {"state.json", "tensors.safetensors"}
    assert set(written) == files | {f"{name}.blake2b" for name in files}
    json.loads(written["state.json"])
    header = int.from_bytes(written["tensors.safetensors"][:8], "little")
    assert "weights/bias" in json.loads(written["tensors.safetensors"][8 : 8 + header])
    assert not any(content.startswith((b"PK", b"\x80")) for content in written.values())


DAMAGES = {
    "a flipped bit": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "missing": lambda path: path.unlink(),
}
FILES = ["state.json", "state.json.blake2b", "tensors.safetensors", "tensors.safetensors.blake2b"]


def flipped(content, bit=None):
    bit = 4 * len(content) + 3 if bit is None else bit
    return bytes(byte ^ (1 << bit % 8 if place == bit // 8 else 0) for place, byte in enumerate(content))


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(checkpoint, "say", lines.append)
    return lines


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_in_place_of_a_damaged_one_the_one_before_is_used(folder, name, damage, said):
    save(folder, 1)
    save(folder, 2)
    damage(folder / "step-00000002" / name)
    assert newest(folder) == 1
    assert checkpoint.newest_of_one_step([folder]) == [folder / "step-00000001"]
    assert len(said) == 1 and f"{folder}/step-00000002 is damaged (" in said[0], said
    assert names(folder) == ["step-00000001", "step-00000001+"], "nor is it taken for the newest by what comes next"
    damage(folder / "step-00000001+" / name)
    assert newest(folder) == 1, "of what is left there is a copy, in case that is damaged next"
    save(folder, 2)
    assert newest(folder) == 2


def test_any_flipped_bit_is_noticed(folder):
    save(folder, 1)
    path = folder / "step-00000001" / "tensors.safetensors"
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        path.write_bytes(flipped(whole, bit))
        assert checkpoint.damage(path.parent), bit
    path.write_bytes(whole)
    assert checkpoint.damage(path.parent) is None


def test_where_all_are_damaged_it_starts_anew(folder, said):
    for step in (1, 2):
        save(folder, step)
        os.truncate(folder / f"step-{step:08d}" / "tensors.safetensors", 9)
    assert checkpoint.load(folder) is None and checkpoint.newest_of_one_step([folder]) == []
    assert len(said) == 2 and names(folder) == []


def test_runs_side_by_side_go_on_from_a_step_that_all_have(tmp_path, said):
    """A crash may come when one has its newest checkpoint, and the other not yet; or one's may be damaged."""
    folders = [tmp_path / "0", tmp_path / "1"]
    for step in (1, 2):
        for folder in folders:
            save(folder, step)
    save(folders[0], 3)
    assert checkpoint.newest_of_one_step(folders) == [folder / "step-00000002" for folder in folders]
    assert names(folders[0]) == ["step-00000002", "step-00000002+"], "the third's steps are taken again"
    save(folders[0], 3)
    save(folders[1], 3)
    (folders[1] / "step-00000003" / "state.json").unlink()
    assert [checkpoint.step_of(found) for found in checkpoint.newest_of_one_step(folders)] == [2, 2]
    assert [newest(folder) for folder in folders] == [2, 2] and len(said) == 1


def test_one_of_a_former_version_is_read(folder):
    """It has no digests."""
    save(folder, 1)
    for path in folder.rglob("*.blake2b"):
        path.unlink()
    assert newest(folder) == 1


class Crash(BaseException):
    """As abrupt as SIGKILL: no handler of the code under test runs."""


def crash(*_, **__):
    raise Crash


CALLS = [(checkpoint, "save_file"), (checkpoint, "sync"), (os, "replace"), (json, "dumps")]


@pytest.mark.parametrize("where, name", CALLS, ids=[name for _, name in CALLS])
@pytest.mark.parametrize("step", [2, 1], ids=["the next step", "the same step again"])
def test_a_crash_while_writing_leaves_the_one_before(folder, monkeypatch, where, name, step):
    save(folder, 1)
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(where, name, crash)
        save(folder, step, again=True)
    assert newest(folder) == 1 and "again" not in checkpoint.load(folder)[0]
    save(folder, 2)
    assert newest(folder) == 2 and names(folder) == ["step-00000001", "step-00000002"], "nothing is left over"


def test_a_crash_while_the_oldest_is_removed_leaves_the_newest(folder, monkeypatch):
    save(folder, 1)
    save(folder, 2)
    remove = shutil.rmtree

    def cut_short(path, **arguments):
        if path.name == ".step-00000001.old.tmp" and path.exists():
            (path / "state.json").unlink()
            raise Crash
        remove(path, **arguments)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(shutil, "rmtree", cut_short)
        save(folder, 3)
    assert newest(folder) == 3 and [path.name for path in checkpoint.complete(folder)] == [
        "step-00000002",
        "step-00000003",
    ]
    save(folder, 4)
    assert names(folder) == ["step-00000003", "step-00000004"]


def test_two_stay_while_the_next_is_written(folder, monkeypatch):
    """A crash may come then, and the newest of them turn out to be damaged."""
    write, at_writing = checkpoint.save_file, []

    def look_first(tensors, path):
        at_writing.append([name for name in names(folder) if not name.startswith(".")])
        write(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", look_first)
    for step in (1, 2, 3):
        save(folder, step)
    assert at_writing == [[], ["step-00000001"], ["step-00000001", "step-00000002"]]


def test_where_there_is_room_for_two_only_the_older_one_goes_first(folder, monkeypatch):
    write = checkpoint.save_file

    def small(tensors, path):
        if len(list(folder.iterdir())) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", small)
    for step in (1, 2, 3):
        save(folder, step)
    assert names(folder) == ["step-00000002", "step-00000003"] and newest(folder) == 3


def test_the_same_step_saved_again_replaces_what_was_saved(folder):
    save(folder, 5)
    save(folder, 5, validated=True)
    assert checkpoint.load(folder)[0] == {"step": 5, "validated": True}
    save(folder, 5, validated="twice")
    assert checkpoint.load(folder)[0]["validated"] == "twice" and len(list(folder.iterdir())) == 2
    save(folder, 6)
    assert newest(folder) == 6


def test_a_half_written_folder_is_no_checkpoint(folder):
    save(folder, 1)
    (folder / ".step-00000002.tmp").mkdir()
    (folder / ".step-00000002.tmp" / "state.json").write_text("{")
    assert newest(folder) == 1
    save(folder, 3)
    assert names(folder) == ["step-00000001", "step-00000003"]


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


CLOSED = [
    OSError(errno.EROFS, os.strerror(errno.EROFS), "{folder}/x"),
    PermissionError(errno.EACCES, os.strerror(errno.EACCES), "{folder}/x"),
    SafetensorError("Error while serializing: I/O error: Read-only file system (os error 30)"),
]


@pytest.mark.parametrize("error", CLOSED, ids=["read-only", "forbidden", "safetensors'"])
def test_a_folder_that_takes_no_more_files_is_told(folder, monkeypatch, error):
    def refused(*_):
        if isinstance(error, OSError):
            raise type(error)(error.errno, error.strerror, str(error.filename).format(folder=folder))
        raise error

    save(folder, 1)
    monkeypatch.setattr(checkpoint, "save_file", refused)
    with pytest.raises(NotWritable, match=r"checkpoints can no longer be written to \((Read-only|Permission).* again"):
        save(folder, 2)
    assert names(folder) == ["step-00000001"] and newest(folder) == 1


@pytest.mark.parametrize("place", ["/elsewhere/x", None])
def test_other_errors_stay_what_they_are(folder, monkeypatch, place):
    def refused(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)

    monkeypatch.setattr(checkpoint, "save_file", refused)
    with pytest.raises(PermissionError):
        save(folder, 1)
    assert list(folder.iterdir()) == []
