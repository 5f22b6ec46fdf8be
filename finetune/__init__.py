"""Fine-tune pretrained models from a recipe, under several seeds, and report every number with its uncertainty.

From Python, the same as the command line::

    import finetune

    recipe = finetune.load_recipe("recipes/quickstart.yaml")
    study = finetune.run(recipe, output="runs")
    study.estimates.to_pandas()

Mistakes in what was given are raised as :class:`finetune.InputError`, all together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.errors import FinetuneError, InputError
from finetune.core.version import VERSION

if TYPE_CHECKING:
    from finetune.core.events import Event
    from finetune.recipe import ResolvedRecipe
    from finetune.report.study_report import StudyReport
    from finetune.results.compare import StudyComparison
    from finetune.runner.saved import LoadedModel
    from finetune.study.preflight import Preflight

    Recipe = str | Path | Mapping[str, Any] | ResolvedRecipe
    """A recipe: its file, its YAML text, a mapping like it, or one that was loaded."""

__version__ = VERSION

__all__ = [
    "FinetuneError",
    "InputError",
    "__version__",
    "check",
    "compare",
    "load_model",
    "load_recipe",
    "predict",
    "read_study",
    "run",
]


def load_recipe(recipe: Recipe, overrides: Sequence[str] = ()) -> ResolvedRecipe:
    """Read a recipe, fill it in, and find every mistake in it; looks at no data and no model.

    ``overrides`` have the last word, as on the command line: ``["train.epochs=1"]``. Relative paths start from the
    recipe's folder, those of a text or mapping from the working directory. Raises :class:`InputError`.
    """
    from finetune import recipe as recipes

    if isinstance(recipe, recipes.ResolvedRecipe):
        return recipe.again(overrides) if overrides else recipe
    return recipes.load(recipe, overrides)


def check(recipe: Recipe) -> Preflight:
    """Look at data and models too, and say what would be run; trains nothing, and reads no weights.

    ``lines()`` of what it gives are for people; ``parameters`` says, by variant, how many learn. Raises
    :class:`InputError` with the mistakes of all variants.
    """
    from finetune.study.preflight import preflight

    return preflight(load_recipe(recipe), compared=True)


def run(recipe: Recipe, output: str | Path = "runs", on_event: Callable[[Event], None] | None = None) -> StudyReport:
    """Run every variant under every seed, and write the report below ``output``, as `finetune run` does.

    What is finished already is kept, and what was interrupted goes on. ``on_event`` is called with everything that
    happens, as :mod:`finetune.core.events` describes it. Raises :class:`InputError` before anything has started;
    runs that fail are in the report, and in its ``failed``.
    """
    from finetune.core.progress import Progress
    from finetune.report.study_report import StudyReport
    from finetune.results.reading import read_study as read_folder
    from finetune.study.running import run_study

    outcome = run_study(load_recipe(recipe), Path(output), Progress(on_event=on_event))
    return StudyReport(read_folder(outcome.folder), outcome.results)  # which the report has computed already


def read_study(path: str | Path, baseline: str | None = None) -> StudyReport:
    """Read a study's folder: results, tables and figures, at any time and without torch.

    ``baseline`` names the variant that all others are compared with, where it is not to be the recipe's. Raises
    :class:`InputError` where there is no study.
    """
    from finetune.report.study_report import study_report

    return study_report(path, baseline)


def compare(
    left: str | Path,
    right: str | Path,
    metric: str | None = None,
    task: str | None = None,
    variants: Sequence[str] = (),
) -> StudyComparison:
    """Compare every variant of one study with every variant of another, as `finetune compare` does.

    Both are folders of studies, or of single variants, that were scored on the same examples. ``metric``: the headline
    metric by default; ``task``: one evaluation set instead of all that both have; ``variants``: only these.
    """
    from finetune.results.compare import compare_studies

    return compare_studies(Path(left), Path(right), metric, task, variants)


def load_model(folder: str | Path) -> LoadedModel:
    """``model, tokenizer = load_model("runs/NAME/VARIANT/seed-0")``, ready to use, whatever the strategy.

    See :func:`finetune.runner.saved.load_model`.
    """
    from finetune.runner import saved

    return saved.load_model(folder)


def predict(
    model: str | Path,
    rows: Sequence[str] | Sequence[Mapping[str, Any]],
    overrides: Sequence[str] = (),
    probabilities: bool = False,
) -> list[dict[str, Any]]:
    """Ask a model about ``rows``, as `finetune predict` does: what it says of each, by column.

    ``model`` is a run's folder, an export, an adapter, any folder of transformers, `package:` or a model on the hub;
    rows are texts, or mappings with the columns that its task reads. ``overrides`` are of its recipe, as on the command
    line: ``["task.text=headline"]``. ``probabilities``: those of all labels too. Raises :class:`InputError`.
    """
    from finetune.inference.rows import predict_rows

    return predict_rows(str(model), rows, overrides, probabilities)
