"""What a study writes down about itself."""

from __future__ import annotations

import json
import subprocess
from datetime import date

import pyarrow.parquet as pq
import pytest

from finetune import recipe
from finetune.core.errors import InputError
from finetune.core.progress import Progress
from finetune.core.run_dir import StudyDir, write_json, write_text
from finetune.core.runtime import open_runtime
from finetune.core.signals import StopRequest
from finetune.models import processor
from finetune.study.claim import claim, same_data
from finetune.study.environment import commit, environment
from finetune.study.facts import _files, data_facts, examples, write_examples
from finetune.study.preflight import preflight
from tests import tiny
from tests.served import serving, write_parquet


@pytest.fixture
def folder(tmp_path):
    return StudyDir(tmp_path / "runs" / "topics")


FACTS = {
    "split_varies": False,
    "variants": {"linear": {"train": "a", "test": "b"}, "full": {"train": "c", "test": "b"}},
}


def claimed(folder, path, *overrides, facts=FACTS):
    """Claim the folder for the recipe, and write what a study writes."""
    resolved = recipe.load(path, overrides)
    claim(folder, resolved, facts)
    write_text(folder.resolved, resolved.to_yaml())
    write_json(folder.data, facts)


def problems(folder, path, *overrides, facts=FACTS):
    with pytest.raises(InputError) as caught:
        claim(folder, recipe.load(path, overrides), facts)
    return caught.value.problems


def test_a_new_folder_and_a_known_one_are_claimed(topics, folder):
    claimed(folder, topics)
    claimed(folder, topics)
    claimed(folder, topics, "seeds=9", "train.checkpoint_seconds=1", "train.save_model=false")


@pytest.mark.parametrize("left", [[], [".resolved.yaml.tmp"]])
def test_a_folder_without_anything_of_ours_or_yours_is_claimed(topics, folder, left):
    folder.path.mkdir(parents=True)
    for name in left:
        (folder.path / name).touch()
    claimed(folder, topics)


def test_a_folder_of_yours_is_refused(topics, folder):
    folder.path.mkdir(parents=True)
    (folder.path / "thesis.docx").touch()
    [problem] = problems(folder, topics)
    assert problem.found == f"{folder.path} is not empty, and is not a study's folder"


def test_no_folder_can_be_made_inside_a_file(topics, folder):
    folder.path.parent.mkdir()
    folder.path.touch()
    [problem] = problems(folder, topics)
    assert problem.found == f"{folder.path} is a file, where a folder is needed"
    [problem] = problems(StudyDir(folder.path / "deeper" / "still"), topics)
    assert problem.found == f"{folder.path} is a file, where a folder is needed"


def test_every_changed_variant_is_named_with_what_changed(topics, folder):
    claimed(folder, topics)
    first, second = problems(
        folder, topics, "train.epochs=2", "train.clip=2", "train.warmup=0", "train.schedule=cosine"
    )
    assert "'linear'" in first.found and "'full'" in second.found
    assert first.found.endswith(
        "; train.epochs was 1.0 and is now 2.0; train.schedule was linear and is now cosine; "
        "train.warmup was 0.1 and is now 0.0; and 1 more"
    )
    assert (first.path, first.where) == ("train.epochs", "command line")
    [only] = problems(folder, topics, "variants.full.strategy={type: partial, last: 1}")
    assert "strategy.type was full and is now partial; strategy.last was null and is now 1" in only.found


def test_other_streams_are_refused(topics, folder):
    claimed(folder, topics)
    [problem] = problems(folder, topics, "vary=[init]")
    assert problem.found.endswith("was made with vary: [dropout, init, noise, order]")


def test_a_variant_that_comes_back_must_be_what_it_was(topics, folder):
    whole = topics.read_text()
    claimed(folder, topics)
    digest = recipe.load(topics).variants[1].digest
    write_json(folder.run("full", 0).result, {"digest": digest})
    topics.write_text(whole.replace("  full: {strategy: {type: full}}\n", ""))
    claimed(folder, topics)
    topics.write_text(whole)
    [problem] = problems(folder, topics, "variants.full.train.epochs=7")
    assert "'full'" in problem.found
    folder.run("full", 1).checkpoints.mkdir(parents=True)  # of whom, nothing says
    assert len(problems(folder, topics)) == 1
    folder.run("full", 1).checkpoints.rmdir()
    claimed(folder, topics)


