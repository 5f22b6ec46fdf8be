"""Measures ours and its peers side by side, alternately, each time in a fresh process; prints the table with ratios.

Every measurement is added to the output file as soon as it is there. The same command goes on with a file that was
measured under the same settings, on the same machine, with the same code; measurements that it has are not made again.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts._benchmark import table
from scripts._benchmark.choosing import lines, with_best
from scripts._benchmark.contest import ROOT, Measurement, Workshop, measure
from scripts._benchmark.corpus import Corpus, NoData
from scripts._benchmark.jobs import JOBS, SIZES, Case, Contestant, cases
from scripts._benchmark.measure import Failed, run_fresh
from scripts._benchmark.ours import command
from scripts._benchmark.record import OtherBenchmark, Record, code_digest

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    jobs = "\n".join(f"  {letter}  {about}" for letter, about in JOBS.items())
    parser = argparse.ArgumentParser(
        "scripts/benchmark",
        description=f"{__doc__}\njobs:\n{jobs}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--jobs", type=_letters, default=list(JOBS), metavar="a,b,…", help="default: all of them")
    parser.add_argument("--size", choices=SIZES, default="standard", help="quick: a look; standard; long: hours")
    parser.add_argument("--quick", dest="size", action="store_const", const="quick", help="the same as --size quick")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="default: 3; with --quick 1")
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", metavar="DIR", help="with rte/ and gsm8k/"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"), metavar="FILE")
    parser.add_argument("--fresh", action="store_true", help="replace the output file instead of going on with it")
    return parser.parse_args(arguments)


def _letters(text: str) -> list[str]:
    letters = [letter.strip() for letter in text.split(",")]
    if unknown := [letter for letter in letters if letter not in JOBS]:
        raise argparse.ArgumentTypeError(
            f"there is no job {', '.join(map(repr, unknown))}; choose from {','.join(JOBS)}"
        )
    return [letter for letter in JOBS if letter in letters]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number of at least 1")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when everything was measured (whatever the targets say), 1 when a contestant failed, 2 for bad input,
    130 when interrupted."""
    args = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="finetune-benchmark-") as scratch:
            return benchmark(args, Workshop(Path(scratch), Corpus(args.data)))
    except (NoData, OtherBenchmark) as error:
        print(f"scripts/benchmark: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"interrupted; run the same command again to go on ({args.output})", file=sys.stderr)
        return INTERRUPTED


def benchmark(args: argparse.Namespace, shop: Workshop) -> int:
    """Measure what is asked for and not there yet, then print everything."""
    sizes = SIZES[args.size]
    rounds = args.rounds or sizes.rounds
    say("looking at the machine, and unpacking the models")
    machine = shop.prepare()
    amounts = {name: value for name, value in asdict(sizes).items() if name != "rounds"}  # which may be added later
    settings = {"size": args.size, "sizes": amounts, "machine": machine, "code": code_digest(ROOT)}
    record = Record.open(args.output, settings, args.fresh)
    every = cases(sizes, machine["gpu"])
    record.content["cases"] = [case.facts() for case in every]
    chosen = [case for case in every if case.job in args.jobs]
    warm_up(shop, args.jobs)
    best = {case.name: with_best(case, machine, shop, record, say) for case in chosen}
    every = [best.get(case.name, case) for case in every]
    record.content["cases"] = [case.facts() for case in every]
    tried, chosen = chosen, [*best.values()]
    failed = 0
    for case, contestant, number in schedule(chosen, rounds):
        if record.find(case.name, contestant.name, number):
            continue
        say(f"({case.job}) {case.name}, round {number + 1} of {rounds}: {contestant.name}")
        row = attempt(case, contestant, number, shop)
        failed += row["failed"] is not None
        say(f"    {outcome(case, row)}")
        record.add(row)
    record.content["summary"] = [row for case in every for row in table.summarise(case, record)]
    record.write()
    print("\n".join(report(args, record, chosen, tried)))
    return FAILED if failed else 0


def schedule(chosen: Sequence[Case], rounds: int) -> Iterator[tuple[Case, Contestant, int]]:
    """Case by case, round by round; each round begins with the next contestant, so that nobody is always first."""
    for case in chosen:
        for number in range(rounds):
            turn = number % len(case.contestants)
            for contestant in (*case.contestants[turn:], *case.contestants[:turn]):
                yield case, contestant, number


def attempt(case: Case, contestant: Contestant, number: int, shop: Workshop) -> Measurement:
    """Measure; what fails is recorded, and does not stop the others."""
    row: dict[str, Any] = {"case": case.name, "contestant": contestant.name, "round": number, "failed": None}
    try:
        return {**row, **measure(case, contestant, number, shop)}
    except (Failed, RuntimeError) as error:
        return {**row, "failed": str(error)}


def warm_up(shop: Workshop, letters: Sequence[str]) -> None:
    """Read the files of all programs once, as preparing did for most: nobody shall pay for being the first."""
    log = shop.folder / "warm-up.log"
    run_fresh([*command(), "--help"], log)
    run_fresh([sys.executable, "-c", "import finetune.study.study, transformers; transformers.Trainer"], log)
    if "b" in letters:
        run_fresh([sys.executable, "-c", "import trl; trl.SFTTrainer"], log)


def outcome(case: Case, row: Measurement) -> str:
    """What came of one measurement, in a line."""
    if row["failed"]:
        return f"FAILED: {row['failed']}"
    score = f", {row['score']['name']} {row['score']['value']:.3f}" if row["score"] else ""
    figure = f"{table.number(row['figures'][case.figure])} {table.UNITS[case.figure]}"
    return f"{figure}, {table.memory(row) / 1e6:,.0f} MB{score}"


def report(args: argparse.Namespace, record: Record, chosen: Sequence[Case], tried: Sequence[Case]) -> Iterator[str]:
    """What is printed at the end; ``tried`` are the cases before their peers' settings were chosen."""
    machine = record.content["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    arithmetic = "" if machine["gpu"] else f" ({machine['arithmetic']})"
    yield f"\n{machine['device']}{arithmetic}, {machine['cores']} cores, {machine['threads']} threads; {packages}"
    if args.size == "quick":
        yield "QUICK: small sizes and one round. It shows that everything works; the ratios are no result."
    yield "Figures and ratios: median [smallest, largest] over the rounds. Scores: mean over rounds [95 % interval]."
    every = []
    for case, before in zip(chosen, tried, strict=True):
        rows = table.summarise(case, record)
        every += rows
        yield ""
        yield from table.lines(case, rows)
        yield from table.utilisation(record, case)
        yield from lines(before, record)
    yield f"\ntargets missed: {', '.join(table.missed(every)) or 'none'}"
    yield f"{args.output} holds every measurement and all settings"


def say(text: str) -> None:
    """Progress goes to the error stream; the table alone to the output."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
