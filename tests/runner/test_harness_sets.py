"""Tasks of lm-evaluation-harness as evaluation sets of a study: scored on the tuned model of each seed, one row per
document, with all that other sets have."""

import contextlib
import io
import json
import subprocess
import sys

import lm_eval
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune import load_recipe, recipe
from finetune.core.errors import InputError
from finetune.core.run_dir import read_json
from finetune.results.compute import results_of
from finetune.results.reading import read_study
from finetune.runner.resources import Resources
from finetune.study.preflight import preflight
from finetune.study.rescoring import rescore
from finetune.study.running import run_study
from finetune.tasks.harness.documents import load
from tests import tiny
from tests.harness_tasks import options_of, write_rows, write_tasks

SETS = [
    {"task": "topic_choice", "include": "tasks", "examples": 1},
    {"task": "topic_texts", "include": "tasks", "margin": 0.5},
    {"task": "topic_answers", "include": "tasks", "role": "shifted", "metrics": ["exact_match,first"]},
]


def with_harness(path, *sets):
    """The recipe with these sets, and the task files that they name."""
    write_tasks(path.parent / "tasks")
    path.write_text(path.read_text() + "lm_eval:\n" + "".join(f"  - {json.dumps(each)}\n" for each in sets))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory, decoder_folder):
    """A folder with a recipe of all kinds of tasks and two variants."""
    folder = tmp_path_factory.mktemp("harness")
    path = with_harness(tiny.write_chat_study(folder, decoder_folder), *SETS)
    path.write_text(path.read_text() + "variants: {full: {}, slow: {train: {learning_rate: 1.0e-2}}}\n")
    return folder


@pytest.fixture(scope="module")
def study(place):
    assert run_study(load_recipe(place / "chats.yaml"), place / "out").failed == []
    return place / "out" / "chats"


def stored(study, name, run="full/seed-0"):
    return pq.read_table(study / run / "predictions" / f"{name}.parquet")


def test_there_is_a_row_for_each_document_of_each_seed_and_of_the_untuned_model(study):
    for name in ("topic_choice", "topic_texts", "topic_answers"):
        for run in ("full/seed-0", "full/seed-1", "slow/seed-0", "slow/seed-1", "base"):
            assert stored(study, name, run)["example"].to_pylist() == list(range(12))
    rows = stored(study, "topic_choice").to_pydict()
    assert rows["score"] == rows["own:lm_eval.acc"]
    right = [float(said == wanted) for said, wanted in zip(rows["prediction"], rows["reference"], strict=True)]
    assert right == rows["score"] and set(rows["reference"]) == {"A", "B", "C"}
    assert set(stored(study, "topic_answers")["reference"].to_pylist()) == {"money", "space", "sport"}


def test_scores_are_what_the_harness_gives_the_saved_model(study, place):
    folder = study / "full" / "seed-1"
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    with contextlib.redirect_stderr(io.StringIO()):
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, logits_cache=False)
        for said in SETS:
            task = load(options_of(place / "tasks", said["task"], examples=said.get("examples")), "lm_eval.0").task
            about = {"num_fewshot": said.get("examples"), "bootstrap_iters": 0}
            manager = TaskManager(include_defaults=False)
            found = lm_eval.simple_evaluate(model=lm, tasks=[task], task_manager=manager, **about)["results"]
            for name, score in read_json(folder / "result.json")["scores"].items():
                if name.startswith(f"{said['task']}/"):
                    metric = name.removeprefix(f"{said['task']}/lm_eval.")
                    wanted = found[said["task"]][metric if "," in metric else f"{metric},none"]
                    assert score == pytest.approx(float(wanted), rel=1e-4, abs=1e-9), name


def test_estimates_comparisons_and_forgetting_are_those_of_any_set(study):
    results = results_of(read_study(study))
    _, choice, texts, answers = results.tasks
    assert [each.name for each in results.tasks] == ["test", "topic_choice", "topic_texts", "topic_answers"]
    assert (choice.role, choice.margin, choice.metric) == ("forgetting", 0.01, "lm_eval.acc")
    assert (texts.role, texts.margin, texts.metric) == ("forgetting", 0.5, "lm_eval.word_perplexity")
    assert not texts.higher_is_better and answers.role == "shifted" and answers.margin is None
    for name in ("topic_choice/lm_eval.acc", "topic_choice/lm_eval.mcc", "topic_texts/lm_eval.byte_perplexity"):
        found = results.variant("full").estimates[name]
        assert found.n == 2 and found.ci is not None and found.sd_floor is not None, "documents are drawn too"
    compared = {(each.task, each.metric): each for each in results.comparisons if each.right != "base"}
    for name in ("lm_eval.acc", "lm_eval.acc_norm", "lm_eval.mcc"):
        assert "examples" in compared["topic_choice", name].method
    judged = {(each.variant, each.task) for each in results.forgetting}
    assert judged == {(name, task) for name in ("full", "slow") for task in ("topic_choice", "topic_texts")}


