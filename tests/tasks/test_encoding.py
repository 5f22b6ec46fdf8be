"""Large data are encoded by several processes, to the same examples and facts, in their order."""

import os

import pytest

from finetune.core.errors import InputError, bad_input
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
