"""Which streams of randomness change what a recipe trains: found out by changing each alone, and taking two steps."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune import models
from finetune.core.digests import weights_digest
from finetune.core.randomness import STREAMS, StreamName, Streams, to_digits
from finetune.core.run_dir import RunDir
from finetune.core.runtime import Runtime, make_deterministic
from finetune.replicas.group import Replica
from finetune.runner.resources import Resources
from finetune.runner.session import Session
from finetune.strategies.base import trained_parameters

if TYPE_CHECKING:
    from finetune.recipe import Recipe

STEPS = 2
"""Steps taken: a rate that has just begun to rise shows in the second at the latest."""

SILENT: dict[StreamName, str] = {
    "split": "nothing is drawn from the data",
    "init": "nothing is drawn before training: there is no new head and no adapter, and nothing is drawn afresh",
    "order": "every order of the examples trains the same",
    "dropout": "no dropout is at work",
    "noise": "no strategy or mitigation draws noise in training",
}
"""By stream, what it says when changing it changes nothing."""

CLUSTERED = "held-out examples are grouped (task.group), and groups are of examples that all runs have in common"


def find_sources(recipe: Recipe, resources: Resources, runtime: Runtime) -> dict[StreamName, str | None]:
    """Tell by stream why it is no source of randomness in this recipe; None where it is one.

    A stream is a source if changing its seed, and nothing else, changes the examples or the weights after two steps.
    What looks at dropout layers and heads would have to know every hook; this does not.
    """
    make_deterministic(recipe.train.deterministic)
    runtime = runtime.at("what is random", models.choose_dtype(recipe.model, runtime.device))
    session = Session.open(resources, recipe, recipe.data.split.seed, runtime)
    still = _after(session, Streams.spelled(0))
    found: dict[StreamName, str | None] = {"split": _split(recipe, resources)}
    for stream in runtime.track(STREAMS[1:], "finding out what is random"):
        changed = _after(session, Streams.spelled(to_digits({stream: 1})))
        found[stream] = None if runtime.broadcast(changed != still) else SILENT[stream]
    return found


def _split(recipe: Recipe, resources: Resources) -> str | None:
    if getattr(recipe.task, "group", None) is not None:
        return CLUSTERED
    own = recipe.data.split.seed
    seeds = [Streams.spelled(to_digits({"split": level})).seed_of("split", own) for level in (1, 2)]
    facts = [resources.data(recipe, seed).facts["splits"] for seed in seeds]
    prints = [{name: split["fingerprint"] for name, split in splits.items()} for splits in facts]
    return None if prints[0] != prints[1] else SILENT["split"]


def _after(session: Session, streams: Streams) -> str:
    """Hash what is trained after a few steps, which are thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        session = replace(session, runtime=replace(session.runtime, cache=Path(folder)))
        assembled = session.assemble([Replica(streams, RunDir(Path(folder) / "run"))])
        session.take_steps(assembled, STEPS)
        with assembled.group.alone(0) as model:
            return weights_digest(trained_parameters(model))