def test_the_report_and_the_card_show_them(study):
    page = (study / "report" / "report.md").read_text()
    assert "lm_eval.acc" in page and "topic_texts" in page and "lm-evaluation-harness" in page
    assert "topic_choice" in (study / "report" / "index.html").read_text()
    assert "name: topic_choice" in (study / "report" / "model-card.md").read_text()


def test_what_is_asked_is_kept_beside_predictions(study):
    kept = pq.read_table(study / "examples" / "topic_choice.parquet").to_pydict()
    assert kept["input"][0].startswith("Text: ") and kept["input"][0].endswith("\nTopic:")
    facts = read_json(study / "data.json")
    assert facts["leaks"]["not_compared"] == ["topic_choice", "topic_texts", "topic_answers"]
    assert facts["splits"]["topic_choice"]["source"].startswith("lm-evaluation-harness ")


def test_what_is_stored_is_used_again(study, place):
    path = study / "full" / "seed-0" / "predictions" / "topic_choice.parquet"
    table = pq.read_table(path)
    changed = table.set_column(table.column_names.index("own:lm_eval.acc"), "own:lm_eval.acc", table["score"])
    places = table.column_names.index("prediction")
    pq.write_table(changed.set_column(places, "prediction", [["kept"] * len(table)]), path)
    rescore(study, ["scoring.keep_texts=false"])
    assert set(stored(study, "topic_choice")["prediction"].to_pylist()) == {"kept"}, (
        "with the same key, not asked again"
    )
    pq.write_table(table, path)


def test_a_finished_study_is_scored_on_other_tasks(study, place):
    more = json.dumps([{"task": "topic_words", "include": str(place / "tasks"), "name": "words"}])
    rescore(study, [f"lm_eval={more}"])
    for run in ("full/seed-0", "slow/seed-1", "base"):
        assert len(stored(study, "words", run)) == 12
    result = read_json(study / "full" / "seed-0" / "result.json")["scores"]
    assert {"words/lm_eval.acc", "words/lm_eval.perplexity", "topic_choice/lm_eval.acc"} <= result.keys()
    with pytest.raises(InputError, match="different recipe") as caught:
        run_study(recipe.load(place / "chats.yaml", ["lm_eval.topic_choice.limit=3"]), place / "out")
    assert "finetune evaluate" in str(caught.value) and "lm_eval='[...]'" in str(caught.value)


@pytest.mark.parametrize("what", ["documents", "task file"])
def test_documents_or_a_task_file_that_have_changed_are_refused(study, place, what):
    tasks, path = place / "tasks", place / "tasks" / "choice.yaml"
    before = path.read_text()
    try:
        if what == "documents":
            write_rows(tasks / "asked.jsonl", 12, seed=9)
        else:
            path.write_text(before.replace("Topic:", "About:"))
        with pytest.raises(InputError, match="the examples of 'topic_choice' are not those that") as caught:
            run_study(load_recipe(place / "chats.yaml"), place / "out")
        assert len(caught.value.problems) == (3 if what == "documents" else 1)
    finally:
        write_rows(tasks / "asked.jsonl", 12, seed=5)
        path.write_text(before)


def scores(path, output, *overrides, variant="full", seeds=2):
    run_study(recipe.load(path, [f"seeds={seeds}", *overrides]), output)
    found = {}
    for seed in range(seeds):
        for name in ("topic_choice", "topic_texts", "topic_answers"):
            table = stored(output / "chats", name, f"{variant}/seed-{seed}")
            own = [column for column in table.column_names if column.startswith("own:")]
            found |= {(seed, name, column): table[column].to_numpy() for column in own}
    return found


def test_neither_batches_nor_runs_beside_it_change_a_score(chats, tmp_path):
    path = with_harness(chats, *SETS)
    together = scores(path, tmp_path / "a", "train.replicas=2")
    alone = scores(path, tmp_path / "b", "train.replicas=1", "scoring.batch_size=5")
    for key, values in together.items():
        assert values == pytest.approx(alone[key], rel=2e-3, abs=1e-6), key
    assert np.std(together[0, "topic_texts", "own:lm_eval.word_perplexity"]) > 0


def test_what_is_remembered_of_training_examples_changes_no_score(chats, tmp_path):
    """A frozen bottom's activations are kept for examples that are learnt from, and for no others."""
    path, partial = with_harness(chats, *SETS), "strategy={type: partial, last: 1}"
    kept = scores(path, tmp_path / "a", partial, variant="partial", seeds=1)
    plain = scores(path, tmp_path / "b", partial, "train.prefix_cache=false", variant="partial", seeds=1)
    for key, values in kept.items():
        assert values == pytest.approx(plain[key], rel=2e-3, abs=1e-6), key


