"""The chat task: what is learnt, what is refused, that padding changes nothing, and that answers are reproduced."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tokenizers import processors
from torch.nn.functional import log_softmax
from transformers import LlamaForCausalLM

from finetune.core.progress import Progress
from finetune.core.randomness import Streams
from finetune.core.runtime import open_runtime
from finetune.core.signals import StopRequest
from finetune.evaluate.predict import predict
from finetune.models import ModelOptions, load_base, load_tokenizer, processor, skeleton
from finetune.replicas.group import ReplicaGroup
from finetune.tasks.batching import Batching
from finetune.tasks.chat import Chat
from finetune.tasks.conversation import IGNORED
from tests import tiny
from tests.examples import TaskExample
from tests.tasks.templates import GEMMA, PHI3, TEMPLATES, tokenizer_with

EXAMPLES = {
    "chat": TaskExample(
        {"prompt": "prompt", "completion": "completion", "max_length": 64, "max_new_tokens": 4},
        lambda folder, count: tiny.write_chats(folder / "data.jsonl", count),
        pairs=lambda folder, count: tiny.write_pairs(folder / "data.jsonl", count),
    )
}

CPU = torch.device("cpu")


def task_of(**options):
    if "messages" not in options:
        options = {"prompt": "prompt", "completion": "completion", **options}
    return Chat(Chat.Options(type="chat", **options))


def fitted(folder, data, tokenizer=None, **options):
    """A task fitted to ``data``, and what it encodes of it."""
    task = task_of(**options)
    task.fit(tiny.splits(data), tokenizer or load_tokenizer(ModelOptions(source=str(folder))))
    return task, task.encode(data, "data.train", training=True)


def model_for(folder, task):
    base = load_base(ModelOptions(source=str(folder)), task.architecture, **task.model_config())
    return base.copy(Streams(0)).eval()


def prompts(count):
    rows = tiny.sentences(count)
    return tiny.dataset(prompt=[text for text, _ in rows], completion=[topic for _, topic in rows])


def turns(*contents):
    roles = ["user", "assistant"]
    return [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)]


def learnt(task, example):
    return task.tokenizer.decode(example.target[example.target != IGNORED])


@pytest.fixture(params=["llama", "gpt2"])
def any_folder(request, tmp_path):
    return request.getfixturevalue("decoder_folder") if request.param == "llama" else tiny.save_gpt2(tmp_path)


# Options


@pytest.mark.parametrize(
    "options, text",
    [
        ({"rejected": "r"}, "rejected needs messages"),
        ({"messages": "m", "drop_keys": ["content"]}, "drop_keys cannot hold content"),
        ({"prompt": "p", "completion": "c", "template": "none", "tools": "t"}, "tools need the model's template"),
        ({"messages": "m", "prompt": "p", "completion": "c"}, "give either messages"),
        ({"prompt": "p"}, "give either messages"),
        ({"completion": "c"}, "give either messages"),
        ({"messages": "m", "template": "none"}, "messages need the model's template"),
        ({"prompt": "p", "completion": "c", "template": "none", "system": "s"}, "put its text into the prompt"),
    ],
)
def test_columns_that_do_not_fit_together_are_refused(options, text):
    with pytest.raises(ValidationError, match=text):
        Chat.Options(type="chat", **options)


# Encoding


def test_prompt_and_completion(decoder_folder):
    task, encoded = fitted(decoder_folder, prompts(6))
    assert task.inputs() == ["prompt"]
    for number, (row, example) in enumerate(zip(prompts(6), encoded.examples, strict=True)):
        asked = f"<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n"
        assert task.tokenizer.decode(example.inputs["input_ids"]) == f"{asked}{row['completion']}<|im_end|>"
        assert learnt(task, example) == f"{row['completion']}<|im_end|>"
        assert task.tokenizer.decode(example.prompt) == asked
        assert example.reference == row["completion"] and example.number == number
        assert example.weight == (example.target != IGNORED).sum()
    assert encoded.facts["cut"] == encoded.facts["dropped"] == 0
    weights = [int(example.weight) for example in encoded.examples]
    assert encoded.facts["answer_tokens"] == {"mean": round(np.mean(weights), 1), "max": max(weights)}


def test_messages(decoder_folder):
    talks = [turns("a bank", "money", "a cup", "sport"), turns("a moon", "space", "and now?")]
    task, encoded = fitted(decoder_folder, tiny.dataset(talk=talks), messages="talk")
    assert task.inputs() == ["talk"]
    assert [learnt(task, example) for example in encoded.examples] == [
        "money<|im_end|>sport<|im_end|>",
        "space<|im_end|>",
    ]
    assert [example.reference for example in encoded.examples] == ["sport", "space"]


def test_the_system_message_goes_where_there_is_none(decoder_folder):
    own = [{"role": "system", "content": "own words"}, *turns("a bank", "money")]
    task, encoded = fitted(
        decoder_folder, tiny.dataset(talk=[own, turns("a cup", "sport")]), messages="talk", system="sort by topic"
    )
    first, second = (task.tokenizer.decode(example.prompt) for example in encoded.examples)
    assert "own words" in first and "sort by topic" not in first
    assert second.startswith("<|im_start|>system\nsort by topic<|im_end|>\n<|im_start|>user")


def test_without_a_template(decoder_folder):
    data = tiny.dataset(prompt=["the bank: ", "the cup:"], completion=["money", " sport"])
    task, encoded = fitted(decoder_folder, data, template="none")
    assert [learnt(task, example) for example in encoded.examples] == ["money<|im_end|>", " sport<|im_end|>"]
    assert [task.tokenizer.decode(example.prompt) for example in encoded.examples] == ["the bank: ", "the cup:"]
    assert [example.reference for example in encoded.examples] == ["money", "sport"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_end_token_is_learnt_under_known_templates(tmp_path, name):
    template, special, end, closing, before = TEMPLATES[name]
    tokenizer = tokenizer_with(tmp_path, template, special, end)
    task, encoded = fitted(None, prompts(3), tokenizer)
    for row, example in zip(prompts(3), encoded.examples, strict=True):
        assert learnt(task, example) == before + row["completion"] + closing
        assert example.reference == row["completion"]
    closes = tokenizer.convert_tokens_to_ids(closing)
    assert task.end_tokens(encoded.examples) == {tokenizer.eos_token_id, closes}


def test_phi_learns_conversations_of_several_turns(tmp_path):
    tokenizer = tokenizer_with(tmp_path, PHI3, TEMPLATES["phi3"][1])
    task, encoded = fitted(None, tiny.dataset(talk=[turns("a", "b", "c", "d")]), tokenizer, messages="talk")
    assert learnt(task, encoded.examples[0]) == "b<|end|>d<|end|>"


def test_spaces_inside_answers_are_learnt(tmp_path):
    tokenizer = tokenizer_with(tmp_path, TEMPLATES["chatml"][0], TEMPLATES["chatml"][1], "<|im_end|>")
    tokenizer.add_tokens(["     "])
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    task, encoded = fitted(None, tiny.dataset(prompt=["code"], completion=["a\n     b"]), tokenizer)
    assert learnt(task, encoded.examples[0]) == "a\n     b<|im_end|>"


# What is refused


def test_a_tokenizer_that_cannot_serve_is_refused(decoder_folder, encoder_folder, refusal):
    data = prompts(2)
    problem = refusal(fitted, encoder_folder, data)
    assert problem.path == "task.template" and "no chat template" in problem.found and "none" in problem.advice
    tokenizer = load_tokenizer(ModelOptions(source=str(decoder_folder)))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|im_end|>", special_tokens=[("<|im_end|>", tokenizer.eos_token_id)]
    )
    problem = refusal(fitted, None, data, tokenizer, template="none")
    assert problem.path == "task.template" and "ends every text" in problem.found
    tokenizer.eos_token = None
    problem = refusal(fitted, None, data, tokenizer)
    assert problem.path == "model.source" and "no end token" in problem.found


def test_a_system_message_that_the_template_refuses_is_told(tmp_path, refusal):
    tokenizer = tokenizer_with(tmp_path, GEMMA, TEMPLATES["gemma"][1])
    problem = refusal(fitted, None, prompts(2), tokenizer, system="sort by topic")
    assert problem.path == "task.template" and "System role not supported" in problem.found
    assert "task.system" in problem.advice


@pytest.mark.parametrize(
    "columns, path, found",
    [
        ({"prompt": ["a"]}, "task.completion", "no column 'completion'"),
        ({"completion": ["a"]}, "task.prompt", "no column 'prompt'"),
        ({"prompt": ["a", None], "completion": ["a", "b"]}, "task.prompt", "row 2"),
        ({"prompt": ["a", "b"], "completion": [1, 2]}, "task.completion", "numbers"),
    ],
)
def test_columns_that_cannot_serve_are_refused(refusal, columns, path, found):
    problem = refusal(task_of().check, tiny.dataset(**columns), "data.train")
    assert problem.path == path and found in problem.found and "data.train" in problem.found


def test_messages_that_cannot_serve_are_refused_with_their_row(refusal):
    data = tiny.dataset(talk=[turns("a", "b"), turns("a")])
    problem = refusal(task_of(messages="talk").check, data, "data.test")
    assert problem.path == "task.messages" and "data.test, row 2" in problem.found and "no answer" in problem.found
    problem = refusal(task_of(messages="tlak").check, data, "data.test")
    assert problem.path == "task.messages" and "did you mean 'talk'" in problem.advice
    task_of(messages="talk").check(tiny.dataset(talk=[turns("a", "b")]), "data.test")


# Long examples


@pytest.fixture
def long_data():
    """The second of three examples is longer than the others, by its answer."""
    return tiny.dataset(prompt=["a cup", "a moon", "a bank"], completion=["sport", "space " * 10, "money"])


def test_a_long_answer_is_cut_at_the_end(decoder_folder, long_data):
    _, whole = fitted(decoder_folder, long_data)
    limit = whole.examples[1].length - 5
    _, encoded = fitted(decoder_folder, long_data, max_length=limit)
    assert encoded.facts["cut"] == 1 and encoded.facts["dropped"] == 0
    assert [example.length for example in encoded.examples] == [
        whole.examples[0].length,
        limit,
        whole.examples[2].length,
    ]
    assert encoded.examples[1].target.tolist() == whole.examples[1].target[:limit].tolist()
    assert encoded.examples[1].weight == whole.examples[1].weight - 5


def test_long_examples_are_dropped_and_counted(decoder_folder, long_data):
    _, encoded = fitted(decoder_folder, long_data, max_length=24, too_long="drop")
    assert [example.number for example in encoded.examples] == [0, 2]
    assert encoded.facts["dropped"] == 1 and encoded.facts["cut"] == 0


def test_long_examples_are_refused_with_row_and_length(decoder_folder, long_data, refusal):
    _, whole = fitted(decoder_folder, long_data)
    length = whole.examples[1].length
    problem = refusal(fitted, decoder_folder, long_data, max_length=24, too_long="refuse")
    assert problem.path == "task.max_length"
    assert (
        f"data.train, row 2 has {length} tokens" in problem.found and f"task.max_length to {length}" in problem.advice
    )


def test_an_example_that_would_be_cut_before_its_answer_is_refused(decoder_folder, refusal):
    data = tiny.dataset(prompt=["a cup", "the moon " * 20], completion=["sport", "space"])
    problem = refusal(fitted, decoder_folder, data, max_length=24)
    assert (
        problem.path == "task.max_length"
        and "row 2" in problem.found
        and "nothing of it would be learnt" in problem.found
    )
    assert "raise task.max_length" in problem.advice and "drop" in problem.advice


def test_nothing_left_is_refused(decoder_folder, long_data, refusal):
    problem = refusal(fitted, decoder_folder, long_data, max_length=8, too_long="drop")
    assert problem.path == "task.max_length" and "all 3 examples" in problem.found


def test_held_out_examples_are_never_cut(decoder_folder, long_data):
    task, _ = fitted(decoder_folder, long_data, max_length=24, too_long="drop")
    assert len(task.encode(long_data, "data.test", training=False).examples) == 3


# Losses


def by_hand(model, example):
    """The sum over learnt tokens of their negative log-likelihood, from all logits of the example alone."""
    ids = torch.from_numpy(example.inputs["input_ids"].astype(np.int64))[None]
    with torch.no_grad():
        likelihoods = log_softmax(model(input_ids=ids).logits[0].double(), -1)
    return -sum(float(likelihoods[place - 1, token]) for place, token in enumerate(example.target) if token != IGNORED)


@pytest.mark.parametrize("talks", [False, True], ids=["completions", "messages"])
def test_losses_equal_a_full_computation_of_each_example_alone(any_folder, talks):
    if talks:
        rows = tiny.sentences(8)
        data = tiny.dataset(talk=[turns("a cup", "sport", text, topic) for text, topic in rows])
        task, encoded = fitted(any_folder, data, messages="talk")
    else:
        task, encoded = fitted(any_folder, prompts(8))
    model = model_for(any_folder, task)
    assert len({example.length for example in encoded.examples}) > 3
    with torch.no_grad():
        together = task.losses(model, task.collate(encoded.examples))
        alone = torch.cat([task.losses(model, task.collate([example])) for example in encoded.examples])
    wanted = [by_hand(model, example) for example in encoded.examples]
    assert together.shape == (8,) and together.dtype == torch.float32
    assert together.tolist() == pytest.approx(wanted, rel=1e-5)
    assert alone.tolist() == pytest.approx(wanted, rel=1e-5)


def mixed(count):
    """Every third prompt is much longer than the others."""
    texts, topics = zip(*tiny.sentences(count), strict=True)
    longer = [" ".join([text] * (1 if number % 3 else 4)) for number, text in enumerate(texts)]
    return tiny.dataset(prompt=longer, completion=list(topics))


def losses_and_gradients(task, model, batch):
    model.zero_grad()
    losses = task.losses(model, batch)
    (losses * torch.linspace(1, 2, len(losses))).sum().backward()
    return losses, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_packing_changes_rows_but_neither_losses_nor_gradients(any_folder):
    (together, encoded), (apart, _) = (fitted(any_folder, mixed(8), packing=packing) for packing in (True, False))
    model = model_for(any_folder, together)
    packed, padded = together.collate(encoded.examples), apart.collate(encoded.examples)
    longest = max(example.length for example in encoded.examples)
    assert packed.inputs["input_ids"].shape[0] < 8 and packed.inputs["input_ids"].shape[1] == longest
    assert padded.inputs["input_ids"].shape == (8, longest) and "attention_mask" not in packed.inputs
    for batch in (packed, padded):
        assert batch.inputs["position_ids"].shape == batch.example.shape == batch.inputs["input_ids"].shape
        for number, example in enumerate(encoded.examples):
            assert batch.inputs["input_ids"][batch.example == number].tolist() == example.inputs["input_ids"].tolist()
    found, wanted = losses_and_gradients(together, model, packed), losses_and_gradients(apart, model, padded)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert together.loss_path(model) == "packed, labels only, in chunks"
    assert apart.loss_path(model) == "one example a row, labels only, in chunks"


def test_replicas_have_rows_of_their_own(decoder_folder):
    task, encoded = fitted(decoder_folder, mixed(8))
    examples = [encoded.examples[number] for number in (1, 2, 4, 5, 0, 1, 3, 2)]  # 0 and 3 are long
    batch = task.collate(examples, [4, 4])
    owners = [{number // 4 for number in row.tolist() if number >= 0} for row in batch.example]
    assert owners == [{0}] * owners.count({0}) + [{1}] * owners.count({1}) and owners.count({0}) < owners.count({1}) < 4
    assert batch.example[batch.example >= 0].unique().tolist() == list(range(8))
    model = model_for(decoder_folder, task)
    with torch.no_grad():
        losses = task.losses(model, batch)
        found = task.predict(model, examples, batch)
    assert losses.tolist() == pytest.approx([by_hand(model, example) for example in examples], rel=1e-5)
    assert [prediction.loss for prediction in found] == losses.tolist()


def test_a_model_that_cannot_keep_examples_apart_gets_one_a_row(decoder_folder):
    class Across(LlamaForCausalLM):
        def forward(self, input_ids, attention_mask=None, **keywords):
            return super().forward(input_ids, attention_mask=attention_mask, **keywords)

    task, encoded = fitted(decoder_folder, mixed(8))
    model = Across.from_pretrained(decoder_folder).eval()
    batch = task.collate(encoded.examples)
    arranged = task.arranged(model, batch)
    assert task.loss_path(model) == "one example a row, labels only, in chunks"
    assert len(batch.inputs["input_ids"]) < len(arranged.inputs["input_ids"]) == 8
    with torch.no_grad():
        wanted = [by_hand(model, example) for example in encoded.examples]
        for one in (batch, arranged):
            assert task.losses(model, one).tolist() == pytest.approx(wanted, rel=1e-5)


def test_packing_may_change_on_resuming():
    assert task_of(packing=False).options.identifying() == task_of(packing=True).options.identifying()


def test_a_prediction_has_its_loss_and_its_text_is_generated_apart(decoder_folder):
    task, encoded = fitted(decoder_folder, prompts(4), max_new_tokens=3)
    model = model_for(decoder_folder, task)
    train(task, model, encoded.examples, 30)
    batch = task.collate(encoded.examples)
    with torch.no_grad():
        before = task.predict(model, encoded.examples, batch)
        texts = task.generate(model, encoded.examples, CPU)
        after = task.predict(model, encoded.examples, batch)
    assert [found.loss for found in before] == [found.loss for found in after]
    assert {found.text for found in before} == {""} and len(texts) == 4 and all(texts)


# Answers


def greedy(model, prompt, count, ends):
    """The likeliest token after the prompt, again and again."""
    ids = torch.from_numpy(prompt.astype(np.int64))[None]
    for _ in range(count):
        with torch.no_grad():
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
        if int(ids[0, -1]) in ends:
            break
    return ids[0, len(prompt) :].tolist()


def test_answers_are_the_likeliest_tokens_whatever_the_model_came_with(any_folder):
    task, encoded = fitted(any_folder, prompts(8), max_new_tokens=7)
    model = model_for(any_folder, task)
    settings = model.generation_config
    settings.do_sample, settings.temperature, settings.repetition_penalty = True, 5.0, 3.0
    settings.suppress_tokens, settings.num_beams = [*range(100)], 3
    with torch.no_grad():
        together = task.generate(model, encoded.examples, CPU)
    for example, text in zip(encoded.examples, together, strict=True):
        tokens = greedy(model, example.prompt, 7, {task.tokenizer.eos_token_id})
        assert text == task.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    assert model.generation_config is settings


def train(task, model, examples, steps, rate=1e-2):
    """Plain Adam on all examples at once."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    model.train()
    batch = task.collate(examples)
    for _ in range(steps):
        optimizer.zero_grad()
        task.losses(model, batch).mean().backward()
        optimizer.step()
    model.eval()