@pytest.mark.parametrize("variant", ["linear", "full"])
def test_data_that_have_changed_are_refused(topics, folder, variant):
    claimed(folder, topics)
    changed = {**FACTS, "variants": {**FACTS["variants"], variant: {"train": "x", "test": "b", "new": "d"}}}
    [problem] = problems(folder, topics, facts=changed)
    assert problem.found == f"the examples of 'train' are not those that {folder.path} was made with"
    with pytest.raises(InputError):
        same_data(folder, changed)
    same_data(StudyDir(folder.path.parent / "new"), changed)


def test_further_sets_and_variants_are_no_change(topics, folder):
    claimed(folder, topics)
    more = {**FACTS, "variants": {"new": {"train": "x"}, "full": {"train": "c", "test": "b", "new": "d"}}}
    claimed(folder, topics, facts=more)


def test_the_data_are_described(topics):
    resolved = recipe.load(topics)
    facts = data_facts(resolved, preflight(resolved))
    assert facts["format"] == 1 and facts["seed"] == 0
    assert {name: split["examples"] for name, split in facts["splits"].items()} == {
        "train": 48,
        "validation": 12,
        "test": 30,
    }
    assert facts["splits"]["train"]["facts"]["labels"] == {"money": 16, "space": 16, "sport": 16}
    assert facts["leaks"] == {"checked": 42, "found": 0, "action": "refuse", "dropped": 0, "validation_held_out": 0}
    assert facts["variants"]["full"] == {name: split["fingerprint"] for name, split in facts["splits"].items()}
    [task] = facts["tasks"]
    assert (task["name"], task["split"], task["headline"], task["examples"]) == ("test", "test", "accuracy", 30)
    assert task["majority"] == pytest.approx(1 / 3)
    assert (task["answer"], task["pipeline_tag"]) == ("label", "text-classification")
    assert {metric["name"]: metric["higher_is_better"] for metric in task["metrics"]} == {
        "accuracy": True,
        "macro_f1": True,
        "mcc": True,
        "nll": False,
    }
    json.dumps(facts, allow_nan=False)


@pytest.mark.parametrize(
    ("model", "overrides", "wanted"),
    [
        ("encoder", ["strategy.type=full"], ("transformers", "text-classification")),
        ("encoder", ["strategy.type=full", "task.pooling=mean"], ("finetune", "text-classification")),
        ("encoder", ["strategy.type=linear"], ("finetune", "text-classification")),
        ("encoder", ["strategy={type: linear, mode: lp-ft}", "task.pooling=model"], ("transformers", None)),
        ("encoder", ["strategy={type: partial, last: 1}"], ("finetune", "text-classification")),
        ("encoder", ["strategy.type=adapter"], ("peft", "text-classification")),
        ("encoder", ["task={type: language, max_length: 16}"], ("transformers", "fill-mask")),
        ("decoder", ["task={type: language, max_length: 16}"], ("transformers", "text-generation")),
        ("pairs", ["strategy={type: preference}"], ("peft", "text-generation")),
        ("pairs", ["strategy={type: preference, of: {type: full}}"], ("transformers", "text-generation")),
    ],
)
def test_what_opens_a_saved_model_and_what_it_does(tmp_path, request, model, overrides, wanted):
    """What the model card says of it: a probe is no transformers model, and a masked one generates no text."""
    pairs = model == "pairs"
    data = tiny.write_pairs(tmp_path / "data.jsonl", 30) if pairs else tmp_path / "data.csv"
    if not pairs:
        tiny.write_csv(data, tiny.sentences(30))
    task = "{type: chat, prompt: prompt, completion: completion, rejected: rejected}"
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"""
model: {{source: {request.getfixturevalue("encoder_folder" if model == "encoder" else "decoder_folder")}, new: [cls]}}
data: {{train: {{path: {data}}}, split: {{test: 10}}}}
task: {task if pairs else "{type: classification}"}
strategy: {{type: full}}
"""
    )
    resolved = recipe.load(path, overrides)
    facts = data_facts(resolved, preflight(resolved))
    [library], [task] = facts["libraries"].values(), facts["tasks"]
    assert (library, task["pipeline_tag"]) == (wanted[0], wanted[1] or "text-classification")


def test_the_environment_is_described(topics):
    options = recipe.load(topics).variants[0].recipe.model
    runtime = open_runtime(*processor(options), Progress(), StopRequest(), topics.parent)
    found = environment(runtime, runtime.dtype, date(2025, 1, 2))
    assert found["dtype"] == "float32" and found["processes"] == 1 and found["date"] == "2025-01-02"
    assert {"torch", "transformers", "peft", "datasets"} <= set(found["packages"])
    assert found["device"].startswith(runtime.device.type)
    json.dumps(found, allow_nan=False)
    assert found["threads"] >= 1 and set(found) >= {"finetune", "git", "python", "platform"}


