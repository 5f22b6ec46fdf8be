"""Question answering: spans, windows, what is refused, and that scores depend on no batch."""

import json
import random
from itertools import pairwise

import numpy as np
import pytest
import torch

from finetune.core.examples import Prediction
from finetune.core.randomness import Streams
from finetune.models import ModelOptions, load_base, load_tokenizer
from finetune.tasks.question_answering import QuestionAnswering
from finetune.tasks.windows import END, PLACE, START, best_spans
from tests import tiny
from tests.examples import TaskExample


def questions(count, seed=0, silent=4):
    """``count`` rows, of which every ``silent``-th has no answer: the word of the text that belongs to a topic."""
    rng, rows = random.Random(seed), []
    for number in range(count):
        topic = sorted(tiny.WORDS)[number % 3]
        words = [rng.choice(tiny.FILLER) for _ in range(rng.randint(3, 5))]
        place, word = rng.randrange(len(words)), rng.choice(tiny.WORDS[topic])
        if number % silent != silent - 1:
            words[place] = word
        start = len(" ".join([*words[:place], ""]))
        answers = (
            {"text": [word], "answer_start": [start]} if words[place] == word else {"text": [], "answer_start": []}
        )
        rows.append({"question": f"{topic} {number}", "context": " ".join(words), "answers": answers})
    return rows


def write(folder, count):
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in questions(count)), encoding="utf-8")
    return path


EXAMPLES = {"question-answering": TaskExample({"max_length": 64}, write, models=("encoder",))}

CPU = torch.device("cpu")
TEXT = "The match was won by the team of the north after a goal in the last minute of play"


def task_of(**options):
    return QuestionAnswering(QuestionAnswering.Options(type="question-answering", **options))


def data_of(rows):
    return tiny.dataset(**{name: [row[name] for row in rows] for name in rows[0]})


def row(context=TEXT, answer="the team", start=None, question="Who won?"):
    """One row; ``answer`` None: none."""
    if answer is None:
        return {"question": question, "context": context, "answers": {"text": [], "answer_start": []}}
    start = context.find(answer) if start is None else start
    return {"question": question, "context": context, "answers": {"text": [answer], "answer_start": [start]}}


def fitted(folder, rows, held_out=None, validation=None, **options):
    """A task fitted to ``rows``, and what it encodes of them to learn from and to answer."""
    task = task_of(**options)
    train = data_of(rows)
    splits = tiny.splits(train, validation and data_of(validation), **(held_out or {}))
    task.fit(splits, load_tokenizer(ModelOptions(source=str(folder))))
    return task, task.encode(train, "data.train", training=True), task.encode(train, "data.test", training=False)


def model_for(folder, task):
    base = load_base(ModelOptions(source=str(folder)), task.architecture, **task.model_config())
    return base.copy(Streams(0)).eval()


# Encoding


def words_of(task, example, marks):
    """What stands at the tokens with these marks."""
    return task.tokenizer.decode(example.inputs["input_ids"][(example.target & marks) > 0])


def test_an_answer_is_marked_and_none_stands_at_the_first_token(encoder_folder):
    rows = [row(answer="team of the north"), row(answer=None, question="Who lost?")]
    task, learnt, answered = fitted(encoder_folder, rows)
    first, second = learnt.examples
    assert words_of(task, first, START).strip() == "team" and words_of(task, first, END).strip()[-1] == "h"
    between = slice(int(np.argmax(first.target & START > 0)), int(np.argmax(first.target & END > 0)) + 1)
    assert task.tokenizer.decode(first.inputs["input_ids"][between]).strip() == "team of the north"
    assert second.target[0] == PLACE | START | END and not (second.target[1:] & (START | END)).any()
    assert (
        words_of(task, first, PLACE)[1:].strip().endswith(TEXT[-30:]) and "Who" not in words_of(task, first, PLACE)[1:]
    )
    assert [json.loads(each.reference) for each in answered.examples] == [["team of the north"], []]
    assert learnt.facts["unanswerable"] == 1 and learnt.facts["cut"] == 0
    assert learnt.examples[0].document is None and answered.examples[0].document.text == TEXT


