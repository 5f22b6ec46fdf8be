"""Which streams of randomness change what a recipe trains: found out by changing each alone, and taking two steps."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune import models
from finetune.assemble import assemble
from finetune.digests import weights_digest
from finetune.group.group import Member
from finetune.parity import ready
from finetune.randomness import STREAMS, StreamName, Streams, spell
from finetune.run_dir import RunDir
from finetune.shared import Shared, TaskData
from finetune.strategies.base import trained_parameters
from finetune.surroundings import Surroundings, make_deterministic
from finetune.train.loop import train

if TYPE_CHECKING:
    from finetune.recipe import Recipe

STEPS = 2
"""Steps taken: a rate that has just begun to rise shows in the second at the latest."""

SILENT: dict[StreamName, str] = {
    "split": "nothing is drawn from the data",
    "init": "nothing is drawn before training: there is no new head and no adapter, and nothing is drawn afresh",
    "order": "every order of the examples trains the same",
    "dropout": "no dropout is at work",
    "noise": "no technique draws noise in training",
}
"""By stream, what it says when changing it changes nothing."""

GROUPED = "held-out examples are grouped (task.group), and groups are of examples that all runs have in common"


def find_sources(recipe: Recipe, shared: Shared, around: Surroundings) -> dict[StreamName, str | None]:
    """By stream, None where it is a source of randomness in this recipe, and else why not.

    A stream is a source if changing its seed, and nothing else, changes the examples or the weights after two steps.
    What looks at dropout layers and heads would have to know every technique; this does not.
    """
    make_deterministic(recipe.train.deterministic)
    data = shared.data(recipe, recipe.data.split.seed)
    base = ready(shared, recipe, data, around)
    around = around.at("what is random", models.choose_dtype(recipe.model, around.device))
    still = _after(recipe, base, data, Streams.spelled(0), around)
    found: dict[StreamName, str | None] = {"split": _split(recipe, shared)}
    for stream in around.track(STREAMS[1:], "finding out what is random"):
        changed = _after(recipe, base, data, Streams.spelled(spell({stream: 1})), around)
        found[stream] = None if around.first(changed != still) else SILENT[stream]
    return found


def _split(recipe: Recipe, shared: Shared) -> str | None:
    if getattr(recipe.task, "group", None) is not None:
        return GROUPED
    own = recipe.data.split.seed
    seeds = [Streams.spelled(spell({"split": level})).seed_of("split", own) for level in (1, 2)]
    facts = [shared.data(recipe, seed).facts["splits"] for seed in seeds]
    prints = [{name: split["fingerprint"] for name, split in splits.items()} for splits in facts]
    return None if prints[0] != prints[1] else SILENT["split"]


def _after(recipe: Recipe, base: models.BaseModel, data: TaskData, streams: Streams, around: Surroundings) -> str:
    """Digest of what is trained after a few steps, which are thrown away."""
    few = {"max_steps": STEPS, "min_steps": STEPS, "evaluations": 0, "checkpoint_seconds": math.inf}
    with tempfile.TemporaryDirectory() as folder:
        member = Member(streams, RunDir(Path(folder) / "run"))
        place = replace(around, cache=Path(folder))
        group, _, _ = assemble(recipe, base, data, [member], place, {})
        train(group, data.task, data.train.examples, recipe.train.model_copy(update=few), [member], place, None)
        with group.alone(0) as model:
            return weights_digest(trained_parameters(model))
