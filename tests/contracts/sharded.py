"""One process of several that split a model, for tests that start processes.

``python -m tests.contracts.sharded FOLDER [NAME ...]``: reads ``FOLDER/combinations.json``, by name a combination of
plug-ins and its model's folder, trains those that may be sharded, and writes into ``FOLDER/came-to-RANK.json`` what
each came to.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch.distributed.tensor import DTensor

from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.core.registry import MITIGATIONS, STRATEGIES
from finetune.replicas.group import ReplicaGroup
from finetune.runner.arithmetic import check_arithmetic
from finetune.runner.session import Session
from tests.contracts.battery import said, training
from tests.replicas.groups import Variant


def variant_of(combination: tuple[str, str, str, str | None], model: Path, folder: Path, shard: bool) -> Variant:
    """Make the variant of a combination, without dropout of an adapter's own."""
    strategy, task, _, mitigation = combination
    treated = [said(MITIGATIONS, mitigation)] if mitigation else []
    compute = {"shard": shard}
    return Variant.of(folder, model, task, said(STRATEGIES, strategy), treated, compute, **training(strategy))


def came_to(variant: Variant) -> dict[str, Any]:
    """Train one run and score it; what is refused says why."""
    session = variant.session()
    built = session.build_on_cpu(Streams(0))
    try:
        check_arithmetic(variant.recipe, built, session.runtime.device, session.runtime.dtype)
    except InputError as error:
        return {"refused": str(error)}
    with patch.object(Session, "assemble", watched(Session.assemble)):
        [found] = variant.run([0], "run")
    return {
        "losses": found.losses,
        "norms": found.norms,
        "weights": {name: value.flatten()[:50].tolist() for name, value in found.weights.items()},
        "scored": found.predictions.loss.tolist(),
        "text": found.predictions.prediction,
    }


def watched(assemble: Any) -> Any:
    """See to it that every parameter of a model that is to be split is."""

    def assembled(session: Session, *about: Any) -> Any:
        found = assemble(session, *about)
        group: ReplicaGroup = found.group
        if session.recipe.compute.shard:
            whole = [name for name, value in group.model.named_parameters() if not isinstance(value, DTensor)]
            assert whole == [], whole
        return found

    return assembled


def main(folder: str, *names: str) -> None:
    """Do them all, one after another."""
    rank, place = int(os.environ["RANK"]), Path(folder)
    found = {}
    for name, (combination, model) in json.loads((place / "combinations.json").read_text()).items():
        if names and name not in names:
            continue
        print(f"{rank}: {name}", file=sys.stderr, flush=True)
        own = place / f"rank-{rank}" / name.replace("/", "-")
        try:
            found[name] = came_to(variant_of(tuple(combination), Path(model), own, True))
        except Exception as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}"}
        (place / f"came-to-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
