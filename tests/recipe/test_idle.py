"""What a recipe says of steps beside a probe that takes none."""

import pytest

from finetune import recipe as recipes
from finetune.core.errors import InputError

RECIPE = """\
model: {source: ./model}
data: {train: {path: train.csv}, split: {test: 0.3}}
task: {type: classification}
train: {epochs: 2, save_model: false}
"""


@pytest.fixture
def load(tmp_path):
    def loaded(text, *overrides, name="recipe.yaml"):
        (tmp_path / name).write_text(text)
        return recipes.load(tmp_path / name, list(overrides))

    return loaded


def test_what_it_shares_with_others_is_let_be(load):
    load(RECIPE + "variants: {probe: {strategy: {type: linear}}, full: {strategy: {type: full}}}\n", "train.warmup=0.2")


@pytest.mark.parametrize(
    "variant, overrides",
    [
        ("{strategy: {type: linear}, train: {learning_rate: 0.1}}", []),
        ("{strategy: {type: linear}}", ["variants.probe.train.learning_rate=0.1"]),
    ],
    ids=["written", "command line"],
)
def test_what_is_said_of_the_probe_alone_is_refused(load, variant, overrides):
    with pytest.raises(InputError) as error:
        load(RECIPE + f"variants: {{probe: {variant}, full: {{strategy: {{type: full}}}}}}\n", *overrides)
    (problem,) = error.value.problems
    assert problem.path == "variants.probe.train" and "says learning_rate, and" in problem.found
    assert "strategy.solver: steps" in problem.advice and problem.where


def test_a_recipe_of_one_probe_says_it_of_that(load):
    with pytest.raises(InputError) as error:
        load(RECIPE + "strategy: {type: linear}\n", "train.warmup=0.2")
    (problem,) = error.value.problems
    assert problem.path == "train" and "says epochs, warmup, and" in problem.found and ":4" in problem.where


def test_what_comes_from_a_recipe_that_it_extends_is_let_be(load):
    load(RECIPE + "strategy: {type: full}\n", name="base.yaml")
    load("extends: base.yaml\nstrategy: {type: linear}\n")
    with pytest.raises(InputError, match=r"says warmup, and"):
        load("extends: base.yaml\nstrategy: {type: linear}\ntrain: {warmup: 0.2}\n")


@pytest.mark.parametrize("strategy", ["{type: linear, solver: steps}", "{type: linear, mode: lp-ft}", "{type: full}"])
def test_what_takes_steps_may_say_how(load, strategy):
    load(RECIPE + f"strategy: {strategy}\n")


def test_options_of_work_and_not_of_steps_may_stand_beside_it(load):
    text = RECIPE.replace("epochs: 2, ", "deterministic: false, replicas: 2, micro_batch_size: 4, ")
    load(text + "strategy: {type: linear}\n")


@pytest.mark.parametrize("key", ["probe_rate: 0.1", "probe_epochs: 3", "patience: 2"])
def test_steps_of_the_probe_that_lp_ft_begins_with(load, key):
    with pytest.raises(InputError, match=r"it is solved; write solver: steps"):
        load(RECIPE + f"strategy: {{type: linear, mode: lp-ft, {key}}}\n")
    load(RECIPE + f"strategy: {{type: linear, mode: lp-ft, solver: steps, {key}}}\n")


@pytest.mark.parametrize("strategy", ["full", "adapter", "linear, solver: steps, mode: linearised"])
def test_normalising_where_the_models_own_class_pools(load, strategy):
    own = strategy.replace("solver: steps, ", "")
    with pytest.raises(InputError) as error:
        load(RECIPE.replace("classification}", "classification, normalise: true}") + f"strategy: {{type: {own}}}\n")
    (problem,) = error.value.problems
    assert problem.path == "task.normalise" and "task.pooling" in problem.advice
    both = RECIPE.replace("classification}", "classification, normalise: true, pooling: mean}")
    load(both + f"strategy: {{type: {own}}}\n")


@pytest.mark.parametrize("strategy", ["linear", "linear, mode: lp-ft", "linear, mode: linearised"])
def test_a_resolved_recipe_that_says_everything_is_read_again(load, tmp_path, strategy):
    study = load(
        RECIPE + f"variants: {{one: {{strategy: {{type: {strategy}}}}}, full: {{strategy: {{type: full}}}}}}\n"
    )
    (tmp_path / "resolved.yaml").write_text(study.to_yaml())
    assert recipes.read_resolved(tmp_path / "resolved.yaml").variants[0].recipe == study.variants[0].recipe
