"""Every mistake has a place, plain words, and advice."""

from __future__ import annotations

import random
import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.core.errors import InputError
from finetune.recipe import load

JARGON = re.compile(
    r"Input should|Field required|Extra inputs|Value error|valid (string|integer|number|boolean|dictionary|list)|"
    r"discriminator|tagged|union|pydantic|function-|model_type|NoneType|\bstr\b|\bint\b|\bdict\b",
    re.IGNORECASE,
)


def problems(path, overrides=()):
    with pytest.raises(InputError) as caught:
        load(path, overrides)
    for problem in caught.value.problems:
        assert not JARGON.search(str(problem)), problem
        assert problem.where
    return caught.value.problems


HEAD = """\
model: {source: org/name}
data: {train: {path: news.csv}, split: {test: 0.3}}
"""
TASK = "task: {type: classification}\n"
STRATEGY = "strategy: {type: full}\n"


@pytest.mark.parametrize(
    ("line", "path", "found", "advice"),
    [
        ("train: {epochs: three}", "train.epochs", "is 'three', a text; it must be a number", "Passes"),
        ("train: {epochs: '3'}", "train.epochs", "is '3', a text", "take away the quotes: 3"),
        ("train: {epochs: true}", "train.epochs", "is true, a truth value; it must be a number", ""),
        ("train: {epochs: 0}", "train.epochs", "must be greater than 0", ""),
        ("train: {epochs: }", "train.epochs", "is empty; it must be a number", ""),
        ("train: {batch_size: 1.5}", "train.batch_size", "is 1.5, a number; it must be a whole number", ""),
        ("train: {batch_size: 0}", "train.batch_size", "must be at least 1", ""),
        ("train: {warmup: 1}", "train.warmup", "must be less than 1", ""),
        ("train: {schedule: liner}", "train.schedule", "'liner', which is not a choice", "did you mean 'linear'"),
        ("train: {schedule: 3}", "train.schedule", "3, a whole number, which is not a choice", "cosine"),
        (
            "train: {deterministic: no}",
            "train.deterministic",
            "is 'no', a text; it must be true or false",
            "write false",
        ),
        ("train: {betas: [0.9]}", "train.betas", "number 2 is missing", ""),
        ("train: {betas: [1, 2, 3]}", "train.betas", "at most 2 items", ""),
        ("train: {betas: x}", "train.betas", "it must be a list", "write [x]"),
        ("train: {betas: [0.9, x]}", "train.betas.1", "is 'x', a text; it must be a number", ""),
        ("train: 3", "train", "is 3, a whole number; it must be a section", ""),
        ("train:", "train", "is empty; it must be a section", ""),
        ("train: {early_stopping: 3}", "train.early_stopping", "it must be a section", ""),
        ("train: {epoch: 3}", "train.epoch", "there is no key 'epoch' in train", "did you mean 'epochs'"),
        ("train: {divergence: {windw: 3}}", "train.divergence.windw", "in train.divergence", "did you mean 'window'"),
        ("epochs: 3", "epochs", "at the top of a recipe", "'epochs' belongs into train"),
        ("extnds: a.yaml", "extnds", "there is no key", "did you mean 'extends'"),
        ("name: a b", "name", "must begin with a letter or digit", ""),
        ("name: 3", "name", "it must be a text", 'put it in quotes: "3"'),
        ("evaluate: {name: a}", "evaluate", "is a section; it must be a list", ""),
        ("evaluate: [{name: a}]", "evaluate.0.data", "is missing", "add `data:` to evaluate.0"),
        ("evaluate: [{name: a/b, data: {path: x}}]", "evaluate.0.name", "must begin with", ""),
        ("evaluate: [3]", "evaluate.0", "it must be a section", ""),
        ("mitigations: [{type: mixot}]", "mitigations.0.type", "there is no mitigation called 'mixot'", ""),
        ("mitigations: [mixout]", "mitigations.0", "it must be a section", ""),
        ("variants: [a]", "variants", "is a list; it must be a section", "variants: {name"),
        ("variants: {a: 3}", "variants.a", "it must be a section", "{}"),
        ("variants: {base: {}}", "variants.base", "its own files", ""),
        ("variants: {report: {}}", "variants.report", "its own files", ""),
        ("variants: {recipe.yaml: {}}", "variants.recipe.yaml", "its own files", ""),
        ("variants: {'a b': {}}", "variants.a b", "cannot be a variant's name", ""),
        ("variants: {Lora: {}, lora: {}}", "variants.lora", "upper and lower case", ""),
        ("variants: {a: {name: x}}", "variants.a.name", "a variant cannot set 'name'", ""),
        ("variants: {a: {seeds: 3}}", "variants.a.seeds", "a variant cannot set 'seeds'", ""),
        ("variants: {a: {vary: [init]}}", "variants.a.vary", "a variant cannot set 'vary'", ""),
        ("variants: {a: {variants: {}}}", "variants.a.variants", "a variant cannot set", ""),
        ("variants: {a: {extends: x}}", "variants.a.extends", "a variant cannot set", ""),
    ],
)
def test_a_mistake_is_told_once_in_plain_words(write, line, path, found, advice):
    [problem] = problems(write(HEAD + TASK + STRATEGY + line + "\n"))
    assert (problem.path, problem.where) == (path, "recipe.yaml:5")
    assert found in problem.found
    assert advice in problem.advice


