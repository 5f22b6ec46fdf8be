"""Bad input: every mistake in one clear message with its place and what to do, exit code 2, nothing started."""

from __future__ import annotations

import json
import math
import re
import shutil

import pytest

from finetune.cli import main
from finetune.core import progress
from tests import tiny
from tests.end_to_end.reading import spoken

ROWS = tiny.sentences(90)


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """refused('run', 'topics.yaml') -> the lines of the message, of a command that must be refused."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr(progress.Progress, "after", math.inf)  # however busy the machine is

    def run(*argv):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        code = main(argv)
        said = capsys.readouterr()
        assert (code, said.out) == (2, ""), said.out + said.err
        assert "Traceback" not in said.err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        return [re.sub(re.escape(str(tmp_path)), "HERE", line) for line in said.err.splitlines()]

    return run


def replace(old, new):
    def change(recipe):
        text = recipe.read_text()
        assert old in text
        recipe.write_text(text.replace(old, new))

    return change


def data(*rows, header=("text", "label")):
    return lambda recipe: tiny.write_csv(recipe.parent / "news.csv", list(rows), header)


def text(content, name="news.csv"):
    return lambda recipe: (recipe.parent / name).write_text(content)


def held_out(*rows):
    def change(recipe):
        tiny.write_csv(recipe.parent / "test.csv", list(rows))
        replace("split: {test: 30, validation: 12, stratify: label}", "test: {path: test.csv}")(recipe)

    return change


def lines(*content):
    def change(recipe):
        (recipe.parent / "news.jsonl").write_text("\n".join(content) + "\n")
        replace("news.csv", "news.jsonl")(recipe)

    return change


def model(*, without=(), pickled=False):
    """A copy of the model with something wrong."""

    def change(recipe):
        source = re.search(r"source: ([^,]*),", recipe.read_text()).group(1)
        folder = recipe.parent / "model"
        shutil.copytree(source, folder)
        for name in without:
            (folder / name).unlink()
        if pickled:
            (folder / "pytorch_model.bin").write_bytes(b"")
        replace(source, "./model")(recipe)

    return change


def object_line(text, label):
    return json.dumps({"text": text, "label": label})


GOOD_LINES = [object_line(*row) for row in ROWS[:6]]
LINEAR = "linear: {strategy: {type: linear, solver: steps}"

CASES = {
    "unknown key": (
        replace("batch_size", "batchsize"),
        "topics.yaml:9: train.batchsize: there is no key 'batchsize' in train",
        "did you mean 'batch_size'?",
    ),
    "wrong type": (
        replace("epochs: 1", "epochs: one"),
        "topics.yaml:9: train.epochs: is 'one', a text; it must be a number",
        "Passes over the training examples",
    ),
    "missing file": (
        replace("news.csv", "newz.csv"),
        "topics.yaml:5: data.train.path: there is no 'HERE/newz.csv'",
        "did you mean 'HERE/news.csv'?",
    ),
    "empty file": (text(""), "topics.yaml:5: data.train.path: 'HERE/news.csv' is empty", "name a file with examples"),
    "header only": (
        text("text,label\n"),
        "topics.yaml:5: data.train.path: 'HERE/news.csv' has no examples",
        "name a file that has some",
    ),
    "missing label column": (
        data(*ROWS, header=("text", "topic")),
        "topics.yaml:7: task.label: data.train has no column 'label'",
        "choose from: text, topic",
    ),
    "missing text column": (
        data(*ROWS, header=("txt", "label")),
        "topics.yaml:7: task.text: data.train has no column 'text'",
        "did you mean 'txt'?",
    ),
    "label only in held-out data": (
        held_out(("a stew of beans", "cooking")),
        "topics.yaml:7: task.label: 'test' has labels that no training example has: cooking",
        "no model could learn them; training has money, space, sport. Correct the labels",
    ),
    "one class": (
        data(*((row, "sport") for row, _ in ROWS)),
        "topics.yaml:7: task.label: column 'label' has one class only in the training examples: 'sport'",
        "classification needs two or more",
    ),
    "NaN label": (
        data(*ROWS[:5], ("a strange text", "NaN"), *ROWS[5:]),
        "topics.yaml:7: task.label: column 'label' of data.train has the label 'nan' in row 6",
        "complete the file",
    ),
    "NaN label in JSON": (
        lines(*GOOD_LINES, '{"text": "a", "label": NaN}'),
        "topics.yaml:7: task.label: column 'label' of data.train has no label in row 7",
        "complete the file",
    ),
    "text of numbers": (
        data(*((str(number), label) for number, (_, label) in enumerate(ROWS))),
        "topics.yaml:7: task.text: column 'text' of data.train holds numbers, such as 0, not text",
        "if they are meant as text, make text of them",
    ),
    "broken JSONL line": (
        lines(*GOOD_LINES, '{"text": "half a li'),
        "HERE/news.jsonl:7: data.train.path: not valid JSON: Unterminated string starting at character 10",
        "every line is one JSON object",
    ),
    "no tokenizer": (
        model(without=["tokenizer.json"]),
        "topics.yaml:3: model.source: HERE/model has no tokenizer (tokenizer.json, tokenizer.model, vocab.txt",
        "save it there with tokenizer.save_pretrained, or name another place in model.tokenizer",
    ),
    "pickle-only model": (
        model(without=["model.safetensors"], pickled=True),
        "topics.yaml:3: model.source: pytorch_model.bin in HERE/model is a pickle, which can run any code",
        "convert it to safetensors",
    ),
    "no weights": (
        model(without=["model.safetensors"]),
        "topics.yaml:3: model.source: HERE/model holds no weights (*.safetensors)",
        "give a complete model folder",
    ),
    "LoRA targets that match nothing": (
        replace(LINEAR, "linear: {strategy: {type: adapter, targets: [q_proj]}"),
        "topics.yaml:11: strategy.targets: 'q_proj' matches no layer of this model",
        "choose from: dense, key, query, value",
    ),
    "more blocks than there are": (
        replace(LINEAR, "linear: {strategy: {type: partial, last: 3}"),
        "topics.yaml:11: strategy.last: is 3, but this model has 2 blocks",
        "write at most 2",
    ),
    "no such metric": (
        replace("max_length: 32", "metrics: [acuracy]"),
        "topics.yaml:7: task.metrics.0: there is no metric called 'acuracy'",
        "did you mean 'accuracy'?",
    ),
    "split of more than there is": (
        replace("test: 30", "test: 300"),
        "topics.yaml:6: data.split: 300 for test and 12 for validation of 90 examples leaves none for training",
        "make a part smaller",
    ),
    "no such device": (
        replace("dtype: float32", "device: gpu"),
        "topics.yaml:3: model.device: there is no device 'gpu'",
        "write auto, cpu, cuda or cuda:N",
    ),
    "nothing held out": (
        replace("test: 30, ", ""),
        "topics.yaml:4: data: nothing is held out to score",
        "give data.split.test, data.test or evaluate",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_mistake_is_one_message(topics, refused, case):
    change, found, advice = CASES[case]
    change(topics)
    first, second, last, *more = refused("run", "topics.yaml")
    assert more == [] and last == "1 problem; nothing was started"
    assert first.startswith(found)
    assert second.startswith(f"    {advice}")


def test_mistakes_are_told_together(topics, refused):
    replace("batch_size", "batchsize")(topics)
    replace("seeds: 2", "seeds: two")(topics)
    said = refused("run", "topics.yaml", "strategy.type=adaptr")
    assert said[-1] == "3 problems; nothing was started"
    places = [line.partition(": ")[0] for line in said if not line.startswith(" ")]
    assert places == ["topics.yaml:2", "topics.yaml:9", "command line", "3 problems; nothing was started"]


def test_the_problems_of_all_variants_are_told_together(topics, refused):
    replace(LINEAR, "linear: {strategy: {type: partial, last: 9}")(topics)
    replace("full: {strategy: {type: full}", "full: {strategy: {type: adapter, targets: [nothing]}")(topics)
    said = refused("run", "topics.yaml")
    assert said[0].startswith("topics.yaml:11: strategy.last: is 9")
    assert said[2].startswith("topics.yaml:12: strategy.targets: 'nothing' matches no layer")
    assert said[-1] == "2 problems; nothing was started"


def test_a_mistake_that_all_variants_share_is_told_once(topics, refused):
    replace("news.csv", "gone.csv")(topics)
    assert refused("run", "topics.yaml")[-1] == "1 problem; nothing was started"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epoch=3", "command line: train.epoch: there is no key 'epoch' in train"),
        ("variants.lora.train.epochs=3", "command line: variants.lora.train.epochs: there is no variant called 'lora'"),
        ("variants.full=null", "topics.yaml:1: variants.full.strategy: is missing"),
        ("train.epochs=abc", "command line: train.epochs: is 'abc', a text; it must be a number"),
    ],
)
def test_an_override_that_does_not_fit(topics, refused, override, said):
    first, *_, last = refused("run", "topics.yaml", override)
    assert first == said
    assert last == "1 problem; nothing was started"


@pytest.mark.tries_network
def test_what_the_hub_does_not_give_is_told_before_training(topics, refused):
    first, advice, _ = refused("run", "topics.yaml", "task.metrics=[accuracy, 'hub:nobody/nothing']")
    assert first.startswith("command line: task.metrics.1: hub:nobody/nothing cannot be loaded: ")
    assert "check the name and the network, or use one that needs none: accuracy" in advice
    first, advice, _ = refused("run", "topics.yaml", "model.source=nobody/nothing")
    assert first.startswith("command line: model.source: nobody/nothing on the hub could not be loaded: ")
    assert advice.strip() == "check the name, the revision and the network; a folder is written ./name"


def test_a_chat_row_without_an_answer(chats, refused):
    text("\n".join([json.dumps({"prompt": "a", "completion": "b"})] * 3 + ['{"prompt": "a"}']), "chats.jsonl")(chats)
    first, *_ = refused("run", "chats.yaml")
    assert first == "chats.yaml:7: task.completion: column 'completion' of data.train has no text in row 4"


@pytest.fixture
def study(topics, tmp_path, monkeypatch, capsys):
    """The recipe of a study that has been run."""
    monkeypatch.chdir(tmp_path)
    assert main(["run", "topics.yaml", "seeds=1", "train.min_steps=4"]) in (0, 1)
    capsys.readouterr()
    return topics


def test_a_folder_of_another_recipe(study, refused):
    arguments = ("run", "topics.yaml", "seeds=1", "train.min_steps=4")
    first, advice, last = refused(*arguments, "variants.full.train.learning_rate=0.5")
    assert first == (
        "command line: train.learning_rate: runs/topics holds runs of variant 'full' from a different recipe; "
        "train.learning_rate was 0.01 and is now 0.5"
    )
    assert advice.strip().startswith("choose another name or --output")
    assert last == "1 problem; nothing was started"
    assert len(refused(*arguments, "task.max_length=16")) == 5
    assert refused(*arguments, "vary=[init]")[0].startswith("command line: vary: runs/topics was made with vary: [")


def test_data_that_have_changed(study, refused):
    with open(study.parent / "news.csv", "a") as file:
        file.write("a new line,sport\n")
    first, *_ = refused("run", "topics.yaml", "seeds=1", "train.min_steps=4")
    assert first == "topics.yaml:4: data: the examples of 'train' are not those that runs/topics was made with"
    first, *_ = refused("evaluate", "runs/topics")
    assert first.endswith("data: the examples of 'train' are not those that runs/topics was made with")


def test_a_variant_that_comes_back_changed(study, refused, capsys):
    """Taken out of the recipe and put back with another learning rate, its old runs are not those of the recipe."""
    whole = study.read_text()
    replace("  full: {strategy: {type: full}}\n", "")(study)
    assert main(["run", "topics.yaml", "seeds=1", "train.min_steps=4"]) in (0, 1)
    capsys.readouterr()
    study.write_text(whole)
    first, *_ = refused("run", "topics.yaml", "seeds=1", "train.min_steps=4", "variants.full.train.learning_rate=0.5")
    assert first == "runs/topics holds runs of variant 'full' from a different recipe"
    assert main(["run", "topics.yaml", "seeds=1", "train.min_steps=4"]) in (0, 1)


def test_folders_that_are_no_study(topics, refused, tmp_path):
    mine = tmp_path / "runs" / "topics"
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    assert refused("run", "topics.yaml")[0] == "runs/topics is not empty, and is not a study's folder"
    assert refused("run", "topics.yaml", "--output", "file")[0] == "HERE/file is a file, where a folder is needed"
    for verb in ("report", "evaluate"):
        assert refused(verb, "runs/topics")[0] == "runs/topics is not a study: it has no resolved.yaml"


def test_what_was_trained_cannot_be_changed_by_scoring(study, refused):
    assert refused("evaluate", "runs/topics", "train.epochs=3")[0] == (
        "command line: train.epochs: cannot be changed after training"
    )
    assert refused("evaluate", "runs/topics", "variants.full=null")[0] == (
        "command line: variants.full: cannot be changed after training"
    )
    other = "evaluate=[{name: other, data: {path: gone.csv}}]"
    assert refused("evaluate", "runs/topics", other)[0].startswith(
        "command line: evaluate.other.data.path: there is no 'HERE/gone.csv'"
    )


def test_in_a_real_process(topics, command, tmp_path):
    replace("epochs: 1", "epochs: one")(topics)
    done = command("run", "topics.yaml")
    assert done.returncode == 2 and spoken(done.stdout) == []
    assert done.stderr.startswith("topics.yaml:9: train.epochs: is 'one', a text; it must be a number\n")
    assert not (tmp_path / "runs").exists()
