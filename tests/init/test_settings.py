"""How long and at which rate a model is to learn."""

import pytest

from finetune.init.base_model import ENCODER, Base
from finetune.init.settings import LABEL_STEPS, MOST_EPOCHS, SENTENCE_RATE, SENTENCE_STEPS, STEPS, settings_for
from finetune.init.understood import Understood


@pytest.fixture(scope="module")
def sentences():
    """A small encoder that was made for sentences."""
    return Base(ENCODER[1])


def steps_and_rate(task, base, rows, labels=0):
    train = settings_for(Understood(task, {}, "the test says so"), base, rows, labels).sections["train"]
    return train["epochs"] * rows / train["batch_size"], train["learning_rate"]


@pytest.mark.parametrize(("task", "labels"), [("classification", 5), ("regression", 0)])
def test_an_encoder_of_sentences_learns_gently(task, labels, sentences):
    steps, rate = steps_and_rate(task, sentences, 700, labels)
    assert steps == pytest.approx(SENTENCE_STEPS, rel=0.1) and rate == SENTENCE_RATE


def test_many_labels_take_more_steps(sentences):
    steps, rate = steps_and_rate("classification", sentences, 1100, 77)
    assert steps == pytest.approx(77 * LABEL_STEPS, rel=0.1) and rate == SENTENCE_RATE


@pytest.mark.parametrize("task", ["token-classification", "question-answering", "multi-label-classification"])
def test_what_reads_more_than_the_sentence_is_learnt_for_longer(task, sentences):
    steps, rate = steps_and_rate(task, sentences, 2000)
    assert steps == pytest.approx(STEPS, rel=0.1) and rate > SENTENCE_RATE


def test_few_examples_are_not_seen_for_ever(sentences):
    steps, _ = steps_and_rate("regression", sentences, 32)
    assert steps == MOST_EPOCHS * 32 / 16
