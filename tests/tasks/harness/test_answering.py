"""What our model answers the harness is what the harness's own `HFLM` answers of the same model."""

import contextlib
import io
import json
import logging

import lm_eval
import numpy as np
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.tasks.batching import Batching
from finetune.tasks.harness.answering import Answering
from tests import tiny
from tests.harness_tasks import loaded, write_tasks

CLOSE = {"abs": 1e-4}
TASKS = {"topic_choice": 2, "topic_words": 0, "topic_texts": 0, "topic_answers": 2}
"""Each with solved examples before a document."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request, tmp_path_factory):
    """A model that says something else for each text, and its tokenizer; GPT-2's has a token before texts."""
    place = tmp_path_factory.mktemp(request.param)
    save = {"llama": tiny.save_decoder, "gpt2": tiny.save_gpt2}[request.param]
    path = save(place, initializer_range=0.3)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(path)


def theirs(model, size=3, max_length=None):
    """The harness's own model class over the same model."""
    net, tokenizer = model
    logging.getLogger("lm_eval").setLevel(logging.CRITICAL)
    # Its cache of logits mixes up windows of one batch: with it, sums depend on the batch size.
    return HFLM(pretrained=net, tokenizer=tokenizer, batch_size=size, max_length=max_length, logits_cache=False)


def ours(model, task, size=3, batching=Batching.PADDED):
    net, tokenizer = model
    return Answering(net, tokenizer, task.room(net.config), size, batching, task._loss_path(net))


def asked(task):
    return [one for own in task.requests for one in own]


def answers(lm, requests):
    with torch.inference_mode(), contextlib.redirect_stderr(io.StringIO()):
        return getattr(lm, requests[0].request_type)(requests)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "topic_answers"])
def test_log_likelihoods_are_those_of_the_harness(folder, model, name):
    task = loaded(folder, model, name, examples=TASKS[name] or None)
    own, other = answers(ours(model, task), asked(task)), answers(theirs(model), asked(task))
    assert np.array(own, float) == pytest.approx(np.array(other, float), **CLOSE)
    assert np.std(np.array(own, float).reshape(len(own), -1)[:, 0]) > 0.1, "they differ from text to text"


def test_texts_too_long_are_scored_in_the_windows_of_the_harness(folder, model):
    task = loaded(folder, model, "topic_texts", max_length=10)
    assert max(len(model[1].encode(one.args[0])) for one in asked(task)) > 20, "some take several"
    own, other = answers(ours(model, task), asked(task)), answers(theirs(model, max_length=10), asked(task))
    assert own == pytest.approx(other, **CLOSE)
    assert own != pytest.approx(answers(theirs(model), asked(task)), abs=0.1), "windows make a difference"


def test_generated_texts_are_those_of_the_harness(folder, model):
    task = loaded(folder, model, "topic_answers", examples=2)
    own = answers(ours(model, task), asked(task))
    assert own == answers(theirs(model), asked(task))
    assert len(set(own)) > 3 and not any("the" in text or "\n" in text for text in own)


@pytest.mark.parametrize("name", TASKS)
def test_answers_do_not_depend_on_what_shares_a_batch(folder, model, name):
    task = loaded(folder, model, name, examples=TASKS[name] or None)
    found = [
        answers(ours(model, task, size, batching), asked(task))
        for size, batching in ((1, Batching.SINGLE), (5, Batching.PADDED), (64, Batching.PADDED))
    ]
    for other in found[1:]:
        if isinstance(found[0][0], str):
            assert other == found[0]
        else:
            assert np.array(other, float) == pytest.approx(np.array(found[0], float), **CLOSE)


@pytest.mark.parametrize("name", TASKS)
def test_metrics_are_those_of_the_harness(folder, model, name):
    task = loaded(folder, model, name, examples=TASKS[name] or None)
    encoded = task.encode(task.table, "lm_eval.0", False)
    with torch.inference_mode():
        found = task.completed(encoded.examples, task.ask(model[0], list(encoded.examples), torch.device("cpu")))
    with contextlib.redirect_stderr(io.StringIO()):
        wanted = lm_eval.simple_evaluate(
            model=theirs(model),
            tasks=[task.documents.task],
            num_fewshot=TASKS[name] or None,
            bootstrap_iters=0,
            task_manager=TaskManager(include_defaults=False),
        )["results"][name]
    for metric in task.metrics:
        mean = np.mean([each.own[metric.name] for each in found])
        assert mean == pytest.approx(float(wanted[f"{metric.metric},{metric.filter_name}"]), rel=1e-4, abs=1e-6), metric


def test_prompts_too_long_lose_their_beginning_as_the_harness_has_it(folder, model):
    task = loaded(folder, model, "topic_choice", examples=9)
    lengths = [len(model[1].encode(one.args[0], verbose=False)) for one in asked(task)]
    assert min(lengths) > 128
    own, other = answers(ours(model, task), asked(task)), answers(theirs(model), asked(task))
    assert np.array(own, float) == pytest.approx(np.array(other, float), **CLOSE)


def test_chat_prompts_are_those_of_the_harness(folder, model):
    task = loaded(folder, model, "topic_choice", examples=2, apply_chat_template=True)
    lm, row = theirs(model), task.documents.rows[0]
    harness = task.documents.task
    harness.set_fewshot_seed(1234)
    wanted = harness.fewshot_context(
        row, num_fewshot=2, apply_chat_template=True, fewshot_as_multiturn=True, chat_template=lm.apply_chat_template
    )
    assert task.requests[0][0].args[0] == wanted and wanted.count("<|im_start|>user") == 3
    messages = [{"role": "user", "content": "a film"}, {"role": "assistant", "content": "It is"}]
    begun = lm.apply_chat_template(messages, add_generation_prompt=False)
    assert task._chat(messages, add_generation_prompt=False) == begun, "an answer that has begun"


def test_drawn_answers_are_the_same_every_time_and_in_every_batch(folder, model):
    path = folder / "drawn.yaml"
    path.write_text(
        (folder / "answers.yaml")
        .read_text()
        .replace("topic_answers", "drawn")
        .replace("max_gen_toks: 12", "max_gen_toks: 6, do_sample: true, temperature: 0.7")
        + "repeats: 2\n"
    )
    task = loaded(folder, model, "drawn")
    several = [one for own in task.requests for one in own for _ in range(one.repeats)]
    first, again = answers(ours(model, task), several), answers(ours(model, task, 64), several)
    path.unlink()
    assert first == again
    assert first[::2] != first[1::2], "each repetition has draws of its own"


def test_a_continuation_without_room_is_refused(folder, model):
    task = loaded(folder, model, "topic_choice", max_length=8)
    long = json.loads(json.dumps(task.requests[0][0].args[1])) + " goal" * 20
    task.requests[0][0].arguments = (task.requests[0][0].args[0], long)
    with pytest.raises(ValueError, match="the model takes 8"):
        answers(ours(model, task), asked(task))
