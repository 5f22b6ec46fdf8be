"""What a launch is, what looks after it, and what SLURM's words are taken for; SLURM's commands are stand-ins here."""

import json
import os
import subprocess
import sys

import pytest

from finetune import cli, load_recipe
from finetune.core.errors import FinetuneError, InputError
from finetune.core.run_dir import write_json, write_text
from finetune.launch.cluster import Cluster, ClusterOptions, read_cluster
from finetune.launch.launcher import Task
from finetune.launch.launching import LAUNCHERS, gather, plan_launch
from finetune.launch.record import Group, group_runs, named, read_launch
from finetune.launch.slurm import Slurm
from finetune.launch.status import run_states
from tests.end_to_end.warm import environment_with
from tests.waiting import wait_for


def planned(recipe, folder, on="slurm", *overrides, **options):
    cluster = Cluster(ClusterOptions(**options), read_cluster(None).tree)
    return plan_launch(load_recipe(recipe, overrides), recipe, overrides, folder / "runs", on, cluster)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """command(name, line of shell) puts a stand-in before the system's commands; what it was told is in notes()."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    write_text(tmp_path / "notes", "")

    def put(name, line):
        path = tmp_path / "bin" / name
        write_text(path, f'#!/bin/bash\necho "{name} $*" >>"$NOTES"\n{line}\n')
        path.chmod(0o755)

    put.notes = lambda: (tmp_path / "notes").read_text().splitlines()
    put("sbatch", "echo $RANDOM")
    put("squeue", "")
    put("srun", "echo there")
    put("scancel", "")
    put("sinfo", "")
    return put


def test_runs_of_a_variant_are_placed_together(topics):
    recipe = load_recipe(topics, ["seeds=5"])
    assert [group.only for group in group_runs(recipe, 2)][:4] == ["linear/0,1", "linear/2,3", "linear/4", "full/0,1"]
    assert len(group_runs(recipe, 1)) == 10 and len(group_runs(recipe, 100)) == 2


def test_seeds_that_a_rule_adds_cannot_be_named_beforehand(topics, tmp_path):
    rule = "seeds={until: {ci_width: 1.0}, at_least: 4}"
    with pytest.raises(InputError, match="a rule adds seeds here"):
        planned(topics, tmp_path, "slurm", rule)
    assert planned(topics, tmp_path, "local", rule)


def test_a_launch_is_read_as_it_was_written(topics, tmp_path, command):
    launch = planned(topics, tmp_path, "slurm", "train.epochs=2", gpus=2, environment={"A": "b"})
    launched = Slurm().submit(launch, [0, 3])
    found = read_launch(launch.study.path)
    assert found == launched and found.submissions[0].groups == (0, 3)
    assert (
        [*named(found, "full")] == [2, 3] and [*named(found, "full/1")] == [3] and [*named(found, None)] == [0, 1, 2, 3]
    )
    with pytest.raises(InputError, match="no run 'full/7' was launched"):
        named(found, "full/7")
    with pytest.raises(InputError, match="has not been launched"):
        read_launch(tmp_path)
    assert "hf" not in json.dumps(json.loads((launch.folder / "launch.json").read_text()))


def test_where_each_run_stands(topics, tmp_path):
    launch = planned(topics, tmp_path, "slurm", "seeds=3")
    write_json(launch.study.run("linear", 0).result, {"status": "finished", "reason": None})
    write_json(launch.study.run("linear", 1).result, {"status": "diverged", "reason": "the loss is not finite"})
    for variant, seed in (("linear", 2), ("full", 0), ("full", 1)):
        write_text(launch.study.run(variant, seed).metrics, '{"kind": "train", "step": 7}\n{"kind": "tr')
    tasks = {2: Task("running", "n1", "None"), 3: Task("waiting", "", "Priority"), 5: Task("running", "n2", "None")}
    assert [(each.state, each.step, each.where, each.why) for each in run_states(launch, tasks)] == [
        ("finished", None, "", ""),
        ("diverged", None, "", "the loss is not finite"),
        ("running", 7, "n1", ""),
        ("waiting", 7, "", "Priority"),
        ("interrupted", 7, "", ""),
        ("starting", None, "n2", ""),
    ]
    given_up = {group: Task("ended", "", "OOMKilled, exit code 137") for group in (4, 5)}
    assert [each[1:] for each in run_states(launch, given_up)[4:]] == [
        ("interrupted", 7, "", "OOMKilled, exit code 137"),
        ("not begun", None, "", "OOMKilled, exit code 137"),
    ]
    assert launch.left() == [2, 3, 4, 5], "what has diverged would diverge again"
    write_json(launch.study.run("linear", 0).result, {"status": "error", "reason": "a cosmic ray"})
    assert launch.left() == [0, 2, 3, 4, 5]


def test_seeds_that_a_rule_has_not_added_are_not_missing(topics, tmp_path):
    launch = planned(topics, tmp_path, "local", "seeds={until: {ci_width: 1.0}, at_least: 4}")
    assert [each.name for each in run_states(launch, {})] == ["linear/0", "full/0"]
    for variant, seed in (("linear", 0), ("linear", 1), ("full", 0), ("full", 1)):
        write_json(launch.study.run(variant, seed).result, {"status": "finished", "reason": None})
    assert [each.state for each in run_states(launch, {})] == ["finished"] * 4
    launch.write()
    assert read_launch(launch.study.path).until


def test_the_queue_is_read_by_array_and_task(topics, tmp_path, command):
    launch = Slurm().submit(planned(topics, tmp_path), range(4))
    array, gather_job = launch.submissions[0].facts.values()
    rows = [f"91|{array}|0|RUNNING|n1|None", f"92|{array}|2|PENDING||Resources", f"93|{array}|3|COMPLETING|n2|None"]
    rows += [f"{gather_job}|{gather_job}|N/A|PENDING||Dependency", "7|7|1|RUNNING|n3|None"]
    command("squeue", "cat <<'END'\n" + "\n".join(rows) + "\nEND")
    assert Slurm().tasks(launch) == {
        0: Task("running", "n1", "None"),
        2: Task("waiting", "", "Resources"),
        3: Task("running", "n2", "None"),
    }
    assert Slurm().at_work(launch)
    Slurm().cancel(launch)
    assert command.notes()[-1] == f"scancel {array} {gather_job}"


@pytest.mark.parametrize(
    ("written", "words", "option"),
    [
        ("account: acme", "Invalid account or account/partition combination specified", "account"),
        ("qos: gold", "Invalid qos specification", "qos"),
        ("partition: nope", "invalid partition specified: nope", "partition"),
        ("gpus: 9\npartition: gpu", "Requested node configuration is not available", "gpus"),
        ("gpus: a100:1", "Invalid generic resource (gres) specification", "gpus"),
        ("time: 600", "Requested time limit is invalid (missing or exceeds some limit)", "time"),
        ("memory: 9T", "Memory required by task is not available", "memory"),
        ("nodes: 99", "Node count specification invalid", "nodes"),
    ],
)
def test_a_refusal_of_slurms_is_told_in_its_words_with_the_place(topics, tmp_path, command, written, words, option):
    command("sbatch", f"echo 'sbatch: error: {words}' >&2; exit 1")
    path = tmp_path / "cluster.yaml"
    path.write_text(written + "\n")
    cluster = read_cluster(path)
    recipe = load_recipe(topics)
    launch = plan_launch(recipe, topics, [], tmp_path / "runs", "slurm", cluster)
    with pytest.raises(InputError) as caught:
        Slurm().check(launch, cluster)
    [problem] = caught.value.problems
    line = [line.partition(":")[0] for line in written.splitlines()].index(option) + 1
    assert (problem.path, problem.where) == (option, f"{path}:{line}")
    assert problem.found == f"SLURM refuses it: {words}"
    assert not (tmp_path / "runs").exists()


def test_what_is_in_no_option_is_told_too(topics, tmp_path, command):
    command("sbatch", "echo 'sbatch: error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(InputError, match="SLURM refuses it: Unable to contact slurm controller"):
        Slurm().check(planned(topics, tmp_path), read_cluster(None))


def test_where_no_node_is_free_it_is_said_that_nobody_has_looked(topics, tmp_path, command):
    command("srun", "echo 'srun: error: Unable to allocate resources: Requested nodes are busy' >&2; exit 1")
    [note] = Slurm().check(planned(topics, tmp_path), read_cluster(None))
    assert note.endswith("could not be found out: Unable to allocate resources: Requested nodes are busy")
    command("srun", "echo 'away on node7'")
    with pytest.raises(InputError, match="is not the same folder here and on node7"):
        Slurm().check(planned(topics, tmp_path), read_cluster(None))


def test_where_there_is_no_slurm_that_is_said(topics, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="there is no sbatch here"):
        Slurm().check(planned(topics, tmp_path), read_cluster(None))


def test_a_job_that_submits_hands_none_of_its_own_settings_on(topics, tmp_path, command, monkeypatch):
    """sbatch and srun take SLURM's variables for options."""
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "7")
    monkeypatch.setenv("SLURM_CONF", "/somewhere")
    command("sbatch", 'echo "mem=$SLURM_MEM_PER_NODE conf=$SLURM_CONF" >>"$NOTES"; echo 5')
    Slurm().submit(planned(topics, tmp_path), [0])
    assert [line for line in command.notes() if line.startswith("mem")] == ["mem= conf=/somewhere"] * 2


