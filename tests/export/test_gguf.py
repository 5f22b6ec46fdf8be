"""The forms gguf-f16 and gguf-q8_0: what continues text is answered by llama.cpp as it was scored."""

import re

import gguf
import pytest

from finetune.cli.export import told
from finetune.core.errors import FinetuneError, InputError
from finetune.export.exporting import export
from finetune.export.forms.gguf import GgufF16, writing
from tests import tiny
from tests.export.studies import let_it_count, run_tiny

FULL = {"full": {"strategy": {"type": "full"}}}

pytestmark = pytest.mark.usefixtures("own_process")  # what ends it for good ends no test


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    """A chat study whose model attends: of tiny models as they are drawn the order of words hardly matters."""
    folder = tmp_path_factory.mktemp("talks")
    model = tiny.save_decoder(folder / "model", initializer_range=0.15)
    return let_it_count(run_tiny(folder, model, "chat", FULL, seeds=1))


@pytest.mark.parametrize("task", ["label-words", "label-words/calibrated", "multiple-choice/likelihood", "language"])
def test_every_task_that_continues_text_is_taken_away(task, models, tmp_path):
    study = let_it_count(run_tiny(tmp_path / "study", models["decoder"], task, FULL, seeds=1))
    about = export(study, tmp_path / "out", "gguf-f16").certificate["agreement"]
    assert about["same"] >= 0.99 and about["near"] >= 0.99 and about["read"] == 1 and about["examples"] > 0


@pytest.mark.parametrize("variant", ["full", "lora"])
def test_a_chat_model_is_taken_away(variant, chats, tmp_path):
    found = export(chats, tmp_path / "out", "gguf-f16", variant)
    about = found.certificate["agreement"]
    assert about["same"] >= 0.99 and about["read"] == 1 and about["stops"]
    assert found.certificate["engine"]["name"] == "llama.cpp"
    assert re.search(r"in\s+llama\.cpp\s+\(xllamacpp\s+\d", " ".join(told(found, tmp_path / "out")))
    made = (tmp_path / "out" / "Modelfile").read_text()
    assert made == 'FROM ./model-f16.gguf\nPARAMETER temperature 0\nPARAMETER stop "<|im_end|>"\n'
    card = (tmp_path / "out" / "README.md").read_text()
    assert "llama-server -m" in card and "ollama create" in card and "model-f16.gguf" in card


def test_a_model_that_attends_is_taken_away(talks, tmp_path):
    about = export(talks, tmp_path / "out", "gguf-f16").certificate["agreement"]
    assert about["same"] >= 0.99 and about["near"] == 1


def test_of_a_quantised_model_the_difference_of_scores_is_told(chats, tmp_path):
    found = export(chats, tmp_path / "out", "gguf-q8_0", "full").certificate
    assert found["exact"] is False and 0 < found["agreement"]["difference"] < 0.5
    low, high = found["agreement"]["gain"]["ci"]
    assert low <= found["agreement"]["gain"]["mean"] <= high
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "out" / "model-q8_0.gguf").tensors}
    assert kinds == {"Q8_0", "F32"}


def test_what_continues_no_text_is_refused(topics, tmp_path):
    with pytest.raises(InputError, match="continues text, and task classification does") as refused:
        export(topics, tmp_path / "out", "gguf-f16", "full", seed=0)
    assert "onnx" in str(refused.value) and not list(tmp_path.iterdir())


def unpermuted(monkeypatch):
    monkeypatch.setattr(writing, "interleaved", lambda rows, width: rows)


def another_template(monkeypatch):
    own = GgufF16.write

    def write(self, trained, folder):
        from copy import deepcopy
        from dataclasses import replace

        tokenizer = deepcopy(trained.tokenizer)
        tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>assistant", "<|im_start|>model")
        own(self, replace(trained, tokenizer=tokenizer), folder)

    monkeypatch.setattr(GgufF16, "write", write)


def without_end(monkeypatch):
    """Answers end with another token, and llama.cpp knows no end token's name."""
    monkeypatch.setattr(
        gguf.GGUFWriter, "add_eos_token_id", lambda self, number: self.add_uint32(gguf.Keys.Tokenizer.EOS_ID, 7)
    )
    whole = gguf.GGUFWriter.add_token_list
    names = {"<|im_end|>": "<|im_over|>", "<eos>": "<over>"}
    monkeypatch.setattr(
        gguf.GGUFWriter, "add_token_list", lambda self, tokens: whole(self, [names.get(each, each) for each in tokens])
    )


def cut_vocabulary(monkeypatch):
    whole = gguf.GGUFWriter.add_token_list
    monkeypatch.setattr(gguf.GGUFWriter, "add_token_list", lambda self, tokens: whole(self, tokens[:-7]))


FAULTS = {
    unpermuted: "answers are the same, and 99% have to be",
    another_template: "reads other tokens than the trained model",
    without_end: "does not stop at the token with which answers end",
    cut_vocabulary: "cannot be used by its own engine: llama.cpp cannot load model-f16.gguf",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_caught_and_nothing_is_left(fault, talks, tmp_path, monkeypatch):
    fault(monkeypatch)
    with pytest.raises(FinetuneError, match=FAULTS[fault]):
        export(talks, tmp_path / "out", "gguf-f16")
    assert not list(tmp_path.iterdir())
