"""A model that is split over processes is trained as one that is whole, and its checkpoints know no number of
processes."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from finetune.core.sharding import Parts, is_sharded, rows_of
from finetune.train import checkpoint
from finetune.train.meters import read_rows
from tests.train.workbench import fit, furthest

SHAPES = {"weights/matrix": (7, 3), "weights/bias": (2,), "optimizer/0/moment": (7, 3), "best/matrix": (7, 3)}
FLAT = ("weights/matrix", "best/matrix")
"""Which of them are kept flat, as the loop has them."""


def tensors(process, processes):
    """What a process has of the tensors of a checkpoint, and what all of them have."""
    tree = {"weights": {}, "best": {}, "optimizer": {"0": {"step": torch.tensor(3.0)}}}
    for number, (path, shape) in enumerate(SHAPES.items()):
        first, last = rows_of(shape[0], process, processes)
        value = (torch.arange(shape[0] * 3).view(shape[0], 3) + 100 * number).float()
        value = (value if len(shape) == 2 else value[:, 0])[first:last]
        *folders, leaf = path.split("/")
        place = tree
        for folder in folders:
            place = place[folder]
        place[leaf] = value.flatten() if path in FLAT else value
    return tree


def parts(process, processes, wait=lambda: None):
    return Parts(process, processes, SHAPES.get, wait)


def flat(tree):
    return checkpoint._flatten(tree)


@given(writers=st.integers(1, 5), readers=st.integers(1, 5))
@settings(deadline=None, max_examples=25)
def test_any_number_of_processes_reads_what_any_number_has_written(tmp_path_factory, writers, readers):
    folder, barrier = tmp_path_factory.mktemp("checkpoints"), Barrier(writers)

    def write(process):
        own = parts(process, writers, barrier.wait) if writers > 1 else None
        checkpoint.save(folder, 5, {"step": 5}, tensors(process, writers), own)

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    [made] = folder.iterdir()
    assert made.name == "step-00000005"
    for process in range(readers):
        state, found = checkpoint.read(made, parts(process, readers) if readers > 1 else None)
        wanted = flat(tensors(process, readers))
        assert state == {"step": 5} and flat(found).keys() == wanted.keys()
        for path, value in flat(found).items():
            assert torch.equal(value, wanted[path]) and value.shape == wanted[path].shape, path


def test_an_index_says_what_is_split(tmp_path):
    barrier = Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda n: checkpoint.save(tmp_path, 1, {}, tensors(n, 2), parts(n, 2, barrier.wait)), range(2)))
    made = tmp_path / "step-00000001"
    shards = [f"tensors-0000{number}-of-00002.safetensors" for number in (1, 2)]
    files = ["index.json", "state.json", *shards]
    assert {path.name for path in made.iterdir()} == {*files, *(f"{name}.blake2b" for name in files)}
    index = json.loads((tmp_path / "step-00000001" / "index.json").read_text())
    assert index == {"processes": 2, "shapes": {path: list(shape) for path, shape in SHAPES.items()}}
    assert checkpoint.damage(made) is None
    os.truncate(made / shards[1], 100)
    assert checkpoint.damage(made) == f"{shards[1]} is not what was written"
    (made / shards[0]).unlink()
    assert checkpoint.damage(made) == f"{shards[0]} is missing"
    assert checkpoint.load(tmp_path) is None


def launch(processes, model, run, **options):
    """Train in so many processes that split the model; each sees to it that all of it is split."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [*launcher, "-m", "tests.train.worker", str(model), str(run), json.dumps({"shard": True, **options})]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def came_to(run, processes=2):
    return [load_file(run / f"weights-{rank}.safetensors") for rank in range(processes)]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["chat", "topics"])
@pytest.mark.parametrize("part", [2, 8], ids=["in parts", "at once"])
def test_two_processes_that_split_a_model_train_as_one(request, tmp_path, task, part):
    bench = request.getfixturevalue(f"{task}_bench")
    model = request.getfixturevalue("decoder_folder" if task == "chat" else "encoder_folder")
    options = {"batch_size": 5, "micro_batch_size": part, "evaluations": 3}
    one = fit(bench, tmp_path / "one", **options)
    done = launch(2, model, tmp_path / "two", chat=task == "chat", **options)
    assert done.returncode == 0, done.stderr
    first, second = came_to(tmp_path / "two")
    assert furthest(first, second) == 0 and furthest(first, one.weights) < 1e-5
    for ours, theirs in zip(read_rows(tmp_path / "two" / "metrics.jsonl"), one.rows, strict=True):
        for name in {"loss", "gradient_norm", "tokens", "learning_rate"} & set(ours):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
        assert ours.get("scores", {}) == pytest.approx(theirs.get("scores", {}), rel=1e-4)


