"""The probe on a real model's features: as good as scikit-learn's, and as good as RESULTS.md says."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegressionCV

from finetune import recipe as recipes
from finetune.core.progress import Progress
from finetune.core.runtime import open_runtime
from finetune.core.signals import StopRequest
from finetune.models import processor
from finetune.models.pooled import HEAD
from finetune.runner.resources import Resources
from finetune.study.running import run_study
from finetune.train.features import extract, scaled

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"


@pytest.mark.slow
def test_the_quickstarts_probe_is_as_good_as_scikit_learns(tmp_path):
    recipe = recipes.load(QUICKSTART, ["model.dtype=float32", "model.device=cpu", "seeds=2"])
    resources, options = Resources(), recipe.variants[0].recipe
    data = resources.data(options, options.data.split.seed)
    runtime = open_runtime(*processor(options.model), Progress(), StopRequest(), tmp_path)
    model = resources.base(options.model, data.task).model

    def features(examples):
        vectors = extract(model, HEAD, data.task, examples, ["mean"], 32, runtime)["mean"]
        return scaled(vectors, True).double().numpy(), np.array([example.target for example in examples])

    theirs = LogisticRegressionCV(Cs=10, max_iter=5000).fit(*features(data.train.examples))
    wanted = theirs.score(*features(data.held_out["test"].examples))
    text = QUICKSTART.read_text().partition("  lora:")[0]
    (tmp_path / "probe.yaml").write_text(text)
    overrides = ["model.dtype=float32", "model.device=cpu", "seeds=2"]
    outcome = run_study(recipes.load(tmp_path / "probe.yaml", overrides), tmp_path / "runs")
    (probe,) = outcome.results.to_json()["variants"]
    assert probe["name"] == "linear" and probe["estimates"]["test/accuracy"]["mean"] > wanted - 0.005
