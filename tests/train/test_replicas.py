"""R runs trained side by side are R runs: same losses, same weights, whatever happens to their neighbours.

The model and its task are toys whose parameters may be stacked, (R, ...), and whose rows come replica by replica.
"""

import pytest
import torch
from torch.nn.functional import cross_entropy

from finetune.core.errors import Interrupted
from finetune.core.examples import Batch, Example, pad
from finetune.core.signals import StopRequest
from finetune.replicas.group import ReplicaGroup
from finetune.tasks.batching import Batching
from finetune.train.accumulation import Accumulation
from finetune.train.loop import train
from finetune.train.meters import read_rows
from finetune.train.state import Validation
from tests.train.workbench import furthest, make_runtime, options, replica, same

WORDS, WIDTH, CLASSES = 30, 8, 3


class Toy(torch.nn.Module):
    """A mean of embeddings, a bias and a linear head; of R replicas, or of one with parameters of its own shape."""

    def __init__(self, seeds):
        super().__init__()
        self.replicas = len(seeds)
        for name, shape in {"table": (WORDS, WIDTH), "bias": (WIDTH,), "head": (WIDTH, CLASSES)}.items():
            drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
            self.register_parameter(name, torch.nn.Parameter(torch.stack(drawn) if len(seeds) > 1 else drawn[0]))

    def forward(self, ids, owner):
        """Logits (N, classes) of token ids (N, T), each row for the replica that owns it, (N,)."""
        stacked = [value if self.replicas > 1 else value[None] for value in (self.table, self.bias, self.head)]
        table, bias, head = stacked
        features = torch.tanh(table[owner[:, None], ids].mean(1) + bias[owner])
        return torch.bmm(features[:, None], head[owner])[:, 0]

    def of(self, number):
        """The weights of one replica."""
        return {name: value.detach()[number] for name, value in self.named_parameters()}


class ToyTask:
    """Classification of tokens. ``poison(rows, forward)`` multiplies the losses of one forward pass."""

    dynamic = False
    batching = Batching.PACKED

    def __init__(self, poison=None):
        self.poison, self.passes = poison, 0

    def loss_path(self, model, replicas=1):
        return None

    def arranged(self, model, batch):
        return batch

    def collate(self, examples, counts):
        ids = pad([example.inputs["input_ids"] for example in examples], 0)
        owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        targets = torch.tensor([example.target for example in examples])
        return Batch({"input_ids": ids, "owner": owner}, targets, torch.arange(len(examples))[:, None].expand_as(ids))

    def losses(self, model, batch):
        losses = cross_entropy(model(batch.inputs["input_ids"], batch.inputs["owner"]), batch.targets, reduction="none")
        self.passes += 1
        return losses * self.poison(len(losses), self.passes) if self.poison else losses


def examples(count=24):
    generator = torch.Generator().manual_seed(5)
    made = []
    for number in range(count):
        target = number % CLASSES
        ids = torch.randint(target * 10, target * 10 + 10, (6,), generator=generator).numpy()
        made.append(Example(number, {"input_ids": ids}, target, 1.0, ""))
    return made


@pytest.fixture
def seen(monkeypatch):
    """The losses (R,) of every step."""
    losses, run = [], Accumulation.run

    def watched(self, *about):
        found, counted = run(self, *about)
        losses.append(found.tolist())
        return found, counted

    monkeypatch.setattr(Accumulation, "run", watched)
    return losses


def side_by_side(seeds, folder, seen, task=None, validation=None, stop=None, **changes):
    """Train ``seeds`` in one group: what training says of each, the model, and the losses by step."""
    seen.clear()
    model = Toy(seeds)
    runtime = make_runtime(folder, stop=stop or StopRequest())
    chosen = options(**{"learning_rate": 0.05, "weight_decay": 0.1, "length_window": 1, **changes})
    replicas = [replica(folder / f"seed-{seed}", seed) for seed in seeds]
    trained = train(
        ReplicaGroup(model, len(seeds)), task or ToyTask(), examples(), chosen, replicas, runtime, validation
    )
    return trained, model, [list(step) for step in seen]


def alone(seed, folder, seen, **arguments):
    [trained], model, losses = side_by_side([seed], folder / f"alone-{seed}", seen, **arguments)
    return trained, {name: value.detach() for name, value in model.named_parameters()}, [loss for [loss] in losses]


both_optimizers = pytest.mark.parametrize("optimizer", ["adamw", "schedule-free"])


@pytest.mark.parametrize("size, optimizer", [(None, "adamw"), (3, "adamw"), (None, "schedule-free")])
def test_two_replicas_are_two_runs(tmp_path, seen, size, optimizer):
    changes = {"clip": 0.05, "micro_batch_size": size, "optimizer": optimizer}
    _, model, losses = side_by_side([0, 1], tmp_path, seen, **changes)
    for number in (0, 1):
        _, weights, expected = alone(number, tmp_path, seen, **changes)
        assert [step[number] for step in losses] == pytest.approx(expected, rel=1e-5)
        assert furthest(model.of(number), weights) < 1e-5
    assert losses[0][0] != losses[0][1], "they are different runs"


