"""A real SLURM on this machine, for tests that are root's: munged, slurmctld and one slurmd for each node, which end
with whoever has started them, however that ends. Everything is in one folder; /etc is not touched.

`python -m tests.launch.real_slurm` keeps one up until Ctrl-C, to try things by hand.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
PACKAGES = "slurmctld slurmd slurm-client munge"
"""Debian's."""

CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
# Nothing that needs the system's own services; and no accounting daemon, which we are not to need.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
ReturnToService=2
BatchStartTimeout=1
MessageTimeout=10
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=100000
EnforcePartLimits=ALL
# Jobs of `urgent` take the nodes of others, which are told, have ten seconds, and are queued again.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait=10
GresTypes=gpu
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=2 RealMemory=8000 Gres=gpu:1
PartitionName=usual Nodes=ALL Default=YES MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=urgent Nodes=ALL MaxTime=60 PriorityTier=10 PreemptMode=OFF
PartitionName=lonely Nodes=n{nodes} MaxTime=60 PriorityTier=1 PreemptMode=OFF
"""
"""The last node has a folder `hidden` of its own where the others share one."""


class RealSlurm:
    """The running cluster."""

    def __init__(self, nodes: int = 3):
        self.nodes = nodes
        self.slurmds: dict[int, subprocess.Popen[bytes]] = {}
        """The daemons of the nodes."""
        self.forgives = 12.0
        """Seconds (both of its timeouts, and one) for which SLURM takes a job that a node does not have for one that is
        about to start there. A node that comes back earlier is believed to run it, for minutes, until it is asked
        again."""

    def __enter__(self) -> RealSlurm:
        if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
            raise RuntimeError(f"{', '.join(missing)} not found: apt-get install {PACKAGES}")
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
            self.hidden = self.folder / "hidden"
            self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
            self._write()
            munge = self.folder / "munge"
            words = ["munged", "--foreground", f"--key-file={munge}/key", f"--socket={munge}/socket"]
            words += [f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"]
            self._start(stack, "--reuid=munge", "--regid=munge", "--clear-groups", *words)
            self._wait(lambda: (munge / "socket").exists())
            self._start(stack, "slurmctld", "-D", "-c")
            for number in range(1, self.nodes + 1):
                self._start_node(stack, number)
            self._wait(lambda: self.said("sinfo", "-h", "-p", "usual", "-t", "idle", "-o", "%D") == str(self.nodes))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def said(self, *command: str) -> str:
        """Give what one of its commands says."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def start_requeued(self) -> None:
        """Let jobs that were queued again start now: SLURM would have them wait for two minutes."""
        for line in self.said("squeue", "-h", "-r", "-t", "PD", "-o", "%A %r").splitlines():
            job, why = line.split(maxsplit=1)
            if why == "BeginTime":
                self.said("scontrol", "update", f"JobId={job}", "StartTime=now")

    def restart(self, number: int) -> None:
        """Start the daemon of a node, from 1, whose former one is dead."""
        self.slurmds[number].wait()
        self._start_node(self._stack, number)

    def _start_node(self, stack: ExitStack, number: int) -> None:
        slurmd = ["slurmd", "-D", "-N", f"n{number}"]
        if number == self.nodes:  # in a view of the file system in which something else lies over `hidden`
            mounting = 'mount -t tmpfs none "$0" && exec "$@"'
            slurmd = ["unshare", "--mount", "sh", "-c", mounting, str(self.hidden), *slurmd]
        self.slurmds[number] = self._start(stack, *slurmd)

    def _write(self) -> None:
        for name in ("state", "munge", "hidden", *(f"spool-n{number}" for number in range(1, self.nodes + 1))):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        for path in (key, key.parent):
            shutil.chown(path, "munge", "munge")
        key.parent.chmod(0o755)
        port = _free_ports(self.nodes + 1)
        values = {"port": port, "first": port + 1, "last": port + self.nodes, "nodes": self.nodes}
        host = socket.gethostname().partition(".")[0]
        text = CONFIGURATION.format(host=host, folder=self.folder, **values)
        (self.folder / "slurm.conf").write_text(text)
        # Any character device does for a GPU that nobody looks at.
        (self.folder / "gres.conf").write_text(f"NodeName=n[1-{self.nodes}] Name=gpu File=/dev/zero\n")
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")

    def _start(self, stack: ExitStack, *words: str) -> subprocess.Popen[bytes]:
        with open(self.folder / "daemons.log", "ab") as log:
            command = ["setpriv", "--pdeathsig=TERM", *words]
            process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        stack.callback(_end, process)
        return process

    def _wait(self, condition) -> None:
        ends = time.monotonic() + 60
        while not condition():
            if time.monotonic() > ends:
                raise RuntimeError("SLURM does not start:\n" + (self.folder / "daemons.log").read_text())
            time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> int:
    """Find so many ports in a row that nobody uses; give the first."""
    for first in range(17000, 19000, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for number, each in enumerate(sockets):
                each.bind(("127.0.0.1", first + number))
            return first
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
    raise RuntimeError("no ports are free")


if __name__ == "__main__":
    with RealSlurm() as slurm:
        print(f"export SLURM_CONF={slurm.environment['SLURM_CONF']}", flush=True)
        try:
            while True:
                time.sleep(60)
        except KeyboardInterrupt:
            print("ending")
