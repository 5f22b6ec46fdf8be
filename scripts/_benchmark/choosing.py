"""A peer's best settings on this machine: each combination is tried in a fresh process on a few examples of the case.

What is fastest on one processor may be the slowest on another: bfloat16 without units for it is emulated.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from scripts._benchmark import table
from scripts._benchmark.contest import Workshop, measure
from scripts._benchmark.jobs import LOWER_IS_BETTER, THREADS, Case, Contestant
from scripts._benchmark.measure import Failed
from scripts._benchmark.record import Record

EXAMPLES = {"a": 48, "b": 12, "c": 48, "e": 200, "f": 20}
"""Of a trial, at most: some batches."""

HELD_OUT = 8

PATIENCE = 3.0
"""How many times as long as the fastest process so far another may take, with what it needs to start."""

START = 30.0
"""Seconds that are added for that."""


def combinations(contestant: Contestant, cores: int, gpu: bool) -> Iterator[dict[str, Any]]:
    """All settings to try, each as a whole; on a CPU with one thread, two, and as many as there are cores."""
    threads = [{}] if gpu else [{THREADS: count} for count in sorted({1, min(2, cores), cores})]
    for parts in itertools.product(*contestant.choices, threads):
        yield {**contestant.settings, **{name: value for part in parts for name, value in part.items()}}


def choose(
    case: Case, contestant: Contestant, machine: dict[str, Any], shop: Workshop, say: Callable[[str], None]
) -> dict[str, Any]:
    """Try all combinations; returns the `settings` of the fastest and the `trials`, each with its figure or failure.

    Where none works, the first one's: measuring it tells why.
    """
    small = _small(case)
    trials: list[dict[str, Any]] = []
    for settings in combinations(contestant, machine["cores"], machine["gpu"]):
        taken = [trial["seconds"] for trial in trials if trial["failed"] is None]
        shop.limit = START + PATIENCE * min(taken) if taken else None
        trial = {"settings": settings, "figure": None, "seconds": None, "failed": None}
        try:
            found = measure(small, replace(contestant, settings=settings, choices=()), 0, shop)
            trial |= {"figure": found["figures"][_figure(case)], "seconds": found["figures"]["seconds"]}
        except (Failed, RuntimeError) as error:
            trial["failed"] = str(error).strip().splitlines()[-1][-300:]
        finally:
            shop.limit = None
        trials.append(trial)
        say(f"    {told(trial, case, contestant)}")
    done = [trial for trial in trials if trial["failed"] is None]
    take = min if _figure(case) in LOWER_IS_BETTER else max
    best = take(done, key=lambda trial: trial["figure"]) if done else trials[0]
    return {"case": case.name, "contestant": contestant.name, "settings": best["settings"], "trials": trials}


def with_best(case: Case, machine: dict[str, Any], shop: Workshop, record: Record, say: Callable[[str], None]) -> Case:
    """The case with every peer at its best: as the record says, or as measured now."""
    peers = []
    for peer in case.peers:
        found = record.choice(case.name, peer.name) if peer.choices else None
        if peer.choices and found is None:
            say(f"({case.job}) {case.name}: choosing the settings of {peer.name}")
            found = choose(case, peer, machine, shop, say)
            record.add_choice(found)
        peers.append(replace(peer, settings=found["settings"], choices=()) if found else peer)
    return replace(case, peers=tuple(peers))


def lines(case: Case, record: Record) -> Iterator[str]:
    """What was chosen for the case's peers, and what the losers came to."""
    for peer in case.peers:
        found = record.choice(case.name, peer.name)
        if found:
            yield f"  {peer.name}, of {len(found['trials'])} settings tried:"
            for trial in found["trials"]:
                mark = "chosen" if trial["settings"] == found["settings"] else "      "
                yield f"    {mark}  {told(trial, case, peer)}"


def told(trial: dict[str, Any], case: Case, contestant: Contestant) -> str:
    """One trial in words: what it varies, and its figure."""
    varied = {name for part in contestant.choices for option in part for name in option} | {THREADS}
    shown = ", ".join(
        f"{name}={value}" for name, value in trial["settings"].items() if name in varied or not contestant.choices
    )
    if trial["failed"]:
        return f"{shown}: {trial['failed']}"
    return f"{shown}: {table.number(trial['figure'])} {table.UNITS[_figure(case)]}"


def _figure(case: Case) -> str:
    """Of a trial. Start-up is the same for all settings, and would hide what they differ in."""
    return "tokens_per_second" if case.job == "c" else case.figure


def _small(case: Case) -> Case:
    """Some batches of the case; those of a job about scoring are what is held out."""
    most = EXAMPLES[case.job]
    if case.job == "e":
        return replace(case, held_out=min(case.held_out, most))
    return replace(case, examples=min(case.examples, most), held_out=min(case.held_out, HELD_OUT), epochs=1, seeds=1)
