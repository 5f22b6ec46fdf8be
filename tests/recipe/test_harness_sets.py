"""Tasks of lm-evaluation-harness in a recipe: by name or with options, under names that overrides can use."""

import pytest

from finetune.core.errors import InputError
from finetune.recipe import load
from finetune.recipe.options import HeldOut
from finetune.recipe.resolve import read_resolved
from tests.recipe.test_combinations import text

CHAT = "{type: chat, prompt: p, completion: c}"


def entries(recipe):
    return [each.model_dump(exclude_defaults=True) for each in recipe.variants[0].recipe.lm_eval]


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "a.yaml"
    said = "[arc_easy, {task: gsm8k, examples: 5, limit: 200, include: ./mine}, {task: gsm8k, name: none, examples: 0}]"
    path.write_text(text(task=CHAT, lm_eval=said))
    return path


def test_a_name_alone_is_a_task_with_all_defaults(written):
    first, *others = entries(load(written))
    assert first == {"task": "arc_easy", "name": "arc_easy"}
    assert [each["name"] for each in others] == ["gsm8k", "none"] and others[0]["examples"] == 5
    assert load(written).variants[0].recipe.lm_eval[0].role_beside(None) == "forgetting"


def test_folders_start_from_the_recipe_and_overrides_use_names(written):
    found = load(written, ["lm_eval.gsm8k.limit=7", "lm_eval.none.examples=1"])
    assert [each.get("limit") for each in entries(found)] == [None, 7, None]
    assert found.variants[0].recipe.lm_eval[1].include == str(written.parent / "mine")
    assert found.locate("lm_eval.gsm8k.limit") == "command line"


def test_what_was_resolved_is_read_again(written, tmp_path):
    found = load(written)
    (tmp_path / "resolved.yaml").write_text(found.to_yaml())
    again = read_resolved(tmp_path / "resolved.yaml", ["lm_eval=[hellaswag]"])
    assert again.variants[0].digest == found.variants[0].digest
    assert entries(again) == [{"task": "hellaswag", "name": "hellaswag"}]
    assert entries(read_resolved(tmp_path / "resolved.yaml"))[1]["include"] == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("said", "path", "words"),
    [
        ("[{examples: 5}]", "lm_eval.0.task", "is missing"),
        ("[{task: a, exampels: 5}]", "lm_eval.0.exampels", "examples"),
        ("[{task: a, examples: -1}]", "lm_eval.0.examples", "at least 0"),
        ("[{task: a, metrics: []}]", "lm_eval.0.metrics", ""),
        ("[{task: 'a b'}]", "lm_eval.0", "a b"),
        ("[3]", "lm_eval.0", ""),
        ("arc_easy", "lm_eval", "list"),
    ],
)
def test_mistakes_have_their_place(tmp_path, said, path, words):
    (tmp_path / "a.yaml").write_text(text(task=CHAT, lm_eval=said))
    with pytest.raises(InputError) as caught:
        load(tmp_path / "a.yaml")
    [problem] = caught.value.problems
    assert problem.path.startswith(path) and words in str(problem), str(problem)


def test_the_digest_is_of_the_tasks_too_and_without_any_what_it_was(written, tmp_path):
    plain = tmp_path / "plain.yaml"
    plain.write_text(text(task=CHAT))
    own, none = (load(path).variants[0] for path in (written, plain))
    assert own.digest != none.digest
    assert load(written, ["lm_eval.gsm8k.limit=7"]).variants[0].digest != own.digest
    assert load(written, ["lm_eval=[]"]).variants[0].digest == none.digest
    assert "lm_eval" in none.recipe.identifying(), "it is left out of the digest alone"


def test_all_sets_are_listed_in_the_order_in_which_they_are_scored(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text(task=CHAT, lm_eval="[arc_easy]", evaluate="[{name: a, data: {path: b}}]"))
    first, second = load(path).variants[0].recipe.sets
    assert isinstance(first, HeldOut) and second.name == "arc_easy"
