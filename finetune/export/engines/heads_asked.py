"""Questions to models with a head, asked through transformers. Imports nothing of `finetune`."""

from __future__ import annotations

import json
import os
from typing import Any

import torch


def _logits(model: Any, tokenizer: Any, question: dict[str, Any]) -> tuple[torch.Tensor, list[int]]:
    texts = [question["text"], *([question["pair"]] if "pair" in question else [])]
    given = tokenizer(*texts, truncation=True, return_tensors="pt")
    return model(**given).logits[0].double(), given["input_ids"][0].tolist()


def _named(model: Any, values: torch.Tensor) -> dict[str, float]:
    labels = model.config.id2label
    return {labels[number]: value for number, value in enumerate(values.tolist())}


def classify(model: Any, tokenizer: Any, question: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    logits, tokens = _logits(model, tokenizer, question)
    return {"probabilities": _named(model, logits.softmax(-1)), "tokens": tokens}


def multi_label(model: Any, tokenizer: Any, question: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    logits, tokens = _logits(model, tokenizer, question)
    return {"probabilities": _named(model, logits.sigmoid()), "tokens": tokens}


def regress(model: Any, tokenizer: Any, question: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    logits, tokens = _logits(model, tokenizer, question)
    return {"value": float(logits[0]), "tokens": tokens}


def tag(model: Any, tokenizer: Any, question: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    """A word's tag is that of the first token that begins in it."""
    given = tokenizer(question["text"], truncation=True, return_tensors="pt", return_offsets_mapping=True)
    places = given.pop("offset_mapping")[0].tolist()
    said = model(**given).logits[0].argmax(-1).tolist()
    words, tags, taken = question["words"], ["O"] * len(question["words"]), set()
    for (begin, end), number in zip(places, said, strict=True):
        # The first word that has not ended where the token begins.
        word = next((place for place, (_, last) in enumerate(words) if last > begin), None)
        if begin < end and word is not None and words[word][0] < end and word not in taken:
            tags[word] = model.config.id2label[number]
            taken.add(word)
    return {"tags": tags, "tokens": given["input_ids"][0].tolist()}


def _windows(tokenizer: Any, question: dict[str, Any], stride: int) -> tuple[list[list[int]], list[list[int]], Any]:
    """The tokens of each window, their places in the whole pair, and the whole pair's encoding."""
    whole = tokenizer(question["question"], question["context"], return_offsets_mapping=True, verbose=False)
    of_text = [place for place, which in enumerate(whole.sequence_ids(0)) if which == 1]
    first, last = of_text[0], of_text[-1] + 1
    total, length = len(whole["input_ids"]), last - first
    room = tokenizer.model_max_length - (total - length)
    if length <= room:
        return [whole["input_ids"]], [list(range(total))], whole
    step = room - min(stride, room // 2)
    starts = [*range(0, length - room, step), length - room]
    places = [[*range(first), *range(first + start, first + start + room), *range(last, total)] for start in starts]
    return [[whole["input_ids"][place] for place in own] for own in places], places, whole


def answer(model: Any, tokenizer: Any, question: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    """The likeliest span of all windows, each held against no answer in its own window, which its first token says."""
    windows, places, whole = _windows(tokenizer, question, header["stride"])
    context, best, text = question["context"], -float("inf"), ""
    for ids, own in zip(windows, places, strict=True):
        given = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        if "token_type_ids" in whole:
            given["token_type_ids"] = torch.tensor([[whole["token_type_ids"][place] for place in own]])
        found = model(**given)
        starts, ends = found.start_logits[0].double(), found.end_logits[0].double()
        offsets = [whole["offset_mapping"][place] for place in own]
        which = whole.sequence_ids(0)
        inside = [
            which[place] == 1 and bool(context[begin:end].strip())
            for place, (begin, end) in zip(own, offsets, strict=True)
        ]
        none = starts[0] + ends[0]
        allowed = torch.tensor(inside)
        pairs = (starts[:, None] + ends[None, :]).masked_fill(~(allowed[:, None] & allowed[None, :]), -float("inf"))
        long = torch.ones_like(pairs, dtype=torch.bool).triu().tril(header["max_answer_length"] - 1)
        pairs = pairs.masked_fill(~long, -float("inf"))
        place = int(pairs.argmax())
        begin, end = divmod(place, pairs.shape[1])
        margin = float(pairs[begin, end] - none)
        if margin > best:
            best, text = margin, context[offsets[begin][0] : offsets[end][1]].strip()
    return {"answer": text, "margin": best, "tokens": windows}


def embed(model: Any, tokenizer: Any, question: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    """The vector that the folder's own pooling makes."""
    given = tokenizer(question["text"], truncation=True, return_tensors="pt")
    hidden = model(**given).last_hidden_state[0].double()
    with open(os.path.join(header["folder"], "1_Pooling", "config.json"), encoding="utf-8") as file:
        modes = {name for name, value in json.load(file).items() if value is True}
    pooled = {
        "pooling_mode_cls_token": hidden[0],
        "pooling_mode_mean_tokens": hidden.mean(0),
        "pooling_mode_max_tokens": hidden.amax(0),
        "pooling_mode_lasttoken": hidden[-1],
    }
    [vector] = [value for name, value in pooled.items() if name in modes]
    if os.path.isdir(os.path.join(header["folder"], "2_Normalize")):
        vector = torch.nn.functional.normalize(vector, dim=0)
    return {"vector": vector.tolist(), "tokens": given["input_ids"][0].tolist()}


ANSWERS = {
    "classify": classify,
    "multi_label": multi_label,
    "regress": regress,
    "tag": tag,
    "answer": answer,
    "embed": embed,
}
"""By the kind of the question."""
