"""Chat templates of many shapes: what is learnt is what the model has to say after what asks for it, and no more."""

from collections import Counter
from datetime import date, datetime
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.evaluate import metrics
from finetune.tasks.control import special_tokens
from finetune.tasks.conversation import IGNORED, tokenise, words_in
from finetune.tasks.templates import Template
from tests.tasks.templates import OTHERS, made, tokenizer_with

TODAY = date(2031, 3, 4)
CALL = {"type": "function", "function": {"name": "score", "arguments": {"team": 3, "of": "cup"}}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", **CALL}]}
TOOL = {"type": "function", "function": {"name": "score", "description": "goals", "parameters": {"type": "object"}}}


def user(text):
    return {"role": "user", "content": text}


def answer(text, **keys):
    return {"role": "assistant", "content": text, **keys}


TALK = [user("the bank of the team"), answer("money, and a  match"), user("a rocket"), answer("space\n\nor an orbit")]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    found = {name: made(tmp_path_factory.mktemp(name), name) for name in OTHERS}
    return {name: (tokenizer, closing, Template(tokenizer, TODAY)) for name, (tokenizer, closing) in found.items()}


def encoded(template, messages, tools=None, counts=None):
    talk = template.conversation(messages, tools, counts)
    [tokens] = tokenise([talk], template.tokenizer, add_special=False, marker=template.of_others)
    return talk, tokens


def runs(tokens, tokenizer):
    """The texts of the runs of learnt tokens, and of all that comes before each."""
    assert ((tokens.labels == IGNORED) | (tokens.labels == tokens.ids)).all()
    inside = np.flatnonzero(tokens.labels != IGNORED)
    found = np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1)
    return [(tokenizer.decode(tokens.ids[: run[0]]), tokenizer.decode(tokens.ids[run])) for run in found]


def plainly(tokenizer, messages, tools=None, **asked):
    """What a user of plain transformers sees on that day."""
    with patch("transformers.utils.chat_template_utils.datetime") as clock:
        clock.now.return_value = datetime.combine(TODAY, datetime.min.time())
        return tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **asked)


def asking(name, tokenizer, messages, tools=None):
    """The text that asks for an answer to ``messages``."""
    return plainly(tokenizer, messages, tools, add_generation_prompt=True) + (
        "<|im_start|>assistant\n" if name == "headless" else ""
    )


def said(tokenizer, tokens, frame, ends):
    """What would be scored, were the last answer generated as it is learnt."""
    begin = len(tokens.prompt)
    return words_in(tokens.ids[begin:].tolist(), frame, tokenizer, ends)


def check(name, found, messages, tools=None, learnt=None):
    """All that has to hold of a conversation, whose ``learnt`` turns (all) are learnt."""
    tokenizer, closing, template = found
    counts = Counter()
    talk, tokens = encoded(template, messages, tools, counts)
    turns = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
    learnt = turns if learnt is None else learnt
    # The joined conversation is what plain transformers makes of it, up to what closes the last answer.
    whole = plainly(tokenizer, messages[: turns[-1] + 1], tools)
    assert tokenizer(talk.text, add_special_tokens=False).input_ids == tokens.ids.tolist()
    assert (whole + closing).startswith(talk.text) and whole.startswith(talk.text.removesuffix(closing))
    for turn, (before, text) in zip(learnt, runs(tokens, tokenizer), strict=True):
        asked = asking(name, tokenizer, messages[:turn], tools)
        assert before == asked
        # What the template shows after the words that ask for this answer, when it is the last one.
        shown = plainly(tokenizer, messages[: turn + 1], tools).removeprefix(asked)
        assert (
            text == shown[: shown.index(closing)].rstrip() + closing if closing in shown else shown.rstrip() + closing
        )
    assert tokenizer.decode(tokens.prompt) == asking(name, tokenizer, messages[: turns[-1]], tools)
    closes = tokenizer.convert_tokens_to_ids(closing)
    reference = talk.last_answer(special_tokens(tokenizer))
    assert said(tokenizer, tokens, talk.frame, [closes]) == reference
    return talk, reference, counts


SEVERAL = sorted(set(OTHERS) - {"opened", "thinking", "plain"})