def test_long_texts_are_windows_to_learn_from_and_one_example_to_answer(encoder_folder):
    rows = [row(context=" ".join([TEXT] * 3), answer="goal"), row(context="We are the team")]
    task, learnt, answered = fitted(encoder_folder, rows, max_length=40, stride=8)
    assert len(answered.examples) == 2 and answered.facts["cut"] == 1
    example = answered.examples[0]
    windows = example.parts(example.inputs["input_ids"])
    assert len(windows) > 2 and {len(window) for window in windows} == {40}
    asked = len(task.tokenizer("Who won?")["input_ids"])
    assert all(window[:asked].tolist() == windows[0][:asked].tolist() for window in windows)
    parts = [each[asked:] for each in windows]
    for one, other in pairwise(parts[:-1]):
        assert one[-8:].tolist() == other[:8].tolist()
    assert task.positions(answered.examples).tolist()[0] == 40 < example.length
    whole = task.tokenizer(" ".join([TEXT] * 3))["input_ids"]
    assert parts[0].tolist() == whole[: len(parts[0])] and parts[-1].tolist() == whole[-len(parts[0]) :]
    own = [each for each, owner in zip(learnt.examples, learnt.rows, strict=True) if owner == 0]
    assert [each.inputs["input_ids"].tolist() for each in own] == [
        window.tolist()
        for window, target in zip(windows, example.parts(example.target), strict=True)
        if (target & START).any()
    ]
    assert [each.number for each in learnt.examples] == list(range(len(learnt.examples)))
    assert example.weight == 2 * len(own), "windows with a part of the answer have no right one"


def test_an_answer_that_no_window_holds_is_counted_and_not_learnt_as_none(encoder_folder):
    rows = [row(answer=TEXT[4:-4]), row(answer=None)]
    _, learnt, _ = fitted(encoder_folder, rows, max_length=24, stride=4)
    assert learnt.facts["answers_lost"] == 1 and "1 answers are in no window" in learnt.facts["notes"][0]
    assert set(learnt.rows.tolist()) == {1}, "every window of the first has a part of its answer"


@pytest.mark.parametrize(
    "answers",
    [
        [{"text": "the team", "answer_start": 21}],
        {"text": ["the team"], "answer_start": [21]},
        {"text": ["the team"]},
        "the team",
        ["the team"],
        '{"text": ["the team"], "answer_start": [21]}',
        '["the team"]',
        '[{"text": "the team", "answer_start": 21}]',
    ],
)
def test_answers_are_read_however_they_are_written(encoder_folder, answers):
    rows = [row() | {"answers": answers}]
    _, learnt, answered = fitted(encoder_folder, rows)
    _, usual, _ = fitted(encoder_folder, [row()])
    assert learnt.examples[0].target.tolist() == usual.examples[0].target.tolist()
    assert answered.examples[0].reference == '["the team"]'


def test_no_answer_is_an_empty_text_too(encoder_folder):
    task, _, answered = fitted(encoder_folder, [row() | {"answers": "goal"}, row(question="So?") | {"answers": ""}])
    assert task.unanswerable and answered.examples[1].reference == "[]"


def test_where_nothing_says_which_place_is_meant_the_first_is_taken_and_it_is_said(encoder_folder):
    _, learnt, _ = fitted(encoder_folder, [row() | {"answers": "the"}])
    assert "1 answers stand in several places" in learnt.facts["notes"][0]


def test_an_answer_in_brackets_is_no_list(encoder_folder):
    text = f"{TEXT} [1]"
    _, _, answered = fitted(encoder_folder, [row(text) | {"answers": "[1]"}])
    assert answered.examples[0].reference == '["[1]"]'


# What is refused


