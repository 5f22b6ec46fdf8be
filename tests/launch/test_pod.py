"""A pod's turn at a group: what it makes of signals, exit codes and time, and what the gathering pod sees of it. What
does the runs is a few lines of Python here; tests/launch/test_kubernetes.py has real studies."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from finetune.core.run_dir import StudyDir, write_json, write_text
from finetune.launch.cluster import ClusterOptions, KubernetesOptions, torchrun_settings
from finetune.launch.jobs import Seen, group_tasks
from finetune.launch.launcher import Task
from finetune.launch.pod import SILENT, is_over
from finetune.launch.record import Group, Launch
from tests.end_to_end.warm import environment_with

DRIVER = """
import sys
from finetune.launch import pod
from finetune.launch.record import read_launch
from pathlib import Path

study, node, limit, lead, code = sys.argv[1:]
pod.BEAT, pod.LOOK, pod.LEAD = 0.2, 0.05, float(lead)
pod._gather = lambda launch: print("gathered")
pod.Turn._command = lambda turn: [sys.executable, "-c", code]
turn = pod.Turn(read_launch(Path(study)), 1, int(node), None)
turn.limit = float(limit) or None
sys.exit(turn.do())
"""

UP = "import signal, sys, time, os; heard = []; signal.signal(signal.SIGUSR1, lambda *_: heard.append(1)); print('up');"
WAITS = f"{UP} sys.stdout.flush()\nwhile not heard: time.sleep(0.02)\n"


def launched(folder, **options):
    own = KubernetesOptions(image="finetune:1", claim="team", mount="/mnt/team")
    groups = (Group("lora", (0, 1)), Group("full", (2, 3)))
    command = ("run", "/a/recipe.yaml", "--output", str(folder))
    cluster = ClusterOptions(kubernetes=own, **options)
    launch = Launch(StudyDir(folder / "topics"), "kubernetes", "", command, "/", cluster, groups)
    launch.turn(0).parent.mkdir(parents=True)
    return launch.submitted([0, 1], {})


@pytest.fixture
def launch(tmp_path):
    return launched(tmp_path, nodes=2)


@pytest.fixture
def turn(launch):
    """turn(code of a child, ...) -> the running pod."""

    def start(code, node=0, limit=0, lead=60, failures=0):
        words = [sys.executable, "-c", DRIVER, str(launch.study.path), str(node), str(limit), str(lead), code]
        environment = environment_with(INDEX_FAILURES=str(failures), NODE_NAME="n7")
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)

    return start


def ended(process):
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def until_up(process):
    line = ""
    while "up" not in line:
        line = process.stdout.readline()
        assert line, "it has ended"


def state(launch, node=0):
    found = json.loads(launch.turn(1, node).read_text())
    del found["round"]
    return found


def results(launch, status="finished"):
    for run in launch.runs(1).values():
        write_json(run.result, {"status": status, "reason": None})


@pytest.mark.parametrize(
    ("code", "ends", "noted"),
    [
        ("print('hello')", 0, "done"),
        ("import sys; sys.exit(1)", 1, "failed"),
        ("import sys; sys.exit(130)", 130, "left"),
        ("import os; os.kill(os.getpid(), 9)", 137, "failed"),
    ],
)
def test_how_a_turn_ends_is_its_exit_code_and_is_written_down(launch, turn, code, ends, noted):
    found, said = ended(turn(code, failures=2))
    assert found == ends and state(launch) == {"state": noted, "failures": 2}
    assert said.startswith("== full/2,3 on n7, ") and launch.log(1).read_text() == said
    assert ("hello" in said) is (ends == 0)


def test_logs_are_appended(launch, turn):
    for number in range(2):
        ended(turn(f"print('turn {number}')"))
    assert [line for line in launch.log(1).read_text().splitlines() if line.startswith("turn")] == ["turn 0", "turn 1"]


@pytest.mark.parametrize("status", ["finished", "diverged", "degenerate"])
def test_runs_that_would_only_be_repeated_are_no_failure_of_the_pod(launch, turn, status):
    paths = [str(run.result) for run in launch.runs(1).values()]
    write = f"import json, os, sys\nfor path in {paths}:\n os.makedirs(os.path.dirname(path))\n"
    write += f" json.dump({{'status': {status!r}, 'reason': None}}, open(path, 'w'))\n"
    assert ended(turn(f"{write}sys.exit(1)"))[0] == 0
    code, said = ended(turn("print('again')"))
    assert code == 0 and "again" not in said


def test_an_error_is_tried_again(launch, turn):
    results(launch, "error")
    assert ended(turn("import sys; sys.exit(1)"))[0] == 1


@pytest.mark.parametrize(
    ("number", "leaves", "code"),
    [
        (signal.SIGTERM, 130, 130),
        (signal.SIGTERM, 1, 130),
        (signal.SIGTERM, 0, 0),
        (signal.SIGUSR1, 130, 130),
        (signal.SIGUSR2, 130, 130),
        (signal.SIGINT, 130, 130),
    ],
)
def test_a_signal_asks_the_runs_to_save_and_leave(launch, turn, number, leaves, code):
    """With exit code 1, as torchrun says it, too; 0 says that all was done by then."""
    process = turn(f"{WAITS}sys.exit({leaves})")
    until_up(process)
    for _ in range(2):
        process.send_signal(number)
    assert ended(process)[0] == code
    assert state(launch)["state"] == ("done" if code == 0 else "left")


def test_what_another_node_was_asked_for_this_one_leaves_for_too(launch, turn):
    launch.note(1, 0, state="running", failures=0, round="one")
    process = turn(f"{WAITS}sys.exit(1)", node=1)
    until_up(process)
    launch.turn(1).with_name("1.asked").touch()
    assert ended(process)[0] == 130 and state(launch, 1)["state"] == "left"
    assert launch.logs(1)[1].exists() and not launch.log(1).exists()


def test_a_node_joins_no_round_that_it_was_in_before(launch, turn):
    """Nor one that has ended: nodes that are started again one by one are to meet anew."""
    launch.note(1, 0, state="running", failures=0, round="one")
    assert ended(turn("import sys; sys.exit(1)", node=1))[0] == 1
    process = turn("print('up')", node=1)
    time.sleep(3)
    assert process.poll() is None and "up" not in launch.logs(1)[1].read_text()
    launch.note(1, 0, state="left", failures=0, round="two")
    time.sleep(0.3)
    assert process.poll() is None
    launch.note(1, 0, state="running", failures=0, round="three")
    code, said = ended(process)
    assert code == 0 and "up" in said


def test_a_node_that_waits_for_others_leaves_when_it_is_asked_or_all_is_done(launch, turn):
    process = turn("print('up')", node=1)
    while not launch.turn(1, 1).exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 130
    results(launch)
    code, said = ended(turn("print('up')", node=1))
    assert code == 0 and "up" not in said


def test_a_pod_begun_by_itself_says_what_is_wrong_and_makes_nothing_that_all_can_write(tmp_path):
    """Its recipe is not there."""
    launch = launched(tmp_path)
    command = [sys.executable, "-m", "finetune.launch.pod", str(launch.study.path), "0,1"]
    environment = environment_with(JOB_COMPLETION_INDEX="1", PYTHONUNBUFFERED="1")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, umask=0)
    assert done.returncode == 2 and "recipe.yaml" in done.stdout and done.stderr == ""
    assert state(launch) == {"state": "failed", "failures": 0}
    for path in (launch.log(1), launch.turn(1)):
        assert path.stat().st_mode & 0o002 == 0


WORKER = """
import os, signal, sys, time
def leave(*_):
    time.sleep(2)
    open(os.environ["NOTES"] + "/saved-" + os.environ["RANK"], "w").close()
    sys.exit(130)
