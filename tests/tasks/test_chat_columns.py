"""The columns that conversations are read from, under the names and keys that published data use, or refused."""

import json
from datetime import date

import pytest

from finetune import recipe
from finetune.core.errors import InputError
from finetune.runner.resources import Resources
from finetune.tasks.chat import Chat
from finetune.tasks.chat_columns import as_tools
from finetune.tasks.conversation import IGNORED
from finetune.tasks.messages import mistake_in, readable
from tests import tiny
from tests.tasks.templates import made

USER, ANSWER = {"role": "user", "content": "a cup"}, {"role": "assistant", "content": "sport"}


@pytest.fixture
def study(tmp_path, decoder_folder):
    """Writes rows as a file and what a recipe says of its task, and encodes them."""

    def encode(rows, task=(), name="data.jsonl", model=decoder_folder, today=None):
        text = "\n".join(map(json.dumps, rows)) if isinstance(rows, list) else rows
        (tmp_path / name).write_text(text, encoding="utf-8")
        content = {
            "name": "talks",
            "model": {"source": str(model)},
            "data": {"train": {"path": str(tmp_path / name)}, "split": {"test": 1}},
            "task": {"type": "chat", **dict(task)},
            "strategy": {"type": "full"},
        }
        (tmp_path / "recipe.yaml").write_text(json.dumps(content), encoding="utf-8")
        options = recipe.load(tmp_path / "recipe.yaml").variants[0].recipe
        return Resources(today).data(options, 0)

    return encode


def texts(found):
    """Every example's text and what of it is learnt, the training examples first."""
    examples = [*found.train.examples, *found.held_out["test"].examples]
    decode = found.task.tokenizer.decode
    return sorted((decode(each.inputs["input_ids"]), decode(each.target[each.target != IGNORED])) for each in examples)


def chatml(*turns):
    text = "\n".join(f"<|im_start|>{role}\n{content}<|im_end|>" for role, content in turns)
    return text, "".join(f"{content}<|im_end|>" for role, content in turns if role == "assistant")


# Columns that are known by name


def test_alpacas_columns_are_recognised(study):
    rows = [
        {"instruction": "sort", "input": "a cup", "output": "sport"},
        {"instruction": "sort a moon", "input": "", "output": "space"},
    ]
    wanted = sorted([
        chatml(("user", "sort\n\na cup"), ("assistant", "sport")),
        chatml(("user", "sort a moon"), ("assistant", "space")),
    ])  # fmt: skip
    found = study(rows)
    assert texts(found) == wanted
    assert "data.train: columns instruction, input, output are read as conversations" in found.train.notes[0]
    del rows[1]["input"]
    assert texts(study(rows)) == wanted
    lines = "instruction,input,output\nsort,a cup,sport\nsort a moon,,space\n"
    assert texts(study(lines, name="data.csv")) == wanted
    for row in rows:
        row.pop("input", None)
    assert texts(study(rows))[1] == chatml(("user", "sort"), ("assistant", "sport"))


def test_sharegpts_columns_are_recognised(study):
    def row(word):
        said = [("system", "be short"), ("human", word), ("gpt", "sport"), ("human", "and now?"), ("gpt", "space")]
        return {"id": word, "conversations": [{"from": speaker, "value": text} for speaker, text in said]}

    def shown(word):
        roles = ["system", "user", "assistant", "user", "assistant"]
        return chatml(*zip(roles, ["be short", word, "sport", "and now?", "space"], strict=True))

    for options in ({}, {"messages": "conversations"}):
        found = study([row("a"), row("b")], options)
        assert texts(found) == sorted([shown("a"), shown("b")])
        assert bool(found.train.notes) == (not options)
    as_text = [{"talk": json.dumps(row(word)["conversations"])} for word in "ab"]
    assert texts(study(as_text, {"messages": "talk"})) == sorted([shown("a"), shown("b")])
    with_system = [{"system": "be short", "conversations": row(word)["conversations"][1:]} for word in "ab"]
    assert texts(study(with_system)) == sorted([shown("a"), shown("b")])


