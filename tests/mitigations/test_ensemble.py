"""Ensembles as a mitigation: all finished seeds go into one; the mean itself is tried in tests/evaluate."""

from types import SimpleNamespace

from finetune.mitigations.ensemble import Ensemble
from tests.examples import Example

EXAMPLES = {"ensemble": Example()}


def test_every_finished_seed_is_in_it():
    ensemble = Ensemble(Ensemble.Options(type="ensemble"))
    assert ensemble.makes == ("ensemble",) and ensemble.combines == "predictions" and not ensemble.validates
    assert ensemble.choose("ensemble", SimpleNamespace(seeds=[1, 4])) == [1, 4]
