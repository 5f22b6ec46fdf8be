"""Pairs of answers in a batch: however it is laid out, each answer has the log-likelihood that it has alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import log_softmax

from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.models import ModelOptions, load_base, load_tokenizer
from finetune.tasks.causal.packing import lay_out, packed_rows, unpacked
from finetune.tasks.causal.pairs import apart, chosen, together
from finetune.tasks.chat import Chat
from finetune.tasks.conversation import IGNORED
from tests import tiny

TEXTS = [text for text, _ in tiny.sentences(6)]
DATA = {
    "prompt": TEXTS,
    "completion": ["sport", "money and shares", "a rocket", "space", "the cup of the league", "tax"],
    "rejected": ["the market and the bank", "moon", "win", "a long answer about nothing", "no", "orbit"],
}


def encoded(folder, data, pairs=True, training=True, **options):
    """A task and the examples it makes of ``data``."""
    said = {"prompt": "prompt", "completion": "completion", "rejected": "rejected", **options}
    task = Chat(Chat.Options(type="chat", **said), pairs=pairs)
    data = tiny.dataset(**data)
    task.check(data, "data.train")
    task.fit(tiny.splits(data), load_tokenizer(ModelOptions(source=str(folder))))
    return task, task.encode(data, "data.train", training=training)


@pytest.fixture(scope="module")
def model(decoder_folder):
    return load_base(ModelOptions(source=str(decoder_folder)), "AutoModelForCausalLM").copy(Streams(0)).eval()


def log_likelihoods(model, example):
    """Of the chosen and the rejected answer, each computed from plain logits by itself."""
    found = []
    for ids, labels in zip(example.parts(example.inputs["input_ids"]), example.parts(example.target), strict=True):
        with torch.no_grad():
            steps = log_softmax(model(torch.from_numpy(ids)[None].long()).logits[0].float(), -1)
        places = np.flatnonzero(labels != IGNORED)
        found.append(float(sum(steps[place - 1, labels[place]] for place in places)))
    return found


# Encoding


def test_a_pair_is_both_conversations_one_after_the_other(decoder_folder):
    task, made = encoded(decoder_folder, DATA, max_new_tokens=1)
    needed = task.positions(made.examples)
    for place, (example, *row) in enumerate(zip(made.examples, *DATA.values(), strict=True)):
        asked = f"<|im_start|>user\n{row[0]}<|im_end|>\n<|im_start|>assistant\n"
        texts = [task.tokenizer.decode(ids) for ids in example.parts(example.inputs["input_ids"])]
        assert texts == [f"{asked}{answer}<|im_end|>" for answer in row[1:]]
        learnt = [task.tokenizer.decode(own[own != IGNORED]) for own in example.parts(example.target)]
        assert learnt == [f"{answer}<|im_end|>" for answer in row[1:]]
        assert example.weight == 1 and example.reference == row[1] and task.tokenizer.decode(example.prompt) == asked
        assert needed[place] == max(map(len, example.parts(example.target)))
    assert made.facts["tokens"]["max"] == max(example.length for example in made.examples)


def test_without_a_strategy_for_pairs_they_are_compared_and_not_learnt_from(decoder_folder):
    _, alone = encoded(decoder_folder, DATA, pairs=False, rejected=None)
    _, learnt = encoded(decoder_folder, DATA, pairs=False)
    _, held_out = encoded(decoder_folder, DATA, pairs=False, training=False)
    for one, other, pair in zip(alone.examples, learnt.examples, held_out.examples, strict=True):
        assert one.rejected is None and other.rejected is None and pair.rejected == one.length
        assert one.inputs["input_ids"].tolist() == other.inputs["input_ids"].tolist()
        assert pair.parts(pair.inputs["input_ids"])[0].tolist() == one.inputs["input_ids"].tolist()
        assert one.weight == other.weight == pair.weight == (one.target != IGNORED).sum()
    assert alone.facts == learnt.facts and held_out.facts["answer_tokens"] == alone.facts["answer_tokens"]


def test_conversations_may_differ_in_their_last_answer(decoder_folder):
    def talk(*contents):
        roles = ["user", "assistant"] * 2
        return [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]

    data = {"good": [talk("a bank", "money", "a cup", "sport")], "bad": [talk("a bank", "money", "a cup", "the moon")]}
    columns = {"messages": "good", "rejected": "bad", "prompt": None, "completion": None}
    task, made = encoded(decoder_folder, data, **columns)
    learnt = [task.tokenizer.decode(own[own != IGNORED]) for own in made.examples[0].parts(made.examples[0].target)]
    assert learnt == ["money<|im_end|>sport<|im_end|>", "money<|im_end|>the moon<|im_end|>"]
    data["bad"] = [talk("a bank", "money", "a comet", "the moon")]
    with pytest.raises(
        InputError, match=r"task\.rejected: data\.train, row 1: the rejected answer is one to something"
    ):
        encoded(decoder_folder, data, **columns)
    with pytest.raises(InputError, match=r"task\.rejected: data\.train, row 1: is str where a list of messages"):
        encoded(decoder_folder, {**data, "bad": ["the moon"]}, **columns)


def test_long_pairs_are_cut_dropped_or_refused(decoder_folder):
    _, whole = encoded(decoder_folder, DATA)
    longest = [max(map(len, example.parts(example.target))) for example in whole.examples]
    limit = sorted(longest)[2]
    _, cut = encoded(decoder_folder, DATA, max_length=limit)
    assert [max(map(len, e.parts(e.target))) for e in cut.examples] == [min(limit, length) for length in longest]
    over = sum(length > limit for length in longest)
    assert 0 < over < 6 and cut.facts["cut"] == over
    _, kept = encoded(decoder_folder, DATA, max_length=limit, too_long="drop")
    assert len(kept.examples) == 6 - over and kept.facts["dropped"] == over
    first = next(row for row, length in enumerate(longest, start=1) if length > limit)
    with pytest.raises(InputError, match=f"task.max_length: data.train, row {first} has"):
        encoded(decoder_folder, DATA, max_length=limit, too_long="refuse")


# What is refused


def test_a_missing_column_of_rejected_answers_is_refused(decoder_folder):
    with pytest.raises(InputError, match=r"task\.rejected: data\.train has no column 'worse'"):
        encoded(decoder_folder, DATA, rejected="worse")


def test_the_same_answer_twice_is_refused(decoder_folder):
    data = {**DATA, "rejected": [*DATA["rejected"][:3], DATA["completion"][3], "a", "b"]}
    with pytest.raises(InputError, match=r"task\.rejected: data\.train, row 4: the chosen and the rejected") as caught:
        encoded(decoder_folder, data)
    assert "take this row out of the file" in str(caught.value)


def test_answers_that_are_the_same_once_cut_are_refused(decoder_folder):
    answer = "the cup of the league and the match"
    data = {"prompt": ["one"], "completion": [f"{answer} win"], "rejected": [f"{answer} goal"]}
    _, whole = encoded(decoder_folder, data)
    asked = len(whole.examples[0].prompt)
    with pytest.raises(InputError, match=rf"row 1: .* the same, up to their {asked + 4} tokens .*\n.*task\.max_length"):
        encoded(decoder_folder, data, max_length=asked + 4)


def test_answers_that_are_cut_off_entirely_are_refused(decoder_folder):
    with pytest.raises(
        InputError, match=r"task\.max_length: data\.train, row 1 has .* its answer begins after"
    ) as caught:
        encoded(decoder_folder, DATA, max_length=8)
    assert "shorten the prompt" in str(caught.value)


# Batches


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=6), st.booleans())
def test_taken_apart_and_put_together_a_batch_is_the_same(lengths, packed):
    sizes = [size for pair in lengths for size in pair]
    ids = [np.arange(size) + 100 * number for number, size in enumerate(sizes)]
    rows = packed_rows(sizes, [len(sizes)]) if packed else [[number] for number in range(len(sizes))]
    sequences = lay_out(rows, ids, [own + 1 for own in ids], filler=-7)
    batch = together(sequences)
    again = apart(batch)
    assert again.inputs is sequences.inputs and again.targets is sequences.targets and again.place is None
    assert torch.equal(again.example, sequences.example)
    for number, (first, second) in enumerate(lengths):
        here = batch.example == number
        order = batch.place[here].argsort()
        assert batch.place[here][order].tolist() == list(range(first + second))
        assert batch.inputs["input_ids"][here][order].tolist() == [*ids[2 * number], *ids[2 * number + 1]]
        left = chosen(batch).targets[here]
        assert left[left != IGNORED].tolist() == (ids[2 * number] + 1).tolist()


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("can_pack", [True, False])
def test_margins_are_differences_of_log_likelihoods(decoder_folder, model, monkeypatch, packing, can_pack):
    task, made = encoded(decoder_folder, DATA, packing=packing)
    if not can_pack:
        path = task._loss_path(model)
        monkeypatch.setattr(task, "_loss_path", lambda *_: type(path)(False, path.head))
    wanted = [log_likelihoods(model, example) for example in made.examples]
    batch = task.collate(made.examples, [2, 4])
    with torch.no_grad():
        margins, losses = task.margins(model, batch), task.losses(model, batch)
        outputs = task.outputs(model, batch)
        found = task.predict(model, made.examples, batch)
    assert margins.tolist() == pytest.approx([good - bad for good, bad in wanted], abs=1e-4)
    assert losses.tolist() == pytest.approx([-good for good, _ in wanted], abs=1e-4)
    assert outputs.losses().tolist() == pytest.approx(losses.tolist(), abs=1e-4)
    assert [one.margin for one in found] == pytest.approx(margins.tolist(), abs=1e-5)
    assert [one.loss for one in found] == pytest.approx(losses.tolist(), abs=1e-5)


@pytest.mark.parametrize("packing", [True, False])
def test_replicas_keep_to_rows_of_their_own(decoder_folder, packing):
    task, made = encoded(decoder_folder, DATA, packing=packing)
    batch = task.collate([*made.examples, *made.examples[:2]], [6, 2])
    owners = [{number >= 6 for number in row.tolist() if number >= 0} for row in batch.example]
    assert all(len(own) == 1 for own in owners) and owners == sorted(owners, key=min)
    arranged = together(unpacked(apart(batch)))
    rows = [{int(number) for number in row if number >= 0} for row in arranged.example]
    assert rows == [{number} for number in range(8) for _ in range(2)]
