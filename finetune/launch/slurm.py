"""SLURM, by its own commands: what it says of jobs it says itself, so that no accounting daemon is needed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune.core.errors import FinetuneError, InputError, Problem, bad_input, did_you_mean
from finetune.core.run_dir import write_text
from finetune.launch.cluster import Cluster, ClusterOptions
from finetune.launch.launcher import Task
from finetune.launch.record import Launch
from finetune.launch.scripts import gather_options, gather_script, placed, task_options, task_script

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe

PROBE = 20
"""Seconds in which a free node is looked for, to see whether it has the study's folder."""

RUNNING = ("RUNNING", "CONFIGURING", "COMPLETING", "STAGE_OUT")
"""What SLURM calls jobs that have a node."""

BLAMED = (
    ("account", "account"),
    ("qos", "qos"),
    ("generic resource|gres|gpu", "gpus"),
    ("time limit", "time"),
    ("memory", "memory"),
    ("node configuration is not available|node count", "gpus"),
    ("node configuration is not available|processors|cpu", "cpus"),
    ("node configuration is not available|memory", "memory"),
    ("node configuration is not available|node count", "nodes"),
    ("partition", "partition"),
)
"""What a refusal of SLURM's is about, and which option that is, the likeliest first."""


class Slurm:
    """The cluster of this machine's SLURM."""

    name = "slurm"
    obeys = frozenset(ClusterOptions.model_fields) - {"kubernetes"}
    resubmits = True

    def unfit(self, recipe: ResolvedRecipe, launch: Launch, cluster: Cluster) -> list[Problem]:
        """Find nothing: SLURM is asked."""
        return []

    def dry_run(self, launch: Launch, groups: Sequence[int]) -> str:
        """Show the scripts, and what would be submitted."""
        array = ["sbatch", *task_options(launch, groups), str(launch.folder / "runs.sbatch")]
        gather = ["sbatch", *gather_options(launch, "ARRAY"), str(launch.folder / "gather.sbatch")]
        parts = [f"$ {shlex.join(array)}", task_script(launch), f"$ {shlex.join(gather)}", gather_script(launch)]
        return "\n".join(parts)

    def check(self, launch: Launch, cluster: Cluster) -> list[str]:
        """Ask SLURM whether it would take the jobs, and a node whether it has the study's folder. Gives what could not
        be found out; raises InputError, with SLURM's own words, for what it refuses."""
        if shutil.which("sbatch") is None:
            raise bad_input("--on", "is slurm, and there is no sbatch here", "launch where jobs are submitted")
        options = task_options(launch, range(len(launch.groups)))
        done = _run(["sbatch", "--test-only", *options, "--wrap=true"])
        if done.returncode:
            raise _refused(cluster, done.stderr)
        return self._probe(launch, cluster)

    def _probe(self, launch: Launch, cluster: Cluster) -> list[str]:
        token = launch.folder / f"probe-{uuid.uuid4().hex}"
        write_text(token, "")
        look = ["sh", "-c", 'test -e "$1" && echo there || echo "away on $(hostname)"', "sh", str(token)]
        asked = [*placed(cluster.options), f"--job-name={launch.study.path.name}-probe", "--time=1", "--input=none"]
        try:
            done = _run(["srun", *asked, "--nodes=1-64", "--ntasks-per-node=1", f"--immediate={PROBE}", *look])
        finally:
            token.unlink()
        said = done.stdout.splitlines()
        if away := [line for line in said if line.startswith("away")]:
            found = f"{launch.study.path} is not the same folder here and {away[0][5:]}, a node of this cluster"
            raise bad_input("--output", found, "name a folder that all nodes share")
        if "there" in said:
            return []
        why = _words(done.stderr) or "no node was free"
        return [f"whether nodes share {launch.study.path} could not be found out: {why}"]

    def submit(self, launch: Launch, groups: Sequence[int]) -> Launch:
        """Submit the array for some groups, and the job that gathers."""
        write_text(launch.folder / "runs.sbatch", task_script(launch))
        write_text(launch.folder / "gather.sbatch", gather_script(launch))
        launch.log(0).parent.mkdir(parents=True, exist_ok=True)
        array = self._sbatch(launch, task_options(launch, groups), "runs.sbatch")
        try:
            gather = self._sbatch(launch, gather_options(launch, array), "gather.sbatch")
        except FinetuneError:
            _run(["scancel", array])
            raise
        return launch.submitted(groups, {"array": array, "gather": gather})

    def _sbatch(self, launch: Launch, options: Sequence[str], script: str) -> str:
        command = ["sbatch", "--parsable", f"--chdir={launch.cwd}", *options, str(launch.folder / script)]
        done = _run(command)
        if done.returncode:
            raise FinetuneError(f"sbatch refuses {script}: {_words(done.stderr)}")
        return done.stdout.strip().partition(";")[0]  # what follows is the cluster's name

    def describe(self, launch: Launch) -> str:
        """Say in words under which numbers it was submitted."""
        facts = launch.submissions[-1].facts
        return f"job {facts['array']} (gathered by {facts['gather']})"

    def tasks(self, launch: Launch) -> dict[int, Task]:
        """Find the groups that have a task in the queue."""
        arrays = {each.facts["array"] for each in launch.submissions}
        return {int(index): task for (job, index), task in _queue().items() if job in arrays and index.isdecimal()}

    def at_work(self, launch: Launch) -> bool:
        """Tell whether any job of the launch is in the queue."""
        return any(job in _jobs(launch) for job, _ in _queue())

    def said(self, launch: Launch, group: int) -> str:
        """Give nothing: SLURM writes logs from the first word on."""
        return ""

    def cancel(self, launch: Launch) -> None:
        """End all jobs of the launch; runs under way are asked to save and leave."""
        if jobs := [job for job in _jobs(launch) if job in {job for job, _ in _queue()}]:
            done = _run(["scancel", *jobs])
            if done.returncode:
                raise FinetuneError(f"scancel: {_words(done.stderr)}")