@pytest.mark.parametrize(
    ("line", "path", "found", "advice"),
    [
        ("strategy: {type: lora}", "strategy.type", "there is no strategy called 'lora'", "adapter"),
        ("strategy: {type: adaptr}", "strategy.type", "there is no strategy called 'adaptr'", "did you mean 'adapter'"),
        ("strategy: {type: 3}", "strategy.type", "is 3, a whole number; it must be a text", ""),
        ("strategy: {rank: 3}", "strategy.type", "is missing", "adapter"),
        ("strategy: linear", "strategy", "it must be a section", "write strategy: {type: linear}"),
        ("strategy:", "strategy", "is empty", ""),
        ("strategy: {type: adapter, rnk: 3}", "strategy.rnk", "in strategy of type adapter", "did you mean 'rank'"),
        ("strategy: {type: linear, rank: 3}", "strategy.rank", "of type linear", "belongs to strategy type adapter"),
        ("strategy: {type: adapter, rank: x}", "strategy.rank", "must be a whole number", ""),
        ("strategy: {type: adapter, targets: 3}", "strategy.targets", "must be a text or a list", ""),
        ("strategy: {type: adapter, targets: {a: 1}}", "strategy.targets", "must be a text or a list", ""),
        ("strategy: {type: adapter, targets: [a, 3]}", "strategy.targets.1", "must be a text", ""),
        ("strategy: {type: partial}", "strategy", "nothing says what learns", ""),
    ],
)
def test_mistakes_in_a_plugin_section(write, line, path, found, advice):
    [problem] = problems(write(HEAD + TASK + line + "\n"))
    assert (problem.path, problem.where) == (path, "recipe.yaml:4")
    assert found in problem.found
    assert advice in problem.advice


def test_all_mistakes_are_told_together_in_the_order_of_the_file(write):
    text = """\
seeds: 0
model: {sourc: org/name}
data:
  train: {path: 3}
  split: {tst: 0.3}
task: {type: clasification}
strategy: {type: adapter, rank: x}
train: {select: acuracy, micro_batch_size: 64, early_stopping: {patience: 1}}
"""
    found = problems(write(text))
    assert [problem.path for problem in found] == [
        "seeds",
        "model.sourc",
        "data.train.path",
        "data.split.tst",
        "task.type",
        "strategy.rank",
        "train.micro_batch_size",
    ]
    assert [problem.where for problem in found] == [f"recipe.yaml:{line}" for line in (1, 2, 4, 5, 6, 7, 8)]


def test_missing_sections_point_at_their_parent(write):
    found = problems(write("name: x\ndata:\n  split: {test: 1}\n"))
    assert {problem.path: problem.where for problem in found} == {
        "model": "recipe.yaml:1",
        "task": "recipe.yaml:1",
        "strategy": "recipe.yaml:1",
        "data.train": "recipe.yaml:2",
    }


def test_mistakes_in_an_extended_file_are_placed_there(write):
    write(HEAD + TASK + "train: {epochs: x}\n", "base.yaml")
    found = problems(write("extends: base.yaml\nstrategy: {type: ful}\n"))
    assert [(p.where, p.path) for p in found] == [("base.yaml:4", "train.epochs"), ("recipe.yaml:2", "strategy.type")]


def test_a_doubled_key_and_a_mistake_are_told_together(write):
    found = problems(write(HEAD + TASK + STRATEGY + "train: {epochs: 3, clip: x, epochs: 4}\n"))
    assert sorted(problem.path for problem in found) == ["train.clip", "train.epochs"]


VARIANTS = """\
variants:
  a: {train: {epochs: x}}
  b: {strategy: {type: adapter, rank: 0}}
  c: {}
"""


def test_a_shared_mistake_is_told_once_and_a_variants_own_with_its_name(write):
    found = problems(write(HEAD + TASK + STRATEGY + "train: {clip: x}\n" + VARIANTS))
    assert [(p.path, p.where) for p in found] == [
        ("train.clip", "recipe.yaml:5"),
        ("variants.a.train.epochs", "recipe.yaml:7"),
        ("variants.b.strategy.rank", "recipe.yaml:8"),
    ]


