"""Conversations: which tokens are answers, under the templates of well-known models."""

from collections import Counter
from datetime import date

import numpy as np
import pytest
from tokenizers import pre_tokenizers, processors

from finetune.tasks.control import special_tokens
from finetune.tasks.conversation import IGNORED, joined, tokenise
from finetune.tasks.messages import mistake_in
from finetune.tasks.templates import Template, told
from tests import tiny
from tests.tasks.templates import CHATML, FORGETFUL, GEMMA, PHI3, PLAIN, TEMPLATES, tokenizer_with

TODAY = date(2025, 1, 2)
USER = {"role": "user", "content": "the bank of the team"}
ANSWER = {"role": "assistant", "content": "money, and a  match"}
AGAIN = {"role": "user", "content": "a rocket"}
LAST = {"role": "assistant", "content": "space\n\nor an orbit"}


def render(messages, tokenizer):
    """The conversation's tokens, and the texts of its runs of learnt tokens."""
    talk = Template(tokenizer, TODAY).conversation(messages)
    [tokens] = tokenise([talk], tokenizer, add_special=False)
    return talk, tokens, learnt(tokens, tokenizer)


def learnt(tokens, tokenizer):
    assert ((tokens.labels == IGNORED) | (tokens.labels == tokens.ids)).all()
    inside = np.flatnonzero(tokens.labels != IGNORED)
    runs = np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1)
    return [tokenizer.decode(tokens.ids[run]) for run in runs]


@pytest.fixture(params=TEMPLATES)
def known(request, tmp_path):
    """A tokenizer with a well-known template, and what stands around an answer that is learnt."""
    template, special, end, closing, before = TEMPLATES[request.param]
    return tokenizer_with(tmp_path, template, special, end), before, closing


def test_the_answer_and_its_end_are_learnt_and_nothing_else(known):
    tokenizer, before, closing = known
    talk, tokens, texts = render([USER, ANSWER], tokenizer)
    assert texts == [before + ANSWER["content"] + closing]
    assert tokens.labels[-1] == tokenizer.convert_tokens_to_ids(closing)
    assert talk.last_answer(special_tokens(tokenizer)) == ANSWER["content"]


def test_the_prompt_is_what_a_server_would_send(known):
    tokenizer, _, _ = known
    for messages in ([USER, ANSWER], [USER, ANSWER, AGAIN, LAST]):
        _, tokens, _ = render(messages, tokenizer)
        asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True)["input_ids"]
        assert tokens.prompt.tolist() == asked
        assert tokens.ids[: len(asked)].tolist() == asked
        assert tokens.labels[len(asked)] != IGNORED


def test_every_answer_of_a_conversation_is_learnt(known):
    tokenizer, before, closing = known
    talk, _, texts = render([USER, ANSWER, AGAIN, LAST, USER], tokenizer)
    assert texts == [before + turn["content"] + closing for turn in (ANSWER, LAST)]
    assert talk.last_answer(special_tokens(tokenizer)) == LAST["content"]


