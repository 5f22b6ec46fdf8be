"""Tiny real models and data: every class of transformers that a test needs, with random weights, in milliseconds."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

WORDS = {
    "sport": ["match", "goal", "team", "score", "league", "player", "win", "cup", "coach", "referee"],
    "money": ["bank", "market", "share", "profit", "loan", "price", "trade", "stock", "tax", "fund"],
    "space": ["rocket", "orbit", "planet", "star", "probe", "moon", "launch", "comet", "crew", "lander"],
}
"""Three topics that a tiny model can learn to tell apart."""

FILLER = ["the", "a", "of", "in", "on", "and", "to", "with", "for", "after", "before"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """``count`` different (text, topic) pairs, topics in turn."""
    rng, seen, rows = random.Random(seed), set(), []
    while len(rows) < count:
        topic = sorted(WORDS)[len(rows) % len(WORDS)]
        words = [rng.choice(WORDS[topic] if rng.random() < 0.6 else FILLER) for _ in range(rng.randint(4, 12))]
        text = " ".join([rng.choice(WORDS[topic]), *words])
        if text not in seen:
            seen.add(text)
            rows.append((text, topic))
    return rows


def write_csv(path: Path, rows: list[tuple[str, str]], header: tuple[str, str] = ("text", "label")) -> Path:
    """Write pairs as a csv file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_chats(path: Path, count: int, seed: int = 0) -> Path:
    """Write prompts whose answer is their topic as a jsonl file."""
    lines = [json.dumps({"prompt": text, "completion": topic}) for text, topic in sentences(count, seed)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_sources(path: Path, count: int, seed: int = 0) -> Path:
    """Write sources whose target is their topic, twice, as a csv file."""
    return write_csv(path, [(text, f"{topic} {topic}") for text, topic in sentences(count, seed)], ("source", "target"))


def write_pairs(path: Path, count: int, seed: int = 0) -> Path:
    """Write prompts with their topic as the chosen answer, and a word that is no topic as the rejected one."""
    lines = [
        json.dumps({"prompt": text, "completion": topic, "rejected": FILLER[number % len(FILLER)]})
        for number, (text, topic) in enumerate(sentences(count, seed))
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def save_tokenizer(folder: Path, chat: bool = False, extra: int = 0) -> int:
    """Train a small byte-level BPE tokenizer, save it in ``folder``, and return its size. It has so many ``extra``
    tokens that stand for hidden spans."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<eos>", "<|im_start|>", "<|im_end|>", "[MASK]"]
    special += [f"<extra_id_{number}>" for number in range(extra)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [text for text, _ in sentences(200)] + ["system user assistant\n", *WORDS]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|im_end|>" if chat else "<eos>",
        mask_token="[MASK]",
        model_max_length=128,
        **({"additional_special_tokens": ["<|im_start|>"]} if chat else {}),
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return len(fast)


def save_encoder(folder: Path, **config) -> Path:
    """A BERT of 2 blocks without a task head."""
    import torch
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    size = save_tokenizer(folder)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=size, max_position_embeddings=128, **{**shape, **config})).save_pretrained(folder)
    return folder


def save_masked(folder: Path, **config) -> Path:
    """The same BERT as :func:`save_encoder`'s with its output layer, as it was pretrained."""
    import torch
    from transformers import AutoConfig, BertForMaskedLM

    torch.manual_seed(0)
    save_encoder(folder, **{"initializer_range": 0.1, **config})
    BertForMaskedLM(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder


def save_framed(folder: Path, **config) -> Path:
    """The same encoder with a tokenizer that puts a token before every text and between two, as BERT's do."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    save_encoder(folder, **config)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<eos> $A", pair="<eos> $A <eos> $B", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    return folder


def save_decoder(folder: Path, chat: bool = True, **config) -> Path:
    """A Llama of 2 blocks, with a chat template unless told otherwise; dropout-free, output tied to the input."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    size = save_tokenizer(folder, chat)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            max_position_embeddings=128,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **{**shape, **config},
        )
    )
    model.save_pretrained(folder)
    return folder


def save_moe(folder: Path, family: str = "Mixtral", chat: bool = True, **config) -> Path:
    """A mixture of 4 experts in each of 2 blocks, 2 for each token; its routers are not even, as none is by chance."""
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    size = save_tokenizer(folder, chat)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape |= {"intermediate_size": 48, "moe_intermediate_size": 16, "head_dim": 8, "max_position_embeddings": 128}
    experts = {"num_local_experts" if family == "Mixtral" else "num_experts": 4, "num_experts_per_tok": 2}
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    made = getattr(transformers, f"{family}Config")(vocab_size=size, **{**shape, **experts, **special, **config})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(made)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("gate.weight"):
                value.normal_(0, 0.3)
    model.save_pretrained(folder)
    return folder


def dataset(**columns):
    """Columns as a numbered dataset, as tasks get it."""
    import pyarrow as pa

    from finetune.data.sources import as_dataset, with_example

    return as_dataset(with_example(pa.table(columns)))


def splits(train, validation=None, **held_out):
    """Datasets as the splits of a study, of which tasks read no facts."""
    from finetune.data import Splits

    return Splits(train, validation, held_out, {})


def save_gpt2(folder: Path, **config) -> Path:
    """A GPT-2 of 2 blocks, whose linear layers are transformers' `Conv1D`; its tokenizer has a chat template."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    folder.mkdir(parents=True, exist_ok=True)
    size = save_tokenizer(folder, chat=True)
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "bos_token_id": 4, "eos_token_id": 4}
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=size, **{**shape, **config})).save_pretrained(folder)
    return folder


def save_t5(folder: Path, extra: int = 0, **config) -> Path:
    """A T5 with 2 blocks in the encoder and 3 in the decoder, and ``extra`` tokens that stand for hidden spans."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    size = save_tokenizer(folder, extra=extra)
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
    special = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    torch.manual_seed(0)
    T5ForConditionalGeneration(T5Config(vocab_size=size, **special, **{**shape, **config})).save_pretrained(folder)
    return folder


def save_gguf(path: Path, blocks: int = 2, width: int = 32, without: str = "") -> Path:
    """A Llama with a chat tokenizer in one GGUF file, its large matrices quantised to 8 bits, all but one named."""
    import gguf
    import numpy as np
    from gguf import quants

    rng = np.random.default_rng(0)
    special, alphabet = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "abcdefghijklmnopqrstuvwxyzĠĊ"
    tokens = [*special, *alphabet, "he"]
    kinds = [gguf.TokenType.CONTROL] * len(special) + [gguf.TokenType.NORMAL] * (len(tokens) - len(special))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(blocks)
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    shapes = {"token_embd": (len(tokens), width), "output_norm": (width,)}
    for block in range(blocks):
        own = {f"attn_{name}": (width, width) for name in ("q", "k", "v", "output")}
        own |= {"attn_norm": (width,), "ffn_norm": (width,), "ffn_down": (width, 2 * width)}
        own |= {name: (2 * width, width) for name in ("ffn_gate", "ffn_up")}
        shapes |= {f"blk.{block}.{name}": shape for name, shape in own.items()}
    shapes.pop(without, None)
    for name, shape in shapes.items():
        values = rng.normal(0, 0.1, shape).astype(np.float32) + (len(shape) == 1)
        if len(shape) == 1 or name == "token_embd":
            writer.add_tensor(f"{name}.weight", values)
        else:
            packed = quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(f"{name}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_topics(folder: Path, model: Path) -> Path:
    """A classification recipe of two variants without baselines, and its data. In few steps both learn more than the
    majority class."""
    write_csv(folder / "news.csv", sentences(90))
    recipe = folder / "topics.yaml"
    recipe.write_text(
        f"""name: topics
seeds: 2
model: {{source: {model}, dtype: float32}}
data:
  train: {{path: news.csv}}
  split: {{test: 30, validation: 12, stratify: label}}
task: {{type: classification, max_length: 32}}
baselines: {{enabled: false}}
train: {{epochs: 1, min_steps: 24, batch_size: 16, learning_rate: 1.0e-2, evaluations: 2}}
variants:
  linear: {{strategy: {{type: linear, solver: steps}}, task: {{pooling: model}}, train: {{learning_rate: 0.1}}}}
  full: {{strategy: {{type: full}}}}
"""
    )
    return recipe


def write_chat_study(folder: Path, model: Path) -> Path:
    """A chat recipe without baselines, and its data. In few steps the model learns to answer better than untuned."""
    write_chats(folder / "chats.jsonl", 60)
    recipe = folder / "chats.yaml"
    recipe.write_text(
        f"""name: chats
seeds: 2
model: {{source: {model}, dtype: float32}}
data:
  train: {{path: chats.jsonl}}
  split: {{test: 16, validation: 8}}
task: {{type: chat, prompt: prompt, completion: completion, max_length: 64, max_new_tokens: 6}}
baselines: {{enabled: false}}
strategy: {{type: full}}
train: {{epochs: 1, min_steps: 30, batch_size: 8, learning_rate: 2.0e-2, evaluations: 2}}
"""
    )
    return recipe


def save_bart(folder: Path, **config) -> Path:
    """A BART with 2 blocks in each half, without dropout; its tokenizer ends every text with the end token."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    size = save_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    halves = {"layers": 2, "attention_heads": 4, "ffn_dim": 64}
    shape = {f"{half}_{name}": value for half in ("encoder", "decoder") for name, value in halves.items()}
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2, "decoder_start_token_id": 2}
    shape |= {"d_model": 32, "max_position_embeddings": 128, "dropout": 0.0, "init_std": 0.2}
    torch.manual_seed(0)
    model = BartForConditionalGeneration(BartConfig(vocab_size=size, **special, **{**shape, **config}))
    model.save_pretrained(folder)
    return folder


def save_encoder_decoder(folder: Path, **config) -> Path:
    """A T5 with 2 blocks in each half, whose tokenizer ends every text with the end token, as T5's do."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    save_t5(folder, 12, **{"num_decoder_layers": 2, **config})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    return folder
