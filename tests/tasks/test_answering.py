"""Answers: drawn by one's own example alone, ended by a text, and found by a pattern."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune.core.errors import InputError
from finetune.core.examples import Prediction
from finetune.evaluate.metrics import score
from finetune.evaluate.predict import table_of
from finetune.models import ModelOptions, load_tokenizer
from finetune.tasks.answering import AnswerOptions, SamplingOptions, as_number, cut_at, tokens_near
from finetune.tasks.batching import Batching
from finetune.tasks.causal.generation import Sampling, answers
from finetune.tasks.chat import Chat
from finetune.tasks.messages import mistake_in
from tests import tiny

GSM8K = r"#### (-?[\d,.]+)"


# What is found in a text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2 + 2 = 4\n#### 4", "4"),
        ("#### 3, no:\n#### 1,250", "1,250"),
        ("#### 7.", "7."),
        ("it is 4", ""),
        ("", ""),
    ],
)
def test_the_last_match_is_the_answer(text, found):
    assert AnswerOptions(pattern=GSM8K).find(text) == found


def test_the_first_group_that_took_part_is_the_answer_or_the_whole_match():
    assert AnswerOptions(pattern=r"(?:#### (\d+)|boxed\{(\d+)\})").find("boxed{12}") == "12"
    assert AnswerOptions(pattern=r"\b[A-D]\b").find("A or B") == "B"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,250", "1250"),
        ("$1,250.00", "1250"),
        ("7.", "7"),
        ("0.50", "0.5"),
        ("-0", "0"),
        ("1e3", "1000"),
        ("nan", ""),
        ("inf", ""),
        (".", ""),
        ("1.2.3", ""),
        ("four", ""),
    ],
)
def test_numbers_are_written_in_one_way(text, number):
    assert as_number(text) == number


@given(st.integers(-(10**12), 10**12), st.integers(0, 3))
def test_how_a_number_is_written_does_not_matter(value, zeros):
    answer = AnswerOptions(pattern=GSM8K, numbers=True)
    behind = f".{'0' * zeros}" if zeros else ""
    assert answer.find(f"so\n#### {value:,}{behind}") == answer.find(f"#### {value}") == str(value)


@pytest.mark.parametrize("pattern", ["(", "[a", "", "x*", "(a|)"])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(ValidationError, match="pattern"):
        AnswerOptions(pattern=pattern)


# Where an answer ends


@pytest.mark.parametrize(
    ("text", "stops", "left"),
    [
        ("one\n\ntwo", ["\n\n"], "one"),
        ("one two", ["three"], "one two"),
        ("a Q: b A: c", ["A:", "Q:"], "a"),
        ("Q: b", ["Q:"], ""),
        ("one", [], "one"),
    ],
)
def test_a_text_is_cut_at_the_first_stop(text, stops, left):
    assert cut_at(text, stops) == left


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=3), max_size=3))
def test_nothing_that_stops_is_left(text, stops):
    left = cut_at(text, stops)
    assert text.startswith(left) and not any(stop in left for stop in stops)


def test_a_stop_has_no_more_tokens_than_bytes():
    assert tokens_near(["\n", "é!"]) >= 3


# How a token is drawn


# No two alike: of ties at the end of top_k transformers keeps all, and we keep k.
logits = st.lists(st.lists(st.floats(-8, 8, width=32), min_size=9, max_size=9, unique=True), min_size=1, max_size=4)


@given(logits, st.floats(0.2, 3), st.none() | st.integers(1, 12), st.floats(0.05, 1))
def test_probabilities_are_those_of_transformers(rows, temperature, top_k, top_p):
    """Each token is drawn by as large a share of the numbers from 0 to 1."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    scores = torch.tensor(rows)
    wanted = TemperatureLogitsWarper(temperature)(None, scores.double())
    wanted = TopKLogitsWarper(top_k)(None, wanted) if top_k else wanted
    wanted = TopPLogitsWarper(top_p)(None, wanted) if top_p < 1 else wanted
    wanted = wanted.softmax(-1)
    even = torch.arange(0, 1, 1 / 500, dtype=torch.float64) + 1 / 1000
    sampling = Sampling(np.zeros((1, 1)), temperature, top_k, top_p)
    for row, shares in zip(scores, wanted, strict=True):
        chosen = sampling.choose(row.expand(len(even), -1), even)
        found = torch.bincount(chosen, minlength=9) / len(even)
        # Where the likeliest have top_p together but for rounding, one more or less is among them.
        assert (found - shares).abs().max() < 0.01 or (top_p < 1 and _near(row, temperature, top_k, top_p))


def _near(row, temperature, top_k, top_p):
    falling = (row.double() / temperature).sort(descending=True).values[: top_k or None].softmax(-1)
    return bool(((falling.cumsum(-1) - top_p).abs() < 1e-6).any()) or bool((falling.diff().abs() < 1e-9).any())


