"""`finetune init` as a person meets it: what is written passes a check, and nothing is written otherwise."""

import builtins
import errno
import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from finetune import cli
from finetune import recipe as recipes
from tests import tiny
from tests.init.files import FILES, Writer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def init(tmp_path, monkeypatch, capsys):
    """init(args...) -> exit code, what was printed in one line, and what was written, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*args, output="recipe.yaml"):
        code = cli.main(["init", *map(str, args)])
        said = capsys.readouterr()
        path = tmp_path / output
        written = yaml.safe_load(path.read_text()) if path.exists() else None
        assert not [*tmp_path.glob(".*.part")], "nothing half-written"
        return code, " ".join((said.out + said.err).split()), written

    return run


def save_decoder(folder):
    """One for whose 128 tokens conversations are not too long."""
    model = tiny.save_decoder(folder)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    return model


def prepared(name, folder):
    folder.mkdir(exist_ok=True)
    return next(file for file in FILES if file.name == name).write(folder, Writer(1))


@pytest.mark.parametrize(
    "name, kind, strategy",
    [
        ("long_reports", "classification", None),
        ("stars", "classification", "full"),
        ("scored_pairs_without_header", "regression", None),
        ("columns_of_flags", "multi-label-classification", "full"),
        ("marked_spans", "token-classification", "full"),
        ("articles_of_questions", "question-answering", "full"),
        ("choices_in_columns", "multiple-choice", "full"),
        ("triplets", "embedding", "full"),
    ],
)
def test_what_it_writes_for_an_encoder_passes_a_check(init, tmp_path, encoder_folder, name, kind, strategy):
    data = prepared(name, tmp_path / "data")
    code, said, written = init(data, "--model", encoder_folder, "--yes", "-o", "recipe.yaml")
    assert code == 0, said
    assert written["task"]["type"] == kind and written.get("strategy", {}).get("type") == strategy
    assert "data and parameters train: " in said and "written: recipe.yaml next: finetune run recipe.yaml" in said
    assert written["data"]["train"]["path"].startswith("data/"), "as the recipe's folder sees it"


@pytest.mark.parametrize(
    "name, kind, strategy",
    [
        ("conversations", "chat", "adapter"),
        ("conversations_as_text_in_a_database", "chat", "adapter"),
        ("better_and_worse", "chat", "preference"),
        ("texts_alone", "language", "adapter"),
    ],
)
def test_what_it_writes_for_a_model_that_writes_passes_a_check(init, tmp_path, name, kind, strategy):
    data, model = prepared(name, tmp_path / "data"), save_decoder(tmp_path / "model")
    code, said, written = init(data, "--model", model, "--yes", "-o", "recipe.yaml")
    assert code == 0, said
    assert (written["task"]["type"], written["strategy"]["type"]) == (kind, strategy)


def test_every_choice_has_its_reason_as_a_comment(init, tmp_path, encoder_folder):
    data = prepared("long_reports", tmp_path / "data")
    assert init(data, "--model", encoder_folder, "--yes", "-o", "recipe.yaml")[0] == 0
    text = (tmp_path / "recipe.yaml").read_text()
    lines = text.splitlines()
    for key in ("seeds:", "model:", "data:", "task:", "train:", "variants:", "  group:", "  max_length:"):
        [place] = [number for number, line in enumerate(lines) if line.startswith(key)]
        assert lines[place - 1].lstrip().startswith("# "), key
    assert "patient" in text and all(len(line) <= 120 for line in lines if line.lstrip().startswith("#"))


def test_without_a_terminal_it_shows_and_writes_nothing_unless_told_yes(init, tmp_path, encoder_folder):
    data = prepared("stars", tmp_path / "data")
    code, said, written = init(data, "--model", encoder_folder, output="stars.yaml")
    assert code == 2 and written is None
    assert "task: classification" in said and "there is no terminal to ask on" in said and "add --yes" in said


def test_a_recipe_that_is_there_is_not_overwritten(init, tmp_path, encoder_folder):
    data = prepared("stars", tmp_path / "data")
    (tmp_path / "stars.yaml").write_text("mine: true\n")
    code, said, written = init(data, "--model", encoder_folder, "--yes", output="stars.yaml")
    assert code == 2 and "not overwritten" in said and written == {"mine": True}
    assert init(data, "--yes", "-o", "gone/recipe.yaml")[0] == 2


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("numbers.csv", "a,b\n1,2\n3,4\n", "the file has no columns with texts to learn from: a (whole), b (whole)"),
        ("empty.csv", "", "is empty"),
        ("notes.docx", "x", "cannot be told from its name"),
    ],
)
def test_a_file_that_nothing_can_be_learnt_from(init, tmp_path, name, content, expected):
    (tmp_path / name).write_text(content)
    code, said, written = init(name, "--yes", "-o", "recipe.yaml")
    assert code == 2 and expected in said and written is None
    code, said, _ = init("nowhere.csv", "--yes")
    assert code == 2 and "there is no 'nowhere.csv'" in said


def test_files_beside_it_are_held_out_and_what_leaks_is_dropped(init, tmp_path, encoder_folder):
    rows = tiny.sentences(120)
    folder = tmp_path / "topics"
    folder.mkdir()
    for name, part in (("train", rows[:80]), ("dev", rows[80:100]), ("test", rows[95:])):
        tiny.write_csv(folder / f"{name}.csv", part)
    code, said, written = init(folder, "--model", encoder_folder, "--yes", output="topics.yaml")
    assert code == 0, said
    assert {key: Path(written["data"][key]["path"]).name for key in ("train", "validation", "test")} == {
        "train": "train.csv",
        "validation": "dev.csv",
        "test": "test.csv",
    }
    assert "leaks" not in written["data"] and "scored-on-training" in said, "five are validated on and scored"
    tiny.write_csv(folder / "test.csv", rows[70:90])
    (tmp_path / "topics.yaml").unlink()
    assert init(folder, "--model", encoder_folder, "--yes", output="topics.yaml")[2]["data"]["leaks"] == "drop"


def test_a_file_in_another_encoding(init, tmp_path, encoder_folder):
    rows = [(f"{text} café naïve", label) for text, label in tiny.sentences(90)]
    text = "\n".join(["text,label", *(f"{one},{two}" for one, two in rows)])
    (tmp_path / "old.csv").write_bytes(text.encode("cp1252"))
    code, said, written = init("old.csv", "--model", encoder_folder, "--yes", output="old.yaml")
    assert code == 0 and written["data"]["train"]["encoding"] == "cp1252", said


def test_a_check_that_fails_leaves_a_draft_that_messages_name(init, tmp_path, encoder_folder):
    rows = [(text, label if number else "") for number, (text, label) in enumerate(tiny.sentences(60))]
    tiny.write_csv(tmp_path / "gaps.csv", rows)
    code, said, written = init("gaps.csv", "--model", encoder_folder, "--yes", output="gaps.yaml")
    assert code == 2 and "label" in said and written is None
    assert "kept as gaps.draft.yaml" in said and ".part" not in said
    assert yaml.safe_load((tmp_path / "gaps.draft.yaml").read_text())["task"]["type"] == "classification"
    code, said, _ = init("gaps.csv", "--model", encoder_folder, "--yes", output="gaps.yaml")
    assert code == 2 and "kept as gaps.draft-2.yaml" in said, "a draft may have been changed by hand"


def test_a_draft_stands_where_a_mistake_is(init, tmp_path, encoder_folder, monkeypatch):
    from finetune.init import writing

    monkeypatch.setattr(writing, "written", lambda *_: "name: mine\nseeds: many\n")
    tiny.write_csv(tmp_path / "topics.csv", tiny.sentences(60))
    code, said, written = init("topics.csv", "--model", encoder_folder, "--yes", output="topics.yaml")
    assert code == 2 and "topics.draft.yaml:2: seeds" in said and ".part" not in said and written is None


@pytest.fixture
def at_the_check(monkeypatch):
    """at_the_check(do): what happens while the first recipe is checked; none is checked."""

    def happens(do):
        from finetune.cli import check

        once = iter([do])
        monkeypatch.setattr(check, "show_check", lambda *_, **__: next(once, lambda: None)())

    return happens


def test_of_two_that_write_at_once_the_first_stays(init, tmp_path, encoder_folder, at_the_check):
    for name, rows in (("topics", tiny.sentences(60)), ("others", tiny.sentences(90, seed=1))):
        tiny.write_csv(tmp_path / f"{name}.csv", rows)

    def other():
        assert cli.main(["init", "others.csv", "--model", str(encoder_folder), "--yes", "-o", "recipe.yaml"]) == 0

    at_the_check(other)
    code, said, written = init("topics.csv", "--model", encoder_folder, "--yes", "-o", "recipe.yaml")
    assert code == 2 and "there is a 'recipe.yaml' already" in said and "Traceback" not in said
    assert written["data"]["train"]["path"] == "others.csv"


@pytest.mark.parametrize("refused", [errno.EPERM, errno.EOPNOTSUPP])
@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_disk_without_hard_links(init, tmp_path, encoder_folder, at_the_check, monkeypatch, refused, meanwhile):
    def link(*_):
        raise OSError(refused, os.strerror(refused))

    tiny.write_csv(tmp_path / "topics.csv", tiny.sentences(60))
    monkeypatch.setattr(os, "link", link)
    at_the_check(lambda: (tmp_path / "recipe.yaml").write_text("mine: true\n") if meanwhile else None)
    code, said, written = init("topics.csv", "--model", encoder_folder, "--yes", "-o", "recipe.yaml")
    assert code == (2 if meanwhile else 0), said
    assert written == {"mine": True} if meanwhile else written["name"] == "recipe"


@pytest.mark.parametrize("output, why", [("recipe.yaml", "Permission denied"), (f"{'x' * 250}.yaml", "too long")])
def test_a_folder_that_takes_no_file_is_told_before_the_data_are_read(init, tmp_path, monkeypatch, output, why):
    real = open

    def closed(path, mode="r", *rest, **kwargs):  # as for whoever is not root
        if mode == "x" and why == "Permission denied":
            raise PermissionError(errno.EACCES, why, str(path))
        return real(path, mode, *rest, **kwargs)

    monkeypatch.setattr(builtins, "open", closed)
    code, said, written = init("nowhere.csv", "--yes", "-o", tmp_path / output, output=output[:20])
    assert code == 2 and f"{output}' cannot be written" in said and why in said and written is None
    assert "Traceback" not in said and "nowhere.csv" not in said


@pytest.mark.parametrize(
    "output, name",
    [
        ("my recipe.yaml", "my-recipe"),
        ("Übung größe.yaml", "bung-gr-e"),
        (".hidden.yaml", "hidden"),
        ("run.v2.yaml", "run.v2"),
        ("äöü.yaml", "recipe"),
    ],
)
def test_a_study_is_called_after_its_recipe_as_far_as_it_may(init, tmp_path, encoder_folder, output, name):
    tiny.write_csv(tmp_path / "topics.csv", tiny.sentences(60))
    code, said, written = init("topics.csv", "--model", encoder_folder, "--yes", "-o", output, output=output)
    assert code == 0, said
    assert written["name"] == name
    assert said.endswith(f"next: finetune run {shlex.quote(output)}")


@pytest.mark.parametrize("source", ["./enc", "enc", "enc/../enc"])
@pytest.mark.parametrize("output", ["sub/recipe.yaml", "recipe.yaml"])
def test_a_model_is_named_as_the_recipe_sees_it(init, tmp_path, source, output):
    (tmp_path / "sub").mkdir()
    tiny.save_encoder(tmp_path / "enc")
    tiny.write_csv(tmp_path / "topics.csv", tiny.sentences(60))
    code, said, written = init("topics.csv", "--model", source, "--yes", "-o", output, output=output)
    assert code == 0, said
    assert not output.startswith("sub") or os.path.isabs(written["model"]["source"])
    assert written["model"]["source"].startswith(("./", "/"))


def test_a_database_is_named_as_the_recipe_sees_it(init, tmp_path):
    (tmp_path / "sub").mkdir()
    prepared("conversations_as_text_in_a_database", tmp_path / "data")
    save_decoder(tmp_path / "model")
    data = "sqlite:data/chats.db#talks"
    code, said, written = init(data, "--model", "./model", "--yes", "-o", "sub/recipe.yaml", output="sub/recipe.yaml")
    assert code == 0, said
    assert written["data"]["train"]["path"] == f"sqlite:{tmp_path}/data/chats.db#talks"


@pytest.mark.parametrize("read", [False, True])
def test_tools_are_named_where_the_template_reads_them(init, tmp_path, read):
    from transformers import AutoTokenizer

    model = save_decoder(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    if read:
        tokenizer.chat_template = "{% if tools %}{{ tools | tojson }}{% endif %}" + tokenizer.chat_template
        tokenizer.save_pretrained(model)
    tool = {"type": "function", "function": {"name": "pass", "description": "", "parameters": {"type": "object"}}}
    turns = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": label}]
        for text, label in tiny.sentences(40)
    ]
    lines = [json.dumps({"messages": each, "tools": [tool]}) for each in turns]
    (tmp_path / "tools.jsonl").write_text("\n".join(lines))
    code, said, written = init("tools.jsonl", "--model", model, "--yes", output="tools.yaml")
    assert code == 0, said
    assert written["task"].get("tools") == ("tools" if read else None)
    assert ("column 'tools' is not read" in said) is not read


def hears_interrupts():
    """As on a terminal; where the tests run in the background, processes are started with the signal ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def on_a_terminal(folder, *args, typed, columns="100", interrupt=False):
    """Run it on a terminal on which something is typed once it asks; gives the code and what was shown."""
    main, side = pty.openpty()
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}", "COLUMNS": columns, "TERM": "dumb"}
    command = [sys.executable, "-m", "finetune", "init", *map(str, args)]
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdin=side, stdout=side, stderr=side, preexec_fn=hears_interrupts
    )
    os.close(side)
    shown, told = b"", False
    while True:
        if told and interrupt and not select.select([main], [], [], 10)[0]:
            process.send_signal(signal.SIGINT)  # one that comes just before it waits for what is typed is not heard
            continue
        try:
            block = os.read(main, 4096)
        except OSError:  # as Linux says that the other end is closed
            break
        shown += block
        if not told and b"What is learnt?" in shown:
            told = True
            if interrupt:
                process.send_signal(signal.SIGINT)
            else:
                os.write(main, typed.encode())
    os.close(main)
    return process.wait(timeout=120), " ".join(shown.decode().split())


