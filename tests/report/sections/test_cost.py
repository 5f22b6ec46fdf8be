"""What a study took: sums that can be done by hand, and old studies that have not recorded everything."""

import json

import pytest

from finetune.report.content import document
from finetune.report.sections.cost import sections
from tests.results.stores import read


def told(made):
    """The sentence, and by variant what each column says."""
    [section] = sections(*read(made))
    words, *tables = section.blocks
    by_column = {}
    for table in tables:
        for row in table.rows:
            own = by_column.setdefault(row[0].text, {})
            own.update({column.title: cell for column, cell in zip(table.columns, row, strict=True)})
    return words.text, by_column, [note for table in tables for note in table.notes]


def change(made, variant, seed, **more):
    path = f"{variant}/seed-{seed}/result.json" if seed is not None else f"{variant}/result.json"
    result = json.loads((made.path / path).read_text())
    training = {**(result["training"] or {}), **more.pop("training", {})}
    made.json(path, {**result, **more, "training": training or None})


@pytest.fixture
def measured(fabricator):
    """Two runs of a quarter of an hour each."""
    made = fabricator([1, 2], {"full": "full"})
    for seed, joules in ((1, 3000.0), (2, 4200.0)):
        made.run("full", seed, 0.9)
        training = {"flops": 2_000_000_000_000, "utilisation": 0.415}
        energy = {"joules": joules, "source": "the GPU's counter (NVML)"}
        change(made, "full", seed, seconds=900.0, energy=energy, latency={"test": 0.0125}, training=training)
    made.json("environment.json", {"device": "cuda (NVIDIA H100)", "processes": 2, "threads": 16})
    return made


def test_means_over_runs(measured):
    _, found, notes = told(measured)
    row = {name: cell.text for name, cell in found["full"].items()}
    assert row["energy"] == "3.60 kJ" and row["arithmetic"] == "2.00 TFLOP" and row["of peak"] == "42\u202f%"
    assert row["latency"] == "12.5 ms" and row["time a run"] == "15 min" and notes == []


def test_the_whole_study_in_device_hours(measured):
    words, *_ = told(measured)
    assert words == ("The study took 1.0 GPU-hours, 4.00 TFLOP of training and 2.00 Wh on cuda (NVIDIA H100): 2 runs.")


def test_on_processors_threads_count(measured):
    measured.json("environment.json", {"device": "cpu (2 threads)", "processes": 1, "threads": 2})
    assert "The study took 1.0 core-hours" in told(measured)[0]
    measured.json("environment.json", {"device": "cpu", "processes": 1})
    assert "The study took 30.0 minutes," in told(measured)[0]


def test_base_combinations_and_stages_are_in_the_sum(measured):
    measured.base(0.3)
    change(measured, "base", None, seconds=900.0)
    measured.json("full/soup-uniform/result.json", {"status": "finished", "kind": "soup-uniform", "seconds": 900.0,
                  "scores": {}, "seeds": [1, 2], "of": [1, 2], "validated": [], "reason": None})  # fmt: skip
    measured.json("stages/wiki-1234/result.json", {"training": {"seconds": 900.0, "flops": 10**12}})
    words, *_ = told(measured)
    assert words.startswith("The study took 2.5 GPU-hours, 5.00 TFLOP of training and 2.00 Wh")
    assert words.endswith(": 2 runs, with base model, combinations and stages; energy was read in 2 of 5.")
    assert dict(document(*read(measured)).facts)["computing time"] == "75 min", "the top of the page says the same"


def test_crashed_runs_have_no_time(measured):
    change(measured, "full", 2, seconds=None, energy=None, latency={}, training={"flops": None})
    words, _, notes = told(measured)
    assert words.startswith("The study took 30.0 GPU-minutes, 2.00 TFLOP") and notes == []
    assert words.endswith("2 runs; 1 without a time are not in it.")


def test_what_an_old_study_has_not_recorded_is_left_open(study):
    words, found, notes = told(study)
    for variant in ("linear", "lora", "full", "base"):
        row = {name: cell.text for name, cell in found[variant].items()}
        assert [row[name] for name in ("latency", "arithmetic", "of peak", "energy")] == ["–"] * 4
        assert row["peak memory"] == "912 MB"
    assert found["base"]["steps"].text == "–" and found["full"]["steps"].text == "120"
    assert "linear, lora, full and base: no energy: not measured by the version that ran it." in notes
    assert "minutes on cpu (2 threads): 15 runs, with base model." in words


def test_why_there_is_no_energy_is_told_once_for_each_reason(measured):
    reason = "this machine shows no energy counter of its processors (RAPL)"
    for seed in (1, 2):
        change(measured, "full", seed, energy={"joules": None, "source": reason})
    words, found, notes = told(measured)
    assert notes == [f"full: no energy: {reason}."] and found["full"]["energy"].text == "–" and "Wh" not in words


def test_the_batch_is_told_with_the_latency(measured):
    path = measured.path / "resolved.yaml"
    path.write_text(path.read_text().replace("recipe:", "recipe:\n      scoring: {batch_size: 64}"))
    assert told(measured)[1]["full"]["latency"].small == "batch 64"