@pytest.mark.parametrize("pad", ["<pad>", "<|im_end|>"])
def test_what_was_learnt_by_heart_is_answered_word_for_word_and_ends(decoder_folder, pad):
    words = ["sport", "a share price", "moon", "the loan of a bank", "cup", "profit", "to orbit a planet", "tax"]
    data = tiny.dataset(prompt=[text for text, _ in tiny.sentences(8)], completion=words)
    tokenizer = load_tokenizer(ModelOptions(source=str(decoder_folder)))
    tokenizer.pad_token = pad
    task, encoded = fitted(None, data, tokenizer, max_new_tokens=40)
    model = model_for(decoder_folder, task)
    train(task, model, encoded.examples, 150)
    with torch.no_grad():
        found = task.predict(model, encoded.examples, task.collate(encoded.examples))
        assert task.generate(model, encoded.examples, CPU) == words
    assert max(prediction.loss for prediction in found) < 0.5
    for example in encoded.examples:
        answer = greedy(model, example.prompt, 40, {tokenizer.eos_token_id})
        assert answer == example.target[example.target != IGNORED].tolist()  # the end token, and nothing behind it


def test_an_answer_ends_at_the_token_that_closes_its_turn(tmp_path):
    """Gemma's end token is another than the one that ends its answers."""
    folder = tiny.save_decoder(tmp_path)
    tokenizer = tokenizer_with(folder, GEMMA, TEMPLATES["gemma"][1])
    task, encoded = fitted(None, prompts(6), tokenizer, max_new_tokens=20)
    model = model_for(folder, task)
    model.resize_token_embeddings(len(tokenizer))
    train(task, model, encoded.examples, 150)
    with torch.no_grad():
        found = task.generate(model, encoded.examples, CPU)
    assert found == [example.reference for example in encoded.examples]