def test_questions_on_a_terminal_have_the_proposal_as_their_answers(tmp_path, encoder_folder):
    data = prepared("stars", tmp_path / "data")
    code, shown = on_a_terminal(tmp_path, data, "--model", encoder_folder, typed="\n\n\n7\n", columns="40")
    assert code == 0, shown
    assert "What is learnt? [classification]" in shown and "Which column says what is right? [stars]" in shown
    written = yaml.safe_load((tmp_path / "stars.yaml").read_text())
    assert written["seeds"] == 7 and written["task"]["ordinal"] is True
    assert len(recipes.load(tmp_path / "stars.yaml").variants) == 1


@pytest.mark.parametrize("interrupt", [True, False])
def test_whoever_stops_has_written_nothing(tmp_path, encoder_folder, interrupt):
    """By Ctrl-C, or by Ctrl-D, which ends what is typed."""
    data = prepared("stars", tmp_path / "data")
    found, _ = on_a_terminal(tmp_path, data, "--model", encoder_folder, typed="\x04", interrupt=interrupt)
    assert found == 130 and not (tmp_path / "stars.yaml").exists() and not [*tmp_path.glob(".*")]


def test_other_answers_are_followed_and_wrong_ones_asked_again(tmp_path, encoder_folder):
    from finetune.init.asking import asked
    from finetune.init.proposal import Wishes, propose
    from finetune.init.reading import find

    data = prepared("stars", tmp_path / "data")
    read = find(str(data))
    answers = iter(["regresion", "regression", "star", "stars", "", "many", "3"])
    said = []
    made = asked(
        propose(read, "stars", Wishes(model=str(encoder_folder))),
        lambda wishes: propose(read, "stars", Wishes(wishes.task, wishes.answer, str(encoder_folder), wishes.seeds)),
        lambda question: next(answers),
        said.append,
    )
    assert made.sections["task"]["type"] == "regression" and made.sections["task"]["target"] == "stars"
    assert made.sections["seeds"] == 3
    assert "did you mean 'regression'" in said[0] and "did you mean 'stars'" in said[1] and "whole number" in said[-1]
    assert json.dumps(made.sections)
