"""One process of several that train and score the same combinations, for tests that start processes.

``python -m tests.contracts.worker FOLDER``: reads ``FOLDER/combinations.json``, a list of combinations and the folders
of their models, and writes what each came to into ``FOLDER/came-to-RANK.json``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from finetune.core.randomness import Streams
from finetune.core.run_dir import RunDir
from finetune.core.runtime import make_deterministic
from finetune.evaluate.predict import predictions_of
from finetune.replicas.group import Replica, ReplicaGroup
from finetune.train.loop import train
from tests.contracts.battery import Battery


def came_to(battery: Battery) -> dict[str, Any]:
    """What the model says of the held-out examples before training, and its losses on those it learnt from after."""
    make_deterministic(True)
    built, runtime, task = battery.fresh(0), battery.runtime(), battery.data.task
    group = ReplicaGroup(built.model, hooks=built.hooks, fresh=built.fresh)
    with torch.inference_mode():
        [found] = predictions_of(group, task, list(battery.data.held_out["test"].examples), 5, runtime)
    said = [
        {
            "text": one.text,
            "loss": one.loss,
            "margin": one.margin,
            "probabilities": None if one.probabilities is None else [float(value) for value in one.probabilities],
        }
        for one in found
    ]
    replica = Replica(Streams(0), RunDir(battery.folder / "seed-0"))
    train(group, task, battery.data.train.examples, battery.recipe.train, [replica], runtime, None)
    return {"said": said, "losses": battery.losses(built.model).tolist()}


def main(folder: str) -> None:
    """Do them all, one after another."""
    rank, place = int(os.environ["RANK"]), Path(folder)
    found = {}
    for number, (name, combination, model) in enumerate(json.loads((place / "combinations.json").read_text())):
        own = place / f"rank-{rank}" / str(number)
        own.mkdir(parents=True)
        strategy, task, _, mitigation = combination
        found[name] = came_to(Battery(own, Path(model), strategy, task, mitigation))
    (place / f"came-to-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
