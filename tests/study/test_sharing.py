"""What one process has claimed of a study no other can have, until it lets go or dies."""

import multiprocessing
import os
import signal
import socket
import time

import pytest

from finetune import load_recipe, recipe
from finetune.core.errors import InputError, Interrupted
from finetune.core.events import RunStarted, StudyOpened, from_json, to_json
from finetune.core.progress import Progress
from finetune.core.run_dir import StudyDir, write_json
from finetune.core.signals import StopRequest
from finetune.study import sharing
from finetune.study.rescoring import rescore
from finetune.study.running import run_study
from finetune.study.sharing import NO_CLAIMS, Asked, Claims, Helper, finished, stamps
from tests.train.workbench import make_runtime


def claims(folder, **changes):
    return Claims(folder, make_runtime(folder, **changes))


def hold(folder, taken, leave):
    theirs = Claims(folder, make_runtime(folder))
    assert theirs.take("lora.seed-0")
    taken.set()
    leave.wait()


@pytest.mark.parametrize("clock", [0, -86_400, 86_400], ids=["", "behind", "ahead"])
def test_an_error_is_not_tried_again_by_those_who_were_there_when_it_came(tmp_path, clock):
    """Whatever the clock of the files says, and whether it agrees with ours."""
    study = StudyDir(tmp_path)

    def write(seed, status):
        path = study.run("lora", seed).result
        path.unlink(missing_ok=True)  # as who tries it again does
        write_json(path, {"status": status})
        os.utime(path, ns=(0, time.time_ns() + clock * 10**9))

    for seed, status in enumerate(("finished", "error", "diverged", "error")):
        write(seed, status)
    former = stamps(["lora"], range(5), study)
    assert [seed for _, seed in finished("lora", range(5), study)] == [0, 2]
    assert [seed for _, seed in finished("lora", range(5), study, former)] == [0, 2], "errors of before are tried again"
    write(1, "error")
    write(4, "error")
    assert [seed for _, seed in finished("lora", range(5), study, former)] == [0, 1, 2, 4]
    assert [seed for _, seed in finished("lora", range(5), study)] == [0, 2]


def test_some_runs_can_be_asked_for(topics):
    recipe = load_recipe(topics, ["seeds=3"])
    runs = [(variant, seed) for variant in ("linear", "full") for seed in range(3)]
    asked = {
        None: runs,
        "full": runs[3:],
        "linear/1": [("linear", 1)],
        "linear/0,2": [("linear", 0), ("linear", 2)],
    }
    for only, wanted in asked.items():
        assert [run for run in runs if Asked.of(recipe, only).for_run(*run)] == wanted
    for only in ("linear/0,", "linear/0,7", "linear/0 2", "linear/00"):
        with pytest.raises(InputError, match="there is no seed"):
            Asked.of(recipe, only)


def test_listeners_hear_what_is_asked_for_and_what_is_trained_side_by_side(topics, tmp_path):
    heard = []
    progress = Progress()
    progress.listeners.append(heard.append)
    recipe = load_recipe(topics, ["seeds=3", "train.replicas=2"])
    run_study(recipe, tmp_path / "runs", progress, only="linear/0,2")
    [opened] = [event for event in heard if isinstance(event, StudyOpened)]
    assert opened.asked == [("linear", 0), ("linear", 2)] and from_json(to_json(opened)) == opened
    begun = [event for event in heard if isinstance(event, RunStarted)]
    assert begun == [RunStarted("linear", 0, together=2), RunStarted("linear", 2, together=2)]


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


class Unlockable:
    """What a lock of the system is on a file system that has none."""

    error: Exception = OSError(95, "Operation not supported")

    def __init__(self, *_, **__):
        pass

    def acquire(self):
        raise self.error


@pytest.fixture
def lockless(monkeypatch):
    monkeypatch.setattr(sharing, "FileLock", Unlockable)


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr("finetune.core.progress.Progress.say", lambda self, text: lines.append(text))
    return lines


@pytest.mark.parametrize("error", [OSError(95, "Operation not supported"), NotImplementedError()])
def test_without_locks_claims_are_leases(tmp_path, lockless, monkeypatch, holder, said, error):
    monkeypatch.setattr(Unlockable, "error", error)
    ours, others = claims(tmp_path), claims(tmp_path)
    assert ours.take("a") and not others.take("a") and not ours.take("lora.seed-0")
    ours.release("a")
    assert others.take("a")
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(10)
    assert ours.take("lora.seed-0"), "of a process of this machine it is known that it is dead"
    assert said == []


