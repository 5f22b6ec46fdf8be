"""Of processes that do a run together, one that no longer moves is found and named by those that wait for it."""

import os

import pytest
from torch.distributed import HashStore

from finetune.core import progress, watch
from finetune.core.errors import InputError
from finetune.core.watch import Watch, patience


class Others:
    """Three processes' watches in one, and a clock."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(watch.time, "monotonic", lambda: self.now)
        store = HashStore()
        self.all = [Watch(store, rank, 3, 60.0) for rank in range(3)]

    def look(self, seconds=0.0):
        """Let time pass, and give what each says."""
        for step in [3.0] * int(seconds // 3) + [seconds % 3]:
            self.now += step
            for own in self.all:
                own._tell()
            said = [own.missing() for own in self.all]
        return said


@pytest.fixture
def others(monkeypatch):
    made = Others(monkeypatch)
    made.look()
    return made


def test_the_one_behind_is_named_by_the_others(others):
    for rank in (0, 2):
        others.all[rank].move()
    assert others.look() == [None] * 3 and others.look(59) == [None] * 3
    named = f"process 1 (host {os.uname().nodename}, pid {os.getpid()}) has not moved for 61 s"
    assert others.look(2) == [named, None, named], "and it says nothing of itself"


def test_as_long_as_it_moves_it_is_waited_for(others, monkeypatch):
    """The first one may work alone for long, and shows it: here all of them do, being one process."""
    others.all[0].move()
    for _ in range(5):
        with progress.phase("writing", 1) as phase:
            phase.step(1)
        assert others.look(59) == [None] * 3


def test_after_a_suspension_it_begins_anew(others):
    others.all[0].move()
    others.look(50)
    others.now += 1000  # in which no process looked
    assert others.look() == [None] * 3 and others.look(57) == [None] * 3
    assert others.look(6)[0] is not None


def test_when_all_are_equally_far_nobody_is_named(others):
    for own in others.all:
        own.move()
    others.look()
    assert others.look(1000) == [None] * 3


@pytest.mark.parametrize("said", ["0", "-3", "soon", "nan"])
def test_a_time_that_is_none_is_refused(monkeypatch, said):
    monkeypatch.setenv(watch.VARIABLE, said)
    with pytest.raises(InputError, match="write seconds, such as 1800"):
        patience()


def test_the_time_is_half_an_hour_or_what_is_said(monkeypatch):
    monkeypatch.delenv(watch.VARIABLE, raising=False)
    assert patience() == 1800
    monkeypatch.setenv(watch.VARIABLE, "12.5")
    assert patience() == 12.5
