"""Cheap baselines of a study: computed once, on the same examples as the runs, and none of them ends anything."""

from __future__ import annotations

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from transformers import AutoModel, AutoTokenizer

from finetune import recipe as recipes
from finetune import report
from finetune.core.errors import FinetuneError, InputError, Interrupted
from finetune.core.progress import Progress
from finetune.core.run_dir import BASELINES, StudyDir
from finetune.data.folds import stratified_folds
from finetune.evaluate import store
from finetune.results.reading import read_study
from finetune.runner.resources import Resources
from finetune.runner.result import StudyOutcome
from finetune.study.rescoring import rescore
from finetune.study.running import run_study
from finetune.tasks.baselines.labels import FOLDS, STRENGTHS, Centroid, CommonestLabel, TfidfLogistic
from tests import tiny

LABEL_BASELINES = ["commonest-label", "tfidf-logistic", "centroid", "frozen-logistic"]
ON = "baselines.enabled=true"
QUICK = ("seeds=1", "train.min_steps=2", "train.max_steps=2", "train.evaluations=0")


class Heard(Progress):
    """Keeps the lines that are said and the titles of phases, and may ask to stop at one of them, as Ctrl-C does."""

    def __init__(self, stop_at: str | None = None):
        super().__init__()
        self.lines, self.titles, self.stop_at = [], [], stop_at

    def say(self, text):
        self.lines.append(text)
        self._heard(text)

    def start(self, title, total):
        self.titles.append(title)
        self._heard(title)

    def _heard(self, text):
        if self.stop_at is not None and text.startswith(self.stop_at):
            self.stop_at = None
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def start(tmp_path):
    """start(recipe file, overrides, stop_at="…") -> the study as it is read, and what was heard."""

    def run(path, *overrides, stop_at=None):
        heard = Heard(stop_at)
        outcome = run_study(recipes.load(path, [ON, *QUICK, *overrides]), tmp_path / "runs", heard)
        return read_study(outcome.folder), heard

    return run


@pytest.fixture
def full(topics):
    topics.write_text("\n".join(line for line in topics.read_text().splitlines() if "linear:" not in line))
    return topics


def stores(study):
    """Of runs and baselines alike, what is stored of the test split."""
    return {run.variant: store.read(run.folder.predictions("test")) for run in (*study.runs, *study.baselines.values())}


def sets(path, *overrides):
    """Training and held-out texts and labels, as the study has them."""
    recipe = recipes.load(path, [ON, *QUICK, *overrides]).variants[0].recipe
    data = Resources().data(recipe, recipe.data.split.seed)
    return [(list(table["text"]), list(table["label"])) for table in (data.learnt["train"], data.tables["test"])]


def written(folder):
    """When each file of the baselines was written."""
    return {path: path.stat().st_mtime_ns for path in (folder / BASELINES).rglob("*") if path.is_file()}


# What is computed


def test_they_stand_beside_the_runs_on_the_same_examples_in_the_same_order(topics, start):
    study, heard = start(topics)
    assert list(study.baselines) == LABEL_BASELINES
    [run] = study.variants["full"]
    for name, baseline in study.baselines.items():
        result = baseline.result
        assert (result["status"], result["seed"], result["variant"]) == ("finished", None, name)
        assert run.result.keys() - result.keys() <= {"new", "pooling"} and result["about"].endswith(".")
        assert set(result["scores"]) == set(run.result["scores"]) - ({"test/nll"} if name == "centroid" else set())
        assert f"baseline {name} · test/accuracy {result['scores']['test/accuracy']:.4g}" in "\n".join(heard.lines)
    first, *others = stores(study).values()
    assert len(others) == 1 + len(LABEL_BASELINES)
    for other in others:
        assert other.example.tolist() == first.example.tolist() and other.reference == first.reference
    assert [each["left_out"] for each in study.data["baselines"]] == [None] * 4
    assert study.data["baselines"][0]["about"] == study.baselines["commonest-label"].result["about"]


