"""How many seeds train side by side: measured once, overruled by the recipe, and never a reason for a run to fail."""

import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune import models
from finetune import recipe as recipes
from finetune.core.arithmetic import Parts
from finetune.core.compute import ComputeOptions
from finetune.core.errors import InputError, Interrupted
from finetune.core.progress import Progress
from finetune.core.randomness import Streams
from finetune.core.run_dir import StudyDir, read_json
from finetune.core.runtime import open_runtime
from finetune.core.signals import StopRequest
from finetune.models import processor
from finetune.replicas.stacked import CannotStack
from finetune.runner import autotune, fitting
from finetune.runner.autotune import choose_compiled, choose_replicas, choose_speed
from finetune.runner.fitting import activation_bytes
from finetune.runner.resources import Resources
from finetune.runner.session import Session
from finetune.study import study
from finetune.study.running import run_study
from finetune.study.study import Study
from finetune.train import checkpoint
from finetune.train.accumulation import Accumulation
from finetune.train.loop import train
from tests.replicas.groups import Variant, far

FULL = {"type": "full"}
RUNS = [Streams(seed) for seed in range(3)]


@pytest.fixture
def variant(tmp_path, encoder_folder):
    """Eighty steps each."""
    return Variant.of(tmp_path / "variant", encoder_folder, "classification", FULL, max_steps=80, min_steps=80)


def choose(variant, monkeypatch, timings, count=8):
    """What is chosen for ``count`` runs, if a step takes each of a group what ``timings`` says, and what was tried."""
    tried = []

    def seconds(session, runs):
        tried.append(len(runs))
        found = timings[len(runs)]
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(autotune, "_seconds", seconds)
    runs = [Streams(seed) for seed in range(count)]
    return *choose_replicas(variant.session(), runs), tried


# What is tried, and chosen