def test_sharegpts_calls_and_tools(study, tmp_path):
    tokenizer, _ = made(tmp_path / "tools", "calling")
    model = tiny.save_decoder(tmp_path / "model")
    source = tokenizer.chat_template.replace("{{ message.tool_call_id }}:", "")
    tokenizer.chat_template = source.replace("{{ call.id }} ", "")
    tokenizer.save_pretrained(model)
    call = {"name": "score", "arguments": {"team": 3}}
    said = [("human", "who?"), ("function_call", json.dumps(call)), ("observation", "3"), ("gpt", "three")]
    turns = [{"from": speaker, "value": text} for speaker, text in said]
    tools = json.dumps([{"name": "score"}])
    rows = [
        {"conversations": [{"from": "human", "value": text}, *turns[1:]], "tools": tools} for text in ("who?", "a?")
    ]
    found = study(rows, model=model)
    text, learnt = texts(found)[-1]
    assert '[TOOLS][{"name": "score"}][/TOOLS]' in text and "[RESULT]3[/RESULT]" in text
    assert learnt == '[CALL]score {"team": 3}<eos>three<eos>'
    assert "conversations, tools" in found.train.notes[0]


def test_messages_are_recognised(study):
    rows = [{"messages": [{"role": "user", "content": word}, ANSWER]} for word in "ab"]
    assert texts(study(rows)) == texts(study(rows, {"messages": "messages"}))


@pytest.mark.parametrize(
    "row, found",
    [
        ({"text": "a"}, "no column that is known to hold conversations"),
        ({"instruction": "a", "output": "b", "messages": [USER, ANSWER]}, "conversations twice"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "is from 'alien'"),
        ({"instruction": 3, "output": "b"}, "numbers"),
        ({"instruction": "a", "input": 3, "output": "b"}, "row 1: input is 3, not text"),
        ({"conversations": "not json"}, "is str where a list"),
    ],
)
def test_columns_that_are_not_known_are_refused(study, row, found):
    with pytest.raises(InputError, match=found):
        study([row, {**row, "extra": 1}])


# What a row says


def test_keys_of_one_message_do_not_appear_in_another(study, tmp_path):
    tokenizer, _ = made(tmp_path / "thinking", "thinking")
    model = tiny.save_decoder(tmp_path / "model", chat=True)
    tokenizer.save_pretrained(model)

    def row(**arguments):
        call = {"type": "function", "function": {"name": "score", "arguments": arguments}}
        return {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [call]}]}

    rows = [row(team=3), row(of="cup", by=None), row(), row(team="three")]
    wanted = ['{"team": 3}', '{"of": "cup", "by": null}', "{}", '{"team": "three"}']
    found = study(rows, {"messages": "messages"}, model=model)
    assert sorted(text.split('"arguments": ')[1].split("}\n</tool_call>")[0] for text, _ in texts(found)) == sorted(
        wanted
    )


def test_keys_are_dropped_by_name_and_counted(study):
    rows = [{"messages": [{**USER, "name": "Ann"}, {**ANSWER, "score": 3}]}, {"messages": [USER, ANSWER, USER, ANSWER]}]
    with pytest.raises(InputError, match="row 1: the model's chat template does not read 'name'"):
        study(rows, {"messages": "messages"})
    found = study(rows, {"messages": "messages", "drop_keys": ["name", "score"]})
    facts = [each.facts for each in (found.train, found.held_out["test"])]
    assert (
        sum(each.get("dropped_name", 0) for each in facts) == sum(each.get("dropped_score", 0) for each in facts) == 1
    )
    notes = [*found.train.notes, *found.held_out["test"].notes]
    assert any("task.drop_keys: name was left out of 1 messages" in note for note in notes)


