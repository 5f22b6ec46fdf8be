"""No option is dead: each one that a recipe may set, changed alone, changes something that is executed.

Options are found by walking the recipe's models, so that a new one is asked for without a word here. What counts is
what a study has done (batches, weights, scores, files; see `evidence.py`), and not where it repeats its recipe.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count

import pytest
from pydantic import Field

from finetune import recipe as recipes
from finetune import report
from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS
from finetune.core.run_dir import write_json
from finetune.data.options import Source
from finetune.mitigations.ema import EMAOptions
from finetune.mitigations.mixout import MixoutOptions
from finetune.recipe import SeedsUntil, Stage
from finetune.recipe.resolve import digest_of
from finetune.results.schema import Results
from finetune.train.options import Divergence, Plateau, TrainOptions
from tests.contracts.contexts import CASES, INERT, PLAIN, RECIPES, SLOW, case_of, recipe_of, write_files
from tests.contracts.evidence import effects, executed
from tests.contracts.leaves import Leaf, at, leaves, merged, with_value

MOST_INERT = 14


def only(leaf):
    """Whether it has one valid value, and is not what chooses a plug-in."""
    return leaf.single and leaf.field != "type"


SHOWN = [
    pytest.param(leaf, id=str(leaf), marks=[pytest.mark.slow] * bool(SLOW & {str(leaf), leaf.model.__name__}))
    for leaf in leaves()
    if str(leaf) not in INERT and not only(leaf)
]


class Bench:
    """Runs recipes as dicts in a folder that has what they name; each once."""

    def __init__(self, folder, outputs):
        self.folder, self.outputs, self.known, self.numbers = folder, outputs, {}, count()
        write_files(folder)

    def load(self, content):
        path = self.folder / "recipe.yaml"
        path.write_text(json.dumps(content))  # JSON is YAML too
        return recipes.load(path)

    def run(self, recipe, reported=False):
        with pytest.MonkeyPatch.context() as patch:
            if not reported:  # a fifth of the time
                patch.setattr(report, "build", write_no_report)
            found = executed(recipe, self.outputs / str(next(self.numbers)))
        broken = [each["reason"] for each in found.get("results", {}).values() if each.get("status") == "error"]
        assert not broken, broken  # which would differ too, or hide that nothing does
        return found

    def shown(self, content, reported=False):
        key = json.dumps([content, reported], sort_keys=True)
        if key not in self.known:
            self.known[key] = self.run(self.load(content), reported)
        return self.known[key]

    def effects(self, leaf):
        """In which kinds of evidence a change of this option shows; empty for one that is dead."""
        (content, path), case = recipe_of(leaf.model), case_of(leaf)
        content = merged(content, case.given)
        value = case.value
        if value is None:
            value = leaf.another(at(self.load(content).variants[0].recipe, (*path, leaf.field)))
        changed = with_value(content, case.at or (*path, leaf.field), value)
        before, after = self.shown(content, case.reported), self.shown(changed, case.reported)
        assert before["refused"] is None, f"{leaf}'s own recipe is refused: {before['refused']}"
        assert (after["refused"] is not None) is case.refused, f"{leaf}: {value!r} is refused: {after['refused']}"
        return effects(before, after)


NOTHING = Results(
    format=2,
    study="",
    digest="",
    level=0.95,
    seeds=[],
    until=None,
    vary=[],
    training=None,
    crossed=False,
    baseline=None,
    environment={},
    tasks=[],
    variants=[],
    baselines=[],
    comparisons=[],
    across=None,
)


def write_no_report(folder):
    """What a study writes last, with nothing in it."""
    (folder / "report").mkdir(exist_ok=True)
    write_json(folder / "report" / "results.json", NOTHING.to_json())


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("files")
        patch.chdir(folder)  # where the name of a hub dataset that is a folder starts from
        yield Bench(folder, tmp_path_factory.mktemp("studies"))


@pytest.mark.parametrize("leaf", SHOWN)
def test_an_option_that_is_changed_changes_what_is_executed(bench, leaf):
    assert bench.effects(leaf), f"{leaf} changes nothing: nothing reads it, or nothing in its recipe enables it"


@pytest.mark.parametrize("model", ["TrainOptions", "ChatOptions", "PartialOptions"])
def test_the_same_recipe_shows_the_same_again(bench, model):
    recipe = bench.load(RECIPES[model][0])
    assert effects(bench.run(recipe, reported=True), bench.run(recipe, reported=True)) == []


# What is left out, and what would be found


def test_what_is_left_out_is_little_and_has_its_reasons():
    known = {str(leaf) for leaf in leaves()}
    assert len(INERT) <= MOST_INERT and INERT.keys() <= known and all(INERT.values())
    assert CASES.keys() <= known, f"options that are no more: {sorted(CASES.keys() - known)}"
    assert [str(leaf) for leaf in leaves() if only(leaf)] == []


def test_every_section_and_plugin_is_walked():
    found = {leaf.model for leaf in leaves()}
    plugins = [plugin for registry in (STRATEGIES, TASKS, MITIGATIONS) for plugin in registry.all().values()]
    assert {plugin.Options for plugin in plugins} <= found
    assert {Source, Divergence, SeedsUntil, Stage} <= found
    assert all(map(recipe_of, found)) and RECIPES.keys() <= {model.__name__ for model in found}


class Planted(TrainOptions):
    """The options of training, and one that nothing reads."""

    planted: float = Field(0.5, ge=0, le=1)
    """Looks as if it did something."""


class Recipe(recipes.Recipe):
    """A recipe that has it."""

    train: Planted = Planted()


def test_a_planted_option_is_walked_and_found_to_be_dead(bench):
    [leaf] = [leaf for leaf in leaves(Recipe) if str(leaf) == "Planted.planted"]
    written = bench.load(PLAIN)
    variant = written.variants[0]
    said = variant.recipe.train.model_dump()

    def shown(value, **more):
        """The study's recipe, with another value for it in everything that says what the recipe is."""
        options = variant.recipe.model_copy(
            update={"train": Planted.model_validate({**said, "planted": value, **more})}
        )
        study = replace(written, variants=[replace(variant, recipe=options, digest=digest_of(options))])
        return study.variants[0].digest, bench.run(study)

    (first, before), (second, after) = shown(0.5), shown(leaf.another(0.5))
    assert first != second and effects(before, after) == [], "no trace but where the recipe is repeated"
    assert "weights" in effects(before, shown(0.5, learning_rate=0.02)[1])


def test_values_are_guessed_within_their_limits():
    guessed = {str(leaf): leaf.another(current) for leaf, current in GUESSES}
    assert guessed == {"EMAOptions.decay": 0.4995, "Plateau.patience": 2, "TrainOptions.save_model": False} | {
        "TrainOptions.optimizer": "schedule-free",
        "TrainOptions.batch_tokens": 2,
        "MixoutOptions.p": 0.5,
    }
    with pytest.raises(LookupError, match=r"Source\.path has a value that cannot be guessed"):
        Leaf(Source, "path").another("rows.csv")


GUESSES = [
    (Leaf(EMAOptions, "decay"), 0.999),
    (Leaf(Plateau, "patience"), 1),
    (Leaf(TrainOptions, "save_model"), True),
    (Leaf(TrainOptions, "optimizer"), "adamw"),
    (Leaf(TrainOptions, "batch_tokens"), None),
    (Leaf(MixoutOptions, "p"), 0.0),
]
