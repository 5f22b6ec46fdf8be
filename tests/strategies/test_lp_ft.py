"""LP-FT: a probe until it no longer improves, then all weights, from the head that it found (Kumar et al. 2022)."""

from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from finetune import recipe as recipes
from finetune.core.errors import Interrupted
from finetune.core.progress import Progress
from finetune.core.run_dir import RunDir, read_json
from finetune.models import ModelOptions, load_base
from finetune.runner.run import save_model
from finetune.strategies.linear import Linear, LinearOptions
from finetune.study import running
from finetune.study.running import run_study
from finetune.train.meters import read_rows


def study_of(recipe, folder, *overrides, progress=None):
    """The study's only variant, `full`, as LP-FT: its folder."""
    text = recipe.read_text().splitlines(keepends=True)
    recipe.write_text("".join(line for line in text if not line.startswith("  linear:")))
    own = (
        "variants.full.strategy={type: linear, mode: lp-ft, solver: steps, probe_epochs: 6, probe_rate: 0.05}",
        "variants.full.task.pooling=model",
        "variants.full.train={epochs: 100, max_steps: 20, min_steps: 0, replicas: 1}",
    )
    outcome = run_study(recipes.load(recipe, ["seeds=[3]", *own, *overrides]), folder, progress)
    assert [run["reason"] for run in outcome.failed if run["status"] != "degenerate"] == []
    return outcome.folder / "full"


@pytest.fixture
def kept(monkeypatch):
    """What was saved after the probe, by the run's folder: it is removed when the run is finished."""
    found = {}

    def watched(strategy, model, data, folder, *more, **how):
        save_model(strategy, model, data, folder, *more, **how)
        if folder.parent.name == "before":
            found[folder.parent.parent.name] = load_file(folder / "trained.safetensors")

    monkeypatch.setattr("finetune.runner.run.save_model", watched)
    return found


def test_full_tuning_starts_from_the_probes_head(topics, tmp_path, kept, encoder_folder):
    place = study_of(topics, tmp_path / "runs", "variants.full.train.learning_rate=1.0e-30")
    saved = load_file(RunDir(place / "seed-3").model / "model.safetensors")
    head = kept["seed-3"]
    assert {"classifier.weight", "classifier.bias"} <= set(head) and not any("encoder" in name for name in head)
    assert all(torch.equal(saved[name], value) for name, value in head.items())
    base = load_base(ModelOptions(source=str(encoder_folder)), "AutoModel").model.state_dict()
    same = [
        torch.allclose(saved[f"bert.{name}"], value, atol=1e-20)
        for name, value in base.items()
        if f"bert.{name}" in saved
    ]
    assert len(same) > 10 and sum(same) >= len(same) - 2


def test_all_weights_learn_after_it(topics, tmp_path, kept):
    place = study_of(topics, tmp_path / "runs", "variants.full.train.learning_rate=1.0e-3")
    result = read_json(place / "seed-3" / "result.json")
    assert result["parameters"]["trainable"] == result["parameters"]["total"]
    probe = read_rows(RunDir(place / "seed-3").before.metrics)
    assert {"train", "evaluation"} <= {row["kind"] for row in probe}
    assert not RunDir(place / "seed-3").before.model.exists(), "it is of no use any more"


def test_the_probe_ends_when_it_no_longer_improves(topics, tmp_path, kept):
    stubborn = "variants.full.strategy.probe_rate=1.0e-30"
    place = study_of(topics, tmp_path / "runs", stubborn, "variants.full.strategy.patience=1")
    scored = [row for row in read_rows(RunDir(place / "seed-3").before.metrics) if row["kind"] == "evaluation"]
    assert len(scored) <= 3 < 6


@pytest.mark.parametrize("at", [3, 25])
def test_a_run_stopped_in_either_phase_ends_as_if_it_had_not_been(topics, tmp_path, monkeypatch, at):
    whole = study_of(topics, tmp_path / "whole")
    opened, stops = running.stop_on_signals, []

    @contextmanager
    def watched(answer):
        with opened(answer) as stop:
            stops.append(stop)
            yield stop

    class Stopping(Progress):
        steps = 0

        def step(self, done, note=""):
            self.steps += bool(note)  # a step of training says how it went
            if self.steps == at:
                stops[-1].requested = True

    monkeypatch.setattr(running, "stop_on_signals", watched)
    with pytest.raises(Interrupted):
        study_of(topics, tmp_path / "parts", progress=Stopping())
    parts = study_of(topics, tmp_path / "parts")
    scores = [read_json(place / "seed-3" / "result.json")["scores"] for place in (whole, parts)]
    assert scores[0] == scores[1]


def test_seeds_side_by_side_are_the_runs_that_they_are_alone(topics, tmp_path, kept):
    seeds = "seeds=[3, 4]"
    alone = study_of(topics, tmp_path / "alone", seeds)
    together = study_of(topics, tmp_path / "together", seeds, "variants.full.train.replicas=2")
    for seed in (3, 4):
        results = [read_json(place / f"seed-{seed}" / "result.json") for place in (alone, together)]
        assert results[1]["training"]["replicas"] == 2
        assert results[0]["scores"]["test/nll"] == pytest.approx(results[1]["scores"]["test/nll"], rel=1e-4)


def test_the_probe_is_the_linear_strategy():
    options, train = Linear(LinearOptions(type="linear", mode="lp-ft", solver="steps", patience=2)).before()
    assert options == LinearOptions(type="linear", solver="steps") and train["early_stopping"] == {"patience": 2}
    assert Linear(LinearOptions(type="linear", mode="lp-ft")).before() == (LinearOptions(type="linear"), {})
    assert Linear(LinearOptions(type="linear")).before() is None
