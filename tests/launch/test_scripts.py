"""Batch scripts do what they say, whatever names they are given; srun and SLURM's other commands are stand-ins here."""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.core.errors import InputError
from finetune.core.run_dir import StudyDir, write_text
from finetune.launch.cluster import ClusterOptions
from finetune.launch.record import Group, Launch
from finetune.launch.scripts import gather_options, gather_script, task_options, task_script

GROUPS = (Group("lora", (0, 1)), Group("full", (2,)))
NASTY = [
    "a;touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "it's",
    'say "x"',
    "two\nlines",
    "*",
    "-n",
    "~",
    "a\\b",
    "%j",
]


def planned(study, *overrides, **options):
    command = ("run", "/a/recipe.yaml", *overrides, "--output", str(study.parent))
    return Launch(StudyDir(study), "slurm", "", command, "/", ClusterOptions(**options), GROUPS)


@pytest.fixture
def bash(tmp_path):
    """bash(launch, srun, ...) -> the running task 1 of its script, with a line of shell in the place of srun."""
    stubs = tmp_path / "stubs"

    def start(launch, srun, state="RUNNING", script=task_script):
        (launch.folder / "logs").mkdir(parents=True, exist_ok=True)
        for name, line in {
            "srun": srun,
            "scontrol": 'echo "scontrol $*"',
            "squeue": f'[[ "$*" = *"--jobs 70_1 "* ]] && echo {state}',
            "module": 'printf "%s\\0" "$@" >"$NOTES/module"',
        }.items():
            write_text(stubs / name, f"#!/bin/bash\n{line}\n")
            (stubs / name).chmod(0o755)
        write_text(launch.folder / "runs.sbatch", script(launch))
        environment = {**os.environ, "PATH": f"{stubs}:{os.environ['PATH']}", "NOTES": str(tmp_path)}
        environment |= {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_JOB_ID": "70", "SLURM_JOB_ID": "77"}
        command = ["bash", str(launch.folder / "runs.sbatch")]
        return subprocess.Popen(command, env=environment, cwd=stubs, stdout=subprocess.PIPE, text=True)

    return start


ARGUMENTS = 'printf "%s\\0" "$@" >"$NOTES/srun"; printf "%s\\0" "$VALUE" >"$NOTES/value"'


def noted(folder, name):
    return (folder / name).read_text().split("\0")[:-1]


@pytest.mark.parametrize("name", NASTY)
def test_no_name_is_taken_for_shell(bash, tmp_path, name):
    launch = planned(tmp_path / name / "topics", f"data.train.path={name}", modules=["m"], environment={"VALUE": name})
    process = bash(launch, ARGUMENTS)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0, said
    words = noted(tmp_path, "srun")
    assert words[words.index("run") :] == [*launch.command, "--only", "full/2"]
    assert noted(tmp_path, "value") == [name] and noted(tmp_path, "module") == ["load", "m"]
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize("name", [each for each in NASTY if each.isprintable()])
def test_no_option_of_the_cluster_file_is_taken_for_shell(bash, tmp_path, name):
    """Those that are one word each; `container` is several, which quotes join."""
    container = f"apptainer exec {shlex.quote(name)}"
    options = {"modules": [name], "python": name, "container": container, "partition": name, "account": name}
    launch = planned(tmp_path / "topics", **options)
    process = bash(launch, ARGUMENTS)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert noted(tmp_path, "module") == ["load", name]
    words = noted(tmp_path, "srun")
    assert words[words.index("apptainer") :][:6] == ["apptainer", "exec", name, name, "-m", "finetune"]
    assert {f"--partition={name}", f"--account={name}"} <= {*task_options(launch, [0])}
    shown = shlex.split(shlex.join(["sbatch", *task_options(launch, [0])]))  # as a dry run shows it, to be copied
    assert f"--partition={name}" in shown
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize("name", NASTY)
def test_the_script_that_gathers_takes_no_name_for_shell(tmp_path, name):
    python = tmp_path / "python"
    write_text(python, '#!/bin/bash\nprintf "%s\\0" "$@" >"$NOTES/gathered"\n')
    python.chmod(0o755)
    launch = planned(tmp_path / name / "topics", environment={"VALUE": name}, python=str(python))
    done = subprocess.run(
        ["bash", "-c", gather_script(launch)], env={**os.environ, "NOTES": str(tmp_path)}, cwd=tmp_path, timeout=20
    )
    assert done.returncode == 0
    assert noted(tmp_path, "gathered") == ["-m", "finetune", "status", str(launch.study.path), "--gather"]
    assert not list(tmp_path.rglob("pwned"))


def test_what_a_script_writes_is_not_for_all_to_write(bash, tmp_path):
    launch = planned(tmp_path / "topics")
    former = os.umask(0)
    try:
        bash(launch, 'touch "$NOTES/made"').communicate(timeout=20)
    finally:
        os.umask(former)
    assert (tmp_path / "made").stat().st_mode & 0o002 == 0


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
@settings(max_examples=60)
def test_any_text_stays_one_word(text):
    script = task_script(planned(Path("/a/b"), text, environment={"VALUE": text}))
    lines = script[: script.index("\nlimit=")] + '\nprintf "%s\\0" "${command[@]}" "$VALUE"'
    done = subprocess.run(["bash", "-c", lines], capture_output=True, env={}, cwd="/", check=True)
    assert done.stdout.decode().split("\0")[-5:-1] == [text, "--output", "/a", text]


def test_a_path_that_sbatch_would_rewrite_is_escaped_or_refused(tmp_path):
    assert f"--output={tmp_path}/100%%j/launch/logs/%a.log" in task_options(planned(tmp_path / "100%j"), [0])
    for name in ("a\\b", "a\nb"):
        with pytest.raises(InputError, match="SLURM needs a plainer path"):
            task_options(planned(tmp_path / name), [0])


def test_what_sbatch_is_told(tmp_path):
    launch = planned(tmp_path, partition="gpu;x", account="lab", gpus="a100:2", cpus=8, memory="32G", time="4:00:00")
    options = task_options(launch, [0, 1])
    assert {"--partition=gpu;x", "--account=lab", "--gres=gpu:a100:2", "--cpus-per-task=8", "--mem=32G"} <= {*options}
    assert {"--time=4:00:00", "--array=0,1", "--signal=B:USR1@60", "--open-mode=append", "--requeue"} <= {*options}
    gather = gather_options(launch, "12")
    assert "--dependency=afterany:12" in gather, "a gather that waits for success would never count what is missing"
    assert not any(option.startswith("--gres") for option in gather)


def test_secrets_of_the_shell_stay_out_of_scripts(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "hf_secret" not in task_script(planned(tmp_path)) + gather_script(planned(tmp_path))


@pytest.mark.parametrize(
    ("srun", "code", "queued"), [("exit 0", 0, False), ("exit 1", 1, False), ("exit 130", 130, True)]
)
def test_only_what_was_saved_and_left_is_queued_again(bash, tmp_path, srun, code, queued):
    process = bash(planned(tmp_path / "topics"), srun)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == code and ("scontrol requeue 70_1" in said) is queued


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize(("leaves", "code"), [("exit 130", 130), ("exit 1", 130), ("exit 0", 0)])
def test_a_signal_is_handed_on_as_often_as_it_comes(bash, tmp_path, number, leaves, code):
    """With exit 1, as torchrun says it, too; 0 says that all was done by then."""
    waiting = 'n=0; trap "n=\\$((n+1)); echo heard" USR1; touch $NOTES/up; while [ $n -lt 2 ]; do sleep 0.05; done;'
    process = bash(planned(tmp_path / "topics"), f"{waiting} {leaves}")
    for _ in range(2):
        while not (tmp_path / "up").exists():
            time.sleep(0.02)
        process.send_signal(number)
        time.sleep(0.4)
    said, _ = process.communicate(timeout=20)
    assert said.count("heard") == 2 and process.returncode == code
    assert ("scontrol requeue 70_1" in said) is (code != 0)


def test_what_was_cancelled_is_not_queued_again(bash, tmp_path):
    launch = planned(tmp_path / "topics")
    said, _ = bash(launch, "exit 130", state="COMPLETING").communicate(timeout=20)
    assert "SLURM has ended this job" in said and "requeue" not in said
    write_text(launch.cancelled, "")
    process = bash(launch, "exit 130")
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 130 and "cancelled; what was done is saved" in said and "requeue" not in said


@pytest.mark.parametrize("saves", [False, True])
def test_a_time_limit_within_which_nothing_is_saved_ends_it(bash, tmp_path, saves):
    """Whether a run has come further its folder says, and never how often SLURM has started it."""
    launch = planned(tmp_path / "topics", time=3)
    folder = launch.study.run("full", 2).checkpoints
    folder.mkdir(parents=True)
    write_text(folder / "step-1", "")
    script = lambda launch: task_script(launch).replace("limit=60", "limit=0")  # noqa: E731
    assert "limit=60" in task_script(launch) and "RESTART" not in task_script(launch)
    step = f"sleep 0.02; touch {shlex.quote(str(folder / 'step-2'))};" if saves else ""
    process = bash(launch, f"{step} exit 130", script=script)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == (130 if saves else 1) and ("requeue" in said) is saves
    assert ("nothing was saved within the time limit" in said) is not saves


def test_setup_that_fails_ends_the_task_before_its_runs(bash, tmp_path):
    process = bash(planned(tmp_path / "topics", setup=["false"]), "touch $NOTES/ran")
    process.communicate(timeout=20)
    assert process.returncode == 1 and not (tmp_path / "ran").exists()


def test_nodes_that_share_a_run_meet_by_torchrun(bash, tmp_path):
    process = bash(planned(tmp_path / "topics", nodes=2, processes=4, cpus=8), ARGUMENTS)
    process.communicate(timeout=20)
    words = noted(tmp_path, "srun")
    assert words[:4] == ["--ntasks=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1", "--cpus-per-task=8"]
    assert {"torch.distributed.run", "--nnodes=2", "--nproc-per-node=4", "--rdzv-backend=c10d", "--rdzv-id=77"} <= {
        *words
    }
    assert any(word.startswith("--rdzv-endpoint=") and word.endswith(":20077") for word in words)
    assert words[-2:] == ["--only", "full/2"]
    assert "export PET_SIGNALS_TO_HANDLE=SIGTERM," in task_script(planned(tmp_path / "topics", processes=2))
