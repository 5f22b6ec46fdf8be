"""Settings from outside the recipe are obeyed, overruled with a line, or refused by name: never half."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.core.env_vars import SETTINGS, Asked, check_settings, overruled, recorded, setting_of
from finetune.core.errors import InputError

CPU, GPU = Asked("cpu", "float32"), Asked("cuda:0", "float32")

ON = {
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_TORCH_DEVICE": "mps",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_DYNAMO_BACKEND": "inductor",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "DNNL_DEFAULT_FPMATH_MODE": "ANY",
}
"""Values other than 1 that ask for something."""


def named(pattern: str) -> str:
    """A variable that the pattern stands for."""
    return pattern.replace("*", "SOMETHING")


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.pattern)
def test_every_setting_is_treated_as_the_table_says(setting):
    name = named(setting.pattern)
    if setting_of(name) is not setting:  # a more particular one comes first
        assert setting.pattern.endswith("*")
        return
    environ = {name: ON.get(name, "1")}
    if setting.pattern.startswith("PARALLELISM"):
        environ = {name: "2"}
    for asked in (CPU, GPU, Asked("cpu", "float32", compiled=True)):
        answer = setting.judge(environ[name], asked)
        assert (len(overruled(asked, environ)) == 1) == (answer == "overruled")
        if answer != "refused":
            check_settings(asked, environ)
            continue
        with pytest.raises(InputError, match=re.escape(f"{name}={environ[name]} is set in the environment: ")) as found:
            check_settings(asked, environ)
        assert len(found.value.problems) == 1 and found.value.problems[0].advice
    assert recorded(environ) == environ
    if setting.answer != "obeyed":
        judged = [setting.judge(environ[name], asked) for asked in (CPU, GPU, Asked("cpu", "float32", True))]
        assert setting.answer in judged  # it can happen
        for off in setting.off:
            check_settings(CPU, {name: off})
            assert not overruled(CPU, {name: off})


def test_what_asks_for_the_same_as_the_recipe_is_obeyed():
    check_settings(Asked("cpu", "bfloat16"), {"ACCELERATE_MIXED_PRECISION": "bf16"})
    check_settings(CPU, {"ACCELERATE_USE_CPU": "true", "ACCELERATE_TORCH_DEVICE": "cpu"})
    check_settings(GPU, {"ACCELERATE_USE_CPU": "False", "ACCELERATE_TORCH_DEVICE": "cuda"})
    with pytest.raises(InputError, match="ACCELERATE_USE_CPU=true"):
        check_settings(GPU, {"ACCELERATE_USE_CPU": "true"})
    with pytest.raises(InputError, match=r"ACCELERATE_MIXED_PRECISION=fp16.*\n.*model\.dtype"):
        check_settings(Asked("cpu", "bfloat16"), {"ACCELERATE_MIXED_PRECISION": "fp16"})


def test_all_refused_are_told_at_once():
    with pytest.raises(InputError) as found:
        check_settings(CPU, {"ACCELERATE_USE_FSDP": "true", "ACCELERATE_USE_DEEPSPEED": "true", "HOME": "/"})
    assert len(found.value.problems) == 2


def test_the_plain_launcher_asks_for_nothing():
    """What `accelerate launch` sets for a process that its configuration asks nothing of."""
    plain = {"MIXED_PRECISION": "no", "USE_CPU": "False", "DYNAMO_BACKEND": "no", "DYNAMO_MODE": "default"}
    plain |= {f"DYNAMO_USE_{name}": "False" for name in ("FULLGRAPH", "DYNAMIC", "REGIONAL_COMPILATION")}
    environ = {f"ACCELERATE_{name}": value for name, value in plain.items()} | {"OMP_NUM_THREADS": "1"}
    check_settings(GPU, environ)
    assert not overruled(GPU, environ)


def test_every_variable_that_accelerate_reads_is_in_the_table():
    [folder] = importlib.util.find_spec("accelerate").submodule_search_locations
    texts = [path.read_text(encoding="utf-8") for path in Path(folder).rglob("*.py") if "test_utils" not in path.parts]
    read = {
        name for text in texts for name in re.findall(r"[\"']((?:ACCELERATE|FSDP|MEGATRON_LM)_[A-Z0-9_]+)[\"']", text)
    }
    assert len(read) > 40
    own = {setting.pattern for setting in SETTINGS} - {"ACCELERATE_*"}
    unknown = [
        name for name in read if (found := setting_of(name)) is None or (found.pattern not in own and name[-1] != "_")
    ]
    assert not unknown


def weights(folder: Path) -> bytes:
    return (folder / "full" / "seed-0" / "model" / "model.safetensors").read_bytes()


def run(topics: Path, output: str, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    from tests.end_to_end.warm import environment_with

    argv = [sys.executable, "-m", "finetune", "run", str(topics), "--output", output, "seeds=1", *overrides]
    return subprocess.run(
        argv, cwd=topics.parent, env=environment_with(**environment), capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_accumulation_from_outside_leaves_every_bit_as_it_is(topics):
    topics.write_text(
        topics.read_text().replace("  linear: {strategy: {type: linear}, train: {learning_rate: 0.1}}\n", "")
    )
    plain = run(topics, "plain")
    assert plain.returncode == 0, plain.stderr
    done = run(topics, "other", ACCELERATE_GRADIENT_ACCUMULATION_STEPS="4", ACCELERATE_DYNAMO_MODE="max-autotune")
    assert done.returncode == 0, done.stderr
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4 in the environment changes nothing" in " ".join(
        done.stdout.split()
    )
    first, second = topics.parent / "plain" / "topics", topics.parent / "other" / "topics"
    assert weights(first) == weights(second)
    norms = [
        [
            row["gradient_norm"]
            for row in map(json.loads, (folder / "full/seed-0/metrics.jsonl").open())
            if "gradient_norm" in row
        ]
        for folder in (first, second)
    ]
    assert norms[0] and norms[0] == norms[1]
    said = json.loads((second / "environment.json").read_text())["settings"]
    assert said["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "4"


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"ACCELERATE_MIXED_PRECISION": "bf16"},
        {"ACCELERATE_USE_FSDP": "true"},
        {"ACCELERATE_USE_DEEPSPEED": "true"},
        {"ACCELERATE_USE_CPU": "perhaps"},
    ],
)
def test_what_is_refused_ends_before_anything_starts(topics, environment):
    done = run(topics, "runs", **environment)
    assert done.returncode == 2
    [(name, value)] = environment.items()
    assert f"{name}={value} is set in the environment" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr and not (topics.parent / "runs").exists()


def test_what_is_set_on_the_way_is_no_setting():
    """Else what a study ran on would seem to change between two calls in one process."""
    assert recorded({"TORCHINDUCTOR_CACHE_DIR": "/tmp/a", "TORCHINDUCTOR_FREEZING": "1"}) == {
        "TORCHINDUCTOR_FREEZING": "1"
    }


@pytest.mark.parametrize("name", ["NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"])
def test_tf32_is_obeyed_where_the_recipe_asks_for_it(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    check_settings(Asked("cuda:0", "float32", tf32=True))
    with pytest.raises(InputError, match="would be rounded to TF32") as caught:
        check_settings(GPU)
    assert "compute.tf32: true" in caught.value.problems[0].advice