def test_the_ends_of_the_numbers_draw_what_can_be_drawn():
    scores = torch.tensor([[0.0, 1.0, -torch.inf, 2.0, -torch.inf]] * 2)
    ends = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    assert Sampling(np.zeros((2, 1)), 1.0, None, 1.0).choose(scores, ends).tolist() == [0, 3]
    assert Sampling(np.zeros((2, 1)), 1.0, 1, 1.0).choose(scores, ends).tolist() == [3, 3]


def test_draws_are_an_examples_own():
    sampling = SamplingOptions()
    found = sampling.draws([4, 0, 4], 5)
    assert found.shape == (3, 5) and (found >= 0).all() and (found < 1).all()
    assert (found[0] == found[2]).all() and (found[0] != found[1]).all()
    assert (found[0] != SamplingOptions(seed=1).draws([4], 5)[0]).all()
    assert (sampling.draws([4], 3)[0] == found[0, :3]).all()
    many = sampling.draws(range(200), 50)
    assert many.mean() == pytest.approx(0.5, abs=0.01) and many.var() == pytest.approx(1 / 12, abs=0.002)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("temperature", 0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", 0),
    ],
)
def test_what_cannot_be_drawn_by_is_refused(name, wrong):
    with pytest.raises(ValidationError, match=name):
        SamplingOptions(**{name: wrong})


# In the task


def asked(folder, **options):
    """A chat task, prompts of all lengths, and the model."""
    from transformers import AutoModelForCausalLM

    said = {"type": "chat", "prompt": "prompt", "completion": "completion", "max_new_tokens": 12, **options}
    task = Chat(Chat.Options.model_validate(said))
    texts = [text for text, _ in tiny.sentences(6)]
    data = tiny.dataset(prompt=texts, completion=[f"it is so\n#### {number}" for number in range(6)])
    task.fit(tiny.splits(data), load_tokenizer(ModelOptions(source=str(folder))))
    task.check(data, "data.test")
    return (
        task,
        task.encode(data, "data.test", training=False).examples,
        AutoModelForCausalLM.from_pretrained(folder).eval(),
    )


def said(task, model, examples, size=6):
    found = []
    for start in range(0, len(examples), size):
        found += task.generate(model, examples[start : start + size], torch.device("cpu"))
    return found


def test_right_answers_that_a_stop_would_end_are_counted_and_told(decoder_folder):
    options = {"type": "chat", "prompt": "prompt", "completion": "completion"}
    data = tiny.dataset(prompt=["a", "b", "c"], completion=["one\n#### 1", "2", " #### 3"])

    def noted(**more):
        task = Chat(Chat.Options.model_validate({**options, **more}))
        task.fit(tiny.splits(data), load_tokenizer(ModelOptions(source=str(decoder_folder))))
        assert not task.encode(data, "data.train", training=True).notes, "what is learnt ends by itself"
        return task.encode(data, "data.test", training=False).notes

    assert not noted()
    [note] = noted(stop=["\n"])
    assert note.startswith("data.test: 1 right answers have a text of task.stop in them")
    [note] = noted(stop=["####"])
    assert note.startswith("data.test: 2 right answers")
    assert not noted(stop=["\n"], answer={"pattern": "one|2|3"}), "what is compared is found before it"


SAMPLED = {"temperature": 0.9, "top_p": 0.95}


def test_what_is_drawn_depends_on_nothing_but_the_example(decoder_folder):
    task, examples, model = asked(decoder_folder, sampling=SAMPLED)
    whole = said(task, model, examples)
    assert len(set(whole)) == 6, "all of them say something else"
    torch.manual_seed(5)
    assert [said(task, model, examples, size) for size in (1, 4)] == [whole, whole]
    assert said(task, model, list(examples)[::-1]) == whole[::-1]
    alone = task.sharing(Batching.PADDED, Batching.SAME_LENGTH)
    assert said(alone, model, examples) == whole
    another, *_ = asked(decoder_folder, sampling={**SAMPLED, "seed": 1})
    assert said(another, model, examples) != whole


def test_the_likeliest_of_one_is_what_is_said_without_drawing(decoder_folder):
    task, examples, model = asked(decoder_folder)
    one, *_ = asked(decoder_folder, sampling={"top_k": 1})
    assert said(one, model, examples) == said(task, model, examples)


def test_an_answer_ends_where_it_is_told_to(decoder_folder):
    task, examples, model = asked(decoder_folder, sampling=SAMPLED)
    whole = said(task, model, examples)
    stop = next(text for text in whole if len(text) > 6)[3:5]
    short, *_ = asked(decoder_folder, sampling=SAMPLED, stop=[stop])
    steps, forward = [], model.forward

    def counted(*arguments, **named):
        steps.append(1)
        return forward(*arguments, **named)

    model.forward = counted
    for size in (1, 6):
        assert said(short, model, examples, size) == [cut_at(text, [stop]) for text in whole]
    place = next(place for place, text in enumerate(whole) if stop in text)
    steps.clear()
    said(short, model, examples[place : place + 1])
    assert len(steps) < 12, "nothing is generated behind it"