def test_the_commit_of_the_code_is_told_where_it_is_kept_with_git(tmp_path):
    def git(*words):
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", "-C", str(tmp_path), *author, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert commit(package) is None
    git("init")
    assert commit(package) is None, "installed into somebody's repository, and no part of it"
    git("add", "."), git("commit", "-m", "first"), git("tag", "v1")
    head = git("rev-parse", "HEAD")
    assert commit(package) == head
    (package / "__init__.py").write_text("changed = True")
    assert commit(package) == f"{head}-dirty"


def held_out(path, *overrides):
    """The table of the first variant's held-out examples."""
    resolved = recipe.load(path, overrides)
    found = preflight(resolved).data[resolved.variants[0].name]
    return examples(found, "test", resolved.variants[0].recipe.scoring.keep_texts), found


def test_held_out_examples_are_what_went_in_and_what_was_wanted(topics):
    table, data = held_out(topics)
    assert table.schema.names == ["example", "input", "reference", "group"]
    assert [str(kind) for kind in table.schema.types] == ["int64", "string", "string", "string"]
    assert table["example"].to_pylist() == list(range(30))
    assert table["input"].to_pylist() == list(data.tables["test"]["text"])
    assert table["reference"].to_pylist() == list(data.tables["test"]["label"])
    assert table["group"].null_count == 30


def test_private_texts_stay_where_they_are(topics):
    table, _ = held_out(topics, "scoring.keep_texts=false", "task.group=text")
    assert table["input"].null_count == 30 and set(table["reference"].to_pylist()) == {"money", "space", "sport"}
    assert table["group"].to_pylist() == [str(number) for number in range(30)], "numbers for names"


def test_private_answers_too(chats):
    table, _ = held_out(chats, "scoring.keep_texts=false")
    assert table["input"].null_count == table["reference"].null_count == 16
    table, data = held_out(chats)
    assert table["input"].to_pylist() == list(data.tables["test"]["prompt"])


def test_long_texts_are_cut(topics, monkeypatch):
    monkeypatch.setattr("finetune.study.facts.MOST_CHARACTERS", 10)
    table, data = held_out(topics)
    assert table["input"].to_pylist() == [text[:10] for text in data.tables["test"]["text"]]


def test_groups_are_written_as_texts(topics):
    rows = (topics.parent / "news.csv").read_text().splitlines()
    numbered = [f"{rows[0]},article", *(f"{row},{number // 3}" for number, row in enumerate(rows[1:]))]
    (topics.parent / "news.csv").write_text("\n".join(numbered) + "\n")
    with pytest.raises(InputError, match="keep groups together"):
        held_out(topics, "task.group=article")
    table, data = held_out(topics, "task.group=article", "data.split.group=article")
    assert table["group"].to_pylist() == [str(article) for article in data.tables["test"]["article"]]
    with pytest.raises(InputError, match="article"):
        held_out(topics, "task.group=articel")


def test_every_task_has_its_table_and_splits_of_their_own_have_none(topics, folder):
    resolved = recipe.load(
        topics, [f"evaluate=[{{name: again, data: {{path: {topics.parent}/news.csv}}}}]", "data.leaks=allow"]
    )
    write_examples(folder, resolved, preflight(resolved))
    assert pq.ParquetFile(folder.examples("again")).metadata.num_rows == 90
    assert pq.ParquetFile(folder.examples("test")).metadata.num_rows == 30
    varied = recipe.load(topics, ["vary=[split]"])
    other = StudyDir(folder.path / "varied")
    write_examples(other, varied, preflight(varied))
    assert not other.examples("test").exists()


def test_a_group_column_may_be_named_later(topics):
    assert recipe.load(topics).variants[0].digest == recipe.load(topics, ["task.group=text"]).variants[0].digest
    assert (
        recipe.load(topics).variants[0].digest == recipe.load(topics, ["scoring.keep_texts=false"]).variants[0].digest
    )


def test_files_elsewhere_are_known_by_what_their_server_says(topics, tmp_path):
    resolved = recipe.load(topics)
    write_parquet(tmp_path / "rows.parquet", tiny.sentences(40))

    def known():
        return dict(_files(recipe.load(topics, [f"data.train.path={served.url('rows.parquet')}"]).variants[0].recipe))

    with serving(tmp_path) as served:
        first = known()
        assert first == known() and first.keys() == dict(_files(resolved.variants[0].recipe)).keys() == {"data.train"}
        write_parquet(tmp_path / "rows.parquet", tiny.sentences(40, seed=1))
        assert known() != first
        served.tagged = False
        assert known() == {}
