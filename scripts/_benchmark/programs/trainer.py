"""One run of transformers' Trainer on sentence pairs, with peft for LoRA: trained, and scored on the held-out pairs."""

from __future__ import annotations

import time
from typing import Any

from scripts._benchmark.corpus import LABELS, read_rows
from scripts._benchmark.programs import Facts, answer, device_memory_bytes, shared_arguments, stopwatch


def run(spec: Facts) -> Facts:
    """Train and score, as a person's script would."""
    began = time.perf_counter()
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, set_seed

    set_seed(spec["seed"])
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    model = AutoModelForSequenceClassification.from_pretrained(
        spec["model"], num_labels=len(LABELS), id2label=dict(enumerate(LABELS))
    )
    model = tune(model, spec)
    train, held_out = (encode(spec[part], tokenizer, spec["max_length"]) for part in ("train", "held_out"))
    watch = stopwatch()
    settings = {"per_device_train_batch_size": spec["batch"], **spec["settings"]}
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**shared_arguments(spec), **settings),
        train_dataset=train,
        processing_class=tokenizer,  # which also chooses the collator that pads each batch to its longest example
        callbacks=[watch],
    )
    ready = time.perf_counter()
    state = trainer.train()
    found: Any = trainer.predict(held_out)
    right = int((found.predictions.argmax(-1) == found.label_ids).sum())
    return {
        "seconds_after_start": time.perf_counter() - ready,
        "seconds_of_start": ready - began,
        "training_seconds": watch.seconds,
        "tokens": sum(map(len, train["input_ids"])) * spec["epochs"],
        "examples": len(train) * spec["epochs"],
        "steps": state.global_step,
        "trainable": sum(value.numel() for value in model.parameters() if value.requires_grad),
        "accuracy": right / len(held_out),
        "held_out": len(held_out),
        "device_memory_bytes": device_memory_bytes(),
        "used": {name: getattr(trainer.args, name) for name in ("bf16", "optim", "train_sampling_strategy")},
    }


def encode(path: str, tokenizer: Any, max_length: int) -> Any:
    """A dataset of token numbers and labels."""
    from datasets import Dataset

    def tokenise(rows: Facts) -> Facts:
        tokens = tokenizer(rows["sentence1"], rows["sentence2"], truncation=True, max_length=max_length)
        return {**tokens, "labels": [LABELS.index(label) for label in rows["label"]]}

    return Dataset.from_list(read_rows(path)).map(
        tokenise, batched=True, remove_columns=["sentence1", "sentence2", "label"]
    )


def tune(model: Any, spec: Facts) -> Any:
    """Freeze what the strategy leaves as it is."""
    if spec["strategy"] == "lora":
        from peft import LoraConfig, TaskType, get_peft_model

        config = LoraConfig(
            task_type=TaskType.SEQ_CLS, r=spec["rank"], lora_alpha=spec["alpha"], target_modules="all-linear"
        )
        return get_peft_model(model, config)
    if spec["strategy"] in ("linear", "partial"):
        model.base_model.requires_grad_(False)
    if spec["strategy"] == "partial":
        for block in model.base_model.encoder.layer[-spec["last_blocks"] :]:
            block.requires_grad_(True)
        model.base_model.pooler.requires_grad_(True)
    return model


if __name__ == "__main__":
    answer(run)
