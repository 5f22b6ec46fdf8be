"""Trackers hear of every run of a study; their files are read back with their own readers."""

import os
import subprocess
import sys
from importlib import util

import pytest
import yaml

import finetune
from finetune.core import tracking
from finetune.core.errors import InputError
from finetune.core.events import RunFinished
from tests.end_to_end.reading import results
from tests.end_to_end.warm import environment_with

ASKED = {"trackers": ["tensorboard", "mlflow"]}


def recipe_of(topics, **more):
    said = yaml.safe_load(topics.read_text())
    said["model"]["source"] = str(said["model"]["source"])
    return {**said, **more}


def write(topics, **more):
    topics.write_text(yaml.safe_dump(recipe_of(topics, **more)))
    return topics


def scalars(folder):
    """By name, what TensorBoard reads: pairs of step and value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {name: [(at.step, at.value) for at in found.Scalars(name)] for name in found.Tags()["scalars"]}


def mlflow_runs(study):
    """Of the study's experiment, by name: status and histories of the metrics."""
    import mlflow

    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    client = mlflow.MlflowClient((study / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name(study.name)
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        found[run.info.run_name] = (
            run,
            {name: [(at.step, at.value) for at in values] for name, values in history.items()},
        )
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory, encoder_folder):
    from tests import tiny

    folder = tmp_path_factory.mktemp("tracked")
    topics = write(tiny.write_topics(folder, encoder_folder), tracking=ASKED)
    return finetune.run(topics, output=folder / "runs")


def test_both_have_the_losses_of_every_step_and_the_scores(study):
    runs, known = results(study.folder)["variants"], mlflow_runs(study.folder)
    tuned = [
        (each["name"], run)
        for each in runs
        for run in each["runs"]
        if run["seed"] is not None and each["name"] != "base"
    ]
    assert {f"{name}/seed-{run['seed']}" for name, run in tuned} == known.keys() and len(known) == 4
    for name, run in tuned:
        called = f"{name}/seed-{run['seed']}"
        rows = [row for row in study_rows(study.folder / called) if row["kind"] == "train"]
        board, (there, history) = scalars(study.folder / "tensorboard" / called), known[called]
        losses = [(row["step"], row["loss"]) for row in rows]
        assert history["train/loss"] == losses
        assert board["train/loss"] == [(step, pytest.approx(loss)) for step, loss in losses]
        assert history["test/accuracy"][0][1] == run["scores"]["test/accuracy"]
        assert board["test/accuracy"][0][1] == pytest.approx(run["scores"]["test/accuracy"])
        assert "validation/accuracy" in board and "validation/accuracy" in history
        assert there.info.status == "FINISHED" and there.data.params["seed"] == str(run["seed"])
        assert there.data.params["train.learning_rate"]


def study_rows(folder):
    from finetune.train.meters import read_rows

    return read_rows(folder / "metrics.jsonl")


def test_they_change_no_result(study, tmp_path, encoder_folder):
    from tests import tiny

    plain = finetune.run(tiny.write_topics(tmp_path, encoder_folder), output=tmp_path / "runs")
    one, other = results(plain.folder), results(study.folder)
    assert one["digest"] == other["digest"]
    plain, tracked = (
        {(each["name"], run["seed"]): run["scores"] for each in found["variants"] for run in each["runs"]}
        for found in (one, other)
    )
    assert plain == tracked and len(plain) >= 4


def test_a_run_that_goes_on_is_the_run_that_it_was(topics, tmp_path):
    """Killed at a step, and resumed: one run with each step once."""
    write(topics, tracking=ASKED, train={"max_steps": 12, "min_steps": 12, "checkpoint_seconds": 0.0}, seeds=1)
    program = (
        "import os, finetune\n"
        "def listen(event):\n"
        "    if getattr(event, 'step', 0) == 7: os._exit(9)\n"
        f"finetune.run({str(topics)!r}, output={str(tmp_path / 'runs')!r}, on_event=listen)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], env=environment_with(), capture_output=True, timeout=200)
    assert killed.returncode == 9, killed.stderr
    study = finetune.run(topics, output=tmp_path / "runs")
    runs = mlflow_runs(study.folder)
    assert len(runs) == len([run for each in study.results.tuned for run in each.runs])
    for called, (_, history) in runs.items():
        steps = [step for step, _ in scalars(study.folder / "tensorboard" / called)["train/loss"]]
        assert steps == sorted({*steps}) and max(steps) == 12
        assert {step for step, _ in history["train/loss"]} == {*steps}


def test_runs_of_other_processes_are_told_of_once(topics, tmp_path):
    """Each process that helps has the same recipe, and the one that they help hears of all that they do."""
    write(topics, tracking=ASKED)
    command = [sys.executable, "-m", "finetune", "run", str(topics), "--devices", "2", "--output", str(tmp_path)]
    done = subprocess.run(command, env=environment_with(OMP_NUM_THREADS="1"), capture_output=True, timeout=280)
    assert done.returncode == 0, done.stderr
    study = tmp_path / "topics"
    known = mlflow_runs(study)
    assert len(known) == 4
    for called, (_, history) in known.items():
        wanted = [(row["step"], row["loss"]) for row in study_rows(study / called) if row["kind"] == "train"]
        assert history["train/loss"] == wanted
        assert len(list((study / "tensorboard" / called).glob("events*"))) == 1


def test_one_that_fails_is_left_out_and_says_so(topics, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise ConnectionError("no route to host")

    monkeypatch.setitem(tracking.MAKERS, "mlflow", refuse)
    write(topics, tracking=ASKED)
    said = []
    from finetune.core.progress import Progress
    from finetune.recipe import load
    from finetune.study.running import run_study

    class Heard(Progress):
        def say(self, text):
            said.append(text)

    outcome = run_study(load(topics), tmp_path / "runs", Heard())
    assert outcome.failed == []
    assert [line for line in said if "mlflow" in line] == [
        "mlflow failed, and hears no more of this study: ConnectionError: no route to host"
    ]
    assert scalars(outcome.folder / "tensorboard" / "full" / "seed-0")["train/loss"]


NAMES = ["task.class_weights.R&B", "task.class_weights.R%B", "data.columns.Rating (1-5)", "data.columns.a", "seed"]
NAMES += [
    "data.columns.a/b",
    "data.columns.a_b",
    "data.columns.a//b/",
    "größe: 1.5-x",
    "x" * 400,
    "x" * 401,
    "題" * 200,
]


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Tracking of one run whose settings have names that MLflow refuses, and what it has said."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "study").mkdir()
    said, about = [], {"full": {name: number for number, name in enumerate(NAMES)}}
    options = tracking.TrackingOptions(trackers=["mlflow"])
    return tracking.Tracking(options, tmp_path / "study", about, said.append), said


def test_mlflow_shows_settings_whatever_they_are_called(told):
    tracked, said = told
    tracked(RunFinished("full", 3, "finished", None, {"test/accuracy": 0.5}, 1.0))
    tracked.close()
    assert said == []
    [(run, history)] = mlflow_runs(tracked.folder).values()
    assert run.info.status == "FINISHED" and history == {"test/accuracy": [(0, 0.5)]}
    shown = tracking.mlflow_names(tracked.settings(("full", 3)))
    settings = {shown[name]: str(value) for name, value in tracked.settings(("full", 3)).items()}
    assert run.data.params == settings and len(settings) == len({*NAMES, "variant", "study"})
    assert shown["task.class_weights.R&B"] == "task.class_weights.R_B"
    assert shown["task.class_weights.R%B"] == "task.class_weights.R_B_2"
    assert (shown["data.columns.a_b"], shown["data.columns.a/b"]) == ("data.columns.a_b", "data.columns.a_b_2")
    assert shown["größe: 1.5-x"] == "größe: 1.5-x" and shown["data.columns.Rating (1-5)"] == "data.columns.Rating _1-5_"


def test_mlflow_shows_a_run_as_failed_whose_settings_it_does_not_take(told, monkeypatch):
    tracked, said = told
    monkeypatch.setattr(tracking, "mlflow_names", lambda settings: {name: name for name in settings})
    tracked(RunFinished("full", 3, "finished", None, {"test/accuracy": 0.5}, 1.0))
    tracked.close()
    [line] = said
    assert line.startswith("mlflow failed, and hears no more of this study: MlflowException: Invalid value")
    [(run, _)] = mlflow_runs(tracked.folder).values()
    assert run.info.status == "FAILED"


def test_one_that_is_not_installed_is_bad_input(topics, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == "wandb" else util.find_spec(name))
    write(topics, tracking={"trackers": ["wandb"]})
    with pytest.raises(InputError) as caught:
        finetune.check(topics)
    assert "names wandb, which is not installed" in str(caught.value)
    assert "pip install 'finetune[wandb]'" in str(caught.value)


def test_what_is_no_tracker_is_bad_input(topics):
    write(topics, tracking={"trackers": ["tensorbord"]})
    with pytest.raises(InputError, match="tensorboard"):
        finetune.load_recipe(topics)
    write(topics, tracking={"trackers": ["mlflow", "mlflow"]})
    with pytest.raises(InputError, match="more than once"):
        finetune.load_recipe(topics)


def test_runs_side_by_side_are_not_mixed_up(topics, tmp_path):
    write(topics, tracking=ASKED, seeds=3)
    study = finetune.run(finetune.load_recipe(topics, ["train.replicas=3"]), output=tmp_path / "runs")
    for called, (run, history) in mlflow_runs(study.folder).items():
        rows = [row for row in study_rows(study.folder / called) if row["kind"] == "train"]
        assert history["train/loss"] == [(row["step"], row["loss"]) for row in rows]
        assert run.info.status == "FINISHED"
