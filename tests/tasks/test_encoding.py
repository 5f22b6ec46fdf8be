"""Large data are encoded by several processes, to the same examples and facts, in their order."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune.core.errors import FinetuneError, InputError, bad_input
from finetune.data import spool
from finetune.tasks import encoding
from tests import tiny
from tests.tasks import test_chat, test_classification, test_language


def classified(encoder, decoder, training):
    train = tiny.dataset(text=[text for text, _ in ROWS], label=[label for _, label in ROWS])
    task, _ = test_classification.fitted(encoder, train, max_length=8)
    return task, train


def masked(encoder, decoder, training):
    task, _ = test_language.fitted(encoder, TEXTS, max_length=8)
    return task, tiny.dataset(text=TEXTS)


def causal(encoder, decoder, training):
    task, _ = test_language.fitted(decoder, TEXTS, max_length=8)
    return task, tiny.dataset(text=TEXTS)


ROWS = tiny.sentences(50)
TEXTS = [text for text, _ in ROWS]


@pytest.fixture
def several(monkeypatch, tmp_path):
    """Makes everything large, and gives three processors."""

    def begin():
        monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(spool, "IN_MEMORY", 1)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})

    monkeypatch.setattr(encoding, "PART", 7)
    return begin


def shown(found):
    examples = [
        (each.number, each.inputs["input_ids"].tolist(), str(each.target), each.weight, each.reference, each.prompt)
        for each in found.examples
    ]
    return examples, found.facts, None if found.rows is None else found.rows.tolist()


@pytest.mark.parametrize("training", [True, False], ids=["learnt", "held-out"])
@pytest.mark.parametrize("kind", [classified, masked, causal])
def test_examples_are_those_of_one_process(kind, training, several, encoder_folder, decoder_folder):
    task, data = kind(encoder_folder, decoder_folder, training)
    alone = shown(task.encode(data, "data", training))
    several()
    assert shown(task.encode(data, "data", training)) == alone and len(alone[0]) >= 50


def test_conversations_too(several, decoder_folder):
    data = tiny.dataset(prompt=[f"what is {n}?" for n in range(30)], completion=[f"it is {n}" for n in range(30)])
    task, _ = test_chat.fitted(decoder_folder, data)
    alone = task.encode(data, "data", True)
    several()
    found = task.encode(data, "data", True)
    for one, other in zip(found.examples, alone.examples, strict=True):
        assert one.reference == other.reference and one.frame == other.frame
        assert one.inputs["input_ids"].tolist() == other.inputs["input_ids"].tolist()
        assert one.target.tolist() == other.target.tolist() and one.prompt.tolist() == other.prompt.tolist()
    assert found.facts == alone.facts


def test_what_one_of_them_refuses_is_refused(several, encoder_folder, decoder_folder, monkeypatch):
    task, data = classified(encoder_folder, decoder_folder, True)
    plain = task.encode_rows

    def refusing(rows, at, training):
        if 30 in rows["example"][:]:
            raise bad_input("task.text", "row 31 is wrong", "mend it")
        return plain(rows, at, training)

    monkeypatch.setattr(task, "encode_rows", refusing)
    several()
    with pytest.raises(InputError) as error:
        task.encode(data, "data", True)
    [problem] = error.value.problems
    assert (problem.path, problem.found, problem.advice) == ("task.text", "row 31 is wrong", "mend it")


def test_one_that_is_killed_is_told_and_not_waited_for(several, encoder_folder, decoder_folder, monkeypatch):
    task, data = classified(encoder_folder, decoder_folder, True)
    monkeypatch.setattr(task, "encode_rows", lambda rows, at, training: os.kill(os.getpid(), signal.SIGKILL))
    several()
    with pytest.raises(FinetuneError, match="was killed"):
        task.encode(data, "data", True)


PARENT = """
import os, sys, time
from pathlib import Path
from finetune.data import spool
from finetune.tasks import encoding
from tests import tiny

class Slow:
    dynamic = False
    def encode_rows(self, rows, at, training):
        Path(sys.argv[1], str(os.getpid())).touch()
        time.sleep(60)

encoding.PART, spool.IN_MEMORY, os.sched_getaffinity = 1, 1, lambda _: {0, 1}
encoding.encode(Slow(), tiny.dataset(text=["a", "b", "c"]), "data", True)
"""


def alive(process):
    try:
        return "State:\tZ" not in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_none_is_left_when_the_one_that_began_them_is_killed(tmp_path, number):
    running = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    while len(list(tmp_path.iterdir())) < 2 and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(number)
    running.wait(timeout=30)
    until = time.monotonic() + 30
    workers = [Path("/proc", each.name) for each in tmp_path.iterdir()]
    assert len(workers) == 2
    while any(map(alive, workers)):
        assert time.monotonic() < until, "they are still there"
        time.sleep(0.05)
