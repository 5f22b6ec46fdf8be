"""Advice as a whole: silenced by name, said once for several variants, remembered, and of no influence on results."""

import json

import pytest

from finetune import cli
from finetune import recipe as recipes
from finetune.advice.advising import advise
from finetune.core.errors import InputError
from finetune.core.registry import ADVICE
from finetune.study.preflight import preflight


def checked(capsys, *args):
    assert cli.main(["check", *map(str, args)]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_what_is_silenced_is_not_said(topics, capsys):
    said = checked(capsys, topics, "--fresh")
    assert " few-seeds: 2 seeds to compare 2 variants by" in said and "why: " in said and "instead: seeds: 5" in said
    assert "`silence: [batch-for-data, few-seeds, few-steps, rate-for-strategy]` in the recipe leaves it out" in said
    assert "few-seeds:" not in checked(capsys, topics, "--fresh", "silence=[few-seeds]")
    every = ",".join(ADVICE.all())
    assert "advice" not in checked(capsys, topics, "--fresh", f"silence=[{every}]")


def test_it_is_remembered_with_the_check(topics, capsys):
    first = checked(capsys, topics, "--fresh")
    again = checked(capsys, topics)
    assert "nothing has changed since" in again
    assert again.partition("advice")[2].startswith(first.partition("advice")[2])


def test_an_unknown_rule_is_an_input_error_with_a_suggestion(topics):
    with pytest.raises(InputError, match="few-seeds") as error:
        recipes.load(topics, ["silence=[few-seed]"])
    assert "did you mean 'few-seeds'" in str(error.value)


def test_several_variants_are_named_once(topics):
    topics.write_text(topics.read_text() + "  third: {strategy: {type: full}}\n")
    recipe = recipes.load(topics, ["variants.linear.train.min_steps=200"])
    few = [each for each in advise(recipe, preflight(recipe)) if each.rule == "few-steps"]
    assert [each.variants for each in few] == [("full", "third")]


def test_silence_changes_no_digest_and_is_read_back(topics, tmp_path):
    loud, quiet = recipes.load(topics), recipes.load(topics, ["silence=[few-seeds]"])
    assert loud.digest == quiet.digest
    assert [v.digest for v in loud.variants] == [v.digest for v in quiet.variants]
    (tmp_path / "resolved.yaml").write_text(quiet.to_yaml())
    assert recipes.read_resolved(tmp_path / "resolved.yaml").variants[0].recipe.silence == ["few-seeds"]
    assert "silence:" not in loud.to_yaml()


def test_a_variant_cannot_be_silent_alone(topics):
    with pytest.raises(InputError, match="a variant cannot set 'silence'"):
        recipes.load(topics, ["variants.full.silence=[few-seeds]"])


def test_results_are_the_same_in_every_bit_with_and_without(topics, tmp_path):
    from finetune import run

    one = ["variants={full: {strategy: {type: full}}}", "seeds=1"]
    for name, more in (("loud", []), ("quiet", ["silence=[few-seeds, few-steps]"])):
        run(recipes.load(topics, [*one, *more]), output=tmp_path / name)
    predictions = [
        (tmp_path / name / "topics" / "full" / "seed-0" / "predictions" / "test.parquet").read_bytes()
        for name in ("loud", "quiet")
    ]
    assert predictions[0] == predictions[1]
    scores = [
        json.loads((tmp_path / name / "topics" / "full" / "seed-0" / "result.json").read_text())["scores"]
        for name in ("loud", "quiet")
    ]
    assert scores[0] == scores[1]
