"""GGUF: each family answers in llama.cpp as in transformers, what cannot be expressed is refused, faults are caught."""

import gguf
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.core.errors import InputError
from finetune.export.forms.base import find_form
from finetune.export.forms.gguf import writing
from finetune.export.forms.gguf.families import FAMILIES as FAMILIES_OF
from finetune.export.forms.gguf.writing import About, gguf_refusal, write_gguf
from tests import tiny
from tests.export.asked import ask, run

SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SHAPE |= {"intermediate_size": 96, "max_position_embeddings": 128}


def stretched(kind, **settings):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **settings}}


YARN = stretched("yarn", factor=4.0, original_max_position_embeddings=32)
GEMMA2 = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
GEMMA3 = {"head_dim": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 7, "sliding_window": 16}
LONG = stretched(
    "longrope",
    short_factor=[1 + 0.1 * n for n in range(8)],
    long_factor=[2 + 0.3 * n for n in range(8)],
    original_max_position_embeddings=256,
)
FAMILIES = {
    "llama": ("Llama", {}),
    "llama, untied, biased, wide heads": (
        "Llama",
        {"attention_bias": True, "mlp_bias": True, "head_dim": 32, "tie_word_embeddings": False},
    ),
    "llama, tied": ("Llama", {"tie_word_embeddings": True}),
    "llama 3's stretching": (
        "Llama",
        stretched("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
    ),
    "llama, linear stretching": ("Llama", stretched("linear", factor=4.0)),
    "mistral": ("Mistral", {"sliding_window": 100}),
    "qwen2": ("Qwen2", {}),
    "qwen2, YaRN": ("Qwen2", YARN),
    "qwen2, YaRN with its own factor": (
        "Qwen2",
        stretched("yarn", factor=4.0, original_max_position_embeddings=32, attention_factor=0.8),
    ),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma2": ("Gemma2", GEMMA2),
    "gemma3": ("Gemma3Text", GEMMA3),
    "gemma3, stretched": ("Gemma3Text", {**GEMMA3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    "phi": ("Phi", {"num_key_value_heads": 4}),
    "phi3": ("Phi3", {}),
    "phi3, partly rotated": ("Phi3", {"partial_rotary_factor": 0.5}),
    "phi3, LongRoPE": ("Phi3", {"max_position_embeddings": 1024, "original_max_position_embeddings": 256, **LONG}),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.save_tokenizer(folder, chat=True)
    return AutoTokenizer.from_pretrained(folder)


def built(kind, tokenizer, **settings):
    """A model of random weights, of which norms and biases matter too."""
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = getattr(transformers, f"{kind}Config")
    made = config(**{"vocab_size": len(tokenizer), "initializer_range": 0.2, **SHAPE, **special, **settings})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(made).float().eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.1)
    return model


def said(model, tokens):
    """Log-probabilities after each token, in float32: (T, vocabulary)."""
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)


def agreement(model, answers):
    """The share of next tokens that are the same, and by how much log-probabilities differ at most."""
    same, of, apart = 0, 0, 0.0
    for answer in answers:
        logs = said(model, answer["tokens"])
        same += (logs.argmax(-1) == torch.tensor(answer["next"])).sum().item()
        of += len(answer["next"])
        right = logs[:-1].gather(1, torch.tensor(answer["tokens"][1:])[:, None])[:, 0]
        apart = max(apart, (right - torch.tensor(answer["log_probabilities"])).abs().max().item())
    return same / of, apart


TEXTS = [" ".join(text for text, _ in tiny.sentences(6, seed=seed)) for seed in range(4)]
QUESTIONS = [{"kind": "continue", "text": text} for text in TEXTS]
HEADER = {"max_length": 100, "end": True}


def exported(folder, model, tokenizer, quantised=False, **about):
    folder.mkdir()
    write_gguf(model, tokenizer, folder / "model.gguf", quantised, About(**{"name": "tiny", **about}))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_continues_texts_in_llama_cpp_as_in_transformers(tmp_path, tokenizer, family):
    kind, settings = FAMILIES[family]
    model = built(kind, tokenizer, **settings)
    first, answers = ask("llama_cpp_engine", exported(tmp_path / "out", model, tokenizer), QUESTIONS, **HEADER)
    same, apart = agreement(model, answers)
    assert same >= 0.98 and apart < 0.1  # float16, and random weights, whose logits are close to each other
    assert tokenizer.eos_token_id in first["ends"]
    assert [each["tokens"] for each in answers] == [[*tokenizer(text)["input_ids"], 4] for text in TEXTS]


def test_eight_bits_are_nearly_as_good(tmp_path, tokenizer):
    model = built("Llama", tokenizer)
    folder = exported(tmp_path / "out", model, tokenizer, quantised=True)
    _, answers = ask("llama_cpp_engine", folder, QUESTIONS, **HEADER)
    same, apart = agreement(model, answers)
    assert same > 0.9 and 0.005 < apart < 0.5
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(folder / "model.gguf").tensors}
    assert kinds["blk.0.attn_q.weight"] == kinds["token_embd.weight"] == kinds["output.weight"] == "Q8_0"
    assert kinds["blk.0.attn_norm.weight"] == kinds["output_norm.weight"] == "F32"


def test_rows_that_are_no_whole_blocks_stay_in_float16(tmp_path, tokenizer):
    model = built("Llama", tokenizer, hidden_size=48, num_attention_heads=3, num_key_value_heads=3)
    folder = exported(tmp_path / "out", model, tokenizer, quantised=True)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(folder / "model.gguf").tensors}
    assert kinds["blk.0.attn_q.weight"] == "F16" and kinds["blk.0.ffn_down.weight"] == "Q8_0"
    _, answers = ask("llama_cpp_engine", folder, QUESTIONS, **HEADER)
    assert agreement(model, answers)[0] > 0.9