def elsewhere(folder, name):
    """Let a claim be that of a process on another machine, of which nobody here can tell whether it lives."""
    place = folder / sharing.LOCKS / f"{name}.lease"
    text = place.read_text()
    assert socket.gethostname() in text
    place.unlink()
    place.write_text(text.replace(socket.gethostname(), "elsewhere.example"))
    return place


def test_a_lease_of_another_machine_ends_when_it_is_not_renewed(tmp_path, lockless, monkeypatch, holder):
    monkeypatch.setattr(sharing, "LEASE", 1.0)
    first = claims(tmp_path)
    assert first.take("full.seed-0")
    first.release("full.seed-0")
    theirs = claims(tmp_path)
    assert theirs.take("full.seed-0")
    theirs._leases["full.seed-0"]._stop_heartbeat()  # as the machine's end would
    place = elsewhere(tmp_path, "full.seed-0")
    ours = claims(tmp_path)
    began = time.monotonic()
    os.utime(place, (0, 0))  # its clock is another
    assert not ours.take("full.seed-0"), "it was only now looked at for the first time"
    while not ours.take("full.seed-0"):
        assert time.monotonic() - began < 30
        time.sleep(0.1)
    assert time.monotonic() - began >= 1.0
    theirs.release("full.seed-0")
    assert not claims(tmp_path).take("full.seed-0"), "who has lost it cannot give it up for us"


def test_a_lease_that_is_renewed_stays(tmp_path, lockless, monkeypatch):
    monkeypatch.setattr(sharing, "LEASE", 0.6)
    theirs, ours = claims(tmp_path), claims(tmp_path)
    assert theirs.take("full.seed-0")
    ends = time.monotonic() + 2.0
    while time.monotonic() < ends:
        assert not ours.take("full.seed-0")
        time.sleep(0.05)


def test_who_has_lost_a_lease_stops_and_says_why(tmp_path, lockless, monkeypatch, said):
    monkeypatch.setattr(sharing, "LEASE", 0.6)
    stop = StopRequest()
    ours = claims(tmp_path, stop=stop)
    assert ours.take("full.seed-0")
    place = tmp_path / sharing.LOCKS / "full.seed-0.lease"
    place.rename(tmp_path / "aside")
    place.write_text((tmp_path / "aside").read_text())
    ends = time.monotonic() + 30
    while not stop.requested and time.monotonic() < ends:
        time.sleep(0.05)
    assert stop.requested and len(said) == 1 and said[0].startswith("full.seed-0: another process has taken it over")


def contend(folder, counter, rounds):
    ours = Claims(folder, make_runtime(folder))
    for _ in range(rounds):
        with ours.alone("counter", "counting"):
            number = int(counter.read_text())
            time.sleep(0.002)
            counter.write_text(str(number + 1))


def test_leases_alone_keep_processes_apart(tmp_path, lockless, monkeypatch):
    monkeypatch.setattr(sharing, "WAIT", 0.01)
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=contend, args=(tmp_path, counter, 10)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    assert counter.read_text() == "40"


def test_where_nothing_can_be_claimed_a_study_goes_on_and_says_so_once(tmp_path, lockless, monkeypatch, said):
    def refused(self):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("filelock.SoftFileLease.acquire", refused)
    ours = claims(tmp_path)
    assert ours.take("a") and ours.take("b")
    with ours.alone("c", "writing"):
        pass
    assert said == [NO_CLAIMS]


def test_who_scores_runs_again_waits_for_those_who_are_at_them(topics, tmp_path, monkeypatch):
    study = run_study(recipe.load(topics, ["seeds=1", "variants=null", "strategy={type: full}"]), tmp_path).folder
    [name] = [path.parent.name for path in study.glob("*/seed-0")]
    others, waited = claims(study), []
    assert others.take(sharing.claim_of(name, 0))

    def wait(self, doing):
        waited.append(doing)
        others.release(sharing.claim_of(name, 0))

    monkeypatch.setattr(Claims, "wait", wait)
    rescore(study)
    assert waited == ["waiting for another process that is working at this run"]
