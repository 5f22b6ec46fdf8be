"""Two processes do the work of one: same losses, same weights, and only the first one writes."""

import json
import re
import subprocess
import sys
import time

import pytest
import torch
import transformers
from safetensors.torch import load_file

from finetune.replicas.group import ReplicaGroup
from finetune.strategies.base import set_training_mode
from finetune.train import checkpoint, processes
from finetune.train.meters import read_rows
from tests import tiny
from tests.train.workbench import classification, fit, furthest, make_runtime

pytestmark = pytest.mark.slow


def launch(*command):
    """Run a module in two processes that find each other."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    return subprocess.run([*launcher, *map(str, command)], capture_output=True, text=True, timeout=300)


def two_processes(model, run, **options):
    return launch("tests.train.worker", model, run, json.dumps(options))


def came_to(run):
    return [load_file(run / f"weights-{rank}.safetensors") for rank in (0, 1)]


@pytest.mark.parametrize(
    "task, options",
    [
        # Batches of 5 and 4 in parts of 2: unequal shares, and answers of unequal length in each.
        ("chat", {"batch_size": 5, "micro_batch_size": 2, "evaluations": 3}),
        # One example a step: the second process never has anything to add.
        ("topics", {"batch_size": 1, "max_steps": 6}),
    ],
    ids=["unequal shares", "an empty share"],
)
def test_two_processes_train_as_one(request, tmp_path, task, options):
    bench = request.getfixturevalue(f"{task}_bench")
    model = request.getfixturevalue("decoder_folder" if task == "chat" else "encoder_folder")
    one = fit(bench, tmp_path / "one", **options)
    done = two_processes(model, tmp_path / "two", chat=task == "chat", **options)
    assert done.returncode == 0, done.stderr
    first, second = came_to(tmp_path / "two")
    assert furthest(first, second) == 0 and furthest(first, one.weights) < 1e-5
    rows = read_rows(tmp_path / "two" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [row["step"] for row in one.rows], "one log, written by one process"
    for ours, theirs in zip(rows, one.rows, strict=True):
        for name in {"loss", "gradient_norm", "tokens", "learning_rate"} & set(ours):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
        assert ours.get("scores", {}) == pytest.approx(theirs.get("scores", {}), rel=1e-4)
    facts = json.loads((tmp_path / "two" / "facts-0.json").read_text())
    same = ("steps", "epochs", "examples", "tokens", "best_step")
    assert {name: facts[name] for name in same} == {name: one.trained.facts[name] for name in same}
    assert 0 <= facts["padding"] < 0.5


def saved(folder, family, head, **config):
    """A tiny model of another family, with the tests' tokenizer."""
    size = tiny.save_tokenizer(folder, chat=True)
    torch.manual_seed(0)
    made = getattr(transformers, f"{family}Config")(vocab_size=size, pad_token_id=0, **config)
    getattr(transformers, f"{family}{head}")(made).save_pretrained(folder)
    return folder


def test_parameters_that_are_never_used_are_no_harm(tmp_path):
    """A decoder's attention to an encoder's states has nothing to do where there is none."""
    model = tiny.save_encoder(tmp_path / "model", is_decoder=True, add_cross_attention=True)
    options = {"batch_size": 5, "micro_batch_size": 2, "max_steps": 6, "evaluations": 0}
    one = fit(classification(model), tmp_path / "one", **options)
    done = two_processes(model, tmp_path / "two", **options)
    assert done.returncode == 0, done.stderr
    first, second = came_to(tmp_path / "two")
    assert furthest(first, second) == 0 and furthest(first, one.weights) < 1e-5
    name = "bert.encoder.layer.0.crossattention.self.query.weight"
    assert torch.equal(first[name], classification(model).base.model.get_parameter(name))


