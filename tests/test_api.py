"""The Python API: the same as the command line, typed, on a tiny real study; the README's examples among it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import finetune
from finetune import cli
from finetune.core.errors import ListenerFailed
from finetune.core.events import (
    Evaluated,
    RunFinished,
    RunStarted,
    Step,
    StudyFinished,
    StudyOpened,
    from_json,
    to_json,
)
from finetune.report import study_report
from finetune.results import compute
from finetune.results.compute import results_of
from tests import tiny

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a recipe, its data and its model."""
    folder = tmp_path_factory.mktemp("api")
    tiny.write_topics(folder, tiny.save_encoder(folder / "encoder"))
    return folder


@pytest.fixture(scope="module")
def ran(folder):
    """What `finetune.run` gives, and the events that were told."""
    told = []
    return finetune.run(folder / "topics.yaml", output=folder / "runs", on_event=told.append), told


def test_a_recipe_is_loaded_and_checked(folder):
    recipe = finetune.load_recipe(folder / "topics.yaml", ["train.epochs=2"])
    assert [variant.name for variant in recipe.variants] == ["linear", "full"]
    assert {variant.recipe.train.epochs for variant in recipe.variants} == {2.0}
    assert finetune.load_recipe(recipe) is recipe
    assert finetune.load_recipe(recipe, ["train.epochs=1"]).digest != recipe.digest
    found = finetune.check(recipe)
    assert set(found.parameters) == {"linear", "full"} and any("parameters learn" in line for line in found.lines())


def test_bad_input_is_one_error_with_every_mistake():
    with pytest.raises(finetune.InputError) as caught:
        finetune.run({"train": {"epoch": 1}, "seeds": "many"})
    assert {"train.epoch", "seeds"} <= {problem.path for problem in caught.value.problems}


def test_what_run_gives_is_what_the_folder_says(ran, folder):
    study, _ = ran
    on_disk = json.loads((folder / "runs" / "topics" / "report" / "results.json").read_text(encoding="utf-8"))
    assert study.folder == folder / "runs" / "topics" and study.failed == []
    assert study.results.to_json() == on_disk == finetune.read_study(study.folder).results.to_json()
    assert study.verdict.sentence in repr(study)


def test_events_tell_the_story_in_order(ran, folder):
    study, told = ran
    opened, *between, finished = told
    assert opened == StudyOpened(study.folder, ["linear", "full"], [0, 1], 0, "test/accuracy")
    assert finished == StudyFinished(study.folder, 0)
    for variant in study.results.tuned:
        for run in variant.runs:
            own = [event for event in between if (event.variant, event.seed) == (variant.name, run.seed)]
            kinds = [type(event) for event in own]
            assert kinds[0] is RunStarted and kinds[-1] is RunFinished and kinds.count(Evaluated) == 2
            assert own[-1] == RunFinished(variant.name, run.seed, run.status, run.reason, run.scores, run.seconds)
            steps = [event for event in own if isinstance(event, Step)]
            assert [event.step for event in steps] == list(range(1, 25)) and all(event.loss > 0 for event in steps)


def test_what_is_finished_is_kept(ran, folder):
    told = []
    again = finetune.run(folder / "topics.yaml", output=folder / "runs", on_event=told.append)
    assert again.results.variants == ran[0].results.variants and again.results.comparisons == ran[0].results.comparisons
    assert [type(event) for event in told] == [StudyOpened, StudyFinished] and told[0].finished == 4
    first = {(event.variant, event.seed): event for event in ran[1] if isinstance(event, RunFinished)}
    assert {(event.variant, event.seed): event for event in told[0].results} == first


def test_events_survive_json(ran):
    for event in ran[1]:
        assert from_json(json.loads(json.dumps(to_json(event)))) == event


def test_results_are_computed_once(ran, folder, monkeypatch):
    """By the report, which may take a while for a large study; what `run` gives are the same."""
    computed = []
    monkeypatch.setattr(compute, "results_of", lambda study: computed.append(study) or results_of(study))
    monkeypatch.setattr(study_report, "results_of", lambda study: pytest.fail("computed again"))
    finetune.run(folder / "topics.yaml", output=folder / "runs")
    assert len(computed) == 1


