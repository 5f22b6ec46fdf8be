"""Fill the table of families, or look whether a seeded share of it is still true."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

from scripts._families import page
from scripts._families.cells import Cell, cells, fill


def run(chosen: list[Cell], workers: int, minutes: float | None) -> dict[tuple[str, str, str], str]:
    """Fill ``chosen``, with a line for each, until the time is up."""
    begun, found = time.monotonic(), dict[tuple[str, str, str], str]()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting = {pool.submit(fill, cell): cell for cell in chosen}
        for number, done in enumerate(as_completed(waiting), start=1):
            if done.cancelled():
                continue
            name, what = waiting[done]
            own = done.result()
            found |= {(name, what, strategy): came for strategy, came in own.items()}
            spent = time.monotonic() - begun
            told = " · ".join(f"{strategy} {came}".strip() for strategy, came in own.items())
            print(f"{number}/{len(chosen)} · {spent:.0f} s · {name}, {what}: {told}", flush=True)
            if minutes and spent > 60 * minutes:
                pool.shutdown(wait=False, cancel_futures=True)
                minutes = None
    return found


def main() -> int:
    """Returns 0 when nothing fails and a share is as the page says, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="scripts/families", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="what part of the table to fill, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    parser.add_argument("--minutes", type=float, help="begin nothing new after so many; what was filled is judged")
    parser.add_argument("--only", nargs="+", metavar="FAMILY", help="these families alone")
    asked = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    chosen = [cell for cell in cells() if not asked.only or cell[0] in asked.only]
    rng = random.Random(asked.seed)
    chosen = rng.sample(chosen, max(1, round(asked.share * len(chosen))))
    found = run(chosen, asked.workers, asked.minutes)
    failing = {cell: came for cell, came in found.items() if came.startswith("FAILS")}
    whole = asked.share == 1.0 and not asked.only and len({cell[:2] for cell in found}) == len(cells())
    differing = {} if whole else page.differing(found)
    for (name, what, strategy), came in {**failing, **differing}.items():
        print(f"! {name}, {what}{strategy and ', '}{strategy}: {came}")
    if whole:
        page.write(found)
    kinds = [came.partition(":")[0] for came in found.values()]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    print(f"{len(chosen)} of {len(cells())} cells: {counts}; {len(differing)} not as {page.PATH.name} says")
    return int(bool(failing or differing))


if __name__ == "__main__":
    sys.exit(main())
