"""Tasks of the harness are loaded with all that can be wrong with them said in one line."""

from pathlib import Path

import pytest

from finetune.tasks.harness.documents import load
from tests.harness_tasks import options_of, refusing, write_rows, write_tasks

AT = "lm_eval.3"


@pytest.fixture
def folder(tmp_path):
    return write_tasks(tmp_path / "tasks")


@pytest.fixture
def refused():
    return refusing(load, AT)


def changed(folder, name, **changes):
    """A task file like another, with other words in it."""
    text = (folder / f"{name}.yaml").read_text()
    for old, new in changes.items():
        text = text.replace(old, new)
    (folder / "own.yaml").write_text(text.replace("task: topic", "task: own"))


def test_documents_are_the_files_rows_and_metrics_those_of_the_task_in_its_order(folder):
    found = load(options_of(folder, "topic_choice", limit=5), AT)
    assert len(found) == 5 and found.rows[0]["text"] == found.text_of(found.rows[0]).removeprefix(
        "Text: "
    ).removesuffix("\nTopic:")
    assert [metric.name for metric in found.metrics] == ["lm_eval.acc", "lm_eval.acc_norm", "lm_eval.mcc"]
    assert found.source.startswith("lm-evaluation-harness 0.") and found.source.endswith(": topic_choice, version 1.0")
    words = load(options_of(folder, "topic_words"), AT)
    assert [(each.name, each.higher_is_better) for each in words.metrics] == [
        ("lm_eval.acc", True),
        ("lm_eval.perplexity", False),
    ]
    answers = load(options_of(folder, "topic_answers", metrics=["exact_match,first"]), AT)
    assert [metric.name for metric in answers.metrics] == ["lm_eval.exact_match,first"]


def test_nothing_is_left_in_the_caches_of_datasets(folder, monkeypatch, tmp_path):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    load(options_of(folder, "topic_choice"), AT)
    assert not (tmp_path / "cache").exists()


def test_nothing_is_said_by_the_harness(folder, capfd, caplog):
    with caplog.at_level("WARNING", "lm_eval"):
        found = load(options_of(folder, "topic_texts"), AT)
        found.requests(None, "asking")
    assert capfd.readouterr() == ("", "") and not caplog.records


def prints(folder, name="topic_choice", **more):
    return load(options_of(folder, name, **more), AT).fingerprint


def test_the_fingerprint_is_of_all_that_is_asked_and_of_nothing_else(folder, tmp_path):
    first = prints(folder)
    assert prints(folder) == first
    assert prints(write_tasks(tmp_path / "elsewhere")) == first, "wherever the files lie"
    assert prints(folder, limit=4) != first and prints(folder, examples=1) != first
    (folder / "choice.yaml").write_text((folder / "choice.yaml").read_text().replace("Topic:", "It is about"))
    asked = prints(folder)
    assert asked != first
    write_rows(folder / "asked.jsonl", 12, seed=6)
    assert prints(folder) not in (first, asked)
    shown = prints(folder, examples=1)
    write_rows(folder / "shown.jsonl", 9, seed=8)
    assert prints(folder, examples=1) != shown, "solved examples are part of it"


def test_code_beside_a_task_is_part_of_its_fingerprint(folder):
    first = prints(folder, "topic_code", run_code=True)
    assert load(options_of(folder, "topic_code", run_code=True), AT).text_of({"text": "x"}) == "What is this about? x"
    (folder / "coded.py").write_text((folder / "coded.py").read_text().replace("What", "Of what"))
    assert prints(folder, "topic_code", run_code=True) != first


@pytest.mark.parametrize(
    ("name", "more", "path", "said"),
    [
        ("topic_words", {"examples": 1}, "examples", "no solved examples beside the documents"),
        ("topic_choice", {"examples": 10}, "examples", "has 9 solved examples"),
        ("topic_choice", {"metrics": ["acc", "acc_nrom"]}, "metrics.1", "did you mean 'acc_norm'?"),
        ("topic_answers", {"metrics": ["exact_match"]}, "metrics.0", "exact_match,first, exact_match,whole"),
    ],
)
def test_what_the_recipe_asks_in_vain(folder, refused, name, more, path, said):
    refused(options_of(folder, name, **more), f"{AT}.{path}", said)


def test_a_task_that_wants_no_solved_examples(folder, refused):
    changed(folder, "choice", metadata="num_fewshot: 0\nmetadata")
    refused(options_of(folder, "own_choice", examples=2), f"{AT}.examples", "no solved examples stand before it")
    assert load(options_of(folder, "own_choice"), AT).shots == 0
    changed(folder, "choice", metadata="num_fewshot: 3\nmetadata")
    assert load(options_of(folder, "own_choice"), AT).shots == 3, "as its file says"
    assert load(options_of(folder, "own_choice", examples=0), AT).shots == 0


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("choice", {"asked.jsonl": "nowhere.jsonl"}, "cannot be loaded"),
        ("choice", {"{{text}}": "{{title}}"}, "cannot be loaded: 'title' is undefined"),
        ("choice", {"output_type: multiple_choice": "output_type: poetry"}, "cannot be loaded"),
        ("choice", {"metric: mcc": "metric: bypass"}, None),
        ("words", {"[{metric: acc}, {metric: perplexity}]": "[{metric: bypass}]"}, "has no metric by which"),
        (
            "words",
            {"[{metric: acc}, {metric: perplexity}]": "[{metric: acc, aggregation: bypass}]"},
            "has no metric by which",
        ),
    ],
)
def test_what_is_wrong_with_a_task_file_is_one_line(folder, refused, name, changes, said):
    changed(folder, name, **changes)
    if said is None:
        assert [each.metric for each in load(options_of(folder, f"own_{name}"), AT).metrics] == ["acc", "acc_norm"]
    else:
        refused(options_of(folder, f"own_{name}"), f"{AT}.task", said)


AGGREGATE = """
def pairs(items):
    return {"first": items[0]}
"""


def test_an_aggregation_that_is_no_number_is_refused_by_name(folder, refused):
    (folder / "own_code.py").write_text(AGGREGATE)
    changed(folder, "words", **{"{metric: perplexity}": "{metric: perplexity, aggregation: !function own_code.pairs}"})
    options = options_of(folder, "own_words", run_code=True)
    refused(options, f"{AT}.task", "lm_eval.perplexity gives no number, but: {'first'")


@pytest.mark.tries_network
def test_documents_of_the_hub_without_a_network_are_one_line(folder, refused):
    options = options_of(folder, "arc_easy")
    refused(options, f"{AT}.task", "'arc_easy' cannot be loaded: ", "the hub dataset 'allenai/ai2_arc'", "network")


def test_data_are_found_beside_the_task_file_or_where_they_are_named(folder, tmp_path, monkeypatch):
    wanted = load(options_of(folder, "topic_choice"), AT).rows
    changed(folder, "choice", **{"asked.jsonl": "tasks/asked.jsonl", "shown.jsonl": str(folder / "shown.jsonl")})
    monkeypatch.chdir(tmp_path)
    assert load(options_of(Path("tasks"), "own_choice"), AT).rows == wanted


def test_every_request_is_drawn_alike_each_time(folder):
    found = load(options_of(folder, "topic_choice", examples=3), AT)
    first, again = ([[one.args for one in own] for own in found.requests(None, "asking")] for _ in range(2))
    assert first == again and len({own[0][0] for own in first}) == len(first)
