from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.core.errors import InputError
from finetune.recipe import load, read_resolved


def problems(path, overrides=()):
    with pytest.raises(InputError) as caught:
        load(path, overrides)
    return caught.value.problems


def only(path, overrides=()):
    [problem] = problems(path, overrides)
    return problem


def test_a_recipe_without_variants_is_one_variant_named_after_its_strategy(write, good):
    recipe = load(write(good, "topics.yaml"))
    [variant] = recipe.variants
    assert (recipe.name, variant.name, recipe.seeds) == ("topics", "adapter", [0, 1, 2, 3, 4])
    assert recipe.vary == {"init", "order", "dropout", "noise"}
    assert variant.recipe.strategy.rank == 8
    assert recipe.text == good


@pytest.mark.parametrize(("said", "seeds"), [("3", [0, 1, 2]), ("[7, 5]", [7, 5])])
def test_seeds_are_a_number_or_a_list(write, good, said, seeds):
    assert load(write(f"{good}seeds: {said}\n")).seeds == seeds


@pytest.mark.parametrize("said", ["0", "-1", "[1, 1]", "[-1]", "[]", "two", "1.5", "true", "[true]", "99999999999"])
def test_impossible_seeds_are_refused(write, good, said):
    problem = only(write(f"{good}seeds: {said}\n"))
    assert problem.where == "recipe.yaml:7"
    assert problem.path.startswith("seeds")


@pytest.mark.parametrize("said", ["[]", "[init, init]", "[luck]", "init"])
def test_impossible_streams_are_refused(write, good, said):
    assert only(write(f"{good}vary: {said}\n")).path.startswith("vary")


VARIANTS = """\
train: {epochs: 5}
variants:
  linear: {strategy: {type: linear}}
  lora: {strategy: {rank: 16}, train: {learning_rate: 1e-3, epochs: 4}}
  plain:
"""


def test_variants_are_laid_over_what_they_share(write, good):
    by_name = {v.name: v.recipe for v in load(write(good + VARIANTS)).variants}
    assert list(by_name) == ["linear", "lora", "plain"]
    assert by_name["linear"].strategy.type == "linear"
    assert (by_name["lora"].strategy.rank, by_name["lora"].train.learning_rate) == (16, 1e-3)
    assert [recipe.train.epochs for recipe in by_name.values()] == [5, 4, 5]


def test_the_command_line_wins_over_variants_and_the_specific_over_the_general(write, good):
    path = write(good + VARIANTS)
    assert [v.recipe.train.epochs for v in load(path, ["train.epochs=1"]).variants] == [1, 1, 1]
    for order in (
        ["train.epochs=1", "variants.lora.train.epochs=2"],
        ["variants.lora.train.epochs=2", "train.epochs=1"],
    ):
        assert [v.recipe.train.epochs for v in load(path, order).variants] == [1, 2, 1]


def test_overrides_may_change_a_plugin_and_a_list_item(write, good):
    path = write(good + "evaluate: [{name: a, data: {path: x.csv}}]\n")
    recipe = load(path, ["strategy.type=full", "evaluate.0.name=b", "seeds=2", "name=other"])
    assert recipe.variants[0].recipe.strategy.type == "full"
    assert recipe.variants[0].recipe.evaluate[0].name == "b"
    assert (recipe.seeds, recipe.name) == ([0, 1], "other")


@pytest.mark.parametrize(
    ("override", "path", "said"),
    [
        ("train.epoch=1", "train.epoch", "did you mean 'epochs'"),
        ("trian.epochs=1", "trian", "did you mean 'train'"),
        ("train.epochs.x=1", "train.epochs", "must be a number"),
        ("variants.lorra.train.epochs=1", "variants.lorra.train.epochs", "did you mean 'lora'"),
        ("variants.lora.strategy.rankk=1", "variants.lora.strategy.rankk", "did you mean 'rank'"),
        ("evaluate.0.name=x", "evaluate", "must be a list"),
        ("train.epochs=[", "train.epochs", "not valid YAML"),
        ("train.epochs", None, "not an override"),
        ("train..epochs=1", None, "not an override"),
    ],
)
def test_an_override_that_fits_nowhere_is_a_problem(write, good, override, path, said):
    problem = only(write(good + VARIANTS), [override])
    assert (problem.where, problem.path) == ("command line", path)
    assert said in str(problem)