def test_each_replica_is_clipped_by_its_own_norm(tmp_path, seen):
    """A neighbour's loss a thousand times as large must not shrink this replica's steps."""

    def loud(rows, _):
        return torch.tensor([1000.0, 1.0]).repeat_interleave(rows // 2)

    _, model, _ = side_by_side([0, 1], tmp_path, seen, task=ToyTask(loud), clip=0.05)
    assert furthest(model.of(1), alone(1, tmp_path, seen, clip=0.05)[1]) < 1e-5


def scripted(*scores):
    """A validation whose scores are given: for each evaluation, one per replica."""
    left = iter(scores)
    return Validation(lambda: [{"loss": score} for score in next(left)], "loss", False)


@both_optimizers
@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_replica_that_stops_early_stays_as_it_was(tmp_path, seen, keep, optimizer):
    """Replica 0 is best at its first evaluation and waits in vain for two; replica 1 improves to the end."""
    scores = [(1.0, 4.0), (2.0, 3.0), (2.0, 2.0), (0.1, 1.0)]
    changes = {"evaluations": 4, "early_stopping": {"patience": 2}, "keep": keep, "optimizer": optimizer}
    trained, model, _ = side_by_side([0, 1], tmp_path, seen, validation=scripted(*scores), **changes)
    assert [each.facts["stopped_early"] for each in trained] == [True, False]
    assert [each.facts["best_step"] for each in trained] == ([3, 12] if keep == "best" else [None, None])
    for number in (0, 1):
        own = [(row[number],) for row in scores]
        assert furthest(model.of(number), alone(number, tmp_path, seen, validation=scripted(*own), **changes)[1]) < 1e-5


def test_each_replica_keeps_its_own_best_weights(tmp_path, seen):
    scores = [(1.0, 4.0), (2.0, 1.0), (3.0, 2.0)]
    trained, model, _ = side_by_side([0, 1], tmp_path, seen, validation=scripted(*scores), evaluations=3)
    assert [each.facts["best_step"] for each in trained] == [4, 8]
    for number in (0, 1):
        own = [(row[number],) for row in scores]
        weights = alone(number, tmp_path, seen, validation=scripted(*own), evaluations=3)[1]
        assert furthest(model.of(number), weights) < 1e-5


def test_a_replica_that_diverges_leaves_its_neighbour_alone(tmp_path, seen):
    """Replica 0's fifth loss is no number: it keeps the weights of four steps, replica 1 goes on."""

    def poison(rows, forward):
        return torch.tensor([float("nan") if forward >= 5 else 1.0, 1.0]).repeat_interleave(rows // 2)

    trained, model, losses = side_by_side([0, 1], tmp_path, seen, task=ToyTask(poison))
    assert [each.diverged for each in trained] == ["the loss became nan at step 5", None] and len(losses) == 12
    assert furthest(model.of(1), alone(1, tmp_path, seen)[1]) < 1e-5
    four = alone(0, tmp_path, seen, task=ToyTask(lambda _, forward: float("nan") if forward >= 5 else 1.0))[1]
    assert furthest(model.of(0), four) < 1e-5


class AfterFive(StopRequest):
    """Asks to stop after five steps."""

    def __init__(self, seen):
        self.seen = seen

    @property
    def requested(self):
        return len(self.seen) == 5


def test_a_group_resumes(tmp_path, seen):
    whole = side_by_side([0, 1], tmp_path / "whole", seen)[1]
    with pytest.raises(Interrupted):
        side_by_side([0, 1], tmp_path / "parts", seen, stop=AfterFive(seen))
    resumed = side_by_side([0, 1], tmp_path / "parts", seen)[1]
    assert same(whole.state_dict(), resumed.state_dict())
    for seed in (0, 1):
        steps = [row["step"] for row in read_rows(tmp_path / "parts" / f"seed-{seed}" / "metrics.jsonl")]
        assert steps == [*range(1, 13)]


@both_optimizers
def test_what_a_group_left_can_go_on_alone(tmp_path, seen, optimizer):
    whole = side_by_side([0, 1], tmp_path / "whole", seen, optimizer=optimizer)[1]
    with pytest.raises(Interrupted):
        side_by_side([0, 1], tmp_path / "parts", seen, stop=AfterFive(seen), optimizer=optimizer)
    for number in (1, 0):
        [trained], model, losses = side_by_side([number], tmp_path / "parts", seen, optimizer=optimizer)
        assert len(losses) == 7 and trained.facts["resumed"] == 1 and trained.facts["examples"] == 12 * 8
        own = {name: value.detach() for name, value in model.named_parameters()}
        assert furthest(whole.of(number), own) < 1e-5


def test_runs_that_were_stopped_alone_can_go_on_side_by_side(tmp_path, seen):
    whole = side_by_side([0, 1], tmp_path / "whole", seen)[1]
    for number in (0, 1):
        with pytest.raises(Interrupted):
            side_by_side([number], tmp_path / "parts", seen, stop=AfterFive(seen))
    _, model, losses = side_by_side([0, 1], tmp_path / "parts", seen)
    assert len(losses) == 7 and furthest(whole.state_dict(), model.state_dict()) < 1e-5
