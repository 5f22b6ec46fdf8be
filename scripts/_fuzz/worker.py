"""Does one case after the other within bounds of time and memory, and judges what came of each."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import io
import os
import re
import resource
import signal
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

SECONDS, WAIT, BYTES = 20, 180, 2 << 30
"""What one case may take: of the processor's time, of time altogether, which says little on a busy machine, and of
memory beyond what the process has before it begins."""

SWEPT = 200
"""Cases after which what they have left in memory is looked for."""

ACCEPTED, REFUSED = "accepted", "refused"
TRACEBACK, UNCLEAR, RAW, WROTE, HANG, DIED = "traceback", "unclear", "raw", "wrote", "hang", "died"
FAILURES = {
    TRACEBACK: "ended in a traceback",
    UNCLEAR: "refused without saying what or where",
    RAW: "sent control characters to the terminal",
    WROTE: "left files behind",
    HANG: "took longer than it may",
    DIED: "ended the process",
}

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_UNCLEAR = re.compile(
    r"(?:^|: )[\w.]*(?:Error|Exception|Interrupt|Iteration)$|^(?:\S+: )*(?:'[^']*'|\d+|None|)$"
    r"|object at 0x|NoneType|has no attribute|not subscriptable|not iterable|unexpected keyword|positional argument"
    r"|<class |unhashable|list index|__\w+__\(|not supported between|unsupported operand|name '\w+' is not defined"
)
"""Messages that are an exception's name alone, or Python's words for our own mistakes."""


class Outcome(NamedTuple):
    """What came of a case."""

    result: str
    detail: str = ""


def work(connection: Any, scratch: Path, seed: int) -> None:
    """Take cases from ``connection``, by kind and number, and give their outcomes."""
    os.environ.update(FINETUNE_CACHE="", COLUMNS="100000", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    os.environ.update(
        HF_HOME=str(scratch / "hub"), TMPDIR=str(scratch), HF_DATASETS_DISABLE_PROGRESS_BARS="1", TQDM_DISABLE="1"
    )
    tempfile.tempdir = str(scratch)
    import datasets  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401

    from scripts._fuzz.cases import make
    from scripts._fuzz.material import gather

    material = gather(scratch / "models")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stacks = open(scratch / f"stack-{os.getpid()}", "w+")  # noqa: SIM115  for the life of the process
    faulthandler.enable(stacks)
    faulthandler.register(signal.SIGPROF, stacks, chain=True)  # which ends the process then
    connection.send((f"stack-{os.getpid()}", {}))
    for number in count(1):
        if (asked := connection.recv()) is None:
            break
        if not number % SWEPT:
            gc.unfreeze()  # a command freezes what it leaves, being the only one of its process
            gc.collect()
        case = make(*asked, seed, material)
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            case.write(Path(folder))
            faulthandler.dump_traceback_later(WAIT, exit=True, file=stacks)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            with _bounded_memory():
                outcome = run(case.command, Path(folder))
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.cancel_dump_traceback_later()
            if outcome.result in (ACCEPTED, REFUSED) and (left := _left(Path(folder), set(case.files))):
                outcome = Outcome(WROTE, ", ".join(left))
        connection.send((case.group, outcome))


def run(command: list[str], folder: Path) -> Outcome:
    """Call `finetune` with ``command`` in ``folder``."""
    from finetune.cli import main

    out, err = io.StringIO(), io.StringIO()
    before, nothing = Path.cwd(), open(os.devnull)  # noqa: SIM115
    os.chdir(folder)
    try:
        with nothing, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code: Any = main(command)
            except SystemExit as end:
                code = end.code
    except BaseException as error:  # it should have become a message within
        return Outcome(TRACEBACK, f"{type(error).__name__} came out of the command: {error}"[:300])
    finally:
        os.chdir(before)
    return judged(code, out.getvalue(), err.getvalue())


def judged(code: Any, out: str, err: str) -> Outcome:
    """What exit code and output say."""
    if "Traceback (most recent call last)" in err:
        lines = err.strip().splitlines()
        ours = [line.strip() for line in lines if "finetune/" in line and line.lstrip().startswith("File")]
        return Outcome(TRACEBACK, f"{lines[-1][:300]} | {ours[-1].rpartition('finetune/')[2] if ours else ''}")
    if found := _CONTROL.search(out + err):
        around = (out + err)[max(0, found.start() - 60) : found.end() + 20]
        return Outcome(RAW, ascii(around))
    if code == 0:
        return Outcome(ACCEPTED)
    said = [line for line in err.split("\n") if line and not line.startswith(("checking ", "reading ", " "))]
    problems = [line for line in said if not line.endswith("nothing was started")]
    if code != 2 or not problems:
        return Outcome(UNCLEAR, f"exit code {code}: {' / '.join(said)[:300]}")
    if wrong := next((line for line in problems if _UNCLEAR.search(line)), None):
        return Outcome(UNCLEAR, wrong[:400])
    return Outcome(REFUSED)


def _left(folder: Path, files: set[str]) -> list[str]:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    return sorted(found - files)


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """Let the process have no more memory than it has now and what a case may take."""
    status = Path("/proc/self/status")
    held = re.search(r"VmData:\s+(\d+) kB", status.read_text()) if status.exists() else None
    former = resource.getrlimit(resource.RLIMIT_DATA)
    if held:
        resource.setrlimit(resource.RLIMIT_DATA, ((int(held[1]) << 10) + BYTES, former[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, former)
