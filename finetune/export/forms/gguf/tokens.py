"""A tokenizer as GGUF holds it: its tokens and their kinds, merges or scores, what it puts before and after a text."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.export.forms.gguf.splitting import splitting_name

if TYPE_CHECKING:
    import gguf
    from transformers import PreTrainedTokenizerBase

SPACE = "▁"
"""What SentencePiece writes for a space."""


@dataclass(frozen=True)
class Scheme:
    """How text becomes tokens, in llama.cpp's words."""

    model: str
    """`gpt2`: merges of bytes; `llama`: SentencePiece's merges, by scores; `t5`: its unigrams."""
    pre: str = "default"
    """How text is cut before bytes are merged."""
    flags: dict[str, bool] = field(default_factory=dict)
    """Names of the writer's flags, such as `add_space_prefix`."""


class Ends(NamedTuple):
    """What a tokenizer puts around a text of its own accord: numbers of tokens, None for nothing."""

    before: int | None
    after: int | None


def tokens_refusal(tokenizer: PreTrainedTokenizerBase, size: int) -> str | None:
    """Say in one line why llama.cpp would not cut text as ``tokenizer`` does; None: nothing says so.

    ``size`` is the number of rows of the token embedding.
    """
    if not tokenizer.is_fast:
        return "GGUF is written from tokenizer.json, and this tokenizer has none"
    file = _file(tokenizer)
    last = max(_contents(file))
    if last >= size:
        return (
            f"the tokenizer numbers its tokens up to {last}, and the model has embeddings for {size}: they do not fit"
        )
    found = _scheme(file)
    if isinstance(found, str):
        return found
    if tokenizer.eos_token_id is None:
        return "the tokenizer has no end token, so that llama.cpp would never stop; set one (eos_token)"
    try:
        ends_of(tokenizer)
    except ValueError as error:
        return str(error)
    return None


def add_tokens(
    writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, size: int, ends: Sequence[int], in_turns: bool
) -> None:
    """Write the tokenizer. ``size``: rows of the token embedding; ``ends``: tokens that end an answer, the most usual
    first; ``in_turns``: texts are conversations. ValueError where :func:`tokens_refusal` says why not."""
    refused = tokens_refusal(tokenizer, size)
    if refused:
        raise ValueError(refused)
    file = _file(tokenizer)
    scheme, contents = _scheme(file), _contents(file)
    assert isinstance(scheme, Scheme)
    writer.add_vocab_size(size)
    writer.add_tokenizer_model(scheme.model)
    writer.add_tokenizer_pre(scheme.pre)
    writer.add_token_list([contents.get(number, f"[PAD{number}]") for number in range(size)])
    writer.add_token_types(_kinds(file, contents, size))
    if scheme.model == "gpt2":
        writer.add_token_merges([_joined(merge) for merge in file["model"]["merges"]])
    else:
        writer.add_token_scores(_scores(file, contents, size))
    for name, value in scheme.flags.items():
        getattr(writer, f"add_{name}")(value)
    charsmap = _charsmap(file)
    if charsmap:
        writer.add_precompiled_charsmap(charsmap)
    _add_special(writer, tokenizer, ends, _around_turns(tokenizer) if in_turns else ends_of(tokenizer))
    if tokenizer.chat_template:
        writer.add_chat_template(_template(tokenizer.chat_template))


def ends_of(tokenizer: PreTrainedTokenizerBase) -> Ends:
    """Ask the tokenizer what it puts around a text. ValueError where llama.cpp cannot do that."""
    whole, bare = (list(tokenizer("a b", add_special_tokens=add)["input_ids"]) for add in (True, False))
    start = next((n for n in range(len(whole) - len(bare) + 1) if whole[n : n + len(bare)] == bare), None)
    if start is None or start > 1 or len(whole) - start - len(bare) > 1:
        text = tokenizer.convert_ids_to_tokens(whole)
        raise ValueError(f"the tokenizer puts more around a text than one token on each side: {' '.join(text)}")
    return Ends(whole[0] if start else None, whole[-1] if len(whole) > start + len(bare) else None)