def test_layers_that_are_left_out_by_chance_are_no_harm(tmp_path):
    shape = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    model = saved(tmp_path / "model", "OPT", "ForCausalLM", word_embed_proj_dim=32, layerdrop=0.5, **shape)
    done = two_processes(model, tmp_path / "two", chat=True, batch_size=5, micro_batch_size=1, max_steps=6)
    assert done.returncode == 0, done.stderr
    first, second = came_to(tmp_path / "two")
    assert furthest(first, second) == 0


def test_what_is_always_used_is_not_looked_for(topics_bench, tmp_path):
    """Which would take time at every step."""
    group, runtime = ReplicaGroup(topics_bench.model()), make_runtime(tmp_path)
    set_training_mode(group.model)
    assert not processes.idle(group, topics_bench.task, topics_bench.examples, runtime)
    assert all(parameter.grad is None for parameter in group.model.parameters()) and group.model.training
    assert not processes.skips(group.model)


EXPERTS = {"d_ff": 32, "d_kv": 8, "num_layers": 2, "num_sparse_encoder_layers": 1, "num_experts": 2}


def test_experts_and_layers_that_may_be_left_out_are_known():
    switch = transformers.SwitchTransformersConfig(vocab_size=50, d_model=16, num_heads=2, **EXPERTS)
    assert processes.skips(transformers.SwitchTransformersEncoderModel(switch))
    shape = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 50}
    bart = transformers.BartModel(transformers.BartConfig(**shape, encoder_layerdrop=0.1))
    assert processes.skips(bart) and not processes.skips(transformers.BartModel(transformers.BartConfig(**shape)))


def test_when_one_is_asked_to_stop_both_do_and_either_number_can_go_on(topics_bench, encoder_folder, tmp_path):
    whole = fit(topics_bench, tmp_path / "whole")
    settings = {"checkpoint_seconds": 0.0}
    done = two_processes(encoder_folder, tmp_path / "run", stop=[1, 4], **settings)
    assert done.stdout.count("stopped after step 5 of 12, which is saved") == 2, done.stdout + done.stderr
    assert checkpoint.load(tmp_path / "run" / "checkpoints")[0]["position"]["step"] == 5
    assert not list((tmp_path / "run").glob("weights-*"))
    resumed = fit(topics_bench, tmp_path / "run", **settings)
    assert resumed.trained.facts["resumed"] == 1 and furthest(resumed.weights, whole.weights) < 1e-5


def test_a_study_in_two_processes_is_the_study(chats, tmp_path):
    """Scoring is shared out too, and generation in it."""
    command = ["run", chats, "seeds=1", "train.micro_batch_size=3", "train.checkpoint_seconds=0.1", "--output"]
    two = launch("finetune", *command, tmp_path / "two")
    assert two.returncode == 0, two.stderr
    alone = [sys.executable, "-m", "finetune", *map(str, command), str(tmp_path / "one")]
    one = subprocess.run(alone, capture_output=True, text=True, timeout=300)
    assert one.returncode == 0, one.stderr
    [path] = (tmp_path / "one").glob("chats/*/seed-0/result.json")
    first, second = (
        json.loads((tmp_path / name / path.relative_to(tmp_path / "one")).read_text()) for name in ("one", "two")
    )
    assert first["scores"] == pytest.approx(second["scores"], abs=1e-4)
    assert first["identity"] == second["identity"]
    told = [line for line in two.stdout.splitlines() if "seed 0 ·" in line]
    assert len(told) == 1, "only the first process speaks"


@pytest.mark.parametrize("shard", [False, True], ids=["whole", "split"])
def test_one_that_hangs_is_named_and_the_other_ends(encoder_folder, tmp_path, monkeypatch, shard):
    monkeypatch.setenv("FINETUNE_PROCESS_TIMEOUT", "6")
    begun = time.monotonic()
    done = two_processes(encoder_folder, tmp_path / "run", hang=[1, 3], shard=shard)
    assert done.returncode != 0 and time.monotonic() - begun < 120
    assert re.search(
        r"finetune: process 1 \(host \S+, pid \d+\) has not moved for \d+ s: this process ends", done.stderr
    )