@pytest.mark.slow
def test_two_processes_score_as_one(chats, tmp_path):
    path = with_harness(chats, *SETS)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "finetune", "run", str(path), "seeds=1", "--output"]
    done = subprocess.run([*command, str(tmp_path / "two")], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    run_study(recipe.load(path, ["seeds=1"]), tmp_path / "one")
    for name in ("topic_choice", "topic_texts", "topic_answers"):
        tables = [stored(tmp_path / many / "chats", name) for many in ("one", "two")]
        assert tables[0]["prediction"] == tables[1]["prediction"] or name == "topic_texts"
        for column in (each for each in tables[0].column_names if each.startswith("own:")):
            own, other = (table[column].to_numpy() for table in tables)
            assert own == pytest.approx(other, rel=2e-3, abs=1e-6)
    said = done.stdout + done.stderr
    for noise in ("Running loglikelihood", "Building contexts", "it/s", "WARNING", "num_fewshot", "metric_list"):
        assert noise not in said


@pytest.mark.parametrize(
    ("sets", "path", "said"),
    [
        ([{"task": "topic_texts", "include": "tasks"}], "lm_eval.0.margin", "has no points of which one could be"),
        ([{"task": "topic_words", "include": "tasks", "examples": 2}], "lm_eval.0.examples", "no solved examples"),
        ([{"task": "topic_code", "include": "tasks"}], "lm_eval.0.task", "run_code: true"),
        (
            [{"task": "topic_answers", "include": "tasks", "max_new_tokens": 200}],
            "lm_eval.0.max_new_tokens",
            "the model has room for 128",
        ),
        (
            [{"task": "topic_choice", "include": "tasks", "max_length": 8}],
            "lm_eval.0.max_length",
            "document 0 has a choice of 11 tokens, and the model has room for 8",
        ),
    ],
)
def test_what_is_wrong_is_found_before_anything_starts(chats, sets, path, said):
    with pytest.raises(InputError) as caught:
        preflight(load_recipe(with_harness(chats, *sets)))
    [problem] = caught.value.problems
    assert problem.path == path and said in str(problem)
    assert problem.where.startswith(f"{chats}:"), "with its line"


def test_everything_wrong_with_several_sets_is_said_at_once(chats):
    sets = [{"task": name, "include": "tasks"} for name in ("topic_code", "topics", "topic_texts")]
    with pytest.raises(InputError) as caught:
        preflight(load_recipe(with_harness(chats, *sets)))
    assert [each.path for each in caught.value.problems] == ["lm_eval.0.task", "lm_eval.1.task", "lm_eval.2.margin"]


def test_a_model_that_is_no_causal_language_model_is_refused(topics, tmp_path):
    with pytest.raises(InputError) as caught:
        preflight(load_recipe(with_harness(topics, SETS[0])))
    found = {each.path: each.found for each in caught.value.problems}
    assert "(AutoModelForCausalLM), and that of the study is another (AutoModelForSeq" in found["lm_eval.0.task"]


def test_an_encoder_decoder_is_refused(tmp_path):
    path = tiny.write_chat_study(tmp_path, tiny.save_encoder_decoder(tmp_path / "t5"))
    tiny.write_sources(tmp_path / "pairs.csv", 40)
    text = path.read_text().replace("chats.jsonl", "pairs.csv")
    lines = [line if not line.startswith("task:") else "task: {type: seq2seq}" for line in text.splitlines()]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"asks a causal language model .*\(AutoModelForSeq2SeqLM\)"):
        preflight(load_recipe(with_harness(path, SETS[0])))


def test_a_template_that_is_not_there_is_refused(tmp_path):
    model = tiny.save_decoder(tmp_path / "plain", chat=False)
    path = tiny.write_chat_study(tmp_path, model)
    path.write_text(path.read_text().replace("type: chat,", "type: chat, template: none,"))
    with pytest.raises(InputError, match="has no chat template") as caught:
        preflight(load_recipe(with_harness(path, {**SETS[0], "apply_chat_template": True})))
    assert caught.value.problems[0].path == "lm_eval.0.apply_chat_template"


def test_documents_are_loaded_once_for_all_variants(place, monkeypatch):
    resources = Resources()
    found = preflight(load_recipe(place / "chats.yaml"), resources)
    first, second = (found.data[name].task_of("topic_choice").documents for name in ("full", "slow"))
    assert first is second
    assert any("lm_eval.0: lm-evaluation-harness" in line for line in found.lines())