@pytest.mark.parametrize("name", SEVERAL)
def test_every_answer_is_learnt_as_the_model_has_to_say_it(tokenizers, name):
    _, reference, counts = check(name, tokenizers[name], TALK)
    assert reference == TALK[-1]["content"] and not +counts


@pytest.mark.parametrize("name", [*SEVERAL, "thinking"])
def test_a_single_answer(tokenizers, name):
    _, reference, counts = check(name, tokenizers[name], TALK[:2])
    assert reference == TALK[1]["content"] and not +counts


# Thoughts, and words of the template's own


THOUGHT = answer("an orbit", reasoning_content="far away")


def test_an_empty_think_block_is_learnt_and_does_not_count(tokenizers):
    talk, reference, _ = check("thinking", tokenizers["thinking"], TALK[:2])
    assert reference == TALK[1]["content"] and talk.frame.lead == "<think>\n\n</think>\n\n"
    assert talk.text.endswith("<think>\n\n</think>\n\nmoney, and a  match<|im_end|>")
    for wrong in ("<think>\n\n</think>\n\ntax", "<think>\nmoney, and a  match\n</think>\n\ntax", "tax"):
        assert spoken(tokenizers["thinking"][0], wrong, talk.frame) == "tax"
    assert metrics.scores_of("rouge_l", ["tax"], [reference]).tolist() == [0.0]
    # Thoughts without an end are no answer, though the answer's words may be among them.
    assert spoken(tokenizers["thinking"][0], "<think>\nmoney, and a  match", talk.frame) == ""
    assert spoken(tokenizers["thinking"][0], "a tag </think> ends it", talk.frame) == "a tag </think> ends it"


def spoken(tokenizer, text, frame, end="<|im_end|>"):
    ids = tokenizer(text + end, add_special_tokens=False).input_ids
    return words_in([*ids, tokenizer.pad_token_id], frame, tokenizer, [tokenizer.convert_tokens_to_ids(end)])


def test_thoughts_are_learnt_where_they_are_shown(tokenizers):
    talk, reference, counts = check("thinking", tokenizers["thinking"], [user("a rocket"), THOUGHT])
    assert reference == "an orbit" and "<think>\nfar away\n</think>" in talk.text and not +counts
    inline = answer("<think>far away</think>an orbit")
    talk, reference, counts = check("thinking", tokenizers["thinking"], [user("a rocket"), inline])
    assert reference == "an orbit" and counts == {"answers_changed": 1}


def test_earlier_answers_that_lose_their_thoughts_are_read_and_counted(tokenizers):
    messages = [user("a"), THOUGHT, user("b"), answer("c"), user("d"), THOUGHT]
    talk, _, counts = check("thinking", tokenizers["thinking"], messages, learnt=[5])
    assert counts == {"answers_not_learnt": 2} and talk.text.count("far away") == 1
    calling = [user("a"), CALLED, {"role": "tool", "content": "3"}, THOUGHT]  # all of them after the last user
    _, _, counts = check("thinking", tokenizers["thinking"], calling)
    assert not +counts


def test_an_answer_begins_where_the_thoughts_were_opened(tokenizers, refusal):
    talk, reference, _ = check("opened", tokenizers["opened"], [user("a rocket"), THOUGHT])
    assert reference == "an orbit" and talk.text.endswith("<think>\nfar away\n</think>\nan orbit<eos>")
    assert spoken(tokenizers["opened"][0], "near by\n</think>\ntax", talk.frame, "<eos>") == "tax"
    assert spoken(tokenizers["opened"][0], "an orbit", talk.frame, "<eos>") == ""
    problem = refusal(tokenizers["opened"][2].conversation, TALK[:2])
    assert "without the words that ask for it" in problem.found and "reasoning" in problem.advice


def test_words_around_an_answer_do_not_count(tokenizers):
    talk, _, _ = check("framed", tokenizers["framed"], TALK[:2])
    assert (talk.frame.lead, talk.frame.tail) == ("Answer: ", " (end of answer)")
    assert spoken(tokenizers["framed"][0], "Answer: tax (end of answer)", talk.frame, "<eos>") == "tax"
    assert spoken(tokenizers["framed"][0], "tax", talk.frame, "<eos>") == "tax"