def test_an_override_for_one_plugin_says_how_to_reach_only_its_variant(write, good):
    problem = only(write(good + VARIANTS), ["strategy.rank=4"])
    assert problem.path == "variants.linear.strategy.rank"
    assert "variants.lora.strategy.rank=" in problem.advice


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    key=st.sampled_from(["epochs", "learning_rate", "clip", "batch_size"]),
    value=st.one_of(st.integers(1, 99), st.sampled_from(["2.5", "1e-3", "null", "x", "[1]"])),
)
def test_an_override_equals_the_edited_file(write, good, key, value):
    plain, edited = write(good), write(f"{good}train: {{{key}: {value}}}\n", "edited/recipe.yaml")
    try:
        by_file = load(edited).digest
    except InputError as error:
        assert [p.found for p in problems(plain, [f"train.{key}={value}"])] == [p.found for p in error.problems]
    else:
        assert load(plain, [f"train.{key}={value}"]).digest == by_file


def test_extends_merges_files_from_the_left_and_paths_stay_with_their_file(write, good, tmp_path):
    write(good, "base/topics.yaml")
    write("train: {epochs: 7, clip: 2}\n", "base/long.yaml")
    path = write("extends: [../base/topics.yaml, ../base/long.yaml]\ntrain: {clip: 3}\n", "mine/own.yaml")
    recipe = load(path)
    said = recipe.variants[0].recipe
    assert (said.train.epochs, said.train.clip, recipe.name) == (7, 3, "own")
    assert said.data.train.path == str(tmp_path / "base" / "news.csv")
    assert recipe.locate("train.epochs") == "base/long.yaml:1"
    assert recipe.locate("train.clip") == "mine/own.yaml:2"
    assert recipe.locate("model.source") == "base/topics.yaml:1"


def test_a_name_is_not_inherited(write, good):
    write(good + "name: base-study\n", "base.yaml")
    assert load(write("extends: base.yaml\n", "child.yaml")).name == "child"


def test_circles_are_refused_with_their_chain(write):
    write("extends: b.yaml\n", "a.yaml")
    write("extends: c.yaml\n", "b.yaml")
    write("\nextends: a.yaml\n", "c.yaml")
    problem = only("a.yaml")
    assert "a.yaml -> b.yaml -> c.yaml -> a.yaml" in problem.found
    assert problem.where == "c.yaml:2"


def test_two_files_may_extend_the_same_one(write, good):
    write(good, "base.yaml")
    write("extends: base.yaml\ntrain: {epochs: 1}\n", "a.yaml")
    write("extends: base.yaml\n", "b.yaml")
    assert load(write("extends: [a.yaml, b.yaml]\n")).variants[0].recipe.train.epochs == 1


@pytest.mark.parametrize("said", ["gone.yaml", "3", "[recipe.yaml]"])
def test_what_cannot_be_extended_is_one_problem_at_its_line(write, said):
    problem = only(write(f"name: x\nextends: {said}\n"))
    assert (problem.path, problem.where) == ("extends", "recipe.yaml:2")


def test_files_that_are_no_recipes(write, tmp_path):
    write()
    assert "did you mean 'recipe.yaml'" in only("recipee.yaml").advice
    assert "empty" in only(write("")).found
    assert "empty" in only(write("# only a comment\n")).found
    assert "not a recipe" in only(write("- a\n- b\n")).found
    assert "folder" in only(tmp_path).found
    (tmp_path / "latin.yaml").write_bytes("name: a\nx: é".encode("latin-1"))
    assert only("latin.yaml").where == "latin.yaml:2"


