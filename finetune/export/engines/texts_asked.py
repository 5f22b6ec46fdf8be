"""Questions to models that write, asked through transformers. Imports nothing of `finetune`."""

from __future__ import annotations

from datetime import date
from typing import Any

import answering
import torch


def _dated(tokenizer: Any, header: dict[str, Any]) -> dict[str, Any]:
    """The day that a chat template may show, by either of the two ways in which templates ask for it."""
    if "today" not in header:
        return {}
    today = date.fromisoformat(header["today"])
    return {"strftime_now": today.strftime, "date_string": today.strftime("%d %b %Y")}


def _rendered(tokenizer: Any, messages: Any, tools: Any, asking: bool, header: dict[str, Any]) -> list[int]:
    settings = _dated(tokenizer, header)
    template = tokenizer.get_chat_template(None, [{}] if tools else None)
    settings = {name: value for name, value in settings.items() if name in template and f"set {name}" not in template}
    text = tokenizer.apply_chat_template(
        messages, tools=tools, tokenize=False, add_generation_prompt=asking, **settings
    )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _logs(model: Any, ids: list[int]) -> torch.Tensor:
    """Log-probabilities of every token after each of ``ids``: (T, vocabulary), float64."""
    given = torch.tensor([ids])
    return model(input_ids=given, attention_mask=torch.ones_like(given)).logits[0].double().log_softmax(-1)


def _following(logs: torch.Tensor, ids: list[int]) -> list[float]:
    return logs[:-1].gather(1, torch.tensor(ids)[1:, None])[:, 0].tolist()


def _upto(tokens: list[int], ends: Any) -> list[int]:
    last = {ends} if isinstance(ends, int) else set(ends or ())
    place = next((place for place, token in enumerate(tokens) if token in last), len(tokens))
    return tokens[: place + 1]


def _generated(model: Any, ids: list[int], most: int, both: bool = False) -> list[int]:
    """What the model generates by the folder's generation config, but for how long it may be."""
    given = torch.tensor([ids])
    written = model.generate(input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=most)[0].tolist()
    return _upto(written[1:] if both else written[len(ids) :], model.generation_config.eos_token_id)


def _asked(tokenizer: Any, question: dict[str, Any], header: dict[str, Any]) -> tuple[list[int], int | None]:
    """The tokens to read, and how many of them ask for the answer."""
    if "messages" in question:
        messages, tools = question["messages"], question.get("tools")
        whole = _rendered(tokenizer, messages, tools, False, header)
        prompt = _rendered(tokenizer, messages[:-1], tools, True, header)
        return whole, len(prompt) if whole[: len(prompt)] == prompt else -1
    if "prompt" in question:
        text = question["target"] + tokenizer.eos_token
        prompt, whole = (tokenizer(each)["input_ids"] for each in (question["prompt"], question["prompt"] + text))
        if whole[: len(prompt)] != prompt:
            whole = [*prompt, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        return whole, len(prompt)
    room = header["max_length"] - bool(header["end"])
    found = tokenizer(question["text"], truncation=True, max_length=room, return_overflowing_tokens=True)
    ids = list(found["input_ids"][0])
    return [*ids, tokenizer.eos_token_id] if header["end"] and len(found["input_ids"]) == 1 else ids, None


def continue_(model: Any, tokenizer: Any, question: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    ids, prompt = _asked(tokenizer, question, header)
    logs = _logs(model, ids)
    found: dict[str, Any] = {
        "tokens": ids,
        "next": logs.argmax(-1).tolist(),
        "log_probabilities": _following(logs, ids),
    }
    if prompt is not None:
        found["prompt"] = prompt
    if "generate" in question and prompt is not None and prompt >= 0:
        found["generated"] = _generated(model, ids[:prompt], question["generate"])
    return found


def fill(model: Any, tokenizer: Any, question: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    ids = tokenizer(question["text"], truncation=True, max_length=header["max_length"])["input_ids"]
    places, right = question["hidden"], [ids[place] for place in question["hidden"]]
    for place in places:
        ids[place] = tokenizer.mask_token_id
    logs = _logs(model, ids)[places]
    said = logs.gather(1, torch.tensor(right)[:, None])[:, 0].tolist()
    return {"next": logs.argmax(-1).tolist(), "log_probabilities": said, "tokens": ids}


def translate(model: Any, tokenizer: Any, question: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    config = model.config
    ids = tokenizer(question["text"], truncation=True)["input_ids"]
    labels = list(tokenizer(text_target=question["target"], truncation=False)["input_ids"])
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if labels and labels[0] == config.decoder_start_token_id and labels[0] != end:
        labels = labels[1:]
    labels = labels if labels[-1:] == [end] else [*labels, end]
    given = torch.tensor([ids])
    found = model(input_ids=given, attention_mask=torch.ones_like(given), labels=torch.tensor([labels]))
    logs = found.logits[0].double().log_softmax(-1)
    said = logs.gather(1, torch.tensor(labels)[:, None])[:, 0].tolist()
    answer = {"next": logs.argmax(-1).tolist(), "log_probabilities": said, "tokens": list(ids), "target": labels}
    if "generate" in question:
        answer["generated"] = _generated(model, list(ids), question["generate"], both=True)
    return answer


def choose(model: Any, tokenizer: Any, question: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    if question.get("beside"):
        return _beside(model, tokenizer, question)
    likely, tokens = [], []
    for asked, choice in answering.choices(question):
        ids, begin = _with_choice(tokenizer, asked, choice, header)
        likely.append(_following(_logs(model, ids), ids)[begin - 1 :])
        tokens.append(ids)
    return {"scores": answering.scores(question, likely), "tokens": tokens}


def _with_choice(
    tokenizer: Any, question: dict[str, Any], choice: str, header: dict[str, Any]
) -> tuple[list[int], int]:
    """The tokens of what asks and one choice, and how many of them ask; of a chat, up to the token that ends it."""
    if "messages" in question:
        said = [*question["messages"], {"role": "assistant", "content": choice}]
        whole = _rendered(tokenizer, said, None, False, header)
        prompt = len(_rendered(tokenizer, question["messages"], None, True, header))
        last = max(place for place, token in enumerate(whole) if token in tokenizer.all_special_ids)
        return whole[: last + 1], prompt
    prompt = question["prompt"]
    space = "" if not prompt or prompt[-1].isspace() else " "
    asked, whole = (tokenizer(text)["input_ids"] for text in (prompt, prompt + space + choice))
    if whole[: len(asked)] != asked:
        whole = [*asked, *tokenizer(space + choice, add_special_tokens=False)["input_ids"]]
    return whole, len(asked)


def _beside(model: Any, tokenizer: Any, question: dict[str, Any]) -> dict[str, Any]:
    """Each choice alone with the question, by the head for multiple choice."""
    scores, tokens = [], []
    for choice in question["choices"]:
        given = tokenizer(question["text"], choice, truncation="only_first", return_tensors="pt")
        scores.append(float(model(**{name: values[None] for name, values in given.items()}).logits[0, 0]))
        tokens.append(given["input_ids"][0].tolist())
    return {"scores": scores, "tokens": tokens}


ANSWERS = {"continue": continue_, "fill": fill, "translate": translate, "choose": choose}
"""By the kind of the question."""