def test_variants_may_complete_what_they_share(write):
    text = HEAD + TASK + "variants: {a: {strategy: {type: full}}, b: {strategy: {type: partial, last: 1}}}\n"
    assert [v.name for v in load(write(text)).variants] == ["a", "b"]
    text = HEAD + TASK + "strategy: {type: partial}\nvariants: {a: {strategy: {last: 1}}, b: {strategy: {last: 2}}}\n"
    assert [v.recipe.strategy.last for v in load(write(text)).variants] == [1, 2]


def test_what_no_variant_completes_is_told_once(write):
    [problem] = problems(write(HEAD + TASK + "variants: {a: {}, b: {}}\n"))
    assert (problem.path, problem.where) == ("strategy", "recipe.yaml:1")
    [problem] = problems(write(HEAD + TASK + "variants: {a: {}, b: {strategy: {type: full}}}\n"))
    assert problem.path == "variants.a.strategy"


RICH = """\
name: x
seeds: 2
model: {source: org/name}
data: {train: {path: a.csv, columns: {type: x, x: y}, names: [a]}, split: {test: 0.3, validation: 0.1}}
task: {type: classification, metrics: [accuracy]}
strategy: {type: adapter, targets: [query]}
mitigations: []
train: {betas: [0.9, 0.99], early_stopping: {patience: 2}}
evaluate: [{name: a, data: {path: b.csv}}]
variants: {a: {strategy: {rank: 3}}, b: {strategy: {type: linear}}}
"""

garbage = st.recursive(
    st.sampled_from([None, True, 0, -1, 1.5, "", "x", "adapter", "chat", "type", "3", 10**30]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["type", "x", "path", "name", "rank", "adapter", "0"]), inner, max_size=2),
    ),
    max_leaves=4,
)


def places(value, path=()):
    """Every place of a recipe, as the keys that lead there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield (*path, key)
        yield from places(child, (*path, key))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(garbage, garbage, st.randoms(use_true_random=False))
def test_whatever_stands_anywhere_is_told_in_plain_words(write, first, second, choice: random.Random):
    recipe = yaml.safe_load(RICH)
    for value in (first, second):
        *section, key = choice.choice(sorted(places(recipe), key=str))
        holder = recipe
        for step in section:
            holder = holder[step]
        holder[key] = value
    path = write(yaml.safe_dump(recipe))
    try:
        load(path)
    except InputError:
        assert problems(path)


def test_a_column_called_type_is_not_taken_for_a_plugin(write):
    data = "data: {train: {path: a.csv, columns: {type: x, x: 3}}, split: {test: 0.3}}\n"
    [problem] = problems(write("model: {source: org/name}\n" + data + TASK + STRATEGY))
    assert problem.path == "data.train.columns.x"


def test_a_baseline_has_to_be_a_variant(write):
    variants = "variants: {full: {}, lora: {strategy: {type: adapter}}}\n"
    assert load(write(HEAD + TASK + STRATEGY + "scoring: {baseline: lora}\n" + variants)).variants
    path = write(HEAD + TASK + STRATEGY + "scoring: {baseline: lra}\n" + variants)
    [problem] = problems(path)
    assert (problem.path, problem.where) == ("scoring.baseline", f"{path.name}:5")
    assert "no variant called 'lra'" in problem.found and "lora" in problem.advice
    own = "variants: {full: {scoring: {baseline: lora}}, lora: {strategy: {type: adapter}}}\n"
    [problem] = problems(write(HEAD + TASK + STRATEGY + own))
    assert "not the same for all" in problem.found


@pytest.mark.parametrize(
    "section, path, found",
    [
        ("{shots: 2}", "baselines.shots", "task classification generates no answer"),
        ("{shots: -1}", "baselines.shots", "it must be at least 0"),
        ("{limit: 1.5}", "baselines.limit", "it must be a whole number"),
        ("{enabled: false, shots: 1}", "baselines", "shots asks for a baseline, and enabled is false"),
        ("false", "baselines", "it must be a section"),
        ("{shot: 1}", "baselines.shot", "there is no key 'shot'"),
    ],
)
def test_baselines_are_validated(write, good, section, path, found):
    [problem] = problems(write(good + f"baselines: {section}\n"))
    assert problem.path == path and found in problem.found


def test_a_variant_has_no_baselines_of_its_own_and_not_their_name(write, good):
    own = "variants: {a: {baselines: {enabled: false}}, baselines: {}}\n"
    found = problems(write(good + own))
    assert {problem.path for problem in found} == {"variants.a.baselines", "variants.baselines"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_a_recipe_in_another_encoding_says_so(tmp_path, good, encoding):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(f"# é\n{good}".encode(encoding))
    with pytest.raises(InputError) as caught:
        load(path)
    [problem] = caught.value.problems
    assert problem.advice == "save the recipe as UTF-8" and problem.where.endswith("recipe.yaml:1")


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path, good):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(good.encode("utf-8-sig"))
    assert load(path).name == "recipe"