def test_what_is_missing_is_submitted_again_while_that_is_allowed_and_told(topics, tmp_path, command):
    launch = Slurm().submit(planned(topics, tmp_path, retries=1), range(4))
    for seed, status in enumerate(("finished", "degenerate")):
        write_json(launch.study.run("linear", seed).result, {"status": status, "reason": "no better than chance"})
    write_json(launch.study.run("full", 0).result, {"status": "error", "reason": "a cosmic ray"})
    told = []
    assert gather(launch.study.path, told.append) == 1
    assert told[:2] == ["2 of 4 runs are there", "missing: full/0, full/1"]
    assert told[2].startswith("submitted again, 1 of 1: job")
    assert {"linear/1: degenerate: no better than chance", "full/0: error: a cosmic ray"} <= {*told}
    assert [each.groups for each in read_launch(launch.study.path).submissions] == [(0, 1, 2, 3), (2, 3)]
    assert "--array=2,3" in " ".join(command.notes())
    told.clear()
    assert gather(launch.study.path, told.append) == 1 and not any("submitted" in line for line in told)
    assert len(read_launch(launch.study.path).submissions) == 2


def test_a_gather_that_was_itself_started_again_submits_nothing_twice(topics, tmp_path, command):
    launch = Slurm().submit(planned(topics, tmp_path, retries=5), range(4))
    command("squeue", f"echo '91|{launch.submissions[0].facts['array']}|0|RUNNING|n1|None'")
    told = []
    assert gather(launch.study.path, told.append) == 1 and "they are still under way" in told
    assert len(read_launch(launch.study.path).submissions) == 1