def test_paths_start_from_the_file_or_the_command_line(write, good, tmp_path):
    (tmp_path / "deep" / "org" / "name").mkdir(parents=True)
    path = write(good.replace("{path: news.csv}", "{path: ../news.csv}"), "deep/recipe.yaml")
    recipe = load(path, ["data.validation.path=val.csv", "data.split.validation=0", "model.tokenizer=org/name"])
    said = recipe.variants[0].recipe
    assert said.data.train.path == str(tmp_path / "news.csv")
    assert said.data.validation.path == str(tmp_path / "val.csv")
    assert said.model.source == str(tmp_path / "deep" / "org" / "name")  # such a folder lies beside the recipe
    assert said.model.tokenizer == "org/name"  # but none in the current folder


@pytest.mark.parametrize(
    ("said", "prefix", "file", "part"),
    [
        ("../book.xlsx#Sheet 2", "", "book.xlsx", "#Sheet 2"),
        ("sqlite:../rows.db#a/../b//c", "sqlite:", "rows.db", "#a/../b//c"),
        ("sqlite:../rows", "sqlite:", "rows", ""),
        ("../shards/*.parquet", "", "shards/*.parquet", ""),
        ("../a#1.csv", "", "a#1.csv", ""),
    ],
)
def test_what_stands_before_and_behind_a_path_stays(write, good, tmp_path, said, prefix, file, part):
    path = write(good.replace("news.csv", f"'{said}'"), "deep/recipe.yaml")
    assert load(path).variants[0].recipe.data.train.path == f"{prefix}{tmp_path / file}{part}"


@pytest.mark.parametrize("source", ["org/name", "org/name@main", "package:x/y", "package:x/*.gguf"])
def test_hub_ids_and_packages_stay_as_they_are(write, good, source):
    path = write(good.replace("org/name", f"'{source}'").replace("news.csv", "'hub:org/data'"))
    said = load(path, ["data.test.path=sqlite:package:x/y.db#t", "data.split.test=0"]).variants[0].recipe
    assert (said.model.source, said.data.train.path) == (source, "hub:org/data")
    assert said.data.test.path == "sqlite:package:x/y.db#t"


@pytest.mark.parametrize("source", ["./m", "../m", "m.gguf", "~/m", "/m"])
def test_model_paths_become_absolute(write, good, source):
    said = load(write(good.replace("org/name", source))).variants[0].recipe.model.source
    assert os.path.isabs(said)
    assert said.endswith(source.strip("./~"))


def test_the_digest_does_not_depend_on_the_place(write, good):
    here, there = write(good), write(good, "elsewhere/recipe.yaml")
    assert load(here).digest == load(there).digest
    assert load(here).variants[0].recipe.data != load(there).variants[0].recipe.data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_the_order_of_keys(write, good, random):
    def shuffled(value):
        if not isinstance(value, dict):
            return value
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffled(value[key]) for key in keys}

    content = shuffled(yaml.safe_load(good))
    assert load(write(yaml.safe_dump(content, sort_keys=False))).digest == load(write(good)).digest


@pytest.mark.parametrize(
    "override",
    [
        "train.epochs=2",
        "vary=[init]",
        "strategy.rank=9",
        "scoring.base=false",
        "data.train.path=x.csv",
        "model.source=a/b",
    ],
)
def test_the_digest_changes_with_any_option(write, good, override):
    path = write(good)
    assert load(path).variants[0].digest != load(path, [override]).variants[0].digest


def test_seeds_and_name_belong_to_the_study(write, good):
    path = write(good)
    plain, more, named = load(path), load(path, ["seeds=9"]), load(path, ["name=x"])
    assert plain.variants[0].digest == more.variants[0].digest == named.variants[0].digest
    assert plain.digest == more.digest != named.digest
    assert load(path, ["train.epochs=3.0"]).digest == plain.digest  # the default, said


def test_baselines_belong_to_the_study_and_change_no_digest(write, good):
    path = write(good + VARIANTS)
    plain, other = load(path), load(path, ["baselines={enabled: true, limit: 0}"])
    assert other.digest == plain.digest
    assert [variant.digest for variant in other.variants] == [variant.digest for variant in plain.variants]
    assert [variant.recipe.baselines.limit for variant in other.variants] == [0] * len(plain.variants)