TURNS = [
    {"role": "user", "content": "the bank market"},
    {"role": "assistant", "content": "money"},
    {"role": "user", "content": "rocket, and orbit?"},
    {"role": "assistant", "content": "space  the"},
]


def test_conversations_prompts_and_choices_are_read_as_transformers_reads_them(tmp_path, tokenizer):
    model = built("Llama", tokenizer)
    folder = exported(tmp_path / "out", model, tokenizer, in_turns=True)
    questions = [
        {"kind": "continue", "messages": TURNS, "generate": 8},
        {"kind": "continue", "prompt": "the bank ", "target": "money fund", "generate": 8},
        {"kind": "choose", "prompt": "rocket", "choices": ["a b", "the planet"]},
        {"kind": "choose", "messages": TURNS[:1], "choices": ["money", "space"]},
    ]
    _, (talk, joined, choice, turn) = ask("llama_cpp_engine", folder, questions)
    whole = tokenizer.apply_chat_template(TURNS, tokenize=True)["input_ids"]
    asked = tokenizer.apply_chat_template(TURNS[:-1], tokenize=True, add_generation_prompt=True)["input_ids"]
    assert talk["tokens"] == whole and talk["prompt"] == len(asked)
    prompt = tokenizer("the bank ")["input_ids"]
    assert joined["tokens"] == [*prompt, *tokenizer("money fund")["input_ids"], 4] and joined["prompt"] == len(prompt)
    for answer, tokens in ((talk, asked), (joined, prompt)):
        if "generated" in answer:  # where no two tokens are too close to call
            own = model.generate(torch.tensor([tokens]), max_new_tokens=8, do_sample=False)[0, len(tokens) :].tolist()
            assert answer["generated"] == own[: len(answer["generated"])]
    assert choice["tokens"] == [tokenizer(f"rocket {each}")["input_ids"] for each in ("a b", "the planet")]
    for answer in (choice, turn):
        begin = (
            len(tokenizer("rocket")["input_ids"])
            if answer is choice
            else len(tokenizer.apply_chat_template(TURNS[:1], tokenize=True, add_generation_prompt=True)["input_ids"])
        )
        for tokens, score in zip(answer["tokens"], answer["scores"], strict=True):
            logs = said(model, tokens)[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[begin - 1 :]
            assert score == pytest.approx(logs.sum().item(), abs=0.1)
    assert all(tokens[-1] == tokenizer.eos_token_id for tokens in turn["tokens"])


def test_the_file_says_what_it_is(tmp_path, tokenizer):
    model = built("Mistral", tokenizer, sliding_window=100)
    folder = exported(tmp_path / "out", model, tokenizer, name="news chat", licence="apache-2.0", ends=(4, 2))
    fields = {name: each.contents() for name, each in gguf.GGUFReader(folder / "model.gguf").fields.items()}
    assert fields["general.name"] == "news chat" and fields["general.license"] == "apache-2.0"
    assert fields["tokenizer.chat_template"] == tiny.CHAT_TEMPLATE
    assert fields["tokenizer.ggml.eos_token_id"] == 4 and fields["tokenizer.ggml.eot_token_id"] == 2
    assert fields["llama.context_length"] == 100  # beyond its window llama.cpp would look further back
    assert fields["general.sampling.temp"] == 0 and fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16
    assert len(fields["tokenizer.ggml.tokens"]) == model.config.vocab_size


REFUSED = {
    "no such family": (
        "GPT2",
        {"n_embd": 32, "n_layer": 1, "n_head": 2},
        "written for these families: llama, mistral, qwen2",
    ),
    "another activation": ("Llama", {"hidden_act": "gelu"}, "computes silu in llama, and this model gelu"),
    "untied": ("Gemma", {"head_dim": 16, "tie_word_embeddings": False}, "has no output layer of its own"),
    "tied": ("Phi", {"num_key_value_heads": 4, "tie_word_embeddings": True}, "needs an output layer of its own"),
    "uncapped": (
        "Gemma2",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "final_logit_softcapping": None},
        "caps scores",
    ),
    "capped": ("Gemma3Text", {**GEMMA3, "final_logit_softcapping": 30.0}, "caps no scores"),
    "another scale": ("Gemma2", {"head_dim": 16, "query_pre_attn_scalar": 64}, "scales attention by 16 in gemma2, and"),
    "windows elsewhere": ("Gemma3Text", {**GEMMA3, "layer_types": ["full_attention"] * 7}, "every 6th block of gemma3"),
    "norms of queries": ("Phi", {"num_key_value_heads": 4, "qk_layernorm": True}, "has no norms of queries"),
    "dynamic stretching": (
        "Llama",
        stretched("dynamic", factor=2.0),
        "knows the rotations default, linear, yarn, llama3",
    ),
    "another YaRN": (
        "Qwen2",
        stretched("yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=16.0),
        "YaRN has another beta_fast",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_cpp_cannot_compute_is_refused_by_name(tokenizer, case):
    kind, settings, why = REFUSED[case]
    assert why in gguf_refusal(built(kind, tokenizer, **settings), tokenizer)


def test_a_model_with_a_head_is_refused(tokenizer):
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), **SHAPE)
    model = transformers.LlamaForSequenceClassification(config)
    assert "continue text, and this one is a LlamaForSequenceClassification" in gguf_refusal(model, tokenizer)


def test_weights_that_float16_cannot_hold_are_refused(tmp_path, tokenizer):
    model = built("Llama", tokenizer)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = 7e4
    with pytest.raises(InputError, match=r"blk.1.ffn_up.weight has values that float16 cannot hold"):
        exported(tmp_path / "out", model, tokenizer)


def test_a_name_makes_llama_cpp_strip_spaces_only_where_the_tokenizer_does(tokenizer):
    phi = FAMILIES_OF["phi3"]
    assert writing.spelt("phi3 headlines", phi, tokenizer) == "phi 3 headlines"
    assert writing.spelt("my Phi-3", FAMILIES_OF["llama"], tokenizer) == "my Phi 3"


# What goes wrong in other programs' exports, done on purpose.


def test_queries_and_keys_in_the_wrong_order_are_caught(tmp_path, tokenizer, monkeypatch):
    model = built("Llama", tokenizer)
    monkeypatch.setattr(writing, "interleaved", lambda rows, width: rows)
    _, answers = ask("llama_cpp_engine", exported(tmp_path / "out", model, tokenizer), QUESTIONS, **HEADER)
    assert agreement(model, answers)[0] < 0.9


def test_another_template_is_caught(tmp_path, tokenizer):
    from copy import deepcopy

    other = deepcopy(tokenizer)
    other.chat_template = tokenizer.chat_template.replace("<|im_start|>assistant", "<|im_start|>model")
    folder = exported(tmp_path / "out", built("Llama", tokenizer), other, in_turns=True)
    _, (answer,) = ask("llama_cpp_engine", folder, [{"kind": "continue", "messages": TURNS}])
    assert answer["prompt"] == -1  # what asks does not begin what was learnt


def test_an_end_token_that_is_missing_is_caught(tmp_path):
    """The tokenizer's end token is not the one that answers end with, whose name llama.cpp does not know either."""
    from tokenizers import AddedToken

    tiny.save_tokenizer(tmp_path, chat=False)
    own = AutoTokenizer.from_pretrained(tmp_path)
    own.add_tokens([AddedToken("<|over|>", special=True)])
    over = own.convert_tokens_to_ids("<|over|>")
    model = built("Llama", own)
    question = [{"kind": "continue", "text": "the"}]
    for ends, stops in (((), False), ((over,), True)):
        folder = exported(tmp_path / f"out{len(ends)}", model, own, ends=ends)
        first, _ = ask("llama_cpp_engine", folder, question, **HEADER)
        assert (over in first["ends"]) == stops


def test_a_cut_vocabulary_is_caught(tmp_path, tokenizer, monkeypatch):
    model = built("Llama", tokenizer)
    small = built("Llama", tokenizer, vocab_size=len(tokenizer) - 7)
    assert "has embeddings for" in gguf_refusal(small, tokenizer)
    whole = gguf.GGUFWriter.add_token_list
    monkeypatch.setattr(gguf.GGUFWriter, "add_token_list", lambda self, tokens: whole(self, tokens[:-7]))
    done = run("llama_cpp_engine", exported(tmp_path / "out", model, tokenizer), QUESTIONS, **HEADER)
    assert done.returncode == 1
    assert "llama.cpp cannot load model.gguf" in done.stderr.splitlines()[-1]


def test_a_missing_engine_is_told_in_one_line(monkeypatch):
    import importlib.util

    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "xllamacpp" else there(name, *rest)
    )
    with pytest.raises(InputError) as caught:
        find_form("gguf-f16")
    assert "needs the package xllamacpp, which is not installed" in str(caught.value)
    assert 'pip install "finetune[gguf]"' in str(caught.value)


def test_a_folder_without_a_file_is_told(tmp_path):
    (tmp_path / "out").mkdir()
    done = run("llama_cpp_engine", tmp_path / "out", QUESTIONS, **HEADER)
    assert done.returncode == 1 and "holds 0 GGUF files" in done.stderr.splitlines()[-1]
