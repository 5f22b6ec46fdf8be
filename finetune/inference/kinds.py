"""What a model answers, as its own configuration says, where no recipe says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from finetune.core.errors import bad_input

HEADS = {
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
}
"""Ends of the names of transformers' classes, and the tasks of ours that their models answer."""

PEFT_TASKS = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
    "CAUSAL_LM": "ForCausalLM",
    "SEQ_2_SEQ_LM": "ForConditionalGeneration",
    "FEATURE_EXTRACTION": "Model",
}
"""peft's words for the same."""

ADVICE = "write what it is to answer, such as task.type=embedding"


def task_of_config(config: Any, tokenizer: Any, source: str) -> dict[str, Any]:
    """Give the options of the task that a model with this ``config`` answers. Raises InputError where it answers
    nothing by itself."""
    classes = getattr(config, "architectures", None) or [""]
    if getattr(config, "is_encoder_decoder", False) and not any("Classification" in each for each in classes):
        return {"type": "seq2seq"}
    if classes[0].endswith("ForSequenceClassification"):
        return _of_classifier(config)
    for end, task in HEADS.items():
        if classes[0].endswith(end):
            return {"type": task, **({"head": "model"} if task == "multiple-choice" else {})}
    if classes[0].endswith(("ForCausalLM", "LMHeadModel")) or not classes[0]:
        return talking(tokenizer)
    if classes[0].endswith("Model"):
        return {"type": "embedding", "label": "label"}
    found = f"'{source}' is a {classes[0]}, which answers nothing by itself"
    raise bad_input("task.type", found, ADVICE)


def talking(tokenizer: Any) -> dict[str, Any]:
    """Give the options of a task that continues text: as a conversation where the ``tokenizer`` has a chat template."""
    if tokenizer.chat_template:
        return {"type": "chat", "messages": "messages"}
    return {"type": "chat", "prompt": "prompt", "completion": "completion", "template": "none"}


def _of_classifier(config: Any) -> dict[str, Any]:
    if config.num_labels == 1 or config.problem_type == "regression":
        return {"type": "regression"}
    if config.problem_type == "multi_label_classification":
        return {"type": "multi-label-classification"}
    return {"type": "classification"}


def said_labels(config: Any) -> tuple[str, ...]:
    """Give the labels of a head in the order of its outputs; none where it has no such."""
    known: dict[int, str] = getattr(config, "id2label", None) or {}
    return tuple(str(known[number]) for number in sorted(known))


class AdapterTask(NamedTuple):
    """What an adapter is for."""

    task: dict[str, Any] | None
    """Options of its task; None: its base model's."""
    config: dict[str, Any]
    """What its base model's configuration has to say of the head."""


def adapter_task(place: Path) -> AdapterTask:
    """Find what the peft adapter in folder ``place`` is for: labels are those of a config.json beside it, where there
    is one; else there are as many as its head has outputs."""
    from finetune.core.run_dir import read_json

    said = read_json(place / "adapter_config.json")
    beside = read_json(place / "config.json") if (place / "config.json").exists() else {}
    end = PEFT_TASKS.get(str(said.get("task_type") or ""), "")
    names = ("num_labels", "id2label", "label2id", "problem_type", "target_mean", "target_sd")
    config = {name: beside[name] for name in names if beside.get(name) is not None}
    if "id2label" in config:
        config["id2label"] = {int(number): label for number, label in config["id2label"].items()}
        config.setdefault("num_labels", len(config["id2label"]))
    if end in ("ForSequenceClassification", "ForTokenClassification") and "num_labels" not in config:
        config["num_labels"] = _outputs_of(place)
    return AdapterTask(_adapter_options(end, config), config)


def _adapter_options(end: str, config: dict[str, Any]) -> dict[str, Any] | None:
    if end == "ForSequenceClassification":
        if config.get("num_labels") == 1 or config.get("problem_type") == "regression":
            return {"type": "regression"}
        several = config.get("problem_type") == "multi_label_classification"
        return {"type": "multi-label-classification" if several else "classification"}
    if end in HEADS:
        return {"type": HEADS[end]}
    if end == "Model":
        return {"type": "embedding", "label": "label"}
    return None


def _outputs_of(place: Path) -> int:
    """Count the outputs of the head that is saved with an adapter."""
    from safetensors import safe_open

    path = place / "adapter_model.safetensors"
    if not path.exists():
        raise bad_input(None, f"{place} has no adapter_model.safetensors", "give a complete adapter folder")
    with safe_open(path, "pt") as file:
        heads = [name for name in file.keys() if name.split(".")[-1] == "weight" and _is_head(name)]  # noqa: SIM118
        if not heads:
            raise bad_input(None, f"the adapter in {place} has no head, and no config.json with labels", ADVICE)
        return int(file.get_slice(sorted(heads)[-1]).get_shape()[0])


def _is_head(name: str) -> bool:
    return any(part in ("classifier", "score", "qa_outputs", "out_proj") for part in name.split("."))
