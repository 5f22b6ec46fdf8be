"""Batch scripts for SLURM. Whatever comes from a person is one word of the shell, quoted by `shlex`, but for the lines
of `setup`, which are meant to be shell; what sbatch itself is told goes without a shell, as a list of arguments."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from finetune.core.errors import bad_input
from finetune.launch.cluster import LEAD, ClusterOptions, torchrun_settings
from finetune.launch.record import Launch

TASK = r"""
only=${groups[$SLURM_ARRAY_TASK_ID]}
begun=$study/launch/begun-$SLURM_ARRAY_TASK_ID
task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID  # one task has the number of the whole array for its own
echo "== $only on $(hostname), job $SLURM_JOB_ID, $(date '+%F %T')"
touch "$begun"

# A signal asks the runs to save and leave, however often it comes. srun hands on SIGUSR1; of SIGTERM it kills them.
asked= signalled= worker=
hand_on() {
    asked=yes signalled=yes
    if [ -n "$worker" ]; then kill -USR1 "$worker"; fi
}
trap hand_on USR1 TERM

# Whether anything was saved since this task began, as the run folders say it.
saved() {
    local places=("$study/stages") seeds=${only#*/} seed
    for seed in ${seeds//,/ }; do places+=("$study/${only%%/*}/seed-$seed"); done
    local found=(-newer "$begun" "(" -path "*/checkpoints/*" -o -name result.json ")" -print -quit)
    [ -n "$(find "${places[@]}" "${found[@]}" 2>/dev/null)" ]
}

"${command[@]}" --only "$only" &
worker=$!
if [ -n "$asked" ]; then kill -USR1 "$worker"; fi
while  # a signal ends the waiting, and not the runs
    signalled=
    wait "$worker"
    code=$?
    [ -n "$signalled" ]
do :; done

# 130 says: saved and left. Under torchrun it is lost, so that whoever was asked and is not done has left, too.
if [ "$code" -eq 130 ] || { [ -n "$asked" ] && [ "$code" -ne 0 ]; }; then
    if [ -e "$study/launch/cancelled" ]; then
        echo "== $only: cancelled; what was done is saved"
    elif [ "$(squeue --noheader --jobs "$task" --format %T)" != RUNNING ]; then
        # By scancel, which is to last; or it has been pre-empted, and SLURM itself has queued it again.
        echo "== $only: SLURM has ended this job; what was done is saved"
    elif [ "$SECONDS" -ge "$limit" ] && ! saved; then
        echo "== $only: nothing was saved within the time limit; say a longer time in the cluster file"
        exit 1
    else
        echo "== $only: saved and left after $SECONDS s; it goes on in another turn"
        scontrol requeue "$task"
    fi
    exit 130  # whatever becomes of the job: 0 would say that its runs are done
fi
rm -f "$begun"
exit "$code"
"""
"""What a task does with `study`, `groups`, `command` and `limit`, the seconds after which its time is up."""

SHELL = "#!/bin/bash"

FOREVER = 10**9
"""Seconds that no task lasts: where no time limit is known, none is told from a pre-emption."""


def task_script(launch: Launch) -> str:
    """Write what a task of the array runs."""
    options = launch.cluster
    limit = FOREVER if options.minutes is None else int(options.minutes * 60) - 2 * LEAD
    said = [
        "# Does one group of a study's runs: task N of the array does group N. Written by `finetune launch`.",
        *_preamble(options),
        f"study={shlex.quote(str(launch.study.path))}",
        f"groups=({shlex.join(group.only for group in launch.groups)})",
        f"command=({_command(launch)})",
        f"limit={limit}",
    ]
    return "\n".join([SHELL, *said]) + TASK


def gather_script(launch: Launch) -> str:
    """Write what the job runs that depends on all tasks."""
    words = [*python_of(launch.cluster), "status", str(launch.study.path), "--gather"]
    about = "# Counts results, writes the report, and submits again what is missing. Written by `finetune launch`."
    return "\n".join([SHELL, about, *_preamble(launch.cluster), f"exec {shlex.join(words)}", ""])


def python_of(options: ClusterOptions) -> list[str]:
    """Give the words that start `finetune` where a task runs."""
    return [*shlex.split(options.container or ""), options.python or sys.executable, "-m", "finetune"]


def _preamble(options: ClusterOptions) -> list[str]:
    """List the lines that come before the runs; whatever fails in them ends the task."""
    lines = ["umask o-w", "export PYTHONUNBUFFERED=1"]  # so that logs can be read as they grow
    lines += [f"export {name}={shlex.quote(value)}" for name, value in options.environment.items()]
    if options.cpus and "OMP_NUM_THREADS" not in options.environment:  # cores of others can be seen, too
        lines.append(f"export OMP_NUM_THREADS={options.cpus}")
    if options.nodes * options.processes > 1:
        lines += [f"export {name}={value}" for name, value in torchrun_settings(LEAD).items()]
    lines += [f"module load {shlex.quote(module)}" for module in options.modules]
    lines += options.setup
    return ["set -e", *lines, "set +e"]


def _command(launch: Launch) -> str:
    """Write the words that do runs by srun; where several processes share a run, srun starts torchrun on each node."""
    options = launch.cluster
    srun = ["srun", f"--ntasks={options.nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    srun += [f"--cpus-per-task={options.cpus}"] if options.cpus else []
    words, own = python_of(options), launch.command
    if options.nodes * options.processes == 1:
        return shlex.join([*srun, *words, *own])
    torchrun = [*words[:-1], "torch.distributed.run", f"--nnodes={options.nodes}"]
    torchrun += [f"--nproc-per-node={options.processes}", "--rdzv-backend=c10d"]
    # The batch script runs on the first node. Jobs that share a node have other numbers, and so other ports.
    meeting = '"--rdzv-id=$SLURM_JOB_ID" "--rdzv-endpoint=$(hostname):$((20000 + SLURM_JOB_ID % 20000))"'
    return f"{shlex.join([*srun, *torchrun])} {meeting} {shlex.join(['-m', 'finetune', *own])}"


def task_options(launch: Launch, groups: Sequence[int]) -> list[str]:
    """List what sbatch is told of the array that does some groups."""
    options = launch.cluster
    return [
        f"--job-name={launch.study.path.name}",
        *placed(options),
        *resources(options),
        f"--array={','.join(map(str, groups))}",
        f"--signal=B:USR1@{LEAD}",
        *_log(launch, "%a"),
    ]


def gather_options(launch: Launch, array: str) -> list[str]:
    """List what sbatch is told of the job that gathers; it goes on whatever became of the tasks, and counts."""
    name = f"--job-name={launch.study.path.name}-gather"
    return [name, *placed(launch.cluster), f"--dependency=afterany:{array}", *_log(launch, "gather")]


def placed(options: ClusterOptions) -> list[str]:
    """List what says where any job of the study may run, and who pays."""
    said = {"partition": options.partition, "account": options.account, "qos": options.qos}
    return [f"--{name}={value}" for name, value in said.items() if value is not None]


def resources(options: ClusterOptions) -> list[str]:
    """List what each task asks for."""
    said = {"cpus-per-task": options.cpus, "mem": options.memory and options.memory.rstrip("i"), "time": options.time}
    gpus = [] if options.gpus is None else [f"--gres=gpu:{options.gpus}"]
    nodes = [f"--nodes={options.nodes}", "--ntasks-per-node=1"]
    return [*nodes, *gpus, *(f"--{name}={value}" for name, value in said.items() if value is not None)]


def _log(launch: Launch, name: str) -> list[str]:
    """Say where a job's output goes: behind what a former turn has said. In a path sbatch replaces `%`, unless it is
    doubled, and takes a backslash for the end of that."""
    folder = str(launch.folder / "logs")
    if "\\" in folder or not folder.isprintable():
        raise bad_input("--output", f"{folder!r} has a backslash or a line break in it", "SLURM needs a plainer path")
    return [f"--output={folder.replace('%', '%%')}/{name}.log", "--open-mode=append", "--requeue"]
