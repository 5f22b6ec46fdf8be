"""Which arithmetic a CPU is fastest in, and in what parts: measured, remembered, and obeyed whatever flags say."""

import json

import pytest
import torch

from finetune.core import arithmetic
from finetune.core.arithmetic import PARTS, Measured, Parts, _measure, arithmetic_name, measured_for, parts_for
from finetune.models import ModelOptions, choose_dtype, choose_parts, explain_dtype
from finetune.models.devices import measured_width

CPU = torch.device("cpu")
AUTO = ModelOptions(source="nowhere/nothing")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder in which measurements are remembered; this process forgets its own."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    forget()
    yield tmp_path / "arithmetic"
    forget()


def forget():
    measured_for.cache_clear()
    parts_for.cache_clear()


@pytest.mark.parametrize(
    "float32, bfloat16, dtype, reason",
    [
        (4.4, 1.0, "bfloat16", "bfloat16 measured 4.4x as fast as float32"),
        (1.0, 17.0, "float32", "bfloat16 measured 17.0x as slow as float32"),
        (1.1, 1.0, "float32", "bfloat16 measured 1.1x as fast as float32"),  # which may be chance
    ],
)
@pytest.mark.parametrize("flags", ["avx2", "avx512_bf16 amx_bf16"])
def test_what_was_measured_counts_and_not_the_processors_flags(
    cache, monkeypatch, flags, float32, bfloat16, dtype, reason
):
    monkeypatch.setattr(arithmetic, "_cpu_info", lambda *keys: flags)
    measured_for(measured_width(AUTO))
    [path] = cache.iterdir()
    path.write_text(json.dumps({"float32": float32, "bfloat16": bfloat16}))
    measured_for.cache_clear()  # as another process would find it
    assert explain_dtype(AUTO, CPU) == (dtype, reason)
    assert choose_dtype(AUTO, CPU) == getattr(torch, dtype)
    asked = ModelOptions(source="nowhere/nothing", dtype="bfloat16")
    assert explain_dtype(asked, CPU) == ("bfloat16", "the recipe says so")


def test_it_is_measured_once(cache):
    found = measured_for(384)
    [path] = cache.iterdir()
    assert json.loads(path.read_text()) == vars(found) and found.float32 > 0 and found.bfloat16 > 0
    measured_for.cache_clear()
    assert measured_for(384) == found
    path.write_text("half a")
    measured_for.cache_clear()
    assert measured_for(384).dtype in ("float32", "bfloat16"), "what cannot be read is measured again"


@pytest.mark.parametrize("content", ["half a", "[1]", '{"float32": 1.0}', '{"float32": null, "bfloat16": 1}'])
def test_what_cannot_be_read_is_measured_again(cache, content):
    measured_for(128)
    [path] = cache.iterdir()
    path.write_text(content)
    forget()
    assert measured_for(128).float32 > 0


@pytest.mark.parametrize(
    "seconds, tokens",
    [
        ((1.0, 1.0, 1.0), 1536),
        ((1.1, 1.0, 1.0), 1536),  # which may be chance
        ((1.5, 1.0, 1.4), 768),
        ((1.5, 2.0, 1.0), 3072),
    ],
)
def test_parts_are_of_the_size_that_is_clearly_fastest(cache, monkeypatch, seconds, tokens):
    monkeypatch.setattr(arithmetic, "_measure_parts", lambda width, dtype: seconds)
    found = choose_parts(AUTO, torch.float32)
    assert found.tokens == tokens and all(f"{size:,}" in found.reason for size in PARTS)
    assert len(list(cache.iterdir())) == 1
    choose_parts(AUTO, torch.bfloat16)
    assert len(list(cache.iterdir())) == 2, "another arithmetic is measured by itself"


def test_parts_are_measured_only_where_that_is_quick(cache, monkeypatch):
    width = measured_width(AUTO)
    monkeypatch.setattr(arithmetic, "PATIENCE", 60.0)  # however slow the machine
    quick = parts_for(128, torch.float32)
    assert all(seconds > 0 for seconds in quick.seconds.values()) and tuple(quick.seconds) == PARTS
    monkeypatch.setattr(arithmetic, "PATIENCE", 2.0)
    monkeypatch.setattr(arithmetic, "measured_for", lambda asked: Measured(1.0, 1.0) if asked == width else None)
    slow = choose_parts(AUTO, torch.bfloat16)
    assert slow.tokens == PARTS[0] and "long" in slow.reason


def test_measuring_draws_nothing_from_the_streams_of_a_run():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert isinstance(_measure(128), Measured)
    assert isinstance(choose_parts(AUTO, torch.float32), Parts)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_models_own_size_is_measured(tmp_path, encoder_folder):
    assert measured_width(AUTO) == 512
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 700}))
    assert measured_width(ModelOptions(source=str(tmp_path))) == 640
    assert measured_width(ModelOptions(source=str(encoder_folder))) == 128
    (tmp_path / "config.json").write_text("{")
    assert measured_width(ModelOptions(source=str(tmp_path))) == 512


@pytest.mark.parametrize(
    "flags, units", [("amx_bf16 avx512_bf16", "AMX bf16, AVX-512 bf16"), ("avx2", "no bf16 units")]
)
def test_the_arithmetic_has_a_name(monkeypatch, flags, units):
    monkeypatch.setattr(arithmetic, "_cpu_info", lambda *keys: flags)
    assert arithmetic_name() == f"{torch.backends.cpu.get_cpu_capability()}, {units}"