def test_a_heading_is_no_part_of_the_answer(tokenizers):
    for text in ("a", "assistant", "<", "A"):  # the first words of the heading too
        talk, reference, _ = check("headless", tokenizers["headless"], [user("x"), answer(text)])
        assert reference == text and not talk.frame and talk.text[slice(*talk.answers[-1])] == f"{text}<|im_end|>"


def test_what_a_template_trims_is_counted(tokenizers):
    _, reference, counts = check("trimming", tokenizers["trimming"], [user("x"), answer(" a bank \n")])
    assert reference == "a bank" and counts == {"answers_changed": 1}
    _, _, counts = check("dated", tokenizers["dated"], [user("x"), {**CALLED, "content": "let me see"}])
    assert counts == {"answers_changed": 1}


# Calls and tools


def test_a_call_is_learnt_in_the_form_that_the_template_takes(tokenizers):
    as_text = {"id": "c1", "type": "function", "function": {"name": "score", "arguments": '{"team": 3, "of": "cup"}'}}
    wanted = {
        "thinking": '<tool_call>\n{"name": "score", "arguments": {"team": 3, "of": "cup"}}\n</tool_call>',
        "dated": "score team=3 of=cup",
        "calling": 'c1 score {"team": 3, "of": "cup"}',
    }
    for call in (CALLED["tool_calls"][0], as_text):
        for name, text in wanted.items():
            tokenizer, closing, template = tokenizers[name]
            talk, tokens = encoded(template, [user("x"), answer("", tool_calls=[call])])
            assert talk.last_answer(special_tokens(tokenizer)) == text
            [(_, learnt)] = runs(tokens, tokenizer)
            assert learnt.endswith(f"{text}{closing}")
            assert said(tokenizer, tokens, talk.frame, [tokenizer.convert_tokens_to_ids(closing)]) == text


def test_a_null_that_is_meant_reaches_the_call(tokenizers):
    call = {"type": "function", "function": {"name": "score", "arguments": {"team": None}}}
    talk, _ = encoded(tokenizers["thinking"][2], [user("x"), answer("", tool_calls=[call])])
    assert '"arguments": {"team": null}' in talk.text


def test_tools_are_shown(tokenizers, refusal):
    for name in ("dated", "calling"):
        talk, _, _ = check(name, tokenizers[name], TALK, tools=[TOOL])
        assert '"description": "goals"' in talk.text
    problem = refusal(tokenizers["chatml"][2].conversation, TALK, [TOOL])
    assert "'tools'" in problem.found and "task.tools" in problem.advice


@pytest.mark.parametrize(
    "name, messages, key",
    [
        ("chatml", [user("x"), CALLED], "tool_calls"),
        ("chatml", [user("x"), answer("a", reasoning_content="b")], "reasoning_content"),
        ("chatml", [user("x"), answer("a"), user("y"), answer("b", thinking="c")], "thinking"),
        ("chatml", [{**user("x"), "name": "Ann"}, answer("a")], "name"),
        (
            "thinking",
            [user("x"), CALLED, {"role": "tool", "content": "3", "tool_call_id": "c1"}, answer("a")],
            "tool_call_id",
        ),
        ("headless", [user("x"), answer("a", audio={"id": 3})], "audio"),
        ("plain", [user("x"), answer("a", score=0.5)], "score"),
    ],
)
def test_a_key_that_the_template_does_not_read_is_refused_by_name(tokenizers, refusal, name, messages, key):
    problem = refusal(tokenizers[name][2].conversation, messages)
    assert (
        problem.path == "task.template" and f"'{key}'" in problem.found and f"task.drop_keys: [{key}]" in problem.advice
    )


def test_a_key_that_says_nothing_is_none(tokenizers):
    empty = {"tool_calls": [], "name": "", "refusal": None, "prefix": False}
    check("chatml", tokenizers["chatml"], [{**user("x"), "name": ""}, answer("a", **empty)])


def test_thoughts_of_an_earlier_answer_are_read(tokenizers):
    """The template shows them until the conversation goes on, so that it is not refused for not knowing them."""
    check("thinking", tokenizers["thinking"], [user("a"), THOUGHT, user("b"), answer("c")], learnt=[3])


