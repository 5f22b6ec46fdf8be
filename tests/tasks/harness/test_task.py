"""What a task of the harness is to the rest: examples, answers in words, and what it refuses of a model."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.core.errors import InputError
from finetune.evaluate import metrics
from finetune.evaluate.predict import predict, table_of
from finetune.evaluate.store import read
from finetune.replicas.group import ReplicaGroup
from tests import tiny
from tests.harness_tasks import loaded, write_tasks
from tests.train import workbench


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tiny.save_decoder(tmp_path_factory.mktemp("model"), initializer_range=0.3)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(path)


@pytest.fixture
def folder(tmp_path):
    return write_tasks(tmp_path / "tasks")


def changed(folder, name, **changes):
    text = (folder / f"{name}.yaml").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "own.yaml").write_text(text.replace("task: topic", "task: own"))
    return f"own_{name}"


def said(task, net):
    """The table of what the model says of all documents."""
    examples = task.encode(task.table, "lm_eval.0", False).examples
    with torch.inference_mode():
        return table_of(task, examples, task.ask(net, list(examples), torch.device("cpu")))


def test_several_right_choices_are_all_named(folder, model):
    name = changed(folder, "choice", **{'"{{topic}}"': '"{{[0, 2]}}"', "  - {metric: mcc}\n": ""})
    found = said(loaded(folder, model, name), model[0])
    assert set(found.reference) == {"A, C"}
    right = [float(prediction in "A, C") for prediction in found.prediction]
    assert found.score.tolist() == right == found.own["lm_eval.acc"].tolist()


def test_what_choices_are_compared_with_is_no_choice(folder, model):
    name = changed(folder, "choice", **{"{metric: mcc}": "{metric: acc_mutual_info}"})
    task = loaded(folder, model, name)
    assert len(task.requests[0]) == 6, "each choice again without its question"
    found = said(task, model[0])
    assert set(found.prediction) <= {"A", "B", "C"} and "lm_eval.acc_mutual_info" in found.own


def test_a_choice_that_is_written_is_compared_with_its_words(folder, model):
    choices = 'doc_to_choice: [money, space, sport]\ndoc_to_target: "{{topic}}"'
    name = changed(folder, "answers", **{'doc_to_target: "{{name}}"': choices})
    assert set(said(loaded(folder, model, name), model[0]).reference) == {"money", "space", "sport"}


def test_the_store_holds_all_that_scores_are_computed_from(folder, model, tmp_path):
    task = loaded(folder, model, "topic_choice")
    found = said(task, model[0])
    found.write(tmp_path / "a.parquet", "key")
    again = read(tmp_path / "a.parquet")
    assert metrics.score(again, task.metrics) == metrics.score(found, task.metrics)
    assert list(metrics.score(found, task.metrics)) == ["lm_eval.acc", "lm_eval.acc_norm", "lm_eval.mcc"]


def test_a_batch_that_memory_runs_out_of_is_halved(folder, model, tmp_path):
    task, asked = loaded(folder, model, "topic_choice"), []

    class Small(type(task)):
        """Has no room for more than three documents."""

        def ask(self, net, examples, device):
            asked.append(len(examples))
            if len(examples) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().ask(net, examples, device)

    whole = said(task, model[0])
    task.__class__ = Small
    examples = task.encode(task.table, "lm_eval.0", False).examples
    [found] = predict(ReplicaGroup(model[0]), task, examples, 8, workbench.make_runtime(tmp_path))
    assert asked[0] == 8 and 2 in asked
    order = np.argsort(found.example)
    assert [found.prediction[place] for place in order] == whole.prediction


def test_answers_that_leave_no_room_for_a_prompt_are_refused(folder, model):
    with pytest.raises(InputError, match="answers of up to 200 tokens, and the model has room for 128"):
        loaded(folder, model, "topic_answers", max_new_tokens=200)
    name = changed(folder, "answers", **{", max_gen_toks: 12": ""})
    with pytest.raises(InputError, match="answers of up to 256 tokens") as caught:
        loaded(folder, model, name)
    assert caught.value.problems[0].path == "lm_eval.0.max_new_tokens"
    assert loaded(folder, model, name, max_new_tokens=9).requests


def test_a_tokenizer_without_an_end_is_refused(folder, model):
    net, tokenizer = model
    endless = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>")
    with pytest.raises(InputError, match="this tokenizer has none"):
        loaded(folder, (net, endless), "topic_choice")


def test_documents_are_texts_in_a_table(folder, model):
    task = loaded(folder, model, "topic_texts", limit=4)
    rows = [json.loads(line) for line in (folder / "asked.jsonl").read_text().splitlines()[:4]]
    assert task.table["text"] == [row["long"] for row in rows]
    assert [json.loads(each) for each in task.table["document"]] == rows