@pytest.mark.slow
def test_another_number_of_processes_goes_on(topics_bench, encoder_folder, tmp_path):
    """From two to one to three: the same examples in the same order, and the same weights. Each begins with a score."""
    options, run = {"max_steps": 20, "evaluations": 4, "keep": "best"}, tmp_path / "run"
    whole = fit(topics_bench, tmp_path / "whole", **options)
    for processes, step in ((2, 4), (1, 14)):
        done = launch(processes, encoder_folder, run, stop=[0, step], **options)
        assert done.stdout.count(f"stopped after step {step + 1} of 20, which is saved") == processes, done.stderr
        *_, made = sorted((run / "checkpoints").iterdir())
        assert len(list(made.glob("*.safetensors"))) == processes
    done = launch(3, encoder_folder, run, **options)
    assert done.returncode == 0, done.stderr
    assert all(furthest(own, whole.weights) < 1e-5 for own in came_to(run, 3))
    assert json.loads((run / "facts-0.json").read_text())["resumed"] == 2
    losses = {row["step"]: row["loss"] for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"}
    assert losses == pytest.approx(dict(zip(whole.column("step"), whole.column("loss"), strict=True)), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["chat", "topics"])
def test_in_sixteen_bits_it_is_the_same_arithmetic(request, tmp_path, task):
    """Blocks' matrices are gathered as autocast would use them, and nothing else is in fewer bits than it was."""
    bench = request.getfixturevalue(f"{task}_bench")
    model = request.getfixturevalue("decoder_folder" if task == "chat" else "encoder_folder")
    options = {"batch_size": 4, "max_steps": 6}
    one = fit(bench, tmp_path / "one", dtype=torch.bfloat16, **options)
    done = launch(2, model, tmp_path / "two", chat=task == "chat", dtype="bfloat16", **options)
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "two" / "metrics.jsonl")
    assert [row["loss"] for row in rows] == pytest.approx(one.column("loss"), rel=2e-3)
    assert [row["gradient_norm"] for row in rows] == pytest.approx(one.column("gradient_norm"), rel=2e-2)


@pytest.mark.slow
def test_blocks_may_be_computed_again(decoder_folder, tmp_path):
    """With the same result, in every bit."""
    for name, again in (("kept", False), ("again", True)):
        compute = {"gradient_checkpointing": again}
        done = launch(2, decoder_folder, tmp_path / name, chat=True, compute=compute, batch_size=4, max_steps=4)
        assert done.returncode == 0, done.stderr
    assert furthest(came_to(tmp_path / "kept")[0], came_to(tmp_path / "again")[0]) == 0


def test_one_process_has_nothing_to_split(topics_bench, tmp_path):
    whole, asked = (fit(topics_bench, tmp_path / str(shard), shard=shard, max_steps=2) for shard in (False, True))
    assert furthest(whole.weights, asked.weights) == 0 and not is_sharded(asked.model)


@pytest.mark.slow
def test_what_a_study_saves_loads_in_plain_transformers(chats, tmp_path):
    """And its scores are those of one process."""
    command = ["-m", "finetune", "run", str(chats), "seeds=1", "compute.shard=true", "--output"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for launcher, folder in ((torchrun, "two"), ([], "one")):
        started = [sys.executable, *launcher, *command, str(tmp_path / folder)]
        done = subprocess.run(started, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    [path] = (tmp_path / "two").glob("chats/*/seed-0")
    there = tmp_path / "one" / path.relative_to(tmp_path / "two")
    ours, theirs = (json.loads((run / "result.json").read_text()) for run in (path, there))
    assert ours["scores"] == pytest.approx(theirs["scores"], abs=1e-4) and ours["identity"] == theirs["identity"]
    two, one = (AutoModelForCausalLM.from_pretrained(run / "model") for run in (path, there))
    assert type(two) is type(one) and furthest(two.state_dict(), one.state_dict()) < 1e-5