def test_messages_that_a_template_leaves_out_are_refused(tmp_path, refusal):
    mute = "{% for m in messages %}{% if m.role != 'system' %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endif %}"
    mute += "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    template = Template(tokenizer_with(tmp_path, mute), TODAY)
    problem = refusal(template.conversation, [{"role": "system", "content": "be short"}, *TALK[:2]])
    assert "'content'" in problem.found and "role 'system'" in problem.found


# Content in parts


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


def test_content_in_parts(tokenizers, refusal):
    whole = [user("a bank of"), answer("money")]
    cut = [{"role": "user", "content": parts("a ban", "k of")}, {"role": "assistant", "content": parts("mon", "ey")}]
    for name in ("parts", "chatml", "trimming", "gemma", "headless", "thinking"):
        template = tokenizers[name][2]
        assert encoded(template, cut)[1].ids.tolist() == encoded(template, whole)[1].ids.tolist()
        assert template.conversation(cut).last_answer(template.special) == "money"
    image = [{"role": "user", "content": [{"type": "image"}, *parts("what?")]}, answer("a cup")]
    assert "<image>what?" in tokenizers["parts"][2].conversation(image).text
    assert "content in parts" in refusal(tokenizers["chatml"][2].conversation, image).found
    image[0]["content"][0]["type"] = "audio"
    assert "'content of type audio'" in refusal(tokenizers["parts"][2].conversation, image).found


# What is learnt


@pytest.mark.parametrize("off", [{"weight": 0}, {"weight": 0.0}, {"train": False}])
@pytest.mark.parametrize("name", ["chatml", "headless", "mistral", "dated"])
def test_an_answer_may_be_read_only(tokenizers, name, off):
    messages = [TALK[0], {**TALK[1], **off}, TALK[2], {**TALK[3], "weight": 1}]
    _, tokens = encoded(tokenizers[name][2], messages)
    _, everything = encoded(tokenizers[name][2], TALK)
    assert tokens.ids.tolist() == everything.ids.tolist()
    assert len(runs(tokens, tokenizers[name][0])) == 1
    # After the last answer that is learnt comes nothing.
    _, short = encoded(tokenizers[name][2], [*TALK[:3], {**TALK[3], **off}])
    assert short.ids.tolist() == encoded(tokenizers[name][2], TALK[:2])[1].ids.tolist()


# The date


def test_a_template_prints_the_date_of_the_study(tokenizers, tmp_path):
    tokenizer, _, template = tokenizers["dated"]
    assert "Today is 4 March 2031.\n" in template.conversation(TALK).text
    for source, shown in {
        "{{ strftime_now('%Y-%m-%d %H:%M %A, %B %d, %-d/%-m/%y') }}": "2031-03-04 00:00 Tuesday, March 04, 4/3/31",
        "{% set form = '%b %' ~ 'd' %}{% if strftime_now is defined %}{{ strftime_now(form) }}{% endif %}": "Mar 04",
        "{% macro day() %}{{ strftime_now('%j') }}{% endmacro %}{{ day() }}": "063",
        "{{ date_string }}": "04 Mar 2031",
        "{% if not date_string is defined %}{% set date_string = 'May' %}{% endif %}{{ date_string }}": "May",
        "{% if date_string is defined %}{{ date_string }}{% else %}{{ strftime_now('%Y') }}{% endif %}": "2031",
    }.items():
        tokenizer = tokenizer_with(tmp_path / str(len(source)), source + OTHERS["mistral"][0], ["[INST]", "[/INST]"])
        assert Template(tokenizer, TODAY).conversation(TALK).text.startswith(f"{shown}<bos>[INST]"), source
        assert (
            Template(tokenizer, TODAY).conversation(TALK).text
            != Template(tokenizer, date(2030, 1, 2)).conversation(TALK).text
            or shown == "May"
        )


# Any conversation


@given(
    st.sampled_from(SEVERAL),
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Co"]), min_size=1), min_size=2, max_size=6
    ),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_words(tokenizers, name, texts):
    words = [text.strip() for text in texts[: len(texts) // 2 * 2]]
    if not all(words):
        return
    messages = [(answer if turn % 2 else user)(text) for turn, text in enumerate(words)]
    _, reference, counts = check(name, tokenizers[name], messages)
    assert reference == words[-1] and not +counts
