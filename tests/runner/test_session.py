"""What all runs of a recipe begin from."""

from __future__ import annotations

import pytest
import torch

from finetune.core.errors import SameRun
from finetune.runner import parity
from finetune.runner.session import Session
from finetune.strategies.base import trained_parameters
from finetune.tasks.batching import Batching
from finetune.train.meters import read_rows
from tests.replicas.groups import Variant


@pytest.fixture
def variant(tmp_path, encoder_folder):
    return Variant.of(tmp_path / "variant", encoder_folder, "classification", {"type": "full"}, evaluations=2)


def test_replicas_are_assembled_and_trained(variant):
    replicas = variant.replicas("run", [0, 1])
    assembled, trained = variant.session().train(replicas)
    assert [one.facts["steps"] for one in trained] == [6, 6]
    assert assembled.replicas == replicas and assembled.group.count == 2
    assert assembled.identities[0] != assembled.identities[1]
    rows = [read_rows(replica.folder.metrics) for replica in replicas]
    assert [row["kind"] for row in rows[0]].count("evaluation") == 2
    assert rows[0][0]["loss"] != rows[1][0]["loss"]


def test_a_seed_that_repeats_another_is_refused(variant):
    session = variant.session()
    [identity] = session.assemble(variant.replicas("one", [3])).identities
    with pytest.raises(SameRun, match="as seed 7"):
        session.assemble(variant.replicas("other", [3]), {7: {"identity": identity}})


def test_a_few_steps_are_taken_without_validation_and_checkpoints(variant):
    session = variant.like(checkpoint_seconds=0).session()
    assembled = session.assemble(variant.replicas("few", [0]))
    before = {name: value.detach().clone() for name, value in trained_parameters(assembled.group.model).items()}
    session.take_steps(assembled, 2)
    [replica] = assembled.replicas
    assert [(row["kind"], row["step"]) for row in read_rows(replica.folder.metrics)] == [("train", 1), ("train", 2)]
    assert not replica.folder.checkpoints.exists()
    assert any(not torch.equal(value, before[name]) for name, value in assembled.group.model.named_parameters())


def test_what_examples_may_share_is_the_sessions_own(variant, monkeypatch):
    """The task that the resources keep for other models stays as it was."""
    told = parity.Parity(Batching.SAME_LENGTH, Batching.SINGLE)
    monkeypatch.setattr(parity, "compare", lambda *_: told)
    session = Session.open(variant.resources, variant.recipe, 0, variant.runtime())
    assert (session.data.task.batching, session.data.task.answering) == (Batching.SAME_LENGTH, Batching.SINGLE)
    assert variant.data.task.batching == Batching.PACKED
    assert session.data.train is variant.data.train and session.base is variant.base
