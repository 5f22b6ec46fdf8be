"""Each rule of thumb, on recipes that follow it and on such that do not: the numbers are those of the recipe."""

import json
from functools import partial

import pytest
from transformers import AutoTokenizer

from finetune import recipe as recipes
from finetune.advice.advising import advise, earlier_results
from finetune.core.registry import ADVICE
from finetune.study.preflight import preflight
from tests import tiny

SOUND = ["seeds=5", "train.min_steps=100", "train.learning_rate=3.0e-4", "variants.linear.train.learning_rate=0.1"]
SOLVED = "variants.linear={strategy: {type: linear}, task: {pooling: mean}}"
LORA = "variants.full.strategy={type: adapter, rank: 2}"
SOUND += ["train.warmup=0.1", "train.batch_size=4"]


def advice_on(path, *overrides, sound=(), output=None):
    """The advice on a recipe, by rule: what was found, and what to write instead."""
    recipe = recipes.load(path, [*sound, *overrides])
    found = preflight(recipe)
    earlier = earlier_results(recipe, found, output) if output else None
    said = {}
    for each in advise(recipe, found, earlier):
        assert each.why and each.source and each.instead
        said.setdefault(each.rule, []).append((each.found, each.instead, each.variants))
    return said


@pytest.fixture
def advice(topics):
    """advice(*overrides): on the recipe `topics`, made such that no rule speaks against it."""
    return partial(advice_on, topics, sound=SOUND)


@pytest.fixture
def chat_advice(chats):
    return partial(advice_on, chats, sound=["train.min_steps=100", "train.learning_rate=1.0e-4", "train.batch_size=4"])


def test_a_sound_recipe_gets_none(advice, chat_advice):
    assert advice() == {} == chat_advice()


def test_every_rule_says_who_has_shown_it():
    for name, rule in ADVICE.all().items():
        assert rule.why and rule.source and name == rule.name and name.islower()
        assert (rule.__doc__ or "").strip()


def test_no_warmup(advice):
    [(found, instead, variants)] = advice("train.warmup=0")["no-warmup"][:1]
    assert found == "train.warmup is 0: the first of 100 steps has the whole rate, 0.1" and variants == ("linear",)
    assert instead == "train.warmup: 0.1"
    assert "no-warmup" not in advice(), "the default has one"


def test_a_solved_probe_takes_no_steps_to_advise_on(topics):
    steps = ", solver: steps}, task: {pooling: model}, train: {learning_rate: 0.1}}"
    topics.write_text(topics.read_text().replace(steps, "}}"))
    said = advice_on(topics, "train.warmup=0", "train.min_steps=0", "seeds=3")
    assert {variants for each in said.values() for _, _, variants in each} == {("full",)}


def test_few_steps(advice):
    [(found, instead, variants)] = advice("train.min_steps=0")["few-steps"]
    assert found == "a run takes 12 steps, of 12 an epoch" and "100" in instead and variants == ()
    [(_, instead, _)] = advice("train.max_steps=9")["few-steps"]
    assert instead == "leave train.max_steps out"


@pytest.mark.parametrize(
    "overrides, expected",
    [
        (["variants.full.train.learning_rate=5.0e-3"], "0.005, above"),
        (["variants.full.train.learning_rate=1.0e-7"], "1e-07, below"),
        (
            ["variants.full.strategy={type: adapter, rank: 2}", "variants.full.train.learning_rate=1.0e-5"],
            "1e-05, below",
        ),
        (["variants.full.strategy={type: adapter, rank: 2}", "variants.full.train.learning_rate=3.0e-3"], None),
        (["variants.full.train={optimizer: lion, learning_rate: 8.0e-4}"], "0.0008, above"),
        (["variants.full.train={optimizer: schedule-free, learning_rate: 2.0e-3}"], None),
    ],
)
def test_a_rate_unfit_for_the_strategy(advice, overrides, expected):
    said = advice(*overrides).get("rate-for-strategy", [])
    assert len(said) == (expected is not None)
    for found, _, variants in said:
        assert f"train.learning_rate is {expected}" in found and variants == ("full",)


def test_batch_against_data(advice):
    [(found, instead, _)] = advice("train.batch_size=24")["batch-for-data"]
    assert found == "train.batch_size is 24, of 48 examples to learn from: 2 steps an epoch"
    assert instead == "train.batch_size: 4"


