"""Evaluation sets of any kind: other columns, other names of labels, another task; and what a model cannot be asked."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune import load_recipe, recipe
from finetune.core.errors import InputError
from finetune.results.compute import results_of
from finetune.results.reading import read_study
from finetune.runner.resources import Resources
from finetune.study.running import run_study
from tests import tiny


def with_sets(path, *sets):
    """The recipe with these evaluation sets."""
    path.write_text(path.read_text() + "evaluate:\n" + "".join(f"  - {json.dumps(each)}\n" for each in sets))
    return path


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name


@pytest.fixture
def tweets(tmp_path):
    """Topics under other column names, and one label under another name."""
    short = {"sport": "s"}
    rows = [{"tweet": text, "about": short.get(topic, topic)} for text, topic in tiny.sentences(24, seed=5)]
    return write_rows(tmp_path / "tweets.jsonl", rows)


def loaded(path, *overrides):
    only = recipe.load(path, overrides).variants[-1].recipe
    return Resources().data(only, 0)


COLUMNS = {"text": "tweet", "label": "about"}


def test_a_set_may_have_columns_and_labels_of_other_names(topics, tweets):
    other = {"name": "tweets", "data": {"path": tweets}, "task": COLUMNS, "labels": {"s": "sport"}}
    data = loaded(with_sets(topics, other))
    assert data.task_of("tweets").options.text == "tweet" and data.task_of("test") is data.task
    assert data.task_of("tweets").labels == data.task.labels
    found = [example.reference for example in data.held_out["tweets"].examples]
    assert found == [topic for _, topic in tiny.sentences(24, seed=5)]
    plain = [example.inputs["input_ids"].tolist() for example in data.held_out["tweets"].examples]
    ids = data.task.tokenizer([text for text, _ in tiny.sentences(24, seed=5)])["input_ids"]
    assert plain == ids, "read as the training data are"


def test_what_a_set_says_is_laid_over_the_recipes_task(topics, tweets):
    other = {"name": "tweets", "data": {"path": tweets}, "task": {**COLUMNS, "metrics": ["nll"]}}
    other["labels"] = {"s": "sport"}
    [entry] = recipe.load(with_sets(topics, other)).variants[0].recipe.evaluate
    assert entry.task.max_length == 32, "as the recipe's own task"
    assert entry.task.metrics == ["nll"] and entry.role_beside(entry.task) == "shifted"


def test_a_set_is_overridden_by_its_name(topics, tweets):
    other = {"name": "tweets", "data": {"path": tweets}, "task": COLUMNS, "labels": {"s": "sport"}}
    resolved = recipe.load(with_sets(topics, other), ["evaluate.tweets.data.limit=7"])
    assert resolved.variants[0].recipe.evaluate[0].data.limit == 7
    assert resolved.locate("evaluate.tweets.task.text").startswith(f"{topics}:")


@pytest.mark.parametrize(
    ("change", "path", "said"),
    [
        ({"labels": {}}, "evaluate.tweets.task.label", "labels that no training example has: s"),
        ({"labels": {"s": "sport", "x": "money"}}, "evaluate.tweets.labels", "no example has the label 'x'"),
        ({"task": {"text": "words", "label": "about"}}, "evaluate.tweets.task.text", "words"),
        ({"task": {"type": "language", "text": "tweet"}, "labels": {}, "role": "shifted"}, "evaluate.tweets.task.type",
         "AutoModelForMaskedLM"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_where_the_set_says_it(topics, tweets, change, path, said):
    other = {"name": "tweets", "data": {"path": tweets}, "task": COLUMNS, "labels": {"s": "sport"}}
    with pytest.raises(InputError) as caught:
        loaded(with_sets(topics, {**other, **change}))
    [problem] = caught.value.problems
    assert problem.path == path and said in str(problem)


def test_examples_that_are_learnt_from_are_found_under_other_names(topics, tmp_path):
    rows = [{"tweet": text.upper(), "about": topic} for text, topic in tiny.sentences(5)]  # the first five of 90
    other = {"name": "tweets", "data": {"path": write_rows(tmp_path / "t.jsonl", rows)}, "task": COLUMNS}
    path = with_sets(topics, other)
    with pytest.raises(InputError, match="held-out examples are in the training data") as caught:
        loaded(path)
    assert {problem.path for problem in caught.value.problems} == {"evaluate.tweets.data"}
    facts = loaded(path, "data.leaks=drop").facts["leaks"]
    assert 0 < facts["dropped"] <= 5 and "not_compared" not in facts


@pytest.fixture
def general(tmp_path):
    return write_rows(tmp_path / "general.jsonl", [{"body": text} for text, _ in tiny.sentences(20, seed=7)])


def forgetting(general, **more):
    task = {"type": "language", "text": "body"}
    return {"name": "general", "data": {"path": general}, "task": task, "margin": 0.05, **more}


@pytest.fixture
def asked(chats, general):
    return with_sets(chats, forgetting(general))


def test_another_task_is_asked_of_the_same_model(asked, tmp_path):
    """A chat-tuned model's loss on plain text is that of plain transformers, and its forgetting is judged."""
    assert run_study(load_recipe(asked), tmp_path / "out").failed == []
    study = read_study(tmp_path / "out" / "chats")
    results = results_of(study)
    inside, general = results.tasks
    assert (inside.role, general.role, general.metric, general.margin) == ("in-domain", "forgetting", "loss", 0.05)
    place = tmp_path / "out" / "chats" / "full" / "seed-0"
    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    model = AutoModelForCausalLM.from_pretrained(place / "model", dtype=torch.float32).eval()
    stored = pq.read_table(place / "predictions" / "general.parquet").to_pydict()
    for (text, _), loss, weight in zip(tiny.sentences(20, seed=7), stored["loss"], stored["weight"], strict=True):
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            wanted = float(model(ids, labels=ids).loss)
        assert weight == ids.shape[1] - 1 and loss / weight == pytest.approx(wanted, rel=1e-4)
    [found] = results.forgetting
    base = results.variant("base").estimates["general/loss"].mean
    assert found.change == pytest.approx(base - results.variant("full").estimates["general/loss"].mean)
    assert found.verdict == "lost" and found.ci[1] < -0.05, "trained so hard that it is no language model any more"
    kept = pq.read_table(tmp_path / "out" / "chats" / "examples" / "general.parquet")["input"].to_pylist()
    assert kept == [text for text, _ in tiny.sentences(20, seed=7)]