def test_where_nothing_can_be_submitted_from_that_is_told_and_what_is_there_is_counted(
    topics, tmp_path, command, monkeypatch
):
    launch = Slurm().submit(planned(topics, tmp_path), range(4))
    monkeypatch.setenv("PATH", str(tmp_path))
    told = []
    assert gather(launch.study.path, told.append) == 1
    assert told[0] == "0 of 4 runs are there" and "could not be submitted again: there is no squeue on" in told[-1]


def test_when_the_last_job_cannot_be_submitted_the_first_is_taken_back(topics, tmp_path, command):
    command("sbatch", 'if [[ "$*" = *gather* ]]; then echo "sbatch: error: no more jobs" >&2; exit 1; fi; echo 5')
    launch = planned(topics, tmp_path)
    with pytest.raises(FinetuneError, match=r"sbatch refuses gather\.sbatch: no more jobs"):
        Slurm().submit(launch, range(4))
    assert command.notes()[-1] == "scancel 5" and not (launch.folder / "launch.json").exists()


def test_a_dry_run_writes_nothing(topics, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = f"kubernetes: {{image: finetune:1, claim: team, mount: {tmp_path.parent}}}"
    write_text(tmp_path / "cluster.yaml", f"retries: 2\n{block}\n")
    for on in LAUNCHERS:
        cluster = ["--cluster", "cluster.yaml"] if on == "kubernetes" else []
        assert cli.main(["launch", str(topics), "--on", on, *cluster, "--dry-run"]) == 0
        assert str(topics) in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def finetune(tmp_path):
    """finetune('status', 'runs/topics') -> the ended process."""

    def run(*argv):
        command = [sys.executable, "-m", "finetune", *argv]
        environment = environment_with(OMP_NUM_THREADS="1", COLUMNS="100")
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    return run


@pytest.mark.slow
def test_in_the_background_a_study_is_launched_looked_after_cancelled_and_gone_on_with(topics, finetune, tmp_path):
    run = ("launch", "topics.yaml", "seeds=1", "variants=null", "strategy={type: full}", "train.replicas=1")
    run += ("train.checkpoint_seconds=0", "--on", "local")
    study = tmp_path / "runs" / "topics"
    done = finetune(*run, "train.min_steps=400")
    assert done.returncode == 0 and "1 of 1 groups of runs are launched, as process" in done.stdout, done.stderr
    again = finetune(*run, "train.min_steps=400")
    assert again.returncode == 2 and "has been launched already, as process" in " ".join(again.stderr.split())
    wait_for(lambda: list(study.glob("full/seed-0/checkpoints/step-*")))
    assert "1 running; 1 in all" in finetune("status", str(study)).stdout
    done = finetune("cancel", str(study))
    assert done.returncode == 0 and "what was done is saved" in done.stdout
    wait_for(lambda: not LAUNCHERS["local"].at_work(read_launch(study)))
    done = finetune("status", str(study))
    assert done.returncode == 1 and "1 interrupted; 1 in all" in done.stdout
    assert finetune(*run, "train.min_steps=400").returncode == 0
    wait_for(lambda: not LAUNCHERS["local"].at_work(read_launch(study)))
    done = finetune("status", str(study))
    assert done.returncode == 0 and "1 finished; 1 in all" in done.stdout
    logs = finetune("logs", str(study), "full/0").stdout
    assert "run the same command again to resume" in logs and "report:" in logs
    done = finetune(*run, "train.min_steps=400")
    said = " ".join(done.stderr.split())  # which is cut into lines as the folder's name asks
    assert done.returncode == 2 and "every run of" in said and "is finished" in said


def test_a_number_that_another_process_has_by_now_is_not_ours(topics, tmp_path):
    launch = planned(topics, tmp_path, "local")
    launch = launch.submitted([0], {"pid": os.getpid(), "began": 1, "host": os.uname().nodename})
    assert not LAUNCHERS["local"].at_work(launch) and LAUNCHERS["local"].tasks(launch) == {}
    LAUNCHERS["local"].cancel(launch)  # which would end this very test


def test_groups_are_named_as_finetune_run_takes_them():
    assert Group("lora", (0, 1, 7)).only == "lora/0,1,7"