def _add_special(
    writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], around: Ends
) -> None:
    """Write the numbers of special tokens, and which of them every text begins or ends with."""
    first, *others = [*dict.fromkeys([*ends, tokenizer.eos_token_id])]
    if around.after is not None and around.after != first:
        first, others = around.after, [first, *(one for one in others if one != around.after)]
    beginning = around.before if around.before is not None else tokenizer.bos_token_id
    if beginning is not None:
        writer.add_bos_token_id(beginning)
    writer.add_eos_token_id(first)
    for name, number in zip(("eot", "eom"), others, strict=False):
        getattr(writer, f"add_{name}_token_id")(number)
    for name in ("unk", "pad", "mask", "sep"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(around.before is not None)
    writer.add_add_eos_token(around.after is not None)


def _around_turns(tokenizer: PreTrainedTokenizerBase) -> Ends:
    """What conversations begin with by their template: llama.cpp puts the first token before them by itself, and takes
    it off where a template writes it too."""
    said = [{"role": "user", "content": "a"}]
    shown = str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))
    first = tokenizer(shown, add_special_tokens=False)["input_ids"][0]
    return Ends(first if first == tokenizer.bos_token_id else None, None)


def _file(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What tokenizer.json says."""
    file: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return file


def _contents(file: dict[str, Any]) -> dict[int, str]:
    """The tokens by their numbers, added ones too."""
    vocabulary = file["model"]["vocab"]
    if isinstance(vocabulary, dict):
        contents = {number: token for token, number in vocabulary.items()}
    else:
        contents = {number: piece for number, (piece, _) in enumerate(vocabulary)}
    return contents | {token["id"]: token["content"] for token in file["added_tokens"]}


def _scheme(file: dict[str, Any]) -> Scheme | str:
    """Name how text becomes tokens, or say why llama.cpp cannot do it."""
    model = file["model"]
    if model["type"] == "Unigram":
        return _unigram(file)
    if model["type"] != "BPE":
        return f"llama.cpp has no tokenizer like this one ({model['type']}) for models that continue text"
    if model.get("byte_fallback"):
        return _pieces(file)
    normalizer = (file["normalizer"] or {"type": "NFC"})["type"]
    pre = splitting_name(file["pre_tokenizer"], bool(model.get("ignore_merges")))
    if pre is None or normalizer != "NFC":
        what = json.dumps(file["pre_tokenizer"] if pre is None else file["normalizer"])
        return f"llama.cpp has no name for how this tokenizer cuts text: {what[:160]}"
    return Scheme("gpt2", pre, {"add_space_prefix": False})


def _unigram(file: dict[str, Any]) -> Scheme | str:
    """Unigrams as SentencePiece makes them; what its normaliser does to spaces is among the flags."""
    steps = _steps(file["normalizer"], "normalizers")
    known = [step for step in steps if step["type"] in ("Precompiled", "Replace", "Strip", "Nmt")]
    prefix = _prefixed(file)
    if len(known) != len(steps) or prefix is None:
        return "llama.cpp has no name for how this tokenizer prepares text before it looks for unigrams"
    squeezed = any(step["type"] == "Replace" and step["pattern"] != {"String": " "} for step in steps)
    return Scheme("t5", "default", {"add_space_prefix": prefix, "remove_extra_whitespaces": squeezed})


def _pieces(file: dict[str, Any]) -> Scheme | str:
    """Merges of characters as SentencePiece makes them, which llama.cpp follows by scores of what they make."""
    prefix = _prefixed(file)
    if prefix is None:
        return "llama.cpp has no name for how this tokenizer prepares text before it merges characters"
    missing = _unmerged(file)
    if missing:
        return f"llama.cpp would merge {missing[0]!r} and {missing[1]!r}, which this tokenizer never does"
    return Scheme("llama", "default", {"add_space_prefix": prefix})


def _prefixed(file: dict[str, Any]) -> bool | None:
    """Tell whether a space is put before a text; None where spaces become something else than SentencePiece's."""
    normalizers = _steps(file["normalizer"], "normalizers")
    cuts = _steps(file["pre_tokenizer"], "pretokenizers")
    if [cut["type"] for cut in cuts] == ["Metaspace"] and cuts[0]["replacement"] == SPACE:
        return bool(cuts[0]["prepend_scheme"] != "never")
    replaced = any(
        step["type"] == "Replace" and step["pattern"] == {"String": " "} and step["content"] == SPACE
        for step in normalizers
    )
    harmless = not cuts or ([cut["type"] for cut in cuts] == ["Split"] and cuts[0]["pattern"] == {"String": " "})
    if not replaced or not harmless or any(step["type"] not in ("Replace", "Prepend") for step in normalizers):
        return None
    return any(step["type"] == "Prepend" for step in normalizers)


def _steps(part: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """The steps of a normaliser or pre-tokenizer, in order."""
    if part is None:
        return []
    return list(part[inner]) if part["type"] == "Sequence" else [part]


def _unmerged(file: dict[str, Any]) -> tuple[str, str] | None:
    """Find two pieces that are a token together, which no merge makes: by scores they would be merged."""
    vocabulary = file["model"]["vocab"]
    merges = {tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in file["model"]["merges"]}
    apart = {token["content"] for token in file["added_tokens"]}
    for token in vocabulary:
        if token in apart:
            continue
        for cut in range(1, len(token)):
            pair = token[:cut], token[cut:]
            if pair not in merges and all(part in vocabulary and part not in apart for part in pair):
                return pair
    return None


def _kinds(file: dict[str, Any], contents: dict[int, str], size: int) -> list[int]:
    """The kind of each token (size,), in GGUF's numbers."""
    import gguf

    kinds = [gguf.TokenType.NORMAL if number in contents else gguf.TokenType.UNUSED for number in range(size)]
    if file["model"].get("byte_fallback"):
        for number, token in contents.items():
            if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
                kinds[number] = gguf.TokenType.BYTE
    for token in file["added_tokens"]:
        kinds[token["id"]] = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
    unknown = _unknown(file)
    if unknown is not None:
        kinds[unknown] = gguf.TokenType.UNKNOWN
    return [int(kind) for kind in kinds]


def _unknown(file: dict[str, Any]) -> int | None:
    """The number of the token for what is unknown, of SentencePiece's tokenizers."""
    model = file["model"]
    if model["type"] == "Unigram":
        unknown: int | None = model["unk_id"]
        return unknown
    return model["vocab"].get(model.get("unk_token")) if model.get("byte_fallback") else None


def _scores(file: dict[str, Any], contents: dict[int, str], size: int) -> list[float]:
    """The score of each token (size,): a unigram's own; of merges the earlier one makes the better token."""
    if file["model"]["type"] == "Unigram":
        own = [float(score) for _, score in file["model"]["vocab"]]
        return own + [0.0] * (size - len(own))
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(file["model"]["merges"]):
        ranks.setdefault("".join(merge) if isinstance(merge, list) else merge.replace(" ", ""), rank)
    return [-float(ranks.get(contents.get(number, ""), 0)) for number in range(size)]


def _joined(merge: str | list[str]) -> str:
    """A merge as one string; a space inside of a part, which ends a part otherwise, as bytes are written."""
    return merge if isinstance(merge, str) else " ".join(part.replace(" ", "Ġ") for part in merge)


def _charsmap(file: dict[str, Any]) -> bytes | None:
    """SentencePiece's own table of normalised characters, where the tokenizer has one."""
    for step in _steps(file["normalizer"], "normalizers"):
        if step["type"] == "Precompiled" and step["precompiled_charsmap"]:
            return base64.b64decode(step["precompiled_charsmap"])
    return None


def _template(said: str | dict[str, str]) -> str | list[dict[str, str]]:
    """A chat template, or several by name, as the writer takes them."""
    return said if isinstance(said, str) else [{"name": name, "template": one} for name, one in said.items()]