def _jobs(launch: Launch) -> list[str]:
    return [job for each in launch.submissions for job in (each.facts["array"], each.facts["gather"])]


def _queue() -> dict[tuple[str, str], Task]:
    """List one's own jobs in the queue, by the number of the job, or of the array, and of the task in it."""
    done = _run(["squeue", "--me", "--noheader", "--array", "--format=%A|%F|%K|%T|%N|%r"])
    if done.returncode:
        raise FinetuneError(f"squeue: {_words(done.stderr)}")
    found = {}
    for line in done.stdout.splitlines():
        job, array, index, state, where, why = line.split("|", 5)
        running = state in RUNNING
        found[array or job, index] = Task("running" if running else "waiting", where if running else "", why)
    return found


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of SLURM's without the variables of a job that we may be in, which it would take for options."""
    environment = {
        name: value for name, value in os.environ.items() if name == "SLURM_CONF" or not name.startswith("SLURM_")
    }
    how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace"}
    try:
        return subprocess.run(list(command), env=environment, **how)
    except FileNotFoundError:
        raise FinetuneError(f"there is no {command[0]} on {socket.gethostname()}") from None


def _words(said: str) -> str:
    """What SLURM says, on one line and without the names of its programs."""
    lines = [re.sub(r"^\w+: (?:error: )?", "", line).strip() for line in said.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))


def _refused(cluster: Cluster, said: str) -> InputError:
    """Give SLURM's refusal as an error of the option that it is about, with what there is to choose from."""
    words, options = _words(said), cluster.options
    named = [option for pattern, option in BLAMED if re.search(pattern, words, re.IGNORECASE)]
    written = [option for option in named if option in options.model_fields_set]
    found = f"SLURM refuses it: {words}"
    if not written:
        return bad_input(None, found)
    option = written[0]
    return cluster.wrong(option, found, _choices(option, str(getattr(options, option))))


def _choices(option: str, said: str) -> str:
    """Say what the cluster has of what was asked for."""
    columns = {"partition": "%R", "gpus": "%R %G", "cpus": "%R %c", "memory": "%R %mM", "time": "%R %l"}
    if option not in columns:
        return ""
    rows = sorted({*_run(["sinfo", "--noheader", f"--format={columns[option]}"]).stdout.splitlines()})
    return did_you_mean(said, rows) if option == "partition" else f"by partition: {', '.join(rows)}"