@given(st.integers(1, 200))
def test_sizes_grow_to_all_runs_and_leave_no_small_group_behind(runs):
    sizes = list(autotune._candidates(runs))
    assert sizes[0] == 1 and sizes[-1] == runs and sizes == sorted(set(sizes))
    assert all(after >= 2 * before or after == runs for before, after in pairwise(sizes))
    for size in sizes:  # as few groups as hold all runs, none larger than it has to be
        groups = -(-runs // size)
        assert -(-runs // groups) == size


def test_five_runs_are_tried_alone_in_pairs_and_together():
    assert list(autotune._candidates(5)) == [1, 2, 5] and list(autotune._candidates(8)) == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("timings", "wanted", "tried", "said"),
    [
        ({1: 0.8, 2: 0.5, 4: 0.3, 8: 0.2}, 8, [1, 2, 4, 8], "800 ms with 1, 500 ms with 2"),
        ({1: 0.8, 2: 0.5, 4: 0.6}, 2, [1, 2, 4], ""),
        ({1: 0.8, 2: 0.9}, 1, [1, 2], ""),
        ({1: 0.8, 2: 0.79}, 2, [1, 2], ""),  # hardly worth it: no more are tried
        ({1: 1.5}, 1, [1], ""),  # busy enough
        ({1: 0.8, 2: 0.5, 4: CannotStack("it is too round")}, 2, [1, 2, 4], "no more, because it is too round"),
        ({1: 0.8, 2: torch.OutOfMemoryError("none")}, 1, [1, 2], "2 do not fit into memory"),
        ({1: 0.8, 2: 0.5, 4: TypeError("three arguments")}, 2, [1, 2, 4], "4: three arguments"),
        ({1: RuntimeError("broken")}, 1, [1], "cannot be measured; 1: broken"),
    ],
    ids=str,
)
def test_the_fastest_is_chosen_and_whatever_goes_wrong_is_said(variant, monkeypatch, timings, wanted, tried, said):
    replicas, reason, found = choose(variant, monkeypatch, timings)
    assert (replicas, found) == (wanted, tried) and said in reason


@pytest.mark.parametrize("error", [Interrupted("now"), InputError([])], ids=["interrupted", "input"])
def test_a_stop_is_a_stop(variant, monkeypatch, error):
    with pytest.raises(type(error)):
        choose(variant, monkeypatch, {1: error})


def test_few_steps_are_not_worth_measuring(variant, monkeypatch):
    short = variant.like(max_steps=10, min_steps=10)
    replicas, reason, tried = choose(short, monkeypatch, {})
    assert (replicas, tried) == (1, []) and reason == "10 steps a run are too few to measure"


def test_a_group_that_takes_long_to_measure_is_not_tried(variant, monkeypatch):
    short = variant.like(max_steps=40, min_steps=40)
    replicas, _, tried = choose(short, monkeypatch, {1: 0.8, 2: 0.5, 4: 0.3, 8: 0.2})
    assert (replicas, tried) == (4, [1, 2, 4])


@pytest.mark.parametrize(
    ("runs", "train", "tokens"),
    [
        (2, {}, 768),
        (1, {}, 1536),  # eighty steps in all: not worth measuring
        (2, {"micro_batch_tokens": 99}, 1536),  # which the recipe overrules
    ],
)
def test_parts_are_of_the_size_that_was_measured_where_it_pays(variant, monkeypatch, runs, train, tokens):
    monkeypatch.setattr(models, "choose_parts", lambda options, dtype: Parts({1536: 2.0, 768: 1.0, 3072: 2.0}))
    seen = []
    monkeypatch.setattr(autotune, "_seconds", lambda *given: seen.append(given[0].runtime.part_tokens) or 1.5)
    speed = choose_speed(variant.like(**train, replicas="auto").session(), RUNS[:runs])
    assert speed.part_tokens == tokens and set(seen) <= {tokens}
    assert ("768 tokens at once" in speed.reason) == (tokens == 768)


@pytest.mark.parametrize(
    ("train", "compute", "tokens"),
    [
        ({}, {}, 300),
        ({"max_steps": 200, "min_steps": 200}, {}, 300),  # worth measuring, and what was measured is too much
        ({}, {"gradient_checkpointing": True}, 1536),  # few activations are kept
    ],
)
def test_parts_of_a_large_model_have_fewer_tokens(variant, monkeypatch, train, compute, tokens):
    monkeypatch.setattr(models, "choose_parts", lambda options, dtype: Parts({1536: 1.0, 768: 2.0, 3072: 2.0}))
    each = activation_bytes(variant.session().base.model.config, 8, torch.float32)

    def speed():
        like = variant.like(**train)
        recipe = like.recipe.model_copy(update={"compute": ComputeOptions(**compute)})
        return choose_speed(Session.open(like.resources, recipe, 0, like.runtime()), RUNS[:1])

    assert speed().part_tokens == 1536, "of a small one there is room for all of them"
    monkeypatch.setattr(fitting, "ROOM", 300.5 * each)
    assert speed().part_tokens == tokens
    assert ("300 tokens at once" in speed().reason) == ("max_steps" in train)
    monkeypatch.setattr(fitting, "ROOM", each)
    assert speed().part_tokens == (256 if tokens == 300 else tokens), "nor ever much fewer"


def test_a_run_that_diverges_at_once_cannot_be_measured_and_is_no_error(variant):
    wild = variant.like(learning_rate=1e30, warmup=0.0, clip=None)
    replicas, reason = choose_replicas(wild.session(), RUNS)
    assert replicas == 1 and "cannot be measured" in reason


def test_measuring_leaves_nothing_behind(variant, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    before = {name: value.clone() for name, value in variant.base.model.named_parameters()}
    replicas, reason = choose_replicas(variant.session(), RUNS)
    assert replicas in (1, 2, 3) and "ms with 1" in reason
    assert not list((tmp_path / "temporary").iterdir())
    assert all(torch.equal(value, before[name]) for name, value in variant.base.model.named_parameters())


# Compiled, or not


@pytest.fixture
def chatty(tmp_path, decoder_folder):
    """LoRA of a decoder, which has no dropout."""
    return Variant.of(tmp_path / "chatty", decoder_folder, "chat", {"type": "adapter", "rank": 4})


def compiled(variant, monkeypatch, timings=(), steps=autotune.COMPILING, **options):
    """Whether to compile, and why, if plain and compiled steps take what ``timings`` says."""
    left = list(timings)

    def seconds(*_, compiled=False):
        found = left.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(autotune, "_seconds", seconds)
    variant = variant.like(max_steps=steps, min_steps=steps, **options)
    return choose_compiled(variant.session(), RUNS[:1], 1)


def test_compiling_has_to_pay_for_itself(chatty, monkeypatch):
    assert compiled(chatty, monkeypatch, (0.5, 0.1))[0]
    assert not compiled(chatty, monkeypatch, (0.5, 0.6))[0]
    assert "100 ms compiled, 500 ms plain" in compiled(chatty, monkeypatch, (0.5, 0.1))[1]
    assert compiled(chatty, monkeypatch, (0.5, RuntimeError("no compiler\nfound"))) == (
        False,
        "torch.compile does not work here: no compiler",
    )


def test_compiling_is_not_tried_where_it_cannot_pay_or_is_not_wanted(chatty, variant, monkeypatch):
    assert compiled(chatty, monkeypatch, steps=10) == (False, "10 steps are too few")
    assert compiled(chatty, monkeypatch, compile=False) == (False, "the recipe says so")
    assert compiled(chatty, monkeypatch, compile=True, steps=10) == (True, "the recipe says so")
    for asked in ("auto", True):
        assert compiled(variant, monkeypatch, compile=asked) == (False, "dropout is at work")


@pytest.mark.slow
def test_a_compiled_model_learns_the_same(chatty):
    """Needs a C++ compiler."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    [plain] = chatty.run([0], "plain")
    [same] = chatty.run([0], "compiled", compiled=True)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0, "something was compiled"
    assert far(plain, same) < 1e-3


# In a study


@pytest.fixture
def start(topics, tmp_path):
    """A study of the variant `full` alone, 8 steps long, of three seeds: what it came to, run by run."""
    text = topics.read_text().replace("min_steps: 24", "min_steps: 8, max_steps: 8").replace("seeds: 2", "seeds: 3")
    topics.write_text("\n".join(line for line in text.splitlines() if "linear:" not in line))

    def run(*overrides, name="runs"):
        outcome = run_study(recipes.load(topics, overrides), tmp_path / name)
        folders = [outcome.folder / "full" / f"seed-{seed}" for seed in range(3)]
        return outcome, [read_json(folder / "result.json") for folder in folders]

    return run


@pytest.fixture
def trained(monkeypatch):
    """Seeds of each group that was run."""
    groups, plain = [], study.run

    def watched(variant, replicas, *rest):
        groups.append([replica.streams.seed for replica in replicas])
        return plain(variant, replicas, *rest)

    monkeypatch.setattr(study, "run", watched)
    return groups


def same_scores(one, other):
    for left, right in zip(one, other, strict=True):
        assert left["scores"] == pytest.approx(right["scores"], rel=1e-4)
        assert left["identity"] == right["identity"] and left["status"] == right["status"]


def test_what_was_measured_is_written_down_and_used_again(start, trained, monkeypatch):
    asked = []
    monkeypatch.setattr(autotune, "choose_replicas", lambda *_: [asked.append(1), (2, "it was faster")][1])
    outcome, results = start()
    assert trained == [[0, 1], [2]] and len(asked) == 1
    assert [result["training"]["replicas"] for result in results] == [2, 2, 1]
    known = read_json(outcome.folder / "speed.json")["full"]
    assert (known["replicas"], known["compiled"]) == (2, False) and "2 (it was faster)" in known["reason"]
    for seed in (1, 2):
        (outcome.folder / "full" / f"seed-{seed}" / "result.json").unlink()
    start()
    assert trained[2:] == [[1, 2]] and len(asked) == 1, "known from the first time"


def test_parts_stay_as_the_study_began_with(start, monkeypatch):
    seen, plain = [], Accumulation.__post_init__
    monkeypatch.setattr(Accumulation, "__post_init__", lambda self: (plain(self), seen.append(self.tokens)))
    outcome, _ = start()
    assert set(seen) == {1536}
    known = read_json(outcome.folder / "speed.json")
    former = {name: value for name, value in known["full"].items() if name != "part_tokens"}
    for full, tokens in ((known["full"] | {"part_tokens": 70}, 70), (former, 1536)):
        seen.clear()
        (outcome.folder / "speed.json").write_text(json.dumps({"full": full}))
        (outcome.folder / "full" / "seed-0" / "result.json").unlink()
        start()
        assert seen == [tokens], "former versions had one number for all"


def test_auto_measures(start, monkeypatch):
    monkeypatch.setattr(autotune, "WORTH", 1)
    outcome, results = start()
    known = read_json(outcome.folder / "speed.json")["full"]
    assert known["replicas"] in (1, 2, 3) and "ms with 1" in known["reason"]
    assert results[0]["training"]["replicas"] == known["replicas"] and outcome.failed == []


def test_the_recipe_may_say_how_many(start, trained):
    outcome, results = start("train.replicas=2")
    assert trained == [[0, 1], [2]] and "the recipe says so" in (outcome.folder / "speed.json").read_text()
    _, alone = start("train.replicas=1", name="alone")
    assert trained[2:] == [[0], [1], [2]]
    _, all_at_once = start("train.replicas=40", name="all")
    assert trained[5:] == [[0, 1, 2]]
    same_scores(results, alone)
    same_scores(all_at_once, alone)


def test_runs_on_other_splits_stand_alone(start, trained):
    start("train.replicas=3", "vary=[split, init, order]")
    assert trained == [[0], [1], [2]]


def test_a_group_that_fails_is_tried_one_by_one(start, monkeypatch):
    """And what it was is what would have come of single runs."""
    _, alone = start("train.replicas=1", name="alone")
    groups, plain = [], study.run

    def fragile(variant, replicas, *rest):
        groups.append(len(replicas))
        if len(replicas) > 1:
            raise RuntimeError("three are a crowd")
        return plain(variant, replicas, *rest)

    monkeypatch.setattr(study, "run", fragile)
    outcome, results = start("train.replicas=3")
    assert groups == [3, 1, 1, 1] and outcome.failed == []
    same_scores(results, alone)


def test_what_cannot_stack_is_trained_one_by_one(start, trained):
    strategy = '{"type": "adapter", "rank": 2, "targets": ["word_embeddings"]}'
    _, results = start("train.replicas=3", f"variants.full.strategy={strategy}")
    assert trained == [[0, 1, 2], [0], [1], [2]]
    assert {result["training"]["replicas"] for result in results} == {1}


def test_one_run_that_fails_in_a_group_is_the_only_one(start, monkeypatch):
    plain = train

    def fails(group, task, examples, options, replicas, *rest):
        if 1 in [replica.streams.seed for replica in replicas]:
            raise RuntimeError("seed 1 is unlucky")
        return plain(group, task, examples, options, replicas, *rest)

    monkeypatch.setattr("finetune.runner.session.train", fails)
    _, results = start("train.replicas=3")
    assert [result["status"] == "error" for result in results] == [False, True, False]
    assert "unlucky" in results[1]["reason"]


# Interrupted


class After(StopRequest):
    """Stops when asked for the ``count``-th time, which is once a step."""

    def __init__(self, count):
        object.__setattr__(self, "left", count)

    @property
    def requested(self):
        object.__setattr__(self, "left", self.left - 1)
        return self.left == 0

    @requested.setter
    def requested(self, value):
        pass


@pytest.mark.parametrize(("before", "after"), [([[0, 1]], [[0], [1]]), ([[0], [1]], [[0, 1]]), ([[0, 1]], [[0, 1]])])
def test_what_was_begun_in_one_grouping_ends_in_another(variant, before, after):
    short = variant.like(max_steps=8, min_steps=8)
    whole = {seed: short.run([seed], "whole")[0] for seed in (0, 1)}
    for seeds in before:
        with pytest.raises(Interrupted, match="after step 4 of 8"):
            short.run(seeds, "parts", stop=After(4))
    for seeds in after:
        for seed, came in zip(seeds, short.run(seeds, "parts"), strict=True):
            assert came.facts["resumed"] == 1 and came.facts["steps"] == 8
            assert came.losses == pytest.approx(whole[seed].losses, rel=1e-4)
            assert came.norms == pytest.approx(whole[seed].norms, rel=1e-3)
            assert max(float((came.weights[n] - whole[seed].weights[n]).abs().max()) for n in came.weights) < 1e-4
            assert came.facts["tokens"] == whole[seed].facts["tokens"]


def test_a_runs_share_of_its_groups_time_goes_with_it(variant):
    """Two runs that were begun together and ended apart have not each taken the time of both."""
    short = variant.like(max_steps=4, min_steps=4)
    with pytest.raises(Interrupted):
        short.run([0, 1], "parts", stop=After(3))
    states = [checkpoint.load(replica.folder.checkpoints)[0] for replica in short.replicas("parts", [0, 1])]
    assert states[0]["position"] == states[1]["position"]
    rows = [json.loads(line) for line in short.replicas("parts", [0])[0].folder.metrics.read_text().splitlines()]
    assert states[0]["position"]["seconds"] < 0.75 * rows[-1]["seconds"] + 0.1
    assert sum(states[0]["position"]["phases"].values()) <= states[0]["position"]["seconds"] + 0.01


def test_those_that_stopped_at_the_same_step_go_on_together(topics, tmp_path):
    resolved = recipes.load(topics, ["seeds=5", "train.replicas=2"])
    runtime = open_runtime(*processor(resolved.variants[0].recipe.model), Progress(), StopRequest(), tmp_path)
    opened = Study.resume(resolved, StudyDir(tmp_path / "runs"), Resources(), runtime)
    for seed in (0, 2, 4):
        checkpoint.save(opened.folder.run("linear", seed).checkpoints, 4, {}, {})
    assert list(opened.groups(resolved.variants[0])) == [[0, 2], [4], [1, 3]]
