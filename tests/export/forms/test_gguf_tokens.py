"""Tokenizers in GGUF: llama.cpp cuts text as they do, and those that it cannot follow are refused."""

import pytest
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from finetune.export.forms.gguf.splitting import EXPRESSIONS, splitting_name
from finetune.export.forms.gguf.tokens import ends_of, tokens_refusal
from finetune.export.forms.gguf.writing import About, write_gguf
from tests import tiny
from tests.export.asked import ask

CORPUS = [text for text, _ in tiny.sentences(300)]
CORPUS += ["user assistant system", "1234 5678 90", "Ärger über Übermut", "it's we'll I'M"]
TEXTS = [
    "the bank, market and  loan",
    "A rocket's orbit: we'll see 12345 planets (or 6)!",
    "Ünïcödé – “quotes” … 日本語 🙂 naïve",
    "line one\nline two\n\n  indented\ttab \n",
    "the loan<|im_end|>\nmarket",
]
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_end|>"]


def wrapped(tokenizer, **names):
    usual = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{**usual, **names})
    fast.add_tokens([AddedToken("<|im_end|>", special=True, normalized=False)])
    return fast


def beginning(tokenizer):
    """With the first token before every text, as Llama's."""
    first = [("<s>", tokenizer.token_to_id("<s>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=first)
    return tokenizer


def pieces(way):
    """Merges as SentencePiece makes them: any two pieces that are a token together, the earlier token first."""
    learnt = Tokenizer(models.BPE(unk_token="<unk>"))
    learnt.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    every = [f"<0x{byte:02X}>" for byte in range(256)]
    learnt.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=600, special_tokens=[*SPECIAL, *every]))
    vocabulary = learnt.get_vocab()
    words = [token for token in vocabulary if token not in (*SPECIAL, *every)]
    cuts = [(token[:place], token[place:]) for token in words for place in range(1, len(token))]
    merges = [pair for pair in cuts if all(part in vocabulary for part in pair)]
    merges.sort(key=lambda pair: vocabulary["".join(pair)])
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if way == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif way == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=way, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return wrapped(beginning(tokenizer))


def unigrams():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    return wrapped(beginning(tokenizer))


def of_bytes(*before, words=False, ignore_merges=False, vocabulary=600):
    """Merges of bytes behind ``before``."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, last]) if before else last
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return wrapped(tokenizer)


def split(name):
    expression = next(each for each, own in EXPRESSIONS.items() if own == name)
    return pre_tokenizers.Split(Regex(expression), "isolated")


KINDS = {
    "legacy Llama": lambda: pieces("legacy"),
    "Llama": lambda: pieces("always"),
    "without a first space": lambda: pieces("never"),
    "Gemma": lambda: pieces("gemma"),
    "unigrams": unigrams,
    "gpt-2": lambda: of_bytes(words=True),
    "smollm": lambda: of_bytes(pre_tokenizers.Digits(individual_digits=True), words=True),
    "llama-bpe": lambda: of_bytes(split("llama-bpe"), ignore_merges=True),
    "qwen2": lambda: of_bytes(split("qwen2")),
    "tekken": lambda: of_bytes(split("tekken"), ignore_merges=True),
    "gpt-4o": lambda: of_bytes(split("gpt-4o")),
}


def model_for(tokenizer, rows=None):
    config = transformers.LlamaConfig(
        vocab_size=rows or len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=32,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_cuts_text_as_the_tokenizer_does(tmp_path, kind):
    tokenizer = KINDS[kind]()
    (tmp_path / "out").mkdir()
    rows = len(tokenizer) + 5  # as embeddings are padded to a round number
    write_gguf(model_for(tokenizer, rows), tokenizer, tmp_path / "out" / "model.gguf", False, About("tiny"))
    questions = [{"kind": "continue", "text": text} for text in TEXTS]
    _, answers = ask("llama_cpp_engine", tmp_path / "out", questions, max_length=500, end=False)
    for text, answer in zip(TEXTS, answers, strict=True):
        assert answer["tokens"] == tokenizer(text)["input_ids"], text
    assert (answers[0]["tokens"][0] == 1) == (ends_of(tokenizer).before == 1)


def test_a_first_token_that_the_template_leaves_out_is_not_put_before_a_conversation(tmp_path):
    tokenizer = pieces("legacy")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    talk = [{"role": "user", "content": "the bank"}, {"role": "assistant", "content": "loan"}]
    for template in (tokenizer.chat_template, "<s>" + tokenizer.chat_template):
        tokenizer.chat_template = template
        folder = tmp_path / str(len(template))
        folder.mkdir()
        write_gguf(model_for(tokenizer), tokenizer, folder / "model.gguf", False, About("tiny", in_turns=True))
        _, (answer,) = ask("llama_cpp_engine", folder, [{"kind": "continue", "messages": talk}])
        assert answer["tokens"] == tokenizer.apply_chat_template(talk, tokenize=True)["input_ids"]


def test_how_text_is_cut_is_known_by_what_the_file_says():
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    assert splitting_name(byte_level, False) == "gpt-2"
    assert splitting_name({**byte_level, "add_prefix_space": True}, False) is None
    assert splitting_name({"type": "Whitespace"}, False) is None
    assert splitting_name(None, False) is None
    digits = {"type": "Digits", "individual_digits": False}
    assert splitting_name({"type": "Sequence", "pretokenizers": [digits, byte_level]}, False) is None
    assert EXPRESSIONS[transformers.models.qwen2.tokenization_qwen2.PRETOKENIZE_REGEX] == "qwen2"
    gpt4o = (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    assert EXPRESSIONS[gpt4o] == "gpt-4o"


def test_tokenizers_that_llama_cpp_cannot_follow_are_refused():
    def refused(change):
        tokenizer = of_bytes(words=True)
        change(tokenizer)
        return tokens_refusal(tokenizer, 1000)

    def lower(tokenizer):
        tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()

    def spaces(tokenizer):
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()

    def endless(tokenizer):
        tokenizer.eos_token = None

    def framed(tokenizer):
        marks = [("<s>", 1), ("</s>", 2)]
        frame = processors.TemplateProcessing(single="<s> <s> $A </s>", special_tokens=marks)
        tokenizer.backend_tokenizer.post_processor = frame

    assert refused(lambda tokenizer: None) is None
    assert 'no name for how this tokenizer cuts text: {"type": "Lowercase"}' in refused(lower)
    assert 'no name for how this tokenizer cuts text: {"type": "Whitespace"}' in refused(spaces)
    assert "has no end token" in refused(endless)
    assert "more around a text than one token on each side: <s> <s>" in refused(framed)
    assert "has embeddings for 300: they do not fit" in tokens_refusal(of_bytes(words=True), 300)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    assert "no tokenizer like this one (WordLevel)" in tokens_refusal(wrapped(words), 9)


def test_merges_that_scores_cannot_say_are_refused():
    """A token that no two pieces make: llama.cpp would make it of any two."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "b": 5, "c": 6, "bc": 7, "ab": 8, "abc": 9}
    merges = [("b", "c"), ("a", "b"), ("ab", "c")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    assert (
        tokens_refusal(wrapped(tokenizer), 20) == "llama.cpp would merge 'a' and 'bc', which this tokenizer never does"
    )


def test_what_stands_around_a_text_is_asked_of_the_tokenizer():
    assert ends_of(pieces("legacy")) == (1, None)
    assert ends_of(of_bytes(words=True)) == (None, None)
