"""The gallery's numbers are those of RESULTS.md, and each of its jobs is done on files with the columns it asks for."""

import csv
import json
import re
import subprocess
from pathlib import Path

import pytest

from finetune import cli
from scripts import _gallery as gallery
from tests import tiny
from tests.test_guides import BLOCK

ROOT = Path(__file__).parents[1]
PAGE = gallery.GALLERY.read_text(encoding="utf-8")
BRIEF = "train.max_steps=2 train.min_steps=0 train.epochs=1 model.device=cpu model.dtype=float32"


def test_ten_jobs_with_the_numbers_that_results_has():
    assert len(gallery.jobs(PAGE)) == 10
    shown = PAGE.partition(gallery.BEGIN)[2].partition(gallery.END)[0].strip()
    assert shown == gallery.table(PAGE), "run python -m scripts._gallery"


def test_the_best_without_training_is_a_baseline_or_the_untuned_model():
    rows = [
        {"variant": name, "score": score}
        for name, score in (("full", "93.0 [92.0, 94.0]"), ("*lead*", "– –"), ("base", "−0.1 [−0.2, 0.0]"))
    ]
    found = gallery.Result("score", rows, "")
    assert gallery.rival(found) == rows[2]
    assert gallery.rival(found._replace(rows=rows[:2])) is None


def test_every_score_stands_beside_a_rival():
    for job in gallery.jobs(PAGE):
        best, cheap, _ = gallery.compared(job)
        assert cheap is not None and best != cheap, job


def test_a_page_may_name_what_is_held_against_what():
    page = "## A\n\n[`setfit.yaml`](setfit.yaml), `setfit-8` beside `probe-8`: so.\n\n"
    page += "## B\n\n[`x-y.yaml`](x-y.yaml): so.\n"
    assert gallery.jobs(page) == [
        gallery.Job("A", "setfit", "setfit-8", "probe-8"),
        gallery.Job("B", "x-y", None, None),
    ]
    best, cheap, _ = gallery.compared(gallery.jobs(page)[0])
    assert (best["variant"], cheap["variant"]) == ("setfit-8", "probe-8")


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def strategies(folder):
    tiny.write_csv(folder / "news.csv", tiny.sentences(150))
    parts = {"train": 40, "test": 30, "validation": 20}
    stage, last = "variants.domain-first.stages.0.data.split", "variants.unfreezing.strategy.last=2"
    return [
        *(f"data.split.{part}={count}" for part, count in parts.items()),
        f"{stage}.train=40",
        f"{stage}.test=30",
        last,
    ]


def banking77(folder):
    for name, seed in (("train", 0), ("test", 1)):
        tiny.write_csv(folder / f"{name}.csv", tiny.sentences(90, seed), ("text", "label_text"))
    return ["data.split.train=60", "data.split.validation=20"]


def setfit(folder):
    tiny.write_csv(folder / "news.csv", tiny.sentences(150))
    return ["data.split.test=30", "variants.probe-64.data.split.train=60", "variants.setfit-64.data.split.train=60"]


def multi_label(folder):
    for name, seed in (("train", 0), ("test", 1)):
        rows = [
            {"text": text, "labels": [label, "long"][: 1 + len(text) % 2]} for text, label in tiny.sentences(90, seed)
        ]
        lines(folder / f"{name}.jsonl", rows)
    return ["data.split.train=60", "data.split.validation=20"]


def scored(folder):
    for name, seed in (("train", 0), ("test", 1)):
        texts = [text for text, _ in tiny.sentences(90, seed)]
        with open(folder / f"{name}.csv", "w", newline="") as file:
            rows = [(text, texts[-number], number % 11 / 2) for number, text in enumerate(texts)]
            csv.writer(file).writerows([("sentence1", "sentence2", "score"), *rows])
    return []


def regression(folder):
    return [*scored(folder), "data.split.train=60", "data.split.validation=20"]


def token_classification(folder):
    for name, seed in (("train", 0), ("dev", 1), ("test", 2)):
        texts = [text.split() for text, _ in tiny.sentences(40, seed)]
        tagged = [[f"{word}\t{'O' if word in tiny.FILLER else 'B-thing'}" for word in words] for words in texts]
        text = "".join("\n".join(each) + "\n\n" for each in tagged)
        (folder / f"{name}.conll").write_text(text, encoding="utf-8")
    return []


def question_answering(folder):
    def asked(number, text):
        word = text.split()[1]
        said = [{"text": word, "answer_start": text.index(word)}] if number % 3 else []
        return {"id": str(number), "question": f"which {number}", "answers": said, "is_impossible": not said}

    paragraphs = [
        {"context": text, "qas": [asked(number, text)]} for number, (text, _) in enumerate(tiny.sentences(200))
    ]
    content = {"version": "v2.0", "data": [{"title": "all", "paragraphs": paragraphs}]}
    (folder / "squad.json").write_text(json.dumps(content), encoding="utf-8")
    return ["data.split.train=60", "data.split.validation=20"]


def headlines(folder):
    lines(folder / "chats.jsonl", [{"question": text, "answer": topic} for text, topic in tiny.sentences(90)])
    return ["data.split.train=40", "data.split.validation=10", "data.split.test=10", "task.max_new_tokens=4"]


def preference(folder):
    tiny.write_pairs(folder / "pairs.jsonl", 90)
    return ["data.split.train=40", "data.split.test=20"]


FILES = {
    "strategies": strategies,
    "banking77": banking77,
    "setfit": setfit,
    "multi-label": multi_label,
    "regression": regression,
    "token-classification": token_classification,
    "question-answering": question_answering,
    "smollm2-headlines": headlines,
    "preference": preference,
    "embedding": scored,
}
"""By recipe, what writes its files, and returns what fits the recipe to so few."""

TYPED = [
    pytest.param(code, id=job.title) for (_, code), job in zip(BLOCK.findall(PAGE), gallery.jobs(PAGE), strict=True)
]


@pytest.mark.slow
@pytest.mark.parametrize("code", TYPED)
def test_each_job_is_done_as_it_is_typed(code, tmp_path, monkeypatch, encoder_folder, decoder_folder):
    monkeypatch.chdir(tmp_path)
    name = re.search(r"recipes/(\S+)\.yaml", code)[1]
    fitted = FILES[name](tmp_path)
    model = decoder_folder if name in ("smollm2-headlines", "preference") else encoder_folder
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {code}"], capture_output=True, text=True, check=True)
    program, *typed = words.stdout.splitlines()
    assert program == "finetune"
    # Two steps teach nothing, which is said of every run, and is no error of the recipe.
    assert cli.main([*typed, "seeds=1", *BRIEF.split(), f"model.source={model}", *fitted]) in (0, 1)
    report = json.loads((tmp_path / "runs" / name / "report" / "results.json").read_text())
    ended = [(run["status"], run["reason"]) for variant in report["variants"] for run in variant["runs"]]
    assert ended and {status for status, _ in ended} <= {"finished", "degenerate"}, ended