def test_where_an_answer_ends_does_not_depend_on_the_batch(tmp_path):
    """Llama 3 ends calls of tools by another token than answers, and a model may do either where the other is right."""
    folder = tiny.save_decoder(tmp_path / "model")
    closing = "{{ '<called>' if 'call' in message['content'] else '<end_of_turn>' }}"
    tokenizer = tokenizer_with(
        folder, GEMMA.replace("<end_of_turn>", closing), ["<start_of_turn>", "<end_of_turn>", "<called>"]
    )
    texts = [text for text, _ in tiny.sentences(6)]
    said = [["money", "a call"][number % 2] for number in range(6)]
    task, learnt = fitted(None, tiny.dataset(prompt=texts, completion=said), tokenizer, max_new_tokens=12)
    model = model_for(folder, task)
    model.resize_token_embeddings(len(tokenizer))
    train(task, model, learnt.examples, 150)
    asked = task.encode(tiny.dataset(prompt=texts, completion=["a call", *said[:5]]), "data.test", False).examples
    runtime = open_runtime(*processor(ModelOptions(source="x", device="cpu")), Progress(), StopRequest(), tmp_path)
    tables = [predict(ReplicaGroup(model), task, asked, size, runtime)[0] for size in (1, 2, 6)]
    assert [table.prediction for table in tables] == [said] * 3