def test_its_scores_do_not_depend_on_how_many_are_scored_at_once(asked, tmp_path):
    for size in (1, 32):
        run_study(recipe.load(asked, [f"scoring.batch_size={size}", "seeds=1"]), tmp_path / str(size))
    tables = [
        pq.read_table(tmp_path / size / "chats/full/seed-0/predictions/general.parquet")["loss"].to_numpy()
        for size in ("1", "32")
    ]
    assert tables[0] == pytest.approx(tables[1], rel=1e-5)


def test_sets_that_cannot_be_compared_with_what_is_learnt_are_told(chats, general):
    pair = {"name": "pairs", "data": {"path": general}, "task": {"type": "language", "text": "body"}, "margin": 1.0}
    data = loaded(with_sets(chats, pair))
    assert data.facts["leaks"].get("not_compared") == (["pairs"] if len(data.task.inputs()) != 1 else None)


@pytest.fixture
def worded(tmp_path, decoder_folder):
    """A recipe whose labels are a causal model's words."""
    path = tiny.write_topics(tmp_path, decoder_folder)
    said = path.read_text().split("variants:")[0].replace("classification, max_length: 32", "label-words")
    path.write_text(said + "strategy: {type: full}\n")
    return path


def labelled(folder, *labels):
    rows = [{"tweet": f"news number {number}", "label": label} for number, label in enumerate(labels)]
    return {"name": "tweets", "data": {"path": write_rows(folder / "tweets.jsonl", rows)}, "task": {"text": "tweet"}}


def test_labels_that_are_words_are_those_of_training(worded, tmp_path):
    data = loaded(with_sets(worded, labelled(tmp_path, "money", "sport")))
    own = data.task_of("tweets")
    assert own.labels == data.task.labels == ("money", "space", "sport") and own.commonest == data.task.commonest
    assert [example.target for example in data.held_out["tweets"].examples] == [0, 2]


@pytest.mark.parametrize(
    ("label", "words", "path", "said"),
    [
        ("weather", {}, "evaluate.tweets.task.label", "labels that no training example has: weather"),
        ("sport", {"sport": "money"}, "evaluate.tweets.task.verbaliser", "have the same words, 'money'"),
    ],
)
def test_a_label_that_is_no_word_of_training_is_refused(worded, tmp_path, label, words, path, said):
    other = labelled(tmp_path, "money", label)
    other["task"]["verbaliser"] = words
    with pytest.raises(InputError) as caught:
        loaded(with_sets(worded, other))
    [problem] = caught.value.problems
    assert problem.path == path and said in str(problem)


def asking(path, choices, count, seed=0):
    """Questions whose right answers are the topics of their texts, by their places."""
    rows = []
    for number, (text, topic) in enumerate(tiny.sentences(count, seed)):
        others = tiny.FILLER[: choices - 1]
        place = number % choices
        rows.append({"question": text, "options": [*others[:place], topic, *others[place:]], "answer": place})
    return write_rows(path, rows)


def test_a_head_that_scores_choices_is_asked_among_any_number_of_them(topics, tmp_path):
    said = topics.read_text().split("variants:")[0].replace("classification", "multiple-choice, choices: options")
    said = said.replace("news.csv", asking(tmp_path / "four.jsonl", 4, 90)).replace(", stratify: label", "")
    topics.write_text(said + "strategy: {type: full}\n")
    other = {"name": "two", "data": {"path": asking(tmp_path / "two.jsonl", 2, 20, seed=5)}, "task": {"max_length": 24}}
    data = loaded(with_sets(topics, other))
    assert data.task.labels == tuple("ABCD") and data.task_of("two").labels == tuple("AB")
    assert data.task_of("two").fixed and data.majority["two"] == 0.5
    assert [example.target for example in data.held_out["two"].examples] == [0, 1] * 10
