"""`finetune compare`, between fabricated studies; within this process, which has SciPy already."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from finetune.cli import main
from tests.fabricated import Fabricator

ROOT = Path(__file__).parents[2]


def make(path, accuracies, seeds=5, first=1, **options):
    """A study of one held-out task, with about these accuracies by variant."""
    made = Fabricator(path, list(range(first, first + seeds)), dict.fromkeys(accuracies, "full"), **options)
    made.study()
    for seed in made.seeds:
        for variant, accuracy in accuracies.items():
            made.run(variant, seed, accuracy)
    return made


def edit(path, change):
    """Change one of a study's JSON files."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def finetune(folder, monkeypatch, capsys):
    """finetune('compare', ...) -> its exit code and what it printed."""
    monkeypatch.chdir(folder)

    def run(*args, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        code = main(args)
        printed = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=printed.out, stderr=printed.err)

    return run


@pytest.fixture
def studies(folder):
    """Before and after: `full` has become better, `lora` has not."""
    make(folder / "runs" / "old", {"full": 0.70, "lora": 0.93}, name="old")
    make(folder / "runs" / "new", {"full": 0.95, "lora": 0.92}, name="new", first=101)
    return folder / "runs"


def test_every_pair_gets_a_row_and_a_sentence(finetune, studies):
    done = finetune("compare", "runs/new", "runs/old", COLUMNS="120")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "test: accuracy, %, new minus old (200 examples)"
    assert lines[1].split()[:3] == ["left", "minus", "right"] and lines[1].endswith("verdict")
    assert [line.split()[:3:2] for line in lines[2:6]] == [
        ["full", "full"], ["full", "lora"], ["lora", "full"], ["lora", "lora"]
    ]  # fmt: skip
    said = " ".join(done.stdout.split())
    assert "full (new) is better than full (old): +" in said
    assert "Undecided between lora (new) and lora (old): " in said and "would be seen 4 times in 5" in said
    assert "\x1b" not in done.stdout