def test_a_model_that_sees_the_answer_is_refused(encoder_folder, decoder_folder, refusal):
    """transformers puts an output layer on a BERT when asked for a causal model, but its attention runs both ways."""
    task = task_of()
    task.check_model(skeleton(ModelOptions(source=str(decoder_folder)), task.architecture))
    both_ways = skeleton(ModelOptions(source=str(encoder_folder)), task.architecture)
    problem = refusal(task.check_model, both_ways)
    assert problem.path == "model.source" and "sees the words after" in problem.found


@pytest.mark.parametrize("family", ["Mixtral", "Qwen3Moe"])
def test_a_mixture_that_asks_for_a_router_loss_answers_too(tmp_path, family):
    """transformers fails at the second token: it masks that one's routers with the mask of all before it."""
    from finetune.tasks.causal.generation import continued

    options = ModelOptions(source=str(tiny.save_moe(tmp_path, family, output_router_logits=True)), dtype="float32")
    model, prompts = load_base(options, "AutoModelForCausalLM").model, [np.array([7, 8, 9]), np.array([9, 8])]
    found = continued(model, prompts, 0, 4, Batching.PADDED)[0]
    model.config.output_router_logits = False
    assert torch.equal(found, continued(model, prompts, 0, 4, Batching.PADDED)[0])