@pytest.mark.parametrize(
    "change, path, found",
    [
        ({"question": " "}, "task.question", "row 2 has an empty question"),
        ({"context": "\n"}, "task.context", "row 2 has an empty context"),
        ({"answers": "the teem"}, "task.answers", "row 2 has the answer 'the teem', which is not in its context"),
        (
            {"answers": {"text": ["the team"], "answer_start": [20]}},
            "task.answers",
            "row 2 has the answer 'the team' at character 20, where ' the tea' stands",
        ),
        ({"answers": {"text": ["the team"], "answer_start": [-1]}}, "task.answers", "at character -1"),
        ({"answers": {"text": ["the team"], "answer_start": [1, 2]}}, "task.answers", "1 answers and 2 places"),
        ({"answers": {"text": [""], "answer_start": [1]}}, "task.answers", "row 2 has the answer ''"),
        ({"answers": "{'text': ['the team']}"}, "task.answers", "which is not in its context"),
        ({"answers": {"words": ["team"]}}, "task.answers", "row 2 has answers that are neither text nor"),
    ],
)
def test_rows_that_cannot_serve_are_refused_by_name(refusal, tmp_path, change, path, found):
    from finetune.data.options import Source
    from finetune.data.sources import read

    file = tmp_path / "rows.jsonl"
    change = {"answers": row()["answers"]} | change
    rows = [row(), row(question="Who?") | change]
    if isinstance(change["answers"], str):
        rows[0]["answers"] = "goal"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    problem = refusal(task_of().check, read(Source(path=str(file)), "data.train", 0), "data.train")
    assert problem.path == path and found in problem.found and "data.train" in problem.found


def test_a_question_that_leaves_no_room_is_refused_by_its_row(encoder_folder, refusal):
    rows = [row(), row(question="Who " * 30)]
    problem = refusal(fitted, encoder_folder, rows, max_length=32)
    assert problem.path == "task.max_length" and "row 2 has a question that leaves" in problem.found


def test_a_decoder_is_refused(decoder_folder, refusal):
    from finetune.models import load_config

    options = QuestionAnswering.Options(type="question-answering")
    task = QuestionAnswering(options, config=lambda: load_config(ModelOptions(source=str(decoder_folder))))
    problem = refusal(task.check_config)
    assert problem.path == "model.source" and "use an encoder" in problem.advice


# Losses and predictions


def test_losses_are_those_of_transformers_own_class_over_places(encoder_folder):
    """Beginning and end, both by a softmax over the places where an answer may stand."""
    task, learnt, _ = fitted(encoder_folder, questions(9))
    model = model_for(encoder_folder, task)
    with torch.no_grad():
        losses = task.losses(model, task.collate(learnt.examples))
        for example, loss in zip(learnt.examples, losses, strict=True):
            found = model(input_ids=torch.tensor(example.inputs["input_ids"]).long()[None])
            places = torch.tensor(example.target & PLACE > 0)
            wanted = 0.0
            for mark, logits in ((START, found.start_logits), (END, found.end_logits)):
                where = int(np.argmax((example.target & mark)[example.target & PLACE > 0] > 0))
                wanted -= float(logits[0][places].log_softmax(0)[where])
            assert float(loss) == pytest.approx(wanted, rel=1e-4)


@pytest.fixture
def long_questions():
    """Texts in one, two and several windows."""
    rows = questions(12)
    for number, each in enumerate(rows):
        each["context"] = " ".join([each["context"], *[random.Random(number).choice(tiny.FILLER)] * (8 * number)])
    return rows


@pytest.mark.parametrize("side", ["left", "right"])
def test_predictions_do_not_depend_on_the_batch_or_the_side_of_padding(encoder_folder, long_questions, side):
    task, _, answered = fitted(encoder_folder, long_questions, max_length=40, stride=10)
    task.tokenizer.padding_side = side
    model, examples = model_for(encoder_folder, task), answered.examples
    assert len({len(each.document.starts) for each in examples}) > 2
    with torch.no_grad():
        together = task.predict(model, examples, task.collate(examples))
        losses = task.losses(model, task.collate(examples)).tolist()
        for example, found, loss in zip(examples, together, losses, strict=True):
            [alone] = task.predict(model, [example], task.collate([example]))
            assert alone.text == found.text and alone.text in example.document.text
            assert alone.margin == pytest.approx(found.margin, abs=1e-5)
            assert alone.loss == pytest.approx(found.loss, rel=1e-5) == pytest.approx(loss, rel=1e-5)


