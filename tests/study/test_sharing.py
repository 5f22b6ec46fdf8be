"""What one process has claimed of a study no other can have, until it lets go or dies."""

import multiprocessing
import os
import signal
import time

import pytest

from finetune.core.errors import Interrupted
from finetune.core.run_dir import StudyDir, write_json
from finetune.core.signals import StopRequest
from finetune.study import sharing
from finetune.study.sharing import NO_LOCKS, Claims, Helper, finished
from tests.train.workbench import make_runtime


def claims(folder, **changes):
    return Claims(folder, make_runtime(folder, **changes))


def hold(folder, taken, leave):
    theirs = Claims(folder, make_runtime(folder))
    assert theirs.take("lora.seed-0")
    taken.set()
    leave.wait()


def test_an_error_is_not_tried_again_by_those_who_were_there_when_it_came(tmp_path):
    study, now = StudyDir(tmp_path), time.time()
    for seed, status in enumerate(("finished", "error", "diverged")):
        write_json(study.run("lora", seed).result, {"status": status})
    os.utime(study.run("lora", 1).result, (now, now))
    assert [seed for _, seed in finished("lora", range(4), study)] == [0, 2]
    assert [seed for _, seed in finished("lora", range(4), study, now - 1)] == [0, 1, 2]
    assert [seed for _, seed in finished("lora", range(4), study, now + 1)] == [0, 2]


def test_helpers_begin_with_variants_of_their_own():
    assert [[*Helper(number, 1).order("abc")] for number in range(4)] == [[*"abc"], [*"bca"], [*"cab"], [*"abc"]]


@pytest.fixture
def holder(tmp_path):
    """Another process that has claimed a run."""
    context = multiprocessing.get_context("fork")
    taken, leave = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, taken, leave))
    process.start()
    assert taken.wait(30)
    yield process
    if process.is_alive():
        leave.set()
    process.join(10)


def test_what_another_process_has_is_not_to_be_had(tmp_path, holder):
    ours = claims(tmp_path)
    assert not ours.take("lora.seed-0") and ours.take("lora.seed-1") and ours.take("lora.seed-1")


def test_a_claim_ends_with_its_process_however_that_ends(tmp_path, holder):
    ours = claims(tmp_path)
    assert not ours.take("lora.seed-0")
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(10)
    assert ours.take("lora.seed-0")


def test_what_is_released_others_can_have(tmp_path):
    first, second = claims(tmp_path), claims(tmp_path)
    assert first.take("base") and not second.take("base")
    first.release("base")
    assert second.take("base")
    first.release("base")
    assert not first.take("base"), "what is not ours cannot be released"


def test_one_process_is_alone(tmp_path):
    first, second = claims(tmp_path), claims(tmp_path)
    with first.alone("report", "writing the report"):
        assert not second.take("report")
    with second.alone("report", "writing the report"):
        assert not first.take("report")
    with pytest.raises(KeyError), first.alone("report", "writing the report"):
        raise KeyError
    assert second.take("report"), "an error lets go too"


def test_who_waits_can_be_stopped(tmp_path, holder):
    stop = StopRequest()
    stop.requested = True
    with (
        pytest.raises(Interrupted, match="waiting for another process that is training"),
        claims(tmp_path, stop=stop).alone("lora.seed-0", "training"),
    ):
        pytest.fail("it is not to be had")


@pytest.mark.parametrize("error", [OSError(95, "Operation not supported"), NotImplementedError()])
def test_without_locks_a_study_goes_on_and_says_so_once(tmp_path, monkeypatch, error):
    class Unlockable:
        def __init__(self, *_, **__):
            pass

        def acquire(self):
            raise error

    monkeypatch.setattr(sharing, "FileLock", Unlockable)
    said = []
    ours = claims(tmp_path)
    monkeypatch.setattr(type(ours._runtime.progress), "say", lambda self, text: said.append(text))
    assert ours.take("a") and ours.take("b")
    with ours.alone("c", "writing"):
        pass
    assert said == [NO_LOCKS]
