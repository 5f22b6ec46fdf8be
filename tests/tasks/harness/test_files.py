"""Task files are found by name, and nothing of them is run before the recipe says so."""

import json
import subprocess
import sys

import pytest

from finetune.tasks.harness.files import code_of, find
from tests.harness_tasks import options_of, refusing, write_tasks

AT = "lm_eval.0"


@pytest.fixture
def folder(tmp_path):
    return write_tasks(tmp_path / "tasks")


@pytest.fixture
def refused():
    return refusing(find, AT)


def test_a_file_of_the_users_comes_first(folder):
    (folder / "mine.yaml").write_text((folder / "choice.yaml").read_text().replace("topic_choice", "arc_easy"))
    found = find(options_of(folder, "arc_easy"), AT)
    assert found.own and found.path == folder / "mine.yaml"


def test_the_harnesss_own_are_found_too_and_unknown_ones_get_advice(folder, refused):
    found = find(options_of(folder, "arc_easy"), AT)
    assert not found.own and found.config["dataset_path"] == "allenai/ai2_arc"
    refused(options_of(folder, "arc_eazy"), "lm_eval.0.task", "no task 'arc_eazy'", "did you mean 'arc_easy'?")
    refused(options_of(folder, "mmlu"), "lm_eval.0.task", "is a group of tasks", "mmlu_stem")
    refused(options_of(folder, "ai2_arc"), "lm_eval.0.task", "is a group of tasks", "arc_easy")
    # Programs that the model has written are run only where the recipe says so, wherever the task comes from.
    refused(options_of(folder, "humaneval"), "lm_eval.0.task", "runs programs that the model has written", "run_code")
    assert find(options_of(folder, "humaneval", run_code=True), AT).name == "humaneval"


def test_a_group_of_the_users_is_refused_by_name(folder, refused):
    refused(options_of(folder, "topics"), "lm_eval.0.task", "'topics' is a group", "topic_choice, topic_answers")


def test_a_folder_that_is_not_there_and_a_file_that_cannot_be_read(folder, refused):
    refused(options_of(folder / "elsewhere", "topic_choice"), "lm_eval.0.include", "there is no folder")
    (folder / "broken.yaml").write_text("task: [a\n")
    refused(options_of(folder, "topic_choice"), "lm_eval.0.include", "broken.yaml' cannot be read")
    (folder / "broken.yaml").write_text("include: nowhere.yaml\ntask: a\n")
    refused(options_of(folder, "topic_choice"), "lm_eval.0.include", "broken.yaml' cannot be read", "nowhere.yaml")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("doc_to_text: !function coded.question", "names the function coded.question"),
        ("process_docs: !function coded.question", "names the function coded.question"),
        ("class: !function coded.question", "names the function coded.question"),
        ('description: "{{ text.__class__.__mro__ }}"', "reaches into Python: own.yaml says __class__"),
        ("unsafe_code: true", "runs programs that the model has written"),
        ("metric_list: [{metric: bertscore}]", "fetches its metric 'bertscore' from the hub"),
        ("metric_list: [{metric: acc, hf_evaluate: true}]", "fetches its metric 'acc' from the hub"),
    ],
)
def test_code_is_run_only_where_the_recipe_says_so(folder, refused, line, said):
    (folder / "coded.py").write_text("raise SystemExit('was run')\n")
    (folder / "own.yaml").write_text(f"task: own\ninclude: choice.yaml\n{line}\n")
    refused(options_of(folder, "own"), "lm_eval.0.task", said, "write lm_eval.0.run_code: true")
    assert find(options_of(folder, "own", run_code=True), AT).name == "own"


def test_code_that_another_file_brings_is_found(folder):
    (folder / "own.yaml").write_text("task: own\ninclude: coded.yaml\n")
    task = find(options_of(folder, "own", run_code=True), AT)
    assert [path.name for path in task.sources] == ["choice.yaml", "coded.yaml", "own.yaml"]
    assert list(code_of(task)) == ["runs Python: coded.yaml names the function coded.question"]


WITHOUT = """
import importlib.machinery

found = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = lambda name, *more: None if name == "lm_eval" else found(name, *more)
"""
"""As it is where the extra is not installed."""


def test_without_the_package_the_extra_is_named(folder):
    code = """
from finetune.core.errors import InputError
from finetune.tasks.harness.files import find
from finetune.tasks.harness.options import HarnessOptions
try:
    find(HarnessOptions(task="arc_easy"), "lm_eval.0")
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n") == [
        "lm_eval.0: needs the package lm-eval, which is not installed",
        "    pip install 'finetune[lm-eval]'",
        "",
    ], done.stderr


def test_nothing_of_the_harness_is_imported_before_it_is_needed(folder):
    recipe = {
        "name": "a",
        "model": {"source": "org/name"},
        "data": {"train": {"path": "a.csv"}, "split": {"test": 0.5}},
        "task": {"type": "language"},
        "strategy": {"type": "full"},
        "lm_eval": ["arc_easy", {"task": "topic_choice", "include": str(folder)}],
    }
    code = f"""
import sys
from finetune.cli import main
from finetune import load_recipe
from finetune.core.registry import TASKS
TASKS.all()
print([each.name for each in load_recipe({json.dumps(recipe)}).variants[0].recipe.sets])
print([name for name in ("lm_eval", "torch", "datasets") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["['arc_easy', 'topic_choice']", "[]"], done.stderr
