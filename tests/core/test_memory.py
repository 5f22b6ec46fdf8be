"""Memory kept between steps, told from other errors; and where a run's seconds went."""

import platform
import subprocess
import sys
import time

import pytest
import torch

from finetune import recipe as recipes
from finetune.core import memory
from finetune.core.memory import keep_memory, out_of_memory
from finetune.core.run_dir import read_json
from finetune.study.running import run_study
from finetune.train import meters
from finetune.train.meters import peak_flops

GIGABYTE = 10**9

PHASES = {"data", "forward", "backward", "optimizer", "evaluation", "writing"}

FAULTS = """
import resource
from finetune.core.memory import keep_memory
import torch

def faults():
    "Pages that the system had to hand out for ten tensors of 8 MiB, each freed before the next."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = faults()
kept = keep_memory()
faults()
print(int(kept), plain, faults())
"""


def test_freed_memory_is_kept():
    """The pages of a step are the next step's, where without they are cleared anew each time."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    asked, plain, kept = map(int, done.stdout.split())
    if platform.libc_ver()[0] == "glibc":
        assert asked and plain > 1000 and kept < plain / 20
    else:
        assert not asked


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda *_: pytest.fail("its parameters have other numbers"))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert keep_memory() is False


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("memory"), False),
        (MemoryError(), False),  # Python's own: something of ours is too large, and smaller parts would not help
    ],
    ids=str,
)
def test_running_out_of_memory_is_told_from_other_errors(error, wanted):
    assert out_of_memory(error) is wanted


def test_the_real_error_of_a_cpu_is_recognised():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 55)
    assert out_of_memory(error.value)


@pytest.fixture(scope="module")
def results(tmp_path_factory, encoder_folder):
    """Of two variants' two runs: linear one after the other, full side by side."""
    from tests import tiny

    folder = tmp_path_factory.mktemp("study")
    resolved = recipes.load(tiny.write_topics(folder, encoder_folder), ["variants.full.train={replicas: 2}"])
    outcome = run_study(resolved, folder / "runs")
    return {
        (v, s): read_json(outcome.folder / v / f"seed-{s}" / "result.json") for v in ("linear", "full") for s in (0, 1)
    }


def test_a_runs_seconds_are_told_by_phase(results):
    """Little is left that belongs to none."""
    for result in results.values():
        training = result["training"]
        assert set(training["phases"]) <= PHASES and {"data", "forward", "backward", "optimizer"} <= set(
            training["phases"]
        )
        spent = sum(training["phases"].values())
        assert 0.6 * training["seconds"] - 0.02 < spent < training["seconds"] + 0.02
        assert training["phases"]["evaluation"] > 0, "the validation split was scored"
        assert result["phases"]["train"] == pytest.approx(training["seconds"], abs=0.01)


def test_runs_side_by_side_share_their_groups_seconds(results):
    one, other = (results["full", seed] for seed in (0, 1))
    assert one["training"]["replicas"] == 2
    assert one["phases"] == other["phases"] and one["training"]["phases"] == other["training"]["phases"]


def test_utilisation_is_a_share_of_what_the_machine_can_do(results):
    for result in results.values():
        assert 0 <= result["training"]["utilisation"] < 1.2
    assert results["full", 0]["training"]["utilisation"] > results["linear", 0]["training"]["utilisation"]


def test_the_machines_peak_is_measured_once(monkeypatch):
    found = peak_flops(torch.device("cpu"), torch.float32)
    assert 1e8 < found < 1e14
    monkeypatch.setattr(torch, "randn", lambda *_, **__: pytest.fail("measured again"))
    assert peak_flops(torch.device("cpu"), torch.float32) == found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_measuring_the_peak_takes_no_longer_in_arithmetic_that_a_processor_emulates(dtype):
    """Without units for it a product of the usual size takes six seconds."""
    begun = time.process_time()
    assert peak_flops.__wrapped__(torch.device("cpu"), dtype) > 1e7
    assert time.process_time() - begun < 3


def test_a_library_that_begins_slowly_hides_no_peak(monkeypatch):
    """As a GPU's does: were its first product believed, only small ones would be tried."""
    asked, first = [], [True]

    def product(size, device, dtype):
        asked.append(size)
        return lambda: 1.0 if first and first.pop() else size**3 / 1e12

    monkeypatch.setattr(meters, "_product", product)
    assert peak_flops.__wrapped__(torch.device("cpu"), torch.float32) == pytest.approx(2e12)
    assert asked == [192, 384, 768, 1536]


def test_arithmetic_energy_and_latency_are_recorded(results):
    """Of a linear probe only the head is trained, and the rest is not run again for scoring."""
    full, probe = results["full", 0], results["linear", 0]
    assert full["training"]["flops"] > 100 * probe["training"]["flops"] > 0
    assert full["training"]["flops"] == pytest.approx(results["full", 1]["training"]["flops"], rel=0.2), "side by side"
    assert set(full["latency"]) == {"test"} and probe["latency"] == {}
    assert 0 < full["latency"]["test"] * 30 <= full["phases"]["evaluate"] + 0.01
    for result in results.values():
        assert set(result["energy"]) == {"joules", "source"} and result["energy"]["source"]


@pytest.mark.parametrize(("free", "found"), [(79, 0), (50, 28)])
def test_what_other_processes_have_of_a_gpu_is_told(monkeypatch, free, found):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * GIGABYTE, 80 * GIGABYTE))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * GIGABYTE if found else 0)
    assert memory.taken_by_others(torch.device("cuda", 0)) == found * GIGABYTE
