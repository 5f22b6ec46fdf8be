"""Answers stay those that were scored where another arithmetic is the faster one on the machine that asks."""

from __future__ import annotations

import json

import pytest

from finetune.core.arithmetic import Measured
from finetune.export import engine
from finetune.export.exporting import export
from finetune.inference.loading import open_model
from finetune.models import devices
from tests.export.here import here
from tests.export.studies import let_it_count
from tests.inference import studies

MACHINES = {"float32": Measured(float32=1.0, bfloat16=17.0), "bfloat16": Measured(float32=4.5, bfloat16=1.0)}


@pytest.fixture
def at(monkeypatch):
    """Go to a machine on which an arithmetic is the faster one."""

    def go(dtype):
        monkeypatch.setattr(devices, "measured_for", lambda width: MACHINES[dtype])

    monkeypatch.setattr(engine, "_run", here)
    return go


def arithmetic(place, *overrides):
    """In which a model's questions are asked."""
    return str(devices.processor(open_model(str(place), overrides).recipe.model)[1]).removeprefix("torch.")


@pytest.fixture
def taken(tmp_path):
    """Train with an arithmetic, and give the run and an export of it."""

    def take(dtype):
        study = let_it_count(studies.make(tmp_path, "classification", "encoder", dtype=dtype))
        export(study, tmp_path / "export")
        return studies.run_of(study), tmp_path / "export"

    return take


def test_what_was_scored_in_float32_is_asked_in_it_everywhere(at, taken):
    at("float32")
    places = taken("auto")
    at("bfloat16")
    assert [arithmetic(place) for place in places] == ["float32", "float32"]
    assert [arithmetic(place, "model.dtype=auto") for place in places] == ["bfloat16", "bfloat16"]


def test_what_was_scored_in_bfloat16_is_asked_in_it_where_that_is_no_slower(at, taken):
    at("bfloat16")
    places = taken("auto")
    assert [arithmetic(place) for place in places] == ["bfloat16", "bfloat16"]
    at("float32")
    assert [arithmetic(place) for place in places] == ["float32", "float32"]


@pytest.mark.parametrize("dtype", MACHINES)
def test_what_the_recipe_says_holds_everywhere(dtype, at, taken):
    [other] = MACHINES.keys() - {dtype}
    at(other)
    assert [arithmetic(place) for place in taken(dtype)] == [dtype, dtype]


def test_a_former_versions_certificate_means_what_its_answers_were_held_against(at, taken):
    at("bfloat16")
    _, place = taken("auto")
    said = json.loads((place / "certificate.json").read_text())
    del said["asked"]["dtype"]
    (place / "certificate.json").write_text(json.dumps(said))
    assert arithmetic(place) == "float32"