def test_the_best_window_is_that_which_the_model_alone_prefers(encoder_folder, long_questions):
    """Each window shown by itself, and each span of it looked at."""
    task, _, answered = fitted(encoder_folder, long_questions, max_length=40, stride=10, max_answer_length=5)
    model = model_for(encoder_folder, task)
    for example in answered.examples:
        best = (-np.inf, "")
        parts = [
            example.parts(values) for values in (example.inputs["input_ids"], example.target, example.document.places)
        ]
        with torch.no_grad():
            for ids, target, places in zip(*parts, strict=True):
                found = model(input_ids=torch.tensor(ids).long()[None])
                start, end = found.start_logits[0], found.end_logits[0]
                spots = [spot for spot in range(1, len(ids)) if target[spot] & PLACE]
                for one in spots:
                    for other in [spot for spot in spots if one <= spot < one + 5]:
                        margin = float(start[one] + end[other] - start[0] - end[0])
                        text = example.document.text[places[one][0] : places[other][1]].strip()
                        best = max(best, (margin, text), key=lambda pair: pair[0])
            [said] = task.predict(model, [example], task.collate([example]))
        assert said.margin == pytest.approx(best[0], abs=1e-4) and said.text == best[1]


def test_of_equally_likely_spans_the_shortest_and_first_is_taken():
    scores, marks = torch.zeros(1, 6, 2), torch.tensor([[PLACE, 0, PLACE, PLACE, PLACE, 0]])
    best = best_spans(scores, marks, 3)
    assert (best.start[0], best.end[0], best.margin[0]) == (2, 2, 0)
    scores[0, 4, 0] = scores[0, 2, 1] = 9.0  # an end before its beginning is none
    best = best_spans(scores, marks, 3)
    assert best.margin[0] == 9 and best.start[0] <= best.end[0]
    scores[0, 2, 0] = scores[0, 4, 1] = 20.0
    assert (best_spans(scores, marks, 3).start[0], best_spans(scores, marks, 3).end[0]) == (2, 4)
    assert best_spans(scores, marks, 2).margin[0] == 29, "three tokens are more than may be"


# Decisions


def test_the_threshold_is_chosen_by_validation_predictions(encoder_folder):
    rows = [row(), row(answer=None, question="Why?"), row(question="Whose?")]
    task, _, answered = fitted(encoder_folder, rows, validation=rows)
    said = [Prediction("the team", 1.0, margin=-1.0), Prediction("goal", 1.0, margin=-2.0)]
    said.append(Prediction("the team", 1.0, margin=-1.5))
    decision = task.decide(answered.examples, said)
    assert decision == {"threshold": -1.75}
    assert [each.text for each in task.decided(said, decision)] == ["the team", "", "the team"]
    assert [each.text for each in task.decided(said, {})] == ["", "", ""], "no answer where it is the likeliest"
    assert [each.margin for each in task.decided(said, {})] == [-1.0, -2.0, -1.5]


def test_where_all_training_questions_have_an_answer_one_is_always_given(encoder_folder):
    task, learnt, _ = fitted(encoder_folder, [row()])
    assert not task.decides and task.majority(learnt.examples) is None
    assert task.decided([Prediction("goal", 1.0, margin=-9.0)], {})[0].text == "goal"
    other = task.encode(data_of([row(answer=None)]), "data.test", training=False)
    assert "the model always gives one" in other.notes[0]


def test_silence_is_what_has_to_be_beaten_and_its_threshold_needs_validation(encoder_folder):
    rows = [row(), row(question="Which?"), row(answer=None, question="Why?")]
    task, learnt, answered = fitted(encoder_folder, rows)
    assert task.decides and task.majority(answered.examples) == pytest.approx(1 / 3)
    assert "no validation split" in learnt.notes[0]
    assert not fitted(encoder_folder, rows, validation=rows)[1].notes