def test_tools_in_a_column(study, tmp_path):
    tokenizer, _ = made(tmp_path / "dated", "dated")
    model = tiny.save_decoder(tmp_path / "model")
    tokenizer.save_pretrained(model)
    tools = [[{"type": "function", "function": {"name": name}}] for name in ("one", "other")]
    talk = [USER, ANSWER]
    for written in (tools, [json.dumps(each) for each in tools]):
        # The same words with other tools are another example.
        rows = [{"messages": talk, "fns": each} for each in written]
        found = study(rows, {"messages": "messages", "tools": "fns"}, model=model, today=date(2030, 1, 2))
        assert {name for name in ("one", "other") for text, _ in texts(found) if f'"{name}"' in text} == {
            "one",
            "other",
        }
        assert all("Today is 2 January 2030." in text for text, _ in texts(found))
    rows = [{"messages": talk, "fns": each} for each in tools]
    with pytest.raises(InputError, match="does not read 'tools'"):
        study(rows, {"messages": "messages", "tools": "fns"})
    unnamed = [{"messages": [{**USER, "content": word}, ANSWER], "tools": tools[0]} for word in "ab"]
    [note] = study(unnamed, {"messages": "messages"}).train.notes
    assert "write task.tools: tools" in note
    dropped = study(rows, {"messages": "messages", "tools": "fns", "drop_keys": ["tools"]})
    assert texts(dropped)[0] == chatml(("user", "a cup"), ("assistant", "sport"))
    with pytest.raises(InputError, match=r"task.tools: .*no column 'fns'"):
        study([{"messages": talk}], {"messages": "messages", "tools": "fns"})


@pytest.mark.parametrize("value", [None, "", " ", "null", "[]", []])
def test_no_tools(value):
    assert as_tools(value) is None


@pytest.mark.parametrize("value", ["x", 3, ["x"], "[1]"])
def test_what_is_no_list_of_tools_is_refused(refusal, value):
    assert "not a list of tools" in refusal(as_tools, value).found
    assert as_tools('{"name": "f"}') == as_tools([{"name": "f"}]) == as_tools(['{"name": "f"}']) == [{"name": "f"}]


@pytest.mark.parametrize(
    "messages, found",
    [
        ([USER, {**ANSWER, "weight": 0.5}], "weight that is neither 0 nor 1"),
        ([USER, {**ANSWER, "weight": 2}], "weight that is neither"),
        ([USER, {**ANSWER, "weight": "0"}], "weight that is neither"),
        ([USER, {**ANSWER, "train": "no"}], "train that is neither"),
        ([USER, {**ANSWER, "train": 0}], "train that is neither"),
        ([{**USER, "weight": 1}, ANSWER], "role 'user' to be learnt"),
        ([{**USER, "train": True}, ANSWER], "role 'user' to be learnt"),
        ([USER, {**ANSWER, "weight": 0}], "no answer that is to be learnt"),
        (
            [USER, ANSWER, USER, {"role": "assistant", "content": " \n"}],
            "ends with an answer in which there is nothing",
        ),
        ([USER, ANSWER, USER, {"role": "assistant", "content": "", "reasoning_content": "hm"}], "there is nothing"),
        ([USER, ANSWER, USER, {"role": "assistant", "content": [{"type": "text", "text": " "}]}], "there is nothing"),
        ([USER, ANSWER, USER, {"role": "assistant", "content": "", "tool_calls": []}], "there is nothing"),
        ([{"role": "user", "content": [{"text": "a"}]}, ANSWER], "not text"),
        ([{"role": "user", "content": []}, ANSWER], "not text"),
        ([{"role": "user", "content": {"text": "a"}}, ANSWER], "not text"),
    ],
)
def test_messages_that_cannot_be_learnt_from(messages, found):
    assert found in mistake_in(messages)


@pytest.mark.parametrize(
    "messages",
    [
        [{**USER, "weight": 0}, {**ANSWER, "weight": 1}],
        [USER, {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}],
        [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}],
        [USER, {"role": "assistant", "content": None, "function_call": {"name": "f"}}],
        [USER, ANSWER, USER, {"role": "assistant", "content": "", "weight": 0}],
        [USER, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}],
    ],
)
def test_messages_that_can(messages):
    assert mistake_in(messages) is None


