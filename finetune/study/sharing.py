"""Several processes at work on one study: each run is one process's at a time, and so is what all runs share.

A claim is a lock of the system on a file in the study's folder, and a lease beside it. The lock ends with its process,
however that ends, but between machines many file systems have none, or lock each machine for itself. The lease is a
file that its holder touches: whoever sees it untouched for :data:`LEASE` seconds of its own clock takes it over. One
that was away for so long stops when it is back; what both did by then is the same, by the seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from finetune.core.errors import Interrupted, bad_input, did_you_mean
from finetune.core.locks import locked
from finetune.core.run_dir import FINAL, StudyDir
from finetune.core.runtime import Runtime

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe, Variant


@dataclass(frozen=True)
class Asked:
    """The runs of a study that one call is to do: all, one variant's, or those of some of its seeds."""

    variant: str | None = None
    seeds: frozenset[int] | None = None

    @classmethod
    def of(cls, recipe: ResolvedRecipe, only: str | None) -> Asked:
        """Read `VARIANT`, `VARIANT/SEED` or `VARIANT/SEED,SEED`; None asks for all. Raises InputError for what the
        recipe has not."""
        if only is None:
            return cls()
        at, names = "--only", [variant.name for variant in recipe.variants]
        name, slash, said = only.partition("/")
        if recipe.until is not None:
            raise bad_input(at, "is for seeds that are named, and here a rule adds them", "write seeds: 5, say")
        if name not in names:
            raise bad_input(at, f"is '{only}', and there is no variant '{name}'", did_you_mean(name, names))
        if not slash:
            return cls(name)
        known = {str(seed): seed for seed in recipe.seeds}
        for seed in said.split(","):
            if seed not in known:
                raise bad_input(at, f"is '{only}', and there is no seed '{seed}'", f"choose from: {', '.join(known)}")
        return cls(name, frozenset(known[seed] for seed in said.split(",")))

    def for_run(self, variant: str, seed: int | None) -> bool:
        """Tell whether a run is asked for."""
        return self.variant in (None, variant) and (self.seeds is None or seed in self.seeds)


@dataclass(frozen=True)
class Helper:
    """The part of a process that another one has started, beside others, to do a study's runs."""

    number: int
    at_once: int
    """Runs that it does side by side, at most."""

    def order(self, variants: Sequence[Variant]) -> Sequence[Variant]:
        """Give the variants as this process looks through them: each begins with another, so that few meet."""
        first = self.number % len(variants)
        return [*variants[first:], *variants[:first]]


WAIT = 1.0
"""Seconds between two looks at what another process has."""

LOCKS = ".locks"
"""The folder of claims inside a study's."""

LEASE = 120.0
"""Seconds after which a claim of another machine's process that does not renew it is over."""

NO_CLAIMS = "this folder takes no locks and no leases: only one process may work at this study"


class Claims:
    """What this process has claimed of a study. Of processes that train one run together the first one claims for
    all."""

    def __init__(self, folder: Path, runtime: Runtime):
        self._folder, self._runtime = folder / LOCKS, runtime
        self._held: dict[str, list[BaseFileLock]] = {}
        self._leases: dict[str, SoftFileLease] = {}
        """Those asked for so far, each of which remembers for how long it has seen another's untouched."""
        self._works = True

    def take(self, name: str) -> bool:
        """Claim what is called ``name``, if no other process has it; tell whether it is ours, as all ranks see it."""
        own = self._take(name) if self._runtime.accelerator.is_main_process else False
        return bool(self._runtime.broadcast(own))

    def _take(self, name: str) -> bool:
        if name in self._held or not self._works:
            return True
        held: list[BaseFileLock] = []
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._folder / f"{name}.lock", timeout=0, fallback_to_soft=False)
            if locked(lock):
                held.append(lock)
            lease = self._leases.setdefault(name, self._lease(name))
            lease.acquire()
            held.append(lease)
        except Timeout:
            _release(held)
            return False
        except OSError:
            _release(held)
            self._works = False
            self._runtime.progress.say(NO_CLAIMS)
            return True
        self._held[name] = held
        return True

    def _lease(self, name: str) -> SoftFileLease:
        def lost(_: object) -> None:
            self._runtime.progress.say(
                f"{name}: another process has taken it over, because this one did not renew its lease for {LEASE:g} s; "
                "stopping here"
            )
            self._runtime.stop.requested = True

        return SoftFileLease(self._folder / f"{name}.lease", lease_duration=LEASE, timeout=0, on_compromise=lost)

    def release(self, name: str) -> None:
        """Let others have it."""
        _release(self._held.pop(name, []))

    @contextmanager
    def alone(self, name: str, doing: str) -> Iterator[None]:
        """Within the context, be the only process that has ``name``; wait for it, while another is ``doing`` that.
        Raises Interrupted when asked to stop."""
        while not self.take(name):
            self.wait(f"waiting for another process that is {doing}")
        try:
            yield
        finally:
            self.release(name)

    def wait(self, doing: str) -> None:
        """Wait a moment, and show it. Raises Interrupted when asked to stop."""
        with self._runtime.progress.phase(doing):
            self._runtime.stop.wait(WAIT)
        if self._runtime.must_stop():
            raise Interrupted(f"stopped while {doing}")


def _release(held: list[BaseFileLock]) -> None:
    """Give up a claim's parts, the last one first."""
    while held:
        held.pop().release()


Stamp = tuple[int, int]
"""What tells one result's file from the next, whatever clocks say: its inode, and when it was written."""


def stamps(variants: Iterable[str], seeds: Iterable[int], folder: StudyDir) -> set[Stamp]:
    """Collect those of the results that are there."""
    places = [folder.run(variant, seed).result for variant in variants for seed in seeds]
    return {stamp for place in places if (stamp := _stamp(place)) is not None}


def _stamp(place: Path) -> Stamp | None:
    try:
        found = place.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_mtime_ns


def finished(
    variant: str, seeds: Sequence[int], folder: StudyDir, former: Collection[Stamp] | None = None
) -> dict[tuple[str, int], dict[str, Any]]:
    """Read the results of those of a variant's runs that are finished, or have ended in an error that is none of the
    ``former`` ones: they have been tried since. None: errors do not count."""
    found = {}
    for seed in seeds:
        place = folder.run(variant, seed)
        result = place.read_result()
        if result is None:
            continue
        tried = former is not None and _stamp(place.result) not in {None, *former}
        if result["status"] in FINAL or tried:
            found[variant, seed] = result
    return found


def claim_of(variant: str, seed: int) -> str:
    """Name the claim of one run."""
    return f"{variant}.seed-{seed}"


def share_out(
    waiting: Callable[[], Iterable[tuple[Variant, Sequence[int]]]],
    do: Callable[[Variant, Sequence[int]], None],
    claims: Claims,
    waits: bool = True,
) -> None:
    """``do`` the runs that are ``waiting``, but for those that other processes do: they are waited for, and done after
    all where they were not finished there; but only if this process ``waits``."""
    while True:
        left, mine = 0, 0
        for variant, seeds in waiting():
            left += len(seeds)
            names = {seed: claim_of(variant.name, seed) for seed in seeds}
            own = [seed for seed in seeds if claims.take(names[seed])]
            mine += len(own)
            try:
                if own:
                    do(variant, own)
            finally:
                for seed in own:
                    claims.release(names[seed])
        if not left:
            return
        if not mine:
            if not waits:
                return
            claims.wait(f"waiting for other processes, which do the last {left} runs")