def test_the_digest_is_the_same_in_another_process(write, good, tmp_path):
    path = write(good)
    code = f"from finetune.recipe import load; print(load({str(path)!r}).digest)"
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    env = {**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": "7"}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == load(path).digest


def test_locate_knows_written_values_sections_and_defaults(write, good):
    recipe = load(write(good + VARIANTS), ["task.text=body"])
    assert recipe.locate("data.split.test") == "recipe.yaml:4"
    assert recipe.locate("strategy.rank", "lora") == "recipe.yaml:10"
    assert recipe.locate("variants.lora.strategy.rank") == "recipe.yaml:10"
    assert recipe.locate("strategy.type", "lora") == "recipe.yaml:6"
    assert recipe.locate("task.text", "linear") == "command line"
    assert recipe.locate("task.label") == "recipe.yaml:5"  # a default: the section around it
    assert recipe.locate("task.label", exact=True) is None
    assert recipe.locate("scoring.batch_size") is None
    assert recipe.locate("strategy.type", "base") == "recipe.yaml:6"


def test_a_resolved_recipe_is_read_back(write, good, tmp_path):
    recipe = load(write(good + VARIANTS + "evaluate: [{name: 'no', data: {path: x.csv}}]\nseeds: [3, 1]\n"))
    study = tmp_path / "runs" / "recipe"
    study.mkdir(parents=True)
    (study / "resolved.yaml").write_text(recipe.to_yaml())
    back = read_resolved(study / "resolved.yaml")
    assert back.variants == recipe.variants
    assert (back.name, back.seeds, back.vary, back.digest) == (recipe.name, recipe.seeds, recipe.vary, recipe.digest)
    said = yaml.safe_load(recipe.to_yaml())
    assert said["variants"]["lora"]["recipe"]["train"]["batch_size"] == 16
    assert said["baselines"]["enabled"] is True and "baselines" not in said["variants"]["lora"]["recipe"]


def test_one_of_before_there_were_baselines_is_read_back(write, good):
    recipe = load(write(good + VARIANTS))
    said = {key: value for key, value in yaml.safe_load(recipe.to_yaml()).items() if key != "baselines"}
    assert read_resolved(write(yaml.safe_dump(said, sort_keys=False), "resolved.yaml")).variants == recipe.variants


def test_a_resolved_recipe_takes_overrides_of_scoring_only(write, good, tmp_path):
    path = write(load(write(good + VARIANTS)).to_yaml(), "resolved.yaml")
    again = read_resolved(path, ["evaluate=[{name: b, data: {path: b.csv}}]", "variants.lora.scoring.batch_size=2"])
    assert [v.recipe.evaluate[0].data.path for v in again.variants] == [str(tmp_path / "b.csv")] * 3
    assert [v.recipe.scoring.batch_size for v in again.variants] == [32, 2, 32]
    assert again.digest == load(write(good + VARIANTS)).digest
    again = read_resolved(path, ["baselines.limit=7"])
    assert [v.recipe.baselines.limit for v in again.variants] == [7] * 3
    with pytest.raises(InputError, match="cannot be changed after training"):
        read_resolved(path, ["train.epochs=2"])
    with pytest.raises(InputError, match="did you mean 'lora'"):
        read_resolved(path, ["variants.lorra.scoring.batch_size=2"])


@pytest.mark.parametrize("text", ["a: 1\n", "", "digest: x\nvariants: {a: {digest: x}}\n"])
def test_what_is_not_a_resolved_recipe_is_refused(write, text):
    with pytest.raises(InputError):
        read_resolved(write(text, "resolved.yaml"))


def test_a_variant_may_merge_another(write, good):
    path = write(
        good
        + """variants:
  short: &short
    train: &train {epochs: 1}
  long:
    <<: *short
    train: {<<: *train, batch_size: 4}
"""
    )
    recipe = load(path)
    short, long = (variant.recipe.train for variant in recipe.variants)
    assert (short.epochs, long.epochs, long.batch_size) == (1, 1, 4)
    assert recipe.locate("train.epochs", "long") == "recipe.yaml:9"
    assert recipe.locate("train.batch_size", "long") == "recipe.yaml:12"
