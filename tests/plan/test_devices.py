"""What a study takes on several devices, by the runs of a pilot."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune import recipe
from finetune.core.errors import InputError
from finetune.plan.devices import forecast, makespan
from finetune.results.reading import read_study
from tests.fabricated import topics as fabricated
from tests.plan.test_pilot import RECIPE


@given(runs=st.lists(st.integers(1, 50), min_size=1, max_size=6), groups=st.integers(1, 4))
def test_the_last_run_ends_when_it_could_or_a_third_later(runs, groups):
    """Graham 1969, theorem 2, against every way to share the runs out."""
    best = min(
        max(sum(run for run, group in zip(runs, chosen, strict=True) if group == own) for own in range(groups))
        for chosen in itertools.product(range(groups), repeat=len(runs))
    )
    assert best <= makespan(runs, groups) <= (4 / 3 - 1 / (3 * groups)) * best + 1e-9


@pytest.fixture
def pilot(tmp_path):
    """A study whose runs of `linear` took 10 s, and of the others 30 and 50 s, on a GPU."""
    folder = fabricated(tmp_path / "pilot").path
    for path in folder.glob("*/seed-*/result.json"):
        result, seed = json.loads(path.read_text()), int(path.parent.name.removeprefix("seed-"))
        took = 10.0 if path.parts[-3] == "linear" else 30.0 + 20 * (seed % 2)
        result |= {"seconds": took, "peak_memory_bytes": int(took * 1e8), "energy": {"joules": 100 * took}}
        path.write_text(json.dumps(result))
    place = folder / "environment.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "kind": "cuda"}))
    return read_study(folder)


@pytest.fixture
def load(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return lambda *overrides: recipe.load(tmp_path / "recipe.yaml", overrides)


def test_time_memory_energy_and_price(load, pilot):
    wanted = load("seeds=4")
    names = [variant.name for variant in wanted.variants]
    seeds = {name: [run.seed for run in pilot.variants[name]] for name in names}
    means = {
        name: sum(10 if name == "linear" else 30 + 20 * (s % 2) for s in own) / len(own) for name, own in seeds.items()
    }
    alone, two = forecast(wanted, pilot, 1, None), forecast(wanted, pilot, 2, 3.6)
    assert alone.seconds[1] == pytest.approx(4 * sum(means.values())) and alone.price is None
    assert alone.seconds[0] <= alone.seconds[1] <= alone.seconds[2]
    assert two.seconds[1] == pytest.approx(makespan([mean for mean in means.values() for _ in range(4)], 2))
    assert two.joules == alone.joules and two.joules[1] == pytest.approx(100 * alone.seconds[1])
    assert two.price == pytest.approx([2 * each / 1000 for each in two.seconds])
    assert alone.peak_memory_bytes == (int(1e9), int(5e9))
    assert str(two.layout) == "2 devices with runs of their own"
    assert json.loads(json.dumps(two.content()))["layout"]["said"] == str(two.layout)


def test_fewer_cores_take_longer(load, pilot):
    whole = forecast(load(), pilot, 1, None).seconds
    pilot.environment.update(kind="cpu", threads=1000)
    low, mid, high = forecast(load(), pilot, 1, None).seconds
    assert low == whole[0] and whole[1] < mid < high and high > whole[2]


def test_what_the_pilot_does_not_know_is_refused(load, pilot):
    with pytest.raises(InputError, match="needs a pilot with a run of lora"):
        del pilot.variants["lora"]
        forecast(load(), pilot, 2, None)
    with pytest.raises(InputError, match=r"compute\.shard splits each"):
        forecast(load("compute.shard=true"), pilot, 2, None)