def test_seeds_too_few_for_the_question(advice):
    [(found, instead, _)] = advice("seeds=3")["few-seeds"]
    assert found.startswith("3 seeds to compare 2 variants by: of two, they show a difference of 4.6 SDs")
    assert instead.startswith("seeds: 5, which show 2.4 SDs")
    [(found, _, _)] = advice("seeds=1")["few-seeds"]
    assert "no interval" in found
    [(found, _, _)] = advice("seeds=5", "variants.full.mitigations=[{type: mixout}]")["few-seeds"]
    assert "mitigation" in found
    assert "few-seeds" not in advice("seeds={until: {ci_width: 1.0}, at_least: 4}")


def test_two_seeds_are_enough_where_nothing_is_compared(topics):
    lines = [line for line in topics.read_text().splitlines() if not line.startswith("  linear: ")]
    topics.write_text("\n".join(lines) + "\n")
    assert "few-seeds" not in advice_on(topics, "seeds=2") and "few-seeds" in advice_on(topics, "seeds=1")


def test_truncation(advice):
    [(found, instead, _)] = advice("task.max_length=8")["truncation"]
    assert found.startswith("task.max_length is 8, and cuts ") and "of 48 examples of train" in found
    assert "the model has room for 128" in instead


def test_missing_template(chat_advice):
    assert "has a chat template" in chat_advice("task.template=none")["missing-template"][0][0]


def test_pad_is_eos_only_where_no_end_is_learnt(chat_advice, tmp_path):
    tiny.save_decoder(tmp_path / "same")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "same")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path / "same")
    same = f"model.source={tmp_path / 'same'}"
    assert "pad-is-eos" not in chat_advice(same), "answers end with it, which is learnt"
    assert "pad-is-eos" not in chat_advice("task.template=none"), "pad is another token"
    rows = [{"prompt": topic, "completion": f"{text} {text}"} for text, topic in tiny.sentences(60)]
    chats = tmp_path / "long.jsonl"
    chats.write_text("\n".join(map(json.dumps, rows)))
    cut = [same, "task.max_length=28", f"data.train.path={chats}", "data.duplicates=keep", "data.leaks=allow"]
    [(found, _, _)] = chat_advice(*cut)["pad-is-eos"]
    assert "pad and end token are both '<|im_end|>'" in found and "of 36 answers do not end with it" in found


def test_pad_is_eos_is_no_matter_where_turns_end_with_another_token_that_is_learnt(chat_advice, tmp_path):
    tiny.save_decoder(tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "other")
    tokenizer.eos_token = tokenizer.pad_token  # turns end with what was the end token
    tokenizer.save_pretrained(tmp_path / "other")
    assert "pad-is-eos" not in chat_advice(f"model.source={tmp_path / 'other'}")


def test_scored_on_training(advice, topics):
    tiny.write_csv(topics.parent / "again.csv", tiny.sentences(90)[:20])
    own = f'data.test={{path: "{topics.parent / "again.csv"}"}}'
    [(found, instead, _)] = advice("data.split.test=0", own, "data.leaks=allow", "data.split.validation=0")[
        "scored-on-training"
    ]
    assert found == "data.leaks is allow: 20 of 20 held-out examples are learnt from" and "drop" in instead
    both = f'data.validation={{path: "{topics.parent / "again.csv"}"}}'
    said = advice("data.split.test=0", own, both, "data.split.validation=0", "data.leaks=drop")["scored-on-training"]
    assert "20 validation examples, by which weights are chosen" in said[0][0]


def test_uneven_labels(advice, topics):
    rows = [
        (f"{text} {number}", "money" if number % 10 else "sport") for number, (text, _) in enumerate(tiny.sentences(90))
    ]
    tiny.write_csv(topics.parent / "news.csv", rows)
    [(found, instead, _)] = advice()["uneven-labels"]
    assert "90% of the training examples are 'money'" in found and "macro_f1" in instead
    assert "uneven-labels" not in advice("task.metrics=[macro_f1]")


def test_a_probe_that_was_as_good(topics, tmp_path):
    """From an earlier study of the same recipe, and of no other data."""
    from finetune import run

    path, runs = topics, tmp_path / "runs"
    brief = [SOLVED]
    run(recipes.load(path, brief), output=runs)
    said = advice_on(path, *brief, output=runs)
    [(found, instead, variants)] = said["probe-as-good"]
    assert variants == ("full",) and "than linear in the study that there is already" in found and "2 seeds" in found
    assert "linear" in instead
    tiny.write_csv(path.parent / "news.csv", tiny.sentences(90, seed=5))
    assert "probe-as-good" not in advice_on(path, *brief, output=runs)
    assert json.loads((runs / "topics" / "report" / "results.json").read_text())["study"] == "topics"