def test_the_stored_scores_of_words_are_what_scikit_learn_alone_gives(full, start):
    study, _ = start(full)
    (texts, labels), (held_out, right) = sets(full)
    names = sorted(set(labels))
    classes = np.array([names.index(label) for label in labels])
    folds = PredefinedSplit(stratified_folds(classes, FOLDS, np.random.default_rng(0)))
    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    # The C with most right answers, and not the one with the best mean of shares of folds that differ in size.
    search = GridSearchCV(pipeline, {"logisticregression__C": list(STRENGTHS)}, cv=folds, scoring=count_right)
    search.fit(texts, labels)
    found = stores(study)["tfidf-logistic"]
    assert found.prediction == search.predict(held_out).tolist() and found.reference == right
    assert found.score.tolist() == [float(own == other) for own, other in zip(found.prediction, right, strict=True)]
    likely = search.predict_proba(held_out)
    np.testing.assert_allclose(found.probabilities, likely, rtol=1e-5)
    scores = study.baselines["tfidf-logistic"].scores
    assert scores["test/accuracy"] == pytest.approx(accuracy_score(right, found.prediction))
    assert scores["test/macro_f1"] == pytest.approx(f1_score(right, found.prediction, average="macro"))
    assert scores["test/nll"] == pytest.approx(log_loss(right, likely, labels=names))


def count_right(model, texts, labels):
    return int((model.predict(texts) == np.asarray(labels)).sum())