def test_answers_are_compared_and_texts_are_kept(decoder_folder):
    metrics = ["exact_match", "rouge_l", "answered"]
    task, examples, _ = asked(decoder_folder, answer={"pattern": GSM8K, "numbers": True}, metrics=metrics)
    texts = ["#### 0", "I say\n#### 1.0", "#### 3", "no idea", "it is so\n#### 4", "#### 1\n#### 5."]
    found = table_of(task, examples, [Prediction(text, 1.0) for text in texts])
    assert found.prediction == texts and found.reference[1] == "it is so\n#### 1"
    assert found.extracted == ["0", "1", "3", "", "4", "5"] and found.extracted_reference == list("012345")
    scores = score(found, metrics)
    assert (scores["exact_match"], scores["answered"]) == (4 / 6, 5 / 6)
    plain, *_ = asked(decoder_folder)
    whole = table_of(plain, examples, [Prediction(text, 1.0) for text in texts])
    assert whole.extracted is None and score(whole, ["exact_match", "rouge_l"]) == {
        "exact_match": 1 / 6,
        "rouge_l": scores["rouge_l"],
    }


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"pattern": "=> (.*)"}, "row 1: nothing in the right answer matches"),
        ({"pattern": "it is (so)", "numbers": True}, "is no number"),
    ],
)
def test_a_right_answer_without_one_is_refused_with_its_row(decoder_folder, answer, said):
    with pytest.raises(InputError, match=r"data\.test, row 1") as caught:
        asked(decoder_folder, answer=answer)
    [problem] = caught.value.problems
    assert problem.path == "task.answer.pattern" and said in problem.found


def test_what_is_only_learnt_may_be_without_an_answer(decoder_folder):
    task, *_ = asked(decoder_folder)
    task.options = task.options.model_copy(update={"answer": AnswerOptions(pattern="=> (.*)")})
    assert len(task.encode(tiny.dataset(prompt=["a"], completion=["b"]), "data.train", training=True).examples) == 1


# Conversations


def learnt(folder, talk, **options):
    task = Chat(Chat.Options(type="chat", messages="messages", **options))
    data = tiny.dataset(messages=[talk])
    task.fit(tiny.splits(data), load_tokenizer(ModelOptions(source=str(folder))))
    task.check(data, "data.train")
    [example] = task.encode(data, "data.train", training=True).examples
    return task.tokenizer.decode(example.target[example.target >= 0])


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


TALK = turns(("user", "a bank"), ("assistant", "money"), ("user", "a cup"), ("assistant", "sport"))


def test_all_turns_are_learnt_or_the_last_alone(decoder_folder):
    assert learnt(decoder_folder, TALK) == "money<|im_end|>sport<|im_end|>"
    assert learnt(decoder_folder, TALK, learn="last") == "sport<|im_end|>"
    open_ended = [*TALK, *turns(("user", "and?"))]
    assert learnt(decoder_folder, open_ended, learn="last") == "sport<|im_end|>"
    with pytest.raises(ValidationError, match="learn: last is about conversations"):
        Chat.Options(type="chat", prompt="a", completion="b", learn="last")


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        (turns(("user", "a"), ("asistant", "b"), ("assistant", "c")), "role 'asistant'"),
        (turns(("user", " "), ("assistant", "c")), "turn of the user's in which there is nothing, turn 1"),
        (turns(("user", "a"), ("assistant", ""), ("user", "b"), ("assistant", "c")), "nothing, turn 2"),
    ],
)
def test_mistakes_in_conversations_are_refused_with_their_row(decoder_folder, talk, said):
    with pytest.raises(InputError, match=r"data\.train, row 1") as caught:
        learnt(decoder_folder, talk)
    assert said in str(caught.value)


def test_what_is_no_number_in_the_place_of_words_is_refused():
    assert "not text" in mistake_in(turns(("user", float("nan")), ("assistant", "c")))


def test_a_role_that_the_template_speaks_of_is_known(tmp_path):
    folder = tiny.save_decoder(tmp_path)
    template = folder / "chat_template.jinja"
    template.write_text(f"{{# critic #}}{template.read_text(encoding='utf-8')}", encoding="utf-8")
    assert learnt(folder, turns(("user", "a"), ("critic", "b"), ("assistant", "c"))) == "c<|im_end|>"


# What it costs


@pytest.mark.parametrize("save", [tiny.save_decoder, tiny.save_moe])
def test_no_product_of_several_prompts_is_of_rows_that_lie_apart(save, tmp_path):
    """torch multiplies each of such rows with a copy of all weights, which of an output layer is a gigabyte."""
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode
    from transformers import AutoModelForCausalLM

    model, apart = AutoModelForCausalLM.from_pretrained(save(tmp_path / "model")).eval(), []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is functional.linear and args[0].ndim > 2 and not args[0].is_contiguous():
                apart.append(tuple(args[0].shape))
            return func(*args, **(kwargs or {}))

    prompts = [np.arange(8, 8 + length) for length in (5, 5, 9)]
    with torch.inference_mode(), Watch():
        found = answers(model, prompts, 0, [1], 3, Batching.PADDED)
    assert len(found) == 3 and not apart
    assert not model.get_output_embeddings()._forward_pre_hooks
