"""One command lays a study out over devices, each of which does runs of its own: what comes out is what one makes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import load_recipe
from finetune.core.errors import FinetuneError
from finetune.study.running import run_study, runs_left
from tests.end_to_end.reading import results, scores
from tests.end_to_end.warm import environment_with
from tests.waiting import wait_for

LONG = ("train.min_steps=150", "train.checkpoint_seconds=0")
RUN = ("run", "topics.yaml", "seeds=3", "train.replicas=1", "variants=null", "strategy={type: full}")


def start(cwd, *argv):
    command = [sys.executable, "-m", "finetune", *argv]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    environment = environment_with(OMP_NUM_THREADS="1")
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, start_new_session=True, **pipes)


def helpers(parent):
    """The processes that one has started, by the number of their group."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text().split("\0")
            mine = int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent
        except (OSError, ValueError):
            continue
        if mine and "--helper" in command:
            found[int(command[command.index("--helper") + 1].partition(":")[0])] = int(folder.name)
    return found


def flat(found):
    return {(run, name): value for run, own in found.items() for name, value in own.items()}


def steps(study, seed):
    return list((study / "full" / f"seed-{seed}" / "checkpoints").glob("step-*"))


@pytest.mark.slow
def test_two_devices_do_the_runs_of_a_study(topics, finetune, tmp_path):
    process = start(tmp_path, *RUN, "--devices", "2")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "layout: 2 devices with runs of their own" in said
    done = re.findall(r"(cpu:\d) · run (\d) of 3: full, seed (\d) ·", said)
    assert {seed for _, _, seed in done} == set("012") and {device for device, *_ in done} == {"cpu:0", "cpu:1"}, said
    assert finetune(*RUN, "--output", "alone").code == 0
    study, alone = tmp_path / "runs" / "topics", tmp_path / "alone" / "topics"
    assert flat(scores(study)) == pytest.approx(flat(scores(alone)))
    left, right = results(study), results(alone)
    assert [each["estimates"] for each in left["variants"]] == [each["estimates"] for each in right["variants"]]


@pytest.mark.slow
def test_what_a_killed_one_leaves_another_does(topics, tmp_path):
    study = tmp_path / "runs" / "topics"
    process = start(tmp_path, *RUN, *LONG, "--devices", "2")
    wait_for(lambda: steps(study, 0) and steps(study, 1))
    os.kill(helpers(process.pid)[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0 and "cpu:0 was killed by SIGKILL" in said, said
    assert len(scores(study)) >= 3


@pytest.mark.slow
def test_when_all_are_killed_it_says_so_and_can_go_on(topics, finetune, tmp_path):
    study = tmp_path / "runs" / "topics"
    process = start(tmp_path, *RUN, *LONG, "--devices", "2")
    wait_for(lambda: steps(study, 0) and steps(study, 1))
    for pid in helpers(process.pid).values():
        os.kill(pid, signal.SIGKILL)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 1 and "finetune: all processes have failed" in said, said
    assert finetune(*RUN, *LONG).code == 0


@pytest.mark.slow
def test_when_it_is_asked_to_stop_all_save(topics, finetune, tmp_path):
    study = tmp_path / "runs" / "topics"
    process = start(tmp_path, *RUN, *LONG, "--devices", "2")
    wait_for(lambda: steps(study, 0) and steps(study, 1))
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 130 and "run the same command again to resume" in said, said
    assert steps(study, 0) and steps(study, 1) and not list(study.glob("full/*/result.json"))
    assert finetune(*RUN, *LONG).code == 0
    for seed in (0, 1):
        assert json.loads((study / "full" / f"seed-{seed}" / "result.json").read_text())["training"]["resumed"] == 1


@pytest.mark.slow
def test_when_it_is_killed_the_others_leave(topics, tmp_path):
    study = tmp_path / "runs" / "topics"
    process = start(tmp_path, *RUN, *LONG, "--devices", "2")
    wait_for(lambda: steps(study, 0) and steps(study, 1))
    left = helpers(process.pid)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left.values()))
    assert steps(study, 0) and not list(study.glob("full/*/result.json"))


@pytest.mark.slow
def test_they_share_each_run_where_a_model_is_split(chats, finetune, tmp_path):
    process = start(tmp_path, "run", "chats.yaml", "compute.shard=true", "--devices", "2")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0 and "2 devices share each run" in said, said
    assert finetune("run", "chats.yaml", "--output", "alone").code == 0
    two, one = (flat(scores(tmp_path / folder / "chats")) for folder in ("runs", "alone"))
    assert two == pytest.approx(one, abs=1e-3)


@pytest.mark.slow
def test_a_split_model_is_asked_by_baselines_too(topics, tmp_path):
    shard = ("compute.shard=true", "baselines.enabled=true", "seeds=1", "--devices", "2")
    process = start(tmp_path, *RUN, *shard)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert list((tmp_path / "runs" / "topics" / "baselines").glob("*/result.json"))


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["false", "true"])
def test_two_nodes_meet_and_share_each_run(chats, finetune, tmp_path, shard):
    """Two of torchrun's agents, as on two machines: they find each other by a port of one of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agent = ["torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
    agent += ["--rdzv-endpoint", f"127.0.0.1:{port}", "-m", "finetune"]
    run = ("run", "chats.yaml", "seeds=1", f"compute.shard={shard}")
    environment = environment_with(OMP_NUM_THREADS="1")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment, "cwd": tmp_path}
    nodes = [subprocess.Popen([sys.executable, "-m", *agent, *run], **pipes) for _ in range(2)]
    said = [node.communicate(timeout=250)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert finetune(*run, "--output", "alone").code == 0
    two, one = (flat(scores(tmp_path / folder / "chats")) for folder in ("runs", "alone"))
    assert two == pytest.approx(one, abs=1e-3)


def test_what_nobody_has_done_is_no_success(topics, tmp_path):
    """Where the last of them dies when all others have left."""
    recipe = load_recipe(topics, ["variants=null", "strategy={type: full}", "seeds=2"])
    with pytest.raises(FinetuneError, match="2 runs have not been done; run the same command again"):
        run_study(recipe, tmp_path / "runs", by=lambda *_: None)
    assert runs_left(recipe, tmp_path / "runs", None) == 2 and runs_left(recipe, tmp_path / "runs", "full/1") == 1


def test_a_number_that_cannot_be_is_refused(topics, finetune, tmp_path):
    done = finetune(*RUN, "--devices", "1000")
    assert done.code == 2 and "--devices: is 1000, and this machine has no GPU" in done.text
    assert not (tmp_path / "runs").exists()