def test_a_system_prompt_is_seen_and_not_learnt(tmp_path):
    tokenizer = tokenizer_with(tmp_path, CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_end|>")
    system = {"role": "system", "content": "sort by topic"}
    talk, _, texts = render([system, USER, ANSWER], tokenizer)
    assert "sort by topic" in talk.text
    assert texts == [ANSWER["content"] + "<|im_end|>"]


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_closing_token_that_is_not_the_end_token_is_enough(tmp_path, unnamed):
    tokenizer = tokenizer_with(tmp_path, GEMMA, ["<start_of_turn>", "<end_of_turn>"], "<eos>", unnamed)
    talk, _, _ = render([USER, ANSWER], tokenizer)
    assert talk.text.endswith("match<end_of_turn>")
    assert talk.last_answer(special_tokens(tokenizer)) == ANSWER["content"]


def test_the_end_token_is_learnt_where_it_is_also_the_padding(tmp_path):
    tokenizer = tokenizer_with(tmp_path, CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_end|>")
    tokenizer.pad_token = tokenizer.eos_token
    _, tokens, _ = render([USER, ANSWER], tokenizer)
    assert tokens.labels[-1] == tokenizer.pad_token_id


def test_an_answer_that_nothing_ends_gets_the_end_token(tmp_path):
    tokenizer = tokenizer_with(tmp_path, PLAIN)
    talk, tokens, texts = render([USER, ANSWER], tokenizer)
    assert texts == [ANSWER["content"] + "<eos>"]
    assert tokens.labels[-1] == tokenizer.eos_token_id
    assert talk.last_answer(special_tokens(tokenizer)) == ANSWER["content"]


def test_an_earlier_answer_that_the_template_rewrites_is_read_and_not_learnt(tmp_path):
    tokenizer = tokenizer_with(tmp_path, FORGETFUL, ["<|im_start|>", "<|im_end|>"], "<|im_end|>")
    thinking = {"role": "assistant", "content": "<think>hm</think>money"}
    counts = Counter()
    talk = Template(tokenizer, TODAY).conversation([USER, thinking, AGAIN, LAST], counts=counts)
    [tokens] = tokenise([talk], tokenizer, add_special=False)
    assert learnt(tokens, tokenizer) == [LAST["content"] + "<|im_end|>"] and "hm" not in talk.text
    assert counts["answers_not_learnt"] == 1 and "1 earlier answers" in told(counts, "data.train")[0]
    for messages in ([USER, thinking], [USER, ANSWER, AGAIN, thinking]):
        talk, _, texts = render(messages, tokenizer)
        assert talk.last_answer(special_tokens(tokenizer)) == thinking["content"]
        assert len(texts) == len(messages) // 2


def test_what_a_template_itself_refuses_is_told(tmp_path, refusal):
    tokenizer = tokenizer_with(tmp_path, GEMMA, ["<start_of_turn>", "<end_of_turn>"])
    system = {"role": "system", "content": "sort by topic"}
    problem = refusal(Template(tokenizer, TODAY).conversation, [system, USER, ANSWER])
    assert problem.path == "task.template" and "System role not supported" in problem.found
    assert "system, user" in problem.found


def test_an_empty_answer_keeps_its_end(tmp_path):
    template, special, end, closing, _ = TEMPLATES["llama3"]
    tokenizer = tokenizer_with(tmp_path, template, special, end)
    _, _, texts = render([USER, ANSWER, AGAIN, {"role": "assistant", "content": ""}], tokenizer)
    assert texts == [ANSWER["content"] + closing, closing]
    phi = tokenizer_with(tmp_path, PHI3, TEMPLATES["phi3"][1])
    assert render([USER, {"role": "assistant", "content": ""}], phi)[2] == ["<|end|>"]


# Prompt and completion without a template


def joint(prompt, answer, tokenizer):
    [tokens] = tokenise([joined(prompt, answer, tokenizer)], tokenizer, add_special=True)
    return tokens


@pytest.mark.parametrize(
    "prompt, answer",
    [
        ("the team: ", "sport"),  # the tokenizer would like to join the space to the word
        ("the team:", " sport"),
        ("the team\n", "\nsport"),
        ("the te", "am"),
        ("the team:", " a   match  "),
    ],
)
def test_the_model_is_asked_what_it_learnt(tmp_path, prompt, answer):
    tokenizer = tokenizer_with(tmp_path, None)
    tokens = joint(prompt, answer, tokenizer)
    assert tokens.prompt.tolist() == tokenizer(prompt).input_ids == tokens.ids[: len(tokens.prompt)].tolist()
    assert learnt(tokens, tokenizer) == [answer + "<eos>"]
    assert tokenizer.decode(tokens.ids) == prompt + answer + "<eos>"


def test_spaces_are_learnt_though_many_tokenizers_leave_them_out_of_a_tokens_characters(tmp_path):
    tokenizer = tokenizer_with(tmp_path, None)
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    tokens = joint("the code:", " a     b", tokenizer)
    assert learnt(tokens, tokenizer) == [" a     b<eos>"]


def test_the_tokenizers_own_first_token_is_seen_and_never_learnt(tmp_path):
    tokenizer = tokenizer_with(tmp_path, None)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    for prompt in ("the team: ", "the team:", ""):
        tokens = joint(prompt, "sport", tokenizer)
        assert tokens.ids.tolist().count(tokenizer.bos_token_id) == 1
        assert tokens.ids[0] == tokens.prompt[0] == tokenizer.bos_token_id
        assert learnt(tokens, tokenizer) == ["sport<eos>"]


# Messages


@pytest.mark.parametrize(
    "messages, found",
    [
        (None, "NoneType"),
        ([], "list of messages is wanted"),
        ("hello", "str"),
        (["hello"], "message with role and content"),
        ([{"role": "user"}], "message with role and content"),
        ([{"role": "user", "content": None}], "not text"),
        ([USER], "no answer by the assistant"),
        ([USER, {"role": "assistant", "content": " "}], "no answer by the assistant"),
        ([ANSWER, USER], "begins with the assistant"),
    ],
)
def test_messages_that_cannot_be_learnt_from(messages, found):
    assert found in mistake_in(messages)


def test_messages_that_can():
    assert mistake_in([USER, ANSWER]) is None
    assert mistake_in([{"role": "system", "content": ""}, USER, ANSWER, AGAIN]) is None


def test_an_empty_prompt_is_a_token_that_an_answer_can_follow(tmp_path):
    from transformers import AutoTokenizer

    tiny.save_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    [tokens] = tokenise([joined("", "money", tokenizer)], tokenizer, add_special=True)
    assert tokens.prompt.tolist() == [tokenizer.eos_token_id] == tokens.ids[:1].tolist()
    assert learnt(tokens, tokenizer) == ["money<eos>"]