def test_a_variant_may_be_named_by_its_folder(finetune, studies):
    done = finetune("compare", "runs/new/full", "runs/old/full", "--json", "found.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((studies.parent / "found.json").read_text())
    [row] = found["comparisons"]
    assert (row["left"], row["right"], row["verdict"], row["examples"]) == ("full", "full", "better", 200)
    assert row["p_value"] == row["p_value_adjusted"] < 0.001 and row["pairs"] == 0
    assert row["ci"][0] < row["difference"] < row["ci"][1] and row["could_see"] > 0
    assert found["left"] == {
        "study": "new", "folder": "runs/new/full", "digest": "0123456789abcdef", "variants": ["full"]
    }  # fmt: skip
    within = finetune("compare", "runs/new/full", "runs/new/lora", "--json", "found.json")
    assert within.returncode == 0
    [row] = json.loads((studies.parent / "found.json").read_text())["comparisons"]
    assert row["pairs"] == 5


def test_all_comparisons_are_judged_together_and_the_same_call_gives_the_same_bytes(finetune, studies):
    for name in ("one.json", "other.json"):
        assert finetune("compare", "runs/new", "runs/old", "--json", name).returncode == 0
    one, other = ((studies.parent / name).read_bytes() for name in ("one.json", "other.json"))
    assert one == other
    rows = json.loads(one)["comparisons"]
    # Šidák's bound; the bounds of the two sources of noise are weighted before, hence "about".
    least = min(rows, key=lambda row: row["p_value"])
    assert least["p_value_adjusted"] == pytest.approx(1 - (1 - least["p_value"]) ** 4, rel=1e-3)
    assert all(row["p_value_adjusted"] > row["p_value"] for row in rows)


def test_examples_that_belong_together_count_as_one(finetune, studies):
    for study in ("new", "old"):
        path = studies / study / "examples" / "test.parquet"
        path.parent.mkdir()
        group = [f"document {row // 4}" for row in range(200)]
        texts = pa.nulls(200, pa.string())
        pq.write_table(pa.table({"example": range(200), "input": texts, "reference": texts, "group": group}), path)
    assert finetune("compare", "runs/new", "runs/old", "--json", "found.json").returncode == 0
    rows = json.loads((studies.parent / "found.json").read_text())["comparisons"]
    assert {(row["examples"], row["groups"]) for row in rows} == {(200, 50)}


def test_metric_task_and_variants_choose(finetune, studies):
    done = finetune("compare", "runs/new", "runs/old", "--metric", "nll", "--task", "test", "--variants", "full")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "test: NLL, new minus old (200 examples)"
    assert done.stdout.count(" is better than ") == 1  # a lower NLL
    assert "lora" not in done.stdout


@pytest.mark.parametrize("width", [50, 80])
def test_it_fits_the_terminal(finetune, studies, width):
    done = finetune("compare", "runs/new", "runs/old", COLUMNS=str(width))
    assert [line for line in done.stdout.splitlines() if len(line) > width] == []
    assert "verdict" in done.stdout


def test_other_held_out_data_are_refused(finetune, studies):
    edit(studies / "old" / "data.json", lambda data: data["tasks"][0].update(fingerprint="e" * 32, examples=180))
    done = finetune("compare", "runs/new", "runs/old")
    assert (done.returncode, done.stdout) == (2, "")
    said = " ".join(done.stderr.split())
    assert "the held-out data of 'test' are not the same: 200 examples on the left, 180 on the right" in said
    assert "fingerprints ffffffffffff and eeeeeeeeeeee" in said


def test_the_same_text_cut_otherwise_is_refused(finetune, studies):
    edit(studies / "old" / "data.json", lambda data: data["tasks"][0].update(examples=180))
    done = finetune("compare", "runs/new", "runs/old")
    assert done.returncode == 2 and "cut from the same texts" in " ".join(done.stderr.split())


def test_splits_that_vary_are_refused(finetune, studies):
    resolved = studies / "old" / "resolved.yaml"
    resolved.write_text(yaml.safe_dump({**yaml.safe_load(resolved.read_text()), "vary": ["init", "split"]}))
    done = finetune("compare", "runs/new", "runs/old")
    assert done.returncode == 2 and "each seed has its own split, on the right" in " ".join(done.stderr.split())


def test_one_task_of_two_may_be_the_same(finetune, folder):
    for name, accuracy in (("one", 0.9), ("other", 0.8)):
        make(folder / name, {"full": accuracy}, name=name, tasks=("test", "tweets"))
    edit(folder / "other" / "data.json", lambda data: data["tasks"][0].update(fingerprint="e" * 32))
    done = finetune("compare", "one", "other")
    assert done.returncode == 2 and "--task tweets" in done.stderr and "'tweets' are" not in done.stderr
    done = finetune("compare", "one", "other", "--task", "tweets")
    assert done.returncode == 0 and done.stdout.startswith("tweets: accuracy")


BAD = {
    "is not a study": ["compare", "runs", "runs/old"],
    "hold the same runs": ["compare", "runs/old", "runs/old"],
    "no held-out task 'tset' in common": ["compare", "runs/new", "runs/old", "--task", "tset"],
    "did you mean 'accuracy'?": ["compare", "runs/new", "runs/old", "--metric", "acuracy"],
    "neither study has 'lroa'": ["compare", "runs/new", "runs/old", "--variants", "full,lroa"],
    "leaves none of runs/old": ["compare", "runs/new", "runs/old", "--variants", "extra"],
    "is not a variant of the study": ["compare", "runs/new/report", "runs/old"],
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_told_and_exits_2(finetune, studies, message):
    resolved = studies / "new" / "resolved.yaml"
    content = yaml.safe_load(resolved.read_text())
    content["variants"]["extra"] = content["variants"]["full"]
    resolved.write_text(yaml.safe_dump(content, sort_keys=False))
    done = finetune(*BAD[message])
    assert (done.returncode, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.split()) and "Traceback" not in done.stderr


def test_single_runs_get_a_difference_and_mcnemars_test_but_no_verdict(finetune, folder):
    make(folder / "one", {"full": 0.95}, seeds=1, name="one")
    make(folder / "other", {"full": 0.6}, seeds=1, first=2, name="other")
    done = finetune("compare", "one", "other")
    said = " ".join(done.stdout.split())
    assert "Undecided between full (one) and full (other)" in said and "one seed says nothing" in said
    assert "McNemar's exact p is < 0.001" in said


def test_what_was_never_scored_says_so(finetune, folder):
    make(folder / "one", {"full": 0.95}, name="one")
    make(folder / "other", {"full": None}, name="other")
    done = finetune("compare", "one", "other")
    assert done.returncode == 0
    assert "cannot be compared by accuracy on test: a side has no run" in " ".join(done.stdout.split())


def test_studies_of_the_same_name_go_by_their_folders(finetune, folder):
    make(folder / "a", {"full": 0.9})
    make(folder / "b", {"full": 0.8})
    assert finetune("compare", "a", "b").stdout.startswith("test: accuracy, %, a minus b")


def test_it_needs_no_torch_and_starts_quickly(studies):
    code = """
import sys
from finetune.cli import main
main(["compare", "runs/new", "runs/old"])
heavy = {"torch", "transformers", "datasets", "accelerate", "peft"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else 0)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    def seconds(code=code):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        done = subprocess.run([sys.executable, "-c", code], cwd=studies.parent, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before

    # Of one core, and nearly all of it SciPy's import, which takes as long as the processor does.
    assert min(seconds() for _ in range(2)) < 1.5 + min(seconds("import scipy.stats, scipy.optimize") for _ in range(2))
