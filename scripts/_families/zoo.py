"""The families: a tiny model of each, with random weights, from its configuration class in transformers."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<|im_start|>", "<|im_end|>"]
"""The first tokens of every vocabulary, in the order of their numbers."""
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOPICS = {
    "garden": ["rose", "seed", "soil", "spade", "hedge", "lawn", "bloom", "weed"],
    "kitchen": ["oven", "spoon", "flour", "salt", "butter", "pan", "plate", "recipe"],
    "harbour": ["boat", "anchor", "pier", "tide", "sailor", "rope", "crane", "gull"],
}
LINKS = ["the", "a", "beside", "under", "with", "and", "near", "of"]


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """``count`` different texts with their topics."""
    rng, found = random.Random(seed), dict[str, str]()
    while len(found) < count:
        topic = sorted(TOPICS)[len(found) % len(TOPICS)]
        words = [rng.choice(TOPICS[topic] if rng.random() < 0.5 else LINKS) for _ in range(rng.randint(3, 11))]
        found[" ".join([rng.choice(TOPICS[topic]), *words])] = topic
    return list(found.items())


@dataclass(frozen=True)
class Family:
    """One row of the table."""

    name: str
    config: str
    """The configuration's class."""
    kind: str
    """`encoder`, `decoder` or `both`: an encoder-decoder."""
    shape: dict[str, Any] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those that could fit."""
        return ("classification", "language") if self.kind == "encoder" else ("classification", "language", "chat")

    def make(self, folder: Path, added: int = 0) -> Path:
        """The model and its tokenizer in ``folder``, which both know ``added`` more tokens than they began with."""
        import torch
        import transformers

        tokenizer = save_tokenizer(folder, self.kind, added)
        config = getattr(transformers, self.config)(vocab_size=len(tokenizer) - added, **{**IDS, **self.shape})
        torch.manual_seed(0)
        for known in ("Seq2SeqLM",) if self.kind == "both" else ("MaskedLM", "CausalLM"):
            auto = getattr(transformers, f"AutoModelFor{known}")
            if type(config) in auto._model_mapping:
                model = auto.from_config(config)
                break
        else:
            model = transformers.AutoModel.from_config(config)
        if added:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model.save_pretrained(folder)
        return folder


def save_tokenizer(folder: Path, kind: str, added: int) -> Any:
    """A byte-level tokenizer that puts around a text what this kind of model expects."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text for text, _ in sentences(100)] + ["user assistant system\n"], trainer)
    around = {"encoder": "<s> {} </s>", "both": "{} </s>", "decoder": "{}"}[kind]
    pair = around.format("$A") + " " + around.format("$B:1").replace("<s> ", "")
    tokenizer.post_processor = TemplateProcessing(
        single=around.format("$A"), pair=pair, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>", "cls": "<s>", "sep": "</s>"}
    tokens = {f"{name}_token": token for name, token in names.items()}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **tokens)
    fast.chat_template = None if kind == "encoder" else CHATML
    fast.add_tokens([f"harbour{number}" for number in range(added)])
    fast.save_pretrained(folder)
    return fast


IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
BERT = {**WIDE, "intermediate_size": 48}
SHIFTED = {**BERT, "max_position_embeddings": 132}
"""For those whose positions count from after the padding token's number."""
LLAMA = {**BERT, "num_key_value_heads": 2}
HEADED = {**LLAMA, "head_dim": 8}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
BART = {
    "d_model": 32,
    **{
        f"{half}_{what}": size
        for half in ("encoder", "decoder")
        for what, size in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))
    },
    "max_position_embeddings": 128,
    "decoder_start_token_id": 2,
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
T5 = {**T5, "decoder_start_token_id": 0}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
DEBERTA = {**BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 32}
XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 128, "n_langs": 1}
XLM = {**XLM, "pad_index": 0, "bos_index": 1, "eos_index": 2, "unk_index": 3, "mask_index": 4}
STATE = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
SLIDING = {**HEADED, "sliding_window": 16}
LINEAR = {f"linear_{what}": 8 if "dim" in what else 2 for what in ("key_head_dim", "value_head_dim", "num_key_heads")}
LATENT = {"kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "q_lora_rank": 16}

ENCODERS = {
    "ALBERT": ("Albert", {**BERT, "embedding_size": 16}),
    "BERT": ("Bert", BERT),
    "BigBird": ("BigBird", {**BERT, "attention_type": "original_full"}),
    "CamemBERT": ("Camembert", SHIFTED),
    "ConvBERT": ("ConvBert", BERT),
    "Data2Vec": ("Data2VecText", SHIFTED),
    "DeBERTa": ("Deberta", {**DEBERTA, "num_attention_heads": 4}),
    "DeBERTa-v2": ("DebertaV2", {**DEBERTA, "share_att_key": True, "position_buckets": 16, "type_vocab_size": 0}),
    "DistilBERT": (
        "DistilBert",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 128},
    ),
    "ELECTRA": ("Electra", {**BERT, "embedding_size": 16}),
    "ERNIE": ("Ernie", BERT),
    "EuroBERT": ("EuroBert", LLAMA),
    "Flaubert": ("Flaubert", XLM),
    "FNet": ("FNet", {name: size for name, size in BERT.items() if name != "num_attention_heads"}),
    "Funnel": (
        "Funnel",
        {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 48, "block_sizes": [1, 1], "num_decoder_layers": 1},
    ),
    "I-BERT": ("IBert", SHIFTED),
    "LayoutLM": ("LayoutLM", BERT),
    "Longformer": ("Longformer", {**SHIFTED, "attention_window": [8, 8]}),
    "LUKE": ("Luke", {**SHIFTED, "entity_vocab_size": 8, "entity_emb_size": 16}),
    "Megatron-BERT": ("MegatronBert", BERT),
    "MobileBERT": ("MobileBert", {**BERT, "embedding_size": 16, "intra_bottleneck_size": 16, "intermediate_size": 32}),
    "ModernBERT": ("ModernBert", {**BERT, "cls_token_id": 1, "sep_token_id": 2}),
    "MPNet": ("MPNet", SHIFTED),
    "MRA": ("Mra", BERT),
    "Nystromformer": ("Nystromformer", BERT),
    "RemBERT": ("RemBert", {**BERT, "input_embedding_size": 16, "output_embedding_size": 24}),
    "RoBERTa": ("Roberta", SHIFTED),
    "RoBERTa-PreLN": ("RobertaPreLayerNorm", SHIFTED),
    "RoCBert": ("RoCBert", {**BERT, "enable_pronunciation": False, "enable_shape": False}),
    "RoFormer": ("RoFormer", BERT),
    "SqueezeBERT": ("SqueezeBert", {**BERT, "embedding_size": 32}),
    "XLM": ("XLM", XLM),
    "XLM-RoBERTa": ("XLMRoberta", SHIFTED),
    "XLM-RoBERTa-XL": ("XLMRobertaXL", SHIFTED),
    "XLNet": ("XLNet", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}),
    "YOSO": ("Yoso", BERT),
}
DECODERS = {
    "Arcee": ("Arcee", HEADED),
    "BioGPT": ("BioGpt", BERT),
    "BLOOM": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "CodeGen": ("CodeGen", {**GPT, "rotary_dim": 8}),
    "Cohere": ("Cohere", LLAMA),
    "Cohere2": ("Cohere2", {**HEADED, "sliding_window": 16}),
    "CTRL": ("CTRL", {**GPT, "dff": 48}),
    "DeepSeek-V3": (
        "DeepseekV3",
        {
            **LLAMA,
            **LATENT,
            "num_key_value_heads": 4,
            "moe_intermediate_size": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
    "EmbeddingGemma": ("Gemma3Text", {**SLIDING, "use_bidirectional_attention": True}),
    "ERNIE 4.5": ("Ernie4_5", HEADED),
    "EXAONE 4": ("Exaone4", SLIDING),
    "Falcon": ("Falcon", {**WIDE, "multi_query": True, "new_decoder_architecture": False, "alibi": False}),
    "Falcon (ALiBi)": ("Falcon", {**WIDE, "multi_query": False, "new_decoder_architecture": False, "alibi": True}),
    "Falcon-Mamba": ("FalconMamba", STATE),
    "Gemma": ("Gemma", HEADED),
    "Gemma 2": ("Gemma2", SLIDING),
    "Gemma 3": ("Gemma3Text", SLIDING),
    "GLM": ("Glm", HEADED),
    "GLM-4": ("Glm4", HEADED),
    "gpt-oss": ("GptOss", {**SLIDING, **LOCAL}),
    "GPT-2": ("GPT2", GPT),
    "GPT-BigCode": ("GPTBigCode", GPT),
    "GPT-J": ("GPTJ", {**GPT, "rotary_dim": 8}),
    "GPT-Neo": (
        "GPTNeo",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "intermediate_size": 48,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 16,
            "max_position_embeddings": 128,
        },
    ),
    "GPT-NeoX": ("GPTNeoX", BERT),
    "Granite": ("Granite", {**LLAMA, "logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5}),
    "Helium": ("Helium", HEADED),
    "Jamba": (
        "Jamba",
        {
            **LLAMA,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 2,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
    ),
    "LFM2": ("Lfm2", {**LLAMA, "layer_types": ["conv", "full_attention"]}),
    "Llama": ("Llama", HEADED),
    "Mamba": ("Mamba", STATE),
    "Mamba 2": ("Mamba2", {**STATE, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8}),
    "Mistral": ("Mistral", SLIDING),
    "Mixtral": ("Mixtral", {**LLAMA, **LOCAL}),
    "MPT": ("Mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128, "expansion_ratio": 2}),
    "Nemotron": ("Nemotron", HEADED),
    "OLMo": ("Olmo", LLAMA),
    "OLMo 2": ("Olmo2", LLAMA),
    "OLMoE": ("Olmoe", {**LLAMA, "num_experts": 4, "num_experts_per_tok": 2}),
    "OPT": ("OPT", {**WIDE, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "Persimmon": ("Persimmon", BERT),
    "Phi": ("Phi", LLAMA),
    "Phi-3": ("Phi3", {**LLAMA, "original_max_position_embeddings": 128}),
    "Qwen2": ("Qwen2", {**LLAMA, "tie_word_embeddings": True}),
    "Qwen2-MoE": ("Qwen2Moe", {**LLAMA, **EXPERTS, "shared_expert_intermediate_size": 16}),
    "Qwen3": ("Qwen3", HEADED),
    "Qwen3-MoE": ("Qwen3Moe", {**HEADED, **EXPERTS}),
    "Qwen3-Next": (
        "Qwen3Next",
        {
            **HEADED,
            **EXPERTS,
            **LINEAR,
            "linear_num_value_heads": 4,
            "layer_types": ["linear_attention", "full_attention"],
            "shared_expert_intermediate_size": 16,
        },
    ),
    "RecurrentGemma": (
        "RecurrentGemma",
        {
            **WIDE,
            "num_hidden_layers": 3,
            "num_key_value_heads": 1,
            "intermediate_size": 96,
            "lru_width": 32,
            "attention_window_size": 16,
        },
    ),
    "RWKV": (
        "Rwkv",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "attention_hidden_size": 32,
            "intermediate_size": 48,
            "context_length": 128,
        },
    ),
    "SmolLM3": ("SmolLM3", LLAMA),
    "StableLM": ("StableLm", LLAMA),
    "StarCoder2": ("Starcoder2", LLAMA),
    "XGLM": (
        "XGLM",
        {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "max_position_embeddings": 128},
    ),
}
BOTH = {
    "BART": ("Bart", BART),
    "mBART": ("MBart", BART),
    "mT5": ("MT5", T5),
    "Pegasus": ("Pegasus", BART),
    "T5": ("T5", T5),
    "UMT5": ("UMT5", T5),
}
FAMILIES = {
    name: Family(name, f"{config}Config", kind, shape)
    for kind, some in (("encoder", ENCODERS), ("decoder", DECODERS), ("both", BOTH))
    for name, (config, shape) in some.items()
}
