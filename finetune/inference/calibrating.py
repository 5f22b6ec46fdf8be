"""Temperature scaling of a run's probabilities, fitted on the examples that its study has for validation (Guo et al.
2017, "On Calibration of Modern Neural Networks", section 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from finetune.core.errors import bad_input
from finetune.core.run_dir import RunDir, StudyDir

if TYPE_CHECKING:
    from finetune.inference.asking import Asker
    from finetune.runner.resources import TaskData

FEWEST = 10
"""Validation examples below which a temperature would be mostly noise."""


def calibrate(asker: Asker) -> str:
    """Fit the temperature of ``asker``, and say in words what was found. Raises InputError where the model's answers
    have none, and where there are no validation examples to fit it by, or others than the study had."""
    from finetune.evaluate.predict import predictions_of
    from finetune.stats.calibration import best_temperature, margins

    task = asker.opened.task
    if task.answer not in ("label", "choice"):
        found = f"a temperature is for answers of which one is right, and '{task.name}' has others"
        raise bad_input("--calibrated", found, "leave it out")
    data = _data_of(asker)
    validation = data.validation
    if validation is None or len(validation.examples) < FEWEST:
        has = "no validation examples" if validation is None else f"{len(validation.examples)} validation examples"
        advice = f"give data.split.validation of {FEWEST} examples or more and run the study again; or leave it out"
        raise bad_input("--calibrated", f"the study of {asker.opened.source} has {has}", advice)
    examples = validation.examples
    fitted = data.task.sharing(task.batching, task.answering)
    [found_] = predictions_of(asker.group, fitted, examples, asker.batch_size, asker.runtime, title="calibrating")
    shares = [each.probabilities for each in found_]
    if any(own is None for own in shares):
        advice = "leave it out: questions have different numbers of choices"
        raise bad_input("--calibrated", "the model's answers have no probabilities of the same labels", advice)
    targets = np.array([example.target for example in examples])
    known = targets >= 0
    losses = np.array([each.loss for each in found_], dtype=float)
    matrix = np.array(shares, dtype=float)
    asker.temperature = best_temperature(margins(matrix[known], targets[known], losses[known]))
    return f"temperature {asker.temperature:.3g}, fitted on {int(known.sum()):,} validation examples"


def _data_of(asker: Asker) -> TaskData:
    """Read the data that a run has learnt from, as its study divides them."""
    from finetune import recipe as recipes
    from finetune.runner.resources import Resources
    from finetune.study.claim import same_split
    from finetune.study.preflight import split_seed

    run = asker.opened.run
    study = None if run is None else StudyDir(run.resolve().parent.parent)
    if run is None or study is None or not study.resolved.exists():
        found = f"{asker.opened.source} is no run of a study, whose validation examples it could be fitted by"
        raise bad_input("--calibrated", found, "give a run's folder, such as runs/NAME/VARIANT/seed-0")
    result = RunDir(run).read_result() or {}
    recipe = recipes.read_resolved(study.resolved)
    variant = next((each for each in recipe.variants if each.name == result.get("variant")), recipe.variants[0])
    seed = split_seed(recipe, variant, int(result.get("seed") or 0))
    data = Resources(study.begun_on).data(asker.opened.recipe, seed)
    advice = "restore the data, or leave --calibrated out: a temperature is fitted to what was held out"
    same_split(study, recipe, variant.name, data, advice)
    return data
