"""Broken recipes and cluster files: as trees of values, as text, and as bytes."""

from __future__ import annotations

import copy
import random
from typing import Any

import yaml

from scripts._fuzz.material import Material, as_yaml
from scripts._fuzz.values import (
    broken_bytes,
    broken_tree,
    encoded,
    inside,
    json_text,
    nested,
    nudged_tree,
    places,
    text,
    value,
)

Made = tuple[dict[str, bytes], list[str]]

CLUSTER = """partition: gpu
account: lab
gpus: a100:2
cpus: 8
memory: 32G
time: 4:00:00
nodes: 2
runs_per_task: 2
retries: 2
modules: [cuda/12.4]
setup: [source /opt/env.sh]
environment: {NCCL_DEBUG: WARN}
container: apptainer exec finetune.sif
python: /opt/python
"""

LINES = (
    "extends: recipe.yaml",
    "extends: [base.yaml, ../x.yaml]",
    "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
    + "\n".join(f"{new}: &{new} [{', '.join(['*' + old] * 9)}]" for old, new in zip("bcdefgh", "cdefghi", strict=True)),
    "x: &x {<<: *x}",
    "<<: {name: twice}",
    "<<: [{seeds: 1}, {seeds: 2}]",
    "seeds: !!python/object/apply:os.system ['touch escaped']",
    "name: !!python/name:os.system",
    "name: !!binary aGVsbG8=",
    "when: !!timestamp 2024-01-01",
    "set: !!set {a, b}",
    "---\nname: second",
    "%YAML 9.9",
    "? [a, b]\n: c",
    "? {a: b}\n: c",
    "? null\n: c",
    "1: 2",
    "null: 1",
    'name: "\\ud83d"',
    'name: "\\x1b[31m\\0"',
    "seeds: " + "9" * 5000,
    "seeds: 1e400",
    "key: " + "[" * 3000,
    "key: " + "{a: " * 3000,
    "key: " + "[" * 900 + "]" * 900,
    "- " * 900 + "x",
    "variants: {a: {}, A: {}}",
    "variants: {../a: {}}",
    "variants: {? 'a\nb' : {}}",
    "name: ../up",
    "name: " + "n" * 300,
    "\ttab: 1",
)
"""Lines that ask much of a reader of YAML."""


def shipped(rng: random.Random, material: Material) -> Made:
    """A recipe that comes with finetune, of which only the recipe is checked."""
    written = rng.choice(material.shipped)
    content = _broken(written, rng, material)
    files = {"recipe.yaml": content}
    if rng.random() < 0.1:
        files["base.yaml"] = _broken(rng.choice(material.shipped), rng, material)
    return files, ["check", "recipe.yaml", "--recipe-only", *_overrides(rng, material)]


def small(rng: random.Random, material: Material) -> Made:
    """The recipe of a small study, which is checked with its data and its model."""
    study = rng.choice(list(material.studies.values()))
    tree = copy.deepcopy(study.recipe)
    tree["data"] = {"train": {"path": "rows.jsonl"}, **tree["data"]}
    rows = "".join(f"{json_text(row, rng)}\n" for row in study.rows).encode()
    if rng.random() < 0.8:
        for _ in range(rng.choice((1, 1, 2, 3))):
            tree = nudged_tree(tree, rng) if rng.random() < 0.5 else _broken_recipe(tree, rng, material)
        content = _as_text(tree, rng).encode("utf-8", "surrogatepass")
    else:
        content = _broken(as_yaml(tree), rng, material)
    return {"recipe.yaml": content, "rows.jsonl": rows}, ["check", "recipe.yaml", *_overrides(rng, material)]


def cluster(rng: random.Random, material: Material) -> Made:
    """A cluster file, of which the batch script is printed."""
    study = next(iter(material.studies.values()))
    recipe = as_yaml({**study.recipe, "data": {"train": {"path": "x.csv"}, **study.recipe["data"]}})
    nudged = as_yaml(nudged_tree(yaml.safe_load(CLUSTER), rng)).encode()
    content = nudged if rng.random() < 0.4 else _broken(CLUSTER, rng, material)
    asked = ["launch", "recipe.yaml", "--on", rng.choice(("slurm", "local")), "--cluster", "cluster.yaml", "--dry-run"]
    return {"recipe.yaml": recipe.encode(), "cluster.yaml": content}, asked


def _broken(written: str, rng: random.Random, material: Material) -> bytes:
    """A YAML text that was broken in one of three ways, sometimes in several."""
    how = rng.random()
    if how < 0.55:
        tree = yaml.safe_load(written)
        for _ in range(rng.choice((1, 1, 2, 4))):
            tree = _broken_recipe(tree, rng, material)
        return _as_text(tree, rng).encode("utf-8", "surrogatepass")
    if how < 0.8:
        for _ in range(rng.choice((1, 1, 2))):
            written = _broken_text(written, rng)
        if rng.random() < 0.8:
            return written.encode("utf-8", "surrogatepass")
        return encoded(written, rng)
    content = written.encode()
    for _ in range(rng.choice((1, 1, 2, 5))):
        content = broken_bytes(content, rng)
    return content


def _as_text(tree: Any, rng: random.Random) -> str:
    return as_yaml(tree) if rng.random() < 0.7 else json_text(tree, rng)


def _broken_recipe(tree: Any, rng: random.Random, material: Material) -> Any:
    """A tree in which an option that exists has been put somewhere, or anything else was done to it."""
    if rng.random() < 0.5 or not isinstance(tree, dict):
        return broken_tree(tree, rng)
    tree = copy.deepcopy(tree)
    sections = [(), *(path for path in places(tree) if isinstance(inside(tree, path), dict))]
    around = inside(tree, rng.choice(sections))
    found = rng.choice((rng.choice(material.words), value(rng), nested(rng, rng.randint(1, 3))))
    around[rng.choice(material.keys)] = [found] if rng.random() < 0.2 else found
    return tree


def _broken_text(written: str, rng: random.Random) -> str:
    lines = written.split("\n")
    place = rng.randrange(len(lines))
    how = rng.randrange(6)
    if how == 0:
        lines[place:place] = rng.choice(LINES).split("\n")
    elif how == 1:
        lines[place:place] = [lines[rng.randrange(len(lines))]] * rng.choice((1, 2, 50))
    elif how == 2:
        del lines[place]
    elif how == 3:
        lines[place] = rng.choice(("", " ", "    ", "\t", "- ", "&a ", "*a ", "!x ", "? ", "| ")) + lines[place]
    elif how == 4:
        lines[place] = lines[place].partition(":")[0] + ": " + rng.choice((text(rng), json_text(value(rng), rng)))
    else:
        rng.shuffle(lines)
    return "\n".join(lines)


def _overrides(rng: random.Random, material: Material) -> list[str]:
    if rng.random() < 0.85:
        return []
    path = ".".join(rng.choice(material.keys) for _ in range(rng.randint(1, 3)))
    said = rng.choice((text(rng), json_text(value(rng), rng), rng.choice(material.words))).replace("\0", "")
    return [f"{path}={said}"]
