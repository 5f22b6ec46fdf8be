"""What a run runs in: arithmetic, requests to stop over processes, determinism."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from finetune.core.errors import InputError
from finetune.core.progress import Progress
from finetune.core.runtime import Runtime, make_deterministic, open_runtime
from finetune.core.signals import StopRequest
from finetune.models import ModelOptions, processor


class Loud(Progress):
    """Told apart from the silent one by its type."""


@pytest.fixture
def runtime(tmp_path):
    options = ModelOptions(source="anywhere", device="cpu", dtype="float32")
    return open_runtime(*processor(options), Loud(), StopRequest(), tmp_path)


def test_the_machine_is_found(runtime):
    assert runtime.device == torch.device("cpu") and runtime.dtype == torch.float32
    assert runtime.accelerator.num_processes == 1 and isinstance(runtime.progress, Loud)


def test_a_device_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"model\.device: there is no device 'gpu'"):
        open_runtime(*processor(ModelOptions(source="anywhere", device="gpu")), Progress(), StopRequest(), tmp_path)


def test_another_run_has_its_own_title_and_arithmetic(runtime, tmp_path):
    other = runtime.at("lora, seed 3", torch.bfloat16)
    assert (other.cache, other.title, other.dtype) == (tmp_path, "lora, seed 3", torch.bfloat16)
    assert other.stop is runtime.stop and other.accelerator is runtime.accelerator


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_arithmetic_is_of_the_computing_type_and_weights_are_not(runtime, dtype):
    layer = torch.nn.Linear(4, 4)
    with replace(runtime, dtype=dtype).autocast():
        result = layer(torch.ones(2, 4))
    result.float().sum().backward()
    assert result.dtype == dtype and layer.weight.dtype == layer.weight.grad.dtype == torch.float32


def test_a_request_to_stop_is_passed_on(runtime):
    assert not runtime.must_stop()
    runtime.stop.requested = True
    assert runtime.must_stop()


def test_if_any_process_is_asked_to_stop_all_must(runtime):
    """Of three processes, only another one was asked: its request arrives in the sum."""
    summed = []

    def reduce(value, how):
        summed.append((value.item(), how))
        return value + 1

    several = SimpleNamespace(num_processes=3, reduce=reduce, device=torch.device("cpu"))
    elsewhere = replace(runtime, accelerator=several)
    assert elsewhere.must_stop() and elsewhere.all_reduce_sum(2**31 + 1) == 2**31 + 2
    assert summed == [(0.0, "sum"), (2**31 + 1, "sum")], "exact beyond what float32 counts"


def test_only_the_first_process_shows_anything(monkeypatch, tmp_path):
    import accelerate

    second = SimpleNamespace(is_main_process=False, device=torch.device("cpu"), num_processes=2)
    second.distributed_type = accelerate.DistributedType.MULTI_CPU
    monkeypatch.setattr(accelerate, "Accelerator", lambda **said: second)
    runtime = open_runtime(*processor(ModelOptions(source="anywhere", device="cpu")), Loud(), StopRequest(), tmp_path)
    assert type(runtime.progress) is Progress


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch, runtime, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="WORLD_SIZE=2 is set in the environment, and this process is alone"):
        open_runtime(*processor(ModelOptions(source="anywhere", device="cpu")), Progress(), StopRequest(), tmp_path)


def test_accelerate_with_other_arithmetic_in_this_process_is_refused(monkeypatch, runtime, tmp_path):
    from accelerate.state import AcceleratorState

    monkeypatch.setitem(AcceleratorState._shared_state, "_mixed_precision", "bf16")
    with pytest.raises(InputError, match=r"Accelerate cannot do what the recipe asks for.*mixed_precision"):
        open_runtime(*processor(ModelOptions(source="anywhere", device="cpu")), Progress(), StopRequest(), tmp_path)


def test_determinism_can_be_turned_on_and_off():
    try:
        make_deterministic(True)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled(), "a kernel without a twin must not end a run"
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        make_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_runtime_does_not_change(runtime):
    with pytest.raises(AttributeError):
        runtime.title = "another"
    assert isinstance(runtime, Runtime)
