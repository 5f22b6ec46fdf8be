"""Task files of lm-evaluation-harness over local data, for the tests of all that is about them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.core.errors import InputError
from tests import tiny

CHOICES = """
task: topic_choice
dataset_path: json
dataset_kwargs: {data_files: {train: shown.jsonl, test: asked.jsonl}}
training_split: train
test_split: test
output_type: multiple_choice
doc_to_text: "Text: {{text}}\\nTopic:"
doc_to_choice: [money, space, sports news]
doc_to_target: "{{topic}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: mcc}
metadata: {version: 1.0}
"""
ROLLING = """
task: topic_texts
dataset_path: json
dataset_kwargs: {data_files: {test: asked.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{long}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
"""
ANSWERS = """
task: topic_answers
dataset_path: json
dataset_kwargs: {data_files: {train: shown.jsonl, test: asked.jsonl}}
fewshot_split: train
test_split: test
output_type: generate_until
doc_to_text: "Text: {{text}}\\nTopic:"
doc_to_target: "{{name}}"
generation_kwargs: {until: ["the", "\\n"], max_gen_toks: 12}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
filter_list:
  - {name: whole, filter: [{function: take_first}]}
  - {name: first, filter: [{function: regex, regex_pattern: "(\\\\w+)"}, {function: take_first}]}
"""
WORDS = """
task: topic_words
dataset_path: json
dataset_kwargs: {data_files: {test: asked.jsonl}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{text}}"
doc_to_target: " {{name}}"
metric_list: [{metric: acc}, {metric: perplexity}]
"""
CODED = """
task: topic_code
include: choice.yaml
doc_to_text: !function coded.question
"""
CODE = '''"""What a task asks in Python."""


def question(row):
    return f"What is this about? {row['text']}"
'''
GROUP = """
group: topics
task: [topic_choice, topic_answers]
"""
ALL = {"choice": CHOICES, "texts": ROLLING, "answers": ANSWERS, "words": WORDS, "coded": CODED, "group": GROUP}


def write_rows(path: Path, count: int, seed: int) -> None:
    """Write so many texts with their topic, by its number and by its name."""
    topics = sorted(tiny.WORDS)
    rows = [
        {"text": text, "long": " ".join([text] * (1 + number % 3)), "topic": topics.index(name), "name": name}
        for number, (text, name) in enumerate(tiny.sentences(count, seed))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_tasks(folder: Path, count: int = 12) -> Path:
    """Write all task files and their data, of so many documents."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "shown.jsonl", 9, seed=3)
    write_rows(folder / "asked.jsonl", count, seed=5)
    for name, text in ALL.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "coded.py").write_text(CODE, encoding="utf-8")
    return folder


def options_of(folder: Path, name: str, **more: object) -> object:
    from finetune.tasks.harness.options import HarnessOptions

    return HarnessOptions(task=name, include=str(folder), **more)


def loaded(folder: Path, model: object, name: str, **more: object) -> object:
    """A task in ``folder``, loaded, and fitted to a model and its tokenizer; its documents are in `table`."""
    from finetune.tasks.harness.task import HarnessTask

    net, tokenizer = model
    task = HarnessTask(options_of(folder, name, **more), config=lambda: net.config)
    task.table = task.bring(task.load("lm_eval.0"), "lm_eval.0")
    task.fit(tiny.splits(task.table), tokenizer)
    return task


def refusing(act, at):
    """A function that holds what ``act(options, at)`` says of wrong options: one line, at a recipe path, with words."""

    def check(options, path, *words):
        with pytest.raises(InputError) as caught:
            act(options, at)
        [problem] = caught.value.problems
        assert problem.path == path and "\n" not in problem.found, problem
        assert all(word in str(problem) for word in words), str(problem)

    return check