def test_a_listener_that_fails_is_no_failed_run(folder, tmp_path):
    def fail(event):
        if isinstance(event, Step):
            raise ZeroDivisionError("mine")

    with pytest.raises(ListenerFailed, match="on_event failed on a Step: mine") as caught:
        finetune.run(folder / "topics.yaml", output=tmp_path, on_event=fail)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert not list(tmp_path.rglob("result.json"))


def test_tables_are_frames(ran):
    study, _ = ran
    scores = study.scores.to_pandas()
    assert set(scores.columns) == {"variant", "seed", "status", "set", "metric", "score"}
    accuracy = scores[(scores.metric == "accuracy") & (scores.variant == "full")]
    estimates = study.estimates.to_pandas().set_index(["variant", "set", "metric"])
    assert estimates.loc[("full", "test", "accuracy"), "mean"] == pytest.approx(accuracy.score.mean())
    assert {"ci_low", "ci_high", "sd_corrected", "n"} <= set(estimates.columns)
    pairs = study.comparisons.to_pandas()
    assert set(pairs.left) == {"linear"} and set(pairs.right) == {"full"} and "verdict" in pairs.columns
    predictions = study.predictions().to_pandas()
    assert len(predictions) == 4 * 30 and predictions.groupby(["variant", "seed"]).score.mean().loc[
        ("full", 0)
    ] == pytest.approx(accuracy[accuracy.seed == 0].score.item())
    with pytest.raises(finetune.InputError, match="no evaluation set called 'tset'"):
        study.predictions("tset")


def test_the_command_that_an_undecided_report_names_runs(ran, capsys):
    """The study is its own pilot."""
    study, _ = ran
    assert cli.main(["plan", str(study.folder), "--detect", "0.4"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "to see 0.4 points of accuracy on test" in said and "linear - full" in said


def test_figures_and_pages_show_in_a_notebook(ran, tmp_path):
    study, _ = ran
    svg = study.figure()._repr_svg_()
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and "--c0" in svg
    dots = [each for each in root.iter() if each.get("class") == "dot"]
    assert len(dots) == 4
    study.figure(narrow=True).save(tmp_path / "scores.svg")
    assert ElementTree.parse(tmp_path / "scores.svg").getroot().tag.endswith("svg")
    page = study._repr_html_()
    assert page.startswith('<iframe srcdoc="&lt;!doctype html&gt;') and "<script" not in page
    assert study.write().read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_studies_are_compared(ran, folder):
    runs = ran[0].folder
    found = finetune.compare(runs / "linear", runs / "full", metric="accuracy")
    assert [(pair.left, pair.right) for pair in found.comparisons] == [("linear", "full")]
    assert found.to_json()["comparisons"][0]["difference"] == pytest.approx(
        ran[0].results.variant("linear").estimates["test/accuracy"].mean
        - ran[0].results.variant("full").estimates["test/accuracy"].mean
    )


def test_a_model_is_loaded_with_its_tokenizer(ran):
    model, tokenizer = finetune.load_model(ran[0].folder / "full" / "seed-0")
    assert model(**tokenizer("a goal", return_tensors="pt")).logits.shape == (1, 3)


def test_the_readme_runs(ran, folder, monkeypatch, capsys):
    """Each Python block of the README, one after the other, beside a recipe and a study of the names it uses."""
    monkeypatch.chdir(folder)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## From Python") :]
    blocks = re.findall(r"```python\n(.*?)```", section[: section.index("\n## ", 5)], re.DOTALL)
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    used = {name for name in finetune.__all__ if re.search(rf"finetune\.{name}\b", "".join(blocks))}
    assert {"load_recipe", "check", "run", "read_study", "compare", "load_model"} <= used


def test_reading_a_study_needs_no_torch(ran):
    program = (
        "import sys, finetune;"
        f"study = finetune.read_study({str(ran[0].folder)!r}); study.scores, study.figure(), study._repr_html_();"
        "print(sorted({'torch', 'transformers', 'datasets', 'accelerate', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_is_typed():
    assert (Path(finetune.__file__).parent / "py.typed").exists()