signal.signal(signal.SIGUSR1, leave)
open(os.environ["NOTES"] + "/up-" + os.environ["RANK"], "w").close()
while True: time.sleep(0.05)
"""


def test_torchrun_hands_a_signal_on_and_waits_for_its_workers(tmp_path):
    write_text(tmp_path / "worker.py", WORKER)
    environment = environment_with(NOTES=str(tmp_path), OMP_NUM_THREADS="1", **torchrun_settings(60))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "worker.py"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    ends = time.monotonic() + 120
    while len([*tmp_path.glob("up-*")]) < 2:
        assert time.monotonic() < ends and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=60)
    assert process.returncode > 0, said
    assert {path.name for path in tmp_path.glob("saved-*")} == {"saved-0", "saved-1"}


def test_what_was_cancelled_is_said_to_be(launch, turn):
    write_text(launch.cancelled, "")
    code, said = ended(turn("import sys; sys.exit(130)"))
    assert code == 130 and "cancelled; what was done is saved" in said


@pytest.mark.parametrize("saves", [False, True])
def test_at_the_end_of_its_time_a_turn_leaves_and_one_that_saved_nothing_has_failed(launch, turn, saves):
    folder = launch.runs(1)[2].checkpoints
    folder.mkdir(parents=True)
    step = f"time.sleep(0.1); os.mkdir({str(folder / 'step-2')!r});" if saves else ""
    code, said = ended(turn(f"{WAITS}{step}sys.exit(130)", limit=0.5))
    assert code == (130 if saves else 1)
    assert ("nothing was saved within the time limit" in said) is not saves
    assert ("it goes on in another turn" in said) is saves


def test_what_hangs_at_the_end_of_its_time_is_killed(launch, turn):
    code, said = ended(turn(f"{UP}\nwhile True: time.sleep(1)", limit=0.3, lead=0.5))
    assert code == 1 and "nothing was saved within the time limit" in said


def test_a_turn_tells_that_it_lives(launch, turn):
    process = turn("import time; time.sleep(2)")
    while not launch.turn(1).exists():
        time.sleep(0.02)
    os.utime(launch.turn(1), (0, 0))
    ends = time.monotonic() + 20
    while launch.turn(1).stat().st_mtime == 0:
        assert time.monotonic() < ends
        time.sleep(0.02)
    ended(process)


def test_what_ends_after_the_count_is_counted_anew(launch, turn):
    assert "gathered" not in ended(turn("pass"))[1]
    write_json(launch.turn(1).with_name("gathered"), [0])
    assert "gathered" not in ended(turn("pass"))[1], "it was there by then"
    write_json(launch.turn(1).with_name("gathered"), [0, 1])
    assert "gathered" in ended(turn("pass"))[1]
    assert "gathered" not in ended(turn("import sys; sys.exit(130)"))[1], "it goes on"


def test_a_group_is_over_when_nothing_more_can_come_of_it(tmp_path):
    launch = launched(tmp_path, retries=1, nodes=2)
    path = launch.turn(1)
    assert not is_over(launch, 1, time.time()), "it has not begun"
    for state, failures, over in [
        ("running", 0, False),
        ("left", 1, False),
        ("failed", 0, False),
        ("failed", 1, True),
        ("done", 0, True),
        ("running", 1, False),
    ]:
        launch.note(1, 0, state=state, failures=failures)
        assert is_over(launch, 1, path.stat().st_mtime) is over, (state, failures)
    assert is_over(launch, 1, path.stat().st_mtime + SILENT + 1), "it was killed at its last try"
    launch.note(1, 0, state="running", failures=0)
    assert not is_over(launch, 1, path.stat().st_mtime + 10 * SILENT), "Kubernetes tries it again"
    launch.note(1, 1, state="failed", failures=1)
    assert is_over(launch, 1, path.stat().st_mtime), "the other node has failed for good"
    results(launch, "diverged")
    launch.note(1, 1, state="running", failures=0)
    assert is_over(launch, 1, path.stat().st_mtime)


def pod(index, phase, number=0, **status):
    labels = {"batch.kubernetes.io/job-name": "j", "batch.kubernetes.io/job-completion-index": str(index)}
    metadata = {"name": f"j-{index}-{number}", "labels": labels, "creationTimestamp": f"2026-01-01T00:00:0{number}Z"}
    return {
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": f"n{index}"},
        "status": {"phase": phase, **status},
    }


def job(suspend=False, **status):
    return {"kind": "Job", "metadata": {"name": "j"}, "spec": {"suspend": suspend}, "status": status}


def terminated(reason, code):
    return [{"state": {"terminated": {"reason": reason, "exitCode": code}}}]


def test_indexes_of_a_job_are_groups():
    killed = pod(4, "Failed", 1, containerStatuses=terminated("OOMKilled", 137))
    before = pod(4, "Failed", 0, containerStatuses=terminated("Error", 1))
    gone = pod(6, "Failed", reason="DeadlineExceeded", message="Pod was active on the node longer than allowed")
    full = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/2 nodes\n are available",
    }
    pods = [pod(3, "Running"), pod(5, "Pending", conditions=[full]), pod(7, "Pending"), killed, before, gone]
    seen = Seen.of([job(completedIndexes="0-2,9", failedIndexes="4,6"), *pods])
    assert group_tasks(seen, "j", range(10, 20), "") == {
        13: Task("running", "n3", ""),
        14: Task("ended", "", "OOMKilled, exit code 137"),
        15: Task("waiting", "", "Unschedulable: 0/2 nodes are available"),
        16: Task("ended", "", "DeadlineExceeded: Pod was active on the node longer than allowed"),
        17: Task("waiting", "", "Pending"),
        18: Task("waiting", "", "no pod yet"),
    }
    assert seen.at_work and not seen.lacks_pods("j")


def test_a_job_without_pods_says_why():
    message = {"type": "Suspended", "status": "True", "message": "Job suspended"}
    seen = Seen.of([job(suspend=True, conditions=[message])])
    assert seen.lacks_pods("j") and group_tasks(seen, "j", [5], "") == {
        5: Task("waiting", "", "Suspended: Job suspended")
    }
    assert group_tasks(seen, "j", [5], "FailedCreate: quota") == {5: Task("waiting", "", "FailedCreate: quota")}
    failed = {"type": "Failed", "status": "True", "reason": "MaxFailedIndexesExceeded", "message": "too many"}
    seen = Seen.of([job(conditions=[failed])])
    assert not seen.at_work and group_tasks(seen, "j", [5], "") == {
        5: Task("ended", "", "MaxFailedIndexesExceeded: too many")
    }
    done = Seen.of([job(conditions=[{"type": "Complete", "status": "True"}], completedIndexes="0,1")])
    assert not done.at_work and group_tasks(done, "j", [5], "") == {}


def test_pods_of_a_deleted_job_still_save():
    seen = Seen.of([pod(0, "Running")])
    assert seen.at_work and group_tasks(seen, "j", [4, 5], "") == {4: Task("running", "n0", "")}
    assert not Seen.of([pod(0, "Failed")]).at_work