def test_an_empty_answer_is_refused_with_its_row(refusal):
    task = Chat(Chat.Options(type="chat", prompt="prompt", completion="completion"))
    problem = refusal(task.check, tiny.dataset(prompt=["a", "b"], completion=["c", " "]), "data.train")
    assert problem.path == "task.completion" and "data.train, row 2 has an empty answer" in problem.found
    talks = [[USER, ANSWER], [USER, {**ANSWER, "content": ""}]]
    problem = refusal(Chat(Chat.Options(type="chat", messages="m")).check, tiny.dataset(m=talks), "data.train")
    assert problem.path == "task.messages" and "data.train, row 2" in problem.found
    paired = Chat(Chat.Options(type="chat", prompt="p", completion="c", rejected="r"))
    assert refusal(paired.check, tiny.dataset(p=["a"], c=["b"], r=[""]), "data.train").path == "task.rejected"


def test_dropping_a_call_leaves_an_empty_answer(refusal):
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}
    task = Chat(Chat.Options(type="chat", messages="m", drop_keys=["tool_calls"]))
    assert "no answer" in refusal(task.check, tiny.dataset(m=[[USER, call]]), "data.train").found


def test_pairs_go_the_same_way(tmp_path):
    tokenizer, _ = made(tmp_path, "thinking")
    call = {"type": "function", "function": {"name": "score", "arguments": {"team": 3}}}
    chosen = [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]
    data = tiny.dataset(chosen=[chosen], rejected=[[USER, {"role": "assistant", "content": "no<|im_end|>"}]])
    task = Chat(Chat.Options(type="chat", messages="chosen", rejected="rejected"), pairs=True)
    task.fit(tiny.splits(data), tokenizer)
    [example] = task.encode(data, "data.train", training=True).examples
    first, second = (tokenizer.decode(part[part != IGNORED]) for part in example.parts(example.target))
    assert (
        first
        == '<think>\n\n</think>\n\n<tool_call>\n{"name": "score", "arguments": {"team": 3}}\n</tool_call><|im_end|>'
    )
    assert second == "<think>\n\n</think>\n\nno<|im_end|><|im_end|>"
    parts = example.parts(example.inputs["input_ids"])
    assert [part.tolist().count(tokenizer.eos_token_id) for part in parts] == [2, 2]


def test_what_people_read_of_a_conversation():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    said = readable([USER, call, {"role": "tool", "content": "3"}, ANSWER, {**ANSWER, "weight": 0}])
    assert said == 'user: a cup\n\nassistant: [{"function": {"name": "f"}}]\n\ntool: 3'
    assert readable([{"role": "user", "content": [{"type": "text", "text": "a"}]}, ANSWER]) == "user: a"


@pytest.mark.parametrize("rejected", [" yes", "yes\n", "yes"])
def test_answers_that_differ_in_blanks_alone_are_no_pair(refusal, rejected):
    data = tiny.dataset(prompt=["a", "b"], completion=["yes", "yes"], rejected=["no", rejected])
    task = Chat(Chat.Options(type="chat", prompt="prompt", completion="completion", rejected="rejected"))
    problem = refusal(task.check, data, "data.train")
    assert problem.path == "task.rejected"
    assert "data.train, row 2: the chosen and the rejected answer are the same" in problem.found


def test_answers_whose_letters_are_encoded_otherwise_are_no_pair(refusal):
    talks = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": text}] for text in ("\xe9", "e\u0301")]
    data = tiny.dataset(chosen=talks[:1], rejected=talks[1:])
    problem = refusal(Chat(Chat.Options(type="chat", messages="chosen", rejected="rejected")).check, data, "data.train")
    assert "row 1: the chosen and the rejected answer are the same" in problem.found
