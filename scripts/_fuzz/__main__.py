"""Give `finetune` recipes and data files that were broken at random, and count what comes of them: each is accepted, or
refused with what is wrong and where. Ends with 1 where one is not."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts._fuzz import page
from scripts._fuzz.worker import ACCEPTED, DIED, FAILURES, HANG, REFUSED, WAIT, Outcome, work

Asked = tuple[str, int]
Found = dict[Asked, tuple[str, Outcome]]


class Worker:
    """A process that does cases; where one has ended it, the next gets a new one."""

    def __init__(self, scratch: Path, seed: int):
        self.scratch, self.seed = scratch, seed
        self.context = multiprocessing.get_context("spawn")
        self.process: Any = None

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.connection, theirs = self.context.Pipe()
        self.process = self.context.Process(target=work, args=(theirs, self.scratch, self.seed), daemon=True)
        self.process.start()
        theirs.close()
        self.stack = self.scratch / self.connection.recv()[0]

    def do(self, asked: Asked) -> tuple[str, Outcome]:
        """Give the group and the outcome of one case."""
        if self.process is None:
            self.start()
        self.connection.send(asked)
        try:
            if self.connection.poll(WAIT + 60):
                return self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join(5)
        self.process.join(0.1)
        code = self.process.exitcode
        stack = self.stack.read_text(errors="replace").split("\n") if self.stack.exists() else []
        ours = next((line.strip() for line in stack if "/finetune/" in line), "")
        self.process.kill()
        self.process = None
        return "", Outcome(
            HANG if code in (None, 1, -signal.SIGPROF) else DIED, f"code {code} | {ours.rpartition('finetune/')[2]}"
        )

    def end(self) -> None:
        """Send it home."""
        if self.process is not None:
            self.connection.send(None)
            self.process.join(20)


def run(cases: list[Asked], seed: int, workers: int, minutes: float | None) -> Found:
    """Do ``cases`` until the time is up; says each failure when it is found."""
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    found, lock, begun = Found(), threading.Lock(), time.monotonic()
    waiting = iter(cases)

    def next_cases() -> Iterator[Asked]:
        while not minutes or time.monotonic() - begun < 60 * minutes:
            with lock:
                asked = next(waiting, None)
            if asked is None:
                return
            yield asked

    def keep_busy() -> None:
        worker = Worker(scratch, seed)
        for asked in next_cases():
            group, outcome = worker.do(asked)
            with lock:
                found[asked] = group, outcome
                if outcome.result in FAILURES:
                    print(f"! {asked[0]}:{asked[1]} ({group}): {outcome.result}: {outcome.detail}", flush=True)
                if len(found) % 500 == 0:
                    print(f"{len(found)}/{len(cases)} · {time.monotonic() - begun:.0f} s", flush=True)
        worker.end()

    with tempfile.TemporaryDirectory(prefix="finetune-fuzz-") as folder:
        scratch = Path(folder)
        from scripts._fuzz.material import save_models

        save_models(scratch / "models")
        threads = [threading.Thread(target=keep_busy) for _ in range(workers)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    return found


def asked_for(options: argparse.Namespace) -> list[Asked]:
    """List the cases, those of both kinds in turn, so that a short time sees some of each."""
    if options.only:
        return [(kind, int(number)) for kind, _, number in (each.partition(":") for each in options.only)]
    counts = {"recipes": options.recipes, "data": options.data}
    every = [(number / count, kind, number) for kind, count in counts.items() for number in range(count)]
    return [(kind, number) for _, kind, number in sorted(every)]


def show(asked: Asked, seed: int, folder: Path) -> None:
    """Write the files of a case, and say how to do it by hand."""
    from scripts._fuzz.cases import make
    from scripts._fuzz.material import gather, save_models

    save_models(folder / "models")
    case = make(*asked, seed, gather(folder / "models"))
    case.write(folder)
    print(f"cd {folder}; finetune {' '.join(map(repr, case.command))}")


def main() -> int:
    """Returns 0 where nothing failed, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--recipes", type=int, default=10_000, help="how many broken recipes and cluster files")
    parser.add_argument("--data", type=int, default=2_000, help="how many broken data files")
    parser.add_argument("--seed", type=int, default=0, help="what cases are drawn from")
    parser.add_argument("--minutes", type=float, help="begin nothing new after so many")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    parser.add_argument("--only", nargs="+", metavar="KIND:NUMBER", help="these cases alone, as in data:17")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="write the files of the first of --only there")
    parser.add_argument("--write", action="store_true", help=f"write the counts into {page.PATH.name}")
    options = parser.parse_args()
    if options.into:
        show(asked_for(options)[0], options.seed, options.into)
        return 0
    begun = time.monotonic()
    found = run(asked_for(options), options.seed, options.workers, options.minutes)
    counts = Counter(outcome.result for _, outcome in found.values())
    failures = sum(counts[each] for each in FAILURES)
    told = [f"{counts[each]:,} {each}" for each in (ACCEPTED, REFUSED)]
    told += [f"{counts[each]} {words}" for each, words in FAILURES.items()]
    print(page.table(found, options.seed))
    print(f"{len(found):,} cases in {time.monotonic() - begun:.0f} s: {', '.join(told)}")
    if options.write:
        page.write(found, options.seed)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
