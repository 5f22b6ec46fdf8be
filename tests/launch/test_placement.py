"""Placement: which devices do which runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune import load_recipe
from finetune.core.errors import InputError
from finetune.launch import placement
from finetune.launch.placement import find_devices, lay_out


@given(runs=st.integers(1, 60), count=st.integers(1, 16), shard=st.booleans())
def test_devices_do_as_many_runs_at_once_as_there_are(runs, count, shard):
    devices = [str(number) for number in range(count)]
    layout = lay_out(runs, devices, shard)
    used = [device for group in layout.groups for device in group]
    assert used == devices[: len(used)] and len({len(group) for group in layout.groups}) == 1
    assert len(layout.groups) == (1 if shard else min(runs, count))
    assert count - len(used) < len(layout.groups), "no more are left over than a group each would take"
    assert layout.at_once * len(layout.groups) >= runs > (layout.at_once - 1) * len(layout.groups)


@pytest.mark.parametrize(
    ("runs", "devices", "shard", "said"),
    [
        (15, 4, False, "4 devices with runs of their own"),
        (2, 4, False, "2 groups of 2 devices"),
        (15, 4, True, "4 devices share each run"),
        (5, 1, False, "one device does all runs"),
    ],
)
def test_a_layout_in_words(runs, devices, shard, said):
    assert str(lay_out(runs, ["cpu"] * devices, shard)) == said


def found(topics, asked, *overrides):
    return find_devices(load_recipe(topics, ["variants=null", "strategy={type: full}", *overrides]), asked)


def refused(topics, asked, *overrides):
    with pytest.raises(InputError) as caught:
        found(topics, asked, *overrides)
    [problem] = caught.value.problems
    assert problem.path == "--devices"
    return problem.found


def test_without_a_gpu_one_process_has_all_cores_unless_more_are_asked_for(topics, monkeypatch):
    monkeypatch.setattr(placement.os, "sched_getaffinity", lambda _: range(8))
    assert found(topics, None) == ["cpu"] and found(topics, 3) == ["cpu"] * 3
    assert refused(topics, 9) == "is 9, and this machine has no GPU that torch sees, and 8 cores"
    assert refused(topics, 0) == "is 0"


def test_all_visible_gpus_are_used(topics, monkeypatch):
    monkeypatch.setattr(placement, "_visible", lambda: ["4", "5", "7"])
    auto = "model.device=auto"
    assert found(topics, None, auto) == ["4", "5", "7"] and found(topics, 2, auto) == ["4", "5"]
    assert refused(topics, 4, auto) == "is 4, and 3 GPUs are visible here"
    assert found(topics, None, "model.device=cpu") == ["cpu"]
    assert found(topics, None, "model.device=cuda:1") == ["cpu"], "one process, which finds the device itself"
    assert "names a device: cuda:1" in refused(topics, 2, "model.device=cuda:1")


def test_a_launcher_has_decided_already(topics, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(placement, "_visible", lambda: ["0", "1"])
    assert len(found(topics, None, "model.device=auto")) == 1
    assert "a launcher has started this process" in refused(topics, 2)


def test_devices_share_a_run_only_where_that_is_asked_for():
    """One process has other ways out where memory ends, and the same batches."""
    assert lay_out(2, ["0", "1", "2", "3"], shard=False, share=False).groups == (("0",), ("1",))


def test_visible_gpus_are_those_that_cuda_sees(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for said, seen in {"4, 5": ["4", "5"], "4,5,-1,6": ["4", "5"], "": ["0", "1"]}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
        assert placement._visible() == seen