@pytest.mark.parametrize("mode", ["mean", "mean, as the variant's own head", "cls, as the files beside it say"])
def test_features_are_the_plain_models_and_of_length_one(full, start, encoder_folder, mode):
    folder = encoder_folder
    if mode.startswith("cls"):
        folder = shutil.copytree(encoder_folder, full.parent / "declaring")
        (folder / "modules.json").write_text('[{"type": "models.Pooling", "path": "pool"}]')
        (folder / "pool").mkdir()
        (folder / "pool" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    study, _ = start(full, f"model.source={folder}", *(["task.pooling=mean"] if "own head" in mode else []))
    (texts, labels), (held_out, _) = sets(full)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def features(text):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        vector = hidden[0] if mode.startswith("cls") else hidden.mean(0)
        return (vector / vector.norm()).numpy()

    seen, names = np.stack([features(text) for text in texts]), sorted(set(labels))
    centres = np.stack([seen[np.array(labels) == name].mean(0) for name in names])
    nearest = [names[int(((features(text) - centres) ** 2).sum(1).argmin())] for text in held_out]
    assert stores(study)["centroid"].prediction == nearest and len(set(nearest)) == 3


def test_a_chat_copies_and_shows_examples_only_when_asked(chats, start):
    study, _ = start(chats, "train.max_steps=30")
    assert list(study.baselines) == ["copy-first-sentence"] and study.base is not None
    assert set(study.baselines["copy-first-sentence"].scores) == {f"test/{name}" for name in ("rouge_l", "chrf")} | {
        "test/exact_match"
    }
    before = written(study.folder.path)
    study, _ = start(chats, "train.max_steps=30", "baselines.shots=1")
    assert list(study.baselines) == ["copy-first-sentence", "few-shot"]
    shown = study.baselines["few-shot"]
    assert shown.result["base"] == study.base.result["base"] and "test/loss" in shown.scores
    assert shown.scores["test/loss"] != study.base.scores["test/loss"]
    assert before.items() <= written(study.folder.path).items()
    assert len({tuple(table.example.tolist()) for table in stores(study).values()}) == 1
    # Another number of examples is asked of the model anew.
    study, _ = start(chats, "train.max_steps=30", "baselines.shots=2")
    assert study.baselines["few-shot"].scores["test/loss"] != shown.scores["test/loss"]


def test_language_modelling_has_none(full, start, decoder_folder):
    language = ("task={type: language, max_length: 16}", "data.split.stratify=null", f"model.source={decoder_folder}")
    study, _ = start(full, *language)
    assert study.baselines == {} and study.data["baselines"] == [] and study.base is not None


# Once


def test_what_is_there_stays_and_what_was_stopped_goes_on(full, start):
    with pytest.raises(Interrupted):
        start(full, stop_at="baseline tfidf-logistic")
    folder = StudyDir(full.parent / "runs" / "topics")
    assert [each.path.name for each in folder.all_baselines()] == ["commonest-label", "tfidf-logistic"]
    before = written(folder.path)
    study, heard = start(full)
    assert list(study.baselines) == LABEL_BASELINES and [run.result["status"] for run in study.runs] != []
    assert before.items() <= written(folder.path).items(), "what was computed before is not computed again"
    assert [line.partition(" · ")[0] for line in heard.lines if line.startswith("baseline ")] == [
        "baseline centroid",
        "baseline frozen-logistic",
    ]
    before = written(folder.path)
    _, heard = start(full, "seeds=2")
    assert written(folder.path) == before and not any(line.startswith("baseline ") for line in heard.lines)
    assert "baselines" not in heard.titles


def test_a_request_to_stop_is_heard_while_a_penalty_is_chosen(full, start):
    with pytest.raises(Interrupted, match="choosing a penalty"):
        start(full, stop_at="tfidf-logistic: choosing a penalty")
    assert [each.path.name for each in StudyDir(full.parent / "runs" / "topics").all_baselines()] == ["commonest-label"]


def test_the_result_is_written_last(full, start, monkeypatch):
    monkeypatch.setattr(CommonestLabel, "predict", interrupt)
    with pytest.raises(Interrupted):
        start(full)
    assert written(full.parent / "runs" / "topics") == {}


def interrupt(*_):
    raise Interrupted("stopped")


@pytest.mark.parametrize(
    "error, reason",
    [
        (FinetuneError("nothing to learn from"), "nothing to learn from"),
        (RuntimeError("a cosmic ray"), "RuntimeError: a cosmic ray"),
        (InputError([]), "InputError"),
    ],
    ids=["ours", "any", "input"],
)
def test_one_that_fails_ends_nothing_and_is_tried_again(full, start, monkeypatch, error, reason):
    def fail(self, *_):
        raise error

    monkeypatch.setattr(TfidfLogistic, "fit", fail)
    study, heard = start(full)
    told = StudyOutcome(study.folder.path, report.read(study.folder.path)).failed_baselines
    assert [(each["name"], each["status"], each["reason"]) for each in told] == [("tfidf-logistic", "error", reason)]
    assert {name: run.result["status"] for name, run in study.baselines.items()} == {
        name: "error" if name == "tfidf-logistic" else "finished" for name in LABEL_BASELINES
    }
    failed = study.baselines["tfidf-logistic"]
    assert failed.result["reason"] == reason and "in fail" in failed.result["traceback"] and failed.scores == {}
    assert not failed.folder.predictions("test").exists()
    assert any(line.startswith("baseline tfidf-logistic · no scores · error") for line in heard.lines)
    assert study.runs[0].scores
    monkeypatch.undo()
    study, heard = start(full)
    assert study.baselines["tfidf-logistic"].result["status"] == "finished"
    assert sum(line.startswith("baseline ") for line in heard.lines) == 1


# What is left out


def test_none_are_computed_where_they_are_not_wanted(full, start):
    study, heard = start(full, "baselines.enabled=false")
    assert study.baselines == {} and not (study.folder.path / BASELINES).exists()
    assert {each["left_out"] for each in study.data["baselines"]} == {"baselines.enabled is false"}
    assert not any("baseline" in line for line in heard.lines)


def test_features_of_more_tokens_than_the_limit_are_left_out_and_said(full, start):
    tokens = sum(read_tokens(full))
    study, heard = start(full, f"baselines.limit={tokens - 1}")
    assert list(study.baselines) == ["commonest-label", "tfidf-logistic"]
    reason = f"features of {tokens:,} tokens are more than baselines.limit, which is {tokens - 1:,}"
    left_out = {each["name"]: each["left_out"] for each in study.data["baselines"]}
    assert left_out["centroid"] == left_out["frozen-logistic"] == reason
    line = f"baselines: commonest-label, tfidf-logistic; left out: centroid, frozen-logistic ({reason})"
    assert heard.lines.count(line) == 1
    study, heard = start(full, f"baselines.limit={tokens}")
    assert list(study.baselines) == LABEL_BASELINES and not any("left out" in line for line in heard.lines)
    study, heard = start(full, f"baselines.limit={tokens // 10 - 1}")
    assert list(study.baselines) == ["commonest-label"], "what is left out now is not shown"
    reason = f"words of {tokens:,} tokens are more than 10 times baselines.limit, which is {tokens // 10 - 1:,}"
    assert any(f"tfidf-logistic ({reason})" in line for line in heard.lines)


def read_tokens(path):
    recipe = recipes.load(path).variants[0].recipe
    data = Resources().data(recipe, recipe.data.split.seed)
    return [example.length for part in (data.train, *data.held_out.values()) for example in part.examples]


def test_no_text_of_private_data_is_stored(chats, start):
    study, heard = start(chats, "scoring.keep_texts=false")
    assert study.baselines == {} and "texts of held-out examples" in study.data["baselines"][0]["left_out"]
    assert any(line.startswith("baselines: none (scoring.keep_texts is false") for line in heard.lines)


def test_a_question_longer_than_the_model_has_room_for_is_told(chats, start):
    study, _ = start(chats, "baselines.shots=20")
    failed = study.baselines["few-shot"].result
    assert (
        failed["status"] == "error" and "the model has room for 128: ask for fewer baselines.shots" in failed["reason"]
    )
    assert study.baselines["copy-first-sentence"].result["status"] == "finished"


def test_seeds_with_splits_of_their_own_have_none_and_the_study_says_why(full, start):
    study, heard = start(full, "vary=[split, init]")
    assert study.baselines == {}
    [reason] = {each["left_out"] for each in study.data["baselines"]}
    assert "`vary` has split" in reason and any(reason in line for line in heard.lines)


# Studies that are there already


def test_a_study_that_knew_no_baselines_is_continued(full, start):
    study, _ = start(full, "baselines.enabled=false")
    former = study.folder.resolved.read_text()
    [section] = [line for line in former.split("\n") if line.startswith("baselines:")]
    lines = former.split("\n")
    place = lines.index(section)
    end = next(n for n in range(place + 1, len(lines)) if not lines[n].startswith(" "))
    study.folder.resolved.write_text("\n".join([*lines[:place], *lines[end:]]))
    before = study.runs[0].folder.result.stat().st_mtime_ns
    study, _ = start(full)
    assert list(study.baselines) == LABEL_BASELINES and study.runs[0].folder.result.stat().st_mtime_ns == before


def test_finished_studies_get_them_on_further_held_out_sets(full, start):
    tiny.write_csv(full.parent / "others.csv", tiny.sentences(20, seed=5))
    study, _ = start(full)
    scores = {name: run.scores for name, run in study.baselines.items()}
    held_out = f"evaluate=[{{name: others, data: {{path: '{full.parent / 'others.csv'}'}}}}]"
    study = read_study(rescore(study.folder.path, [held_out]).folder)
    for name, run in study.baselines.items():
        assert scores[name].items() < run.scores.items() and "others/accuracy" in run.scores
        assert len(store.read(run.folder.predictions("others")).example) == 20
    before = written(study.folder.path)
    rescore(study.folder.path, [held_out])
    assert written(study.folder.path) == before
    rescore(study.folder.path)
    assert written(study.folder.path) == before


def test_another_model_before_any_run_has_baselines_of_its_own(full, start, tmp_path):
    with pytest.raises(Interrupted):
        start(full, stop_at="baseline frozen-logistic")
    folder = StudyDir(full.parent / "runs" / "topics")
    before = {each.path.name: each.read_result() for each in folder.all_baselines()}
    environment = json.loads(folder.environment.read_text())
    for parts in environment["starts"].values():
        parts["weights"] = "those of another day"
    folder.environment.write_text(json.dumps(environment))
    for name in ("centroid", "frozen-logistic"):
        result = {**before[name], "inputs": {**before[name]["inputs"], "start": environment["starts"]["full"]}}
        folder.baseline(name).result.write_text(json.dumps(result))
    _, heard = start(full)
    again = [line.partition(" · ")[0] for line in heard.lines if line.startswith("baseline ")]
    assert again == ["baseline centroid", "baseline frozen-logistic"]


def test_no_seed_of_the_study_is_in_them(full, start, tmp_path):
    first = stores(start(full, "seeds=[0]")[0])
    other = stores(start(full, "seeds=[7]", "name=other")[0])
    for name in LABEL_BASELINES:
        assert first[name].prediction == other[name].prediction
        for column in ("loss", "probabilities"):
            ours, theirs = getattr(first[name], column), getattr(other[name], column)
            assert ours is theirs is None or (ours == theirs).all()


# Several processes


def test_of_several_processes_the_first_alone_computes_what_needs_no_model(full, start, monkeypatch):
    """As the others see it: they are given the result of the first."""
    from finetune.study import baselines

    study, _ = start(full, "baselines.enabled=false")
    asked = []

    class Second:
        num_processes, is_main_process = 2, False

        def wait_for_everyone(self):
            pass

    class SecondRuntime:
        accelerator = Second()

        def broadcast(self, value):
            assert value is None
            return {"from": "the first"}

    monkeypatch.setattr(baselines, "_attempt", lambda wanted, *_: asked.append(wanted.baseline.name) or {"own": 1})
    session = type("Session", (), {"runtime": SecondRuntime()})()
    labels = ["a", "b"]
    words, centres = (baselines.Wanted(each, {}, {}) for each in (TfidfLogistic(labels, list), Centroid(labels)))
    assert baselines._compute(words, None, session, None, study.folder) == {"from": "the first"}
    assert baselines._compute(centres, None, session, None, study.folder) == {"own": 1}
    assert asked == ["centroid"]
