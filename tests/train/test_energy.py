"""Energy from a device's own counters: what they count, when they begin anew, and what is said where there are none."""

import ctypes
import math
import threading
from types import SimpleNamespace

import pytest
import torch

from finetune.train import energy
from finetune.train.energy import Counter, Processors, energy_counter, gpu, processors
from finetune.train.meters import Phases


@pytest.fixture
def powercap(tmp_path):
    """A machine with two processors, one with memory, a part of one, and the platform around them."""
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:2": "psys",
        "dtpm": "not a zone",
    }
    for zone, name in zones.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("9999999\n")
        (tmp_path / zone / "energy_uj").write_text("1000000\n")

    def spend(zone, microjoules):
        path = tmp_path / zone / "energy_uj"
        path.write_text(f"{(int(path.read_text()) + microjoules) % 10_000_000}\n")

    return SimpleNamespace(path=tmp_path, spend=spend)


def test_processors_and_memory_count_and_nothing_twice(powercap):
    counter = processors(powercap.path)
    assert counter.joules() == 0 and counter.shared
    for zone, microjoules in (("0", 2_000_000), ("0:0", 1_500_000), ("0:1", 500_000), ("1", 1_000_000), ("2", 9)):
        powercap.spend(f"intel-rapl:{zone}", microjoules)
    assert counter.joules() == pytest.approx(3.5)


def test_a_counter_that_begins_anew_goes_on(powercap):
    counter = processors(powercap.path)
    for _ in range(5):
        powercap.spend("intel-rapl:0", 7_000_000)
        counter.joules()
    assert counter.joules() == pytest.approx(35.0)


def test_it_is_read_now_and_then_and_no_longer_than_it_lives(powercap, monkeypatch):
    monkeypatch.setattr(energy, "READ_EVERY", 0.01)
    counter, read = processors(powercap.path), threading.Event()
    [thread] = [each for each in threading.enumerate() if each.name == "energy"]
    monkeypatch.setattr(Processors, "joules", lambda self: read.set())
    assert read.wait(5) and thread.daemon
    del counter
    thread.join(5)
    assert not thread.is_alive()


def test_where_there_is_no_counter_the_reason_is_told(tmp_path, powercap):
    assert processors(tmp_path / "nowhere").source == "this machine shows no energy counter of its processors (RAPL)"
    (powercap.path / "intel-rapl:0" / "energy_uj").unlink()
    found = processors(powercap.path)
    assert "cannot be read: No such file" in found.source and math.isnan(found.joules())


class Nvml:
    """A management library of one GPU."""

    def __init__(self, counts=True, known="GPU-1234", starts=True):
        self.millijoules, self.counts, self.known, self.starts = 5_000_000, counts, known, starts

    def nvmlInit_v2(self):
        return 0 if self.starts else 9

    def nvmlDeviceGetHandleByUUID(self, uuid, handle):
        return 0 if uuid.decode() == self.known else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, found):
        found._obj.value = self.millijoules
        return 0 if self.counts else 3


def test_a_gpu_counts_from_where_it_stood(monkeypatch):
    nvml = Nvml()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: nvml)
    counter = gpu("1234")
    assert counter.joules() == 0 and not counter.shared
    nvml.millijoules += 12_500
    assert counter.joules() == pytest.approx(12.5)


@pytest.mark.parametrize(
    ("nvml", "said"),
    [
        (Nvml(counts=False), "this GPU has no energy counter"),
        (Nvml(known="GPU-5678"), "NVML does not know this GPU"),
        (Nvml(starts=False), "NVML does not know this GPU"),
    ],
)
def test_why_a_gpu_does_not_count(monkeypatch, nvml, said):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: nvml)
    assert gpu("1234").source == said and math.isnan(gpu("1234").joules())


def test_without_the_drivers_library(monkeypatch):
    monkeypatch.setattr(energy, "NVML", "libno-such-library.so.1")
    assert gpu("1234").source == "libno-such-library.so.1 is not there"


def test_this_machines_counter_counts_or_says_why():
    counter = energy_counter(torch.device("cpu"))
    assert counter.source and (math.isnan(counter.joules()) or counter.joules() >= 0)


class Fixed(Counter):
    def joules(self):
        return 60.0


def phases(monkeypatch, counter, runs=1, total=float):
    monkeypatch.setattr("finetune.train.meters.energy_counter", lambda device: counter)
    made = Phases(torch.device("cpu"), runs, total)
    made.end("train")
    return made


def test_runs_side_by_side_share_and_processes_add_up(monkeypatch):
    made = phases(monkeypatch, Fixed("a counter"), runs=3, total=lambda value: 2 * value)
    assert made.facts()["energy"] == {"joules": 40.0, "source": "a counter"}


def test_a_counter_of_the_whole_machine_is_not_added_up(monkeypatch):
    counter = Fixed("a counter")
    counter.shared = True
    assert phases(monkeypatch, counter, total=lambda value: 2 * value).facts()["energy"]["joules"] == 60.0


def test_an_interrupted_run_has_no_energy(monkeypatch):
    found = phases(monkeypatch, Fixed("a counter")).facts(whole=False)["energy"]
    assert found["joules"] is None and "interrupted" in found["source"]


def test_what_is_not_counted_is_null(monkeypatch):
    assert phases(monkeypatch, Counter("no counter")).facts()["energy"] == {"joules": None, "source": "no counter"}
