"""One run of TRL's SFTTrainer: LoRA on the answers of a chat. The adapter is saved, to be scored by answers.py."""

from __future__ import annotations

import time
from typing import Any

from scripts._benchmark.corpus import read_rows
from scripts._benchmark.programs import Facts, answer, device_memory_bytes, shared_arguments, stopwatch


def run(spec: Facts) -> Facts:
    """Train as TRL's documentation shows it: a model's name, prompt and completion, a LoRA configuration."""
    began = time.perf_counter()
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from trl import SFTConfig, SFTTrainer

    watch = stopwatch()
    settings = {"per_device_train_batch_size": spec["batch"], **spec["settings"]}
    trainer = SFTTrainer(
        model=spec["model"],
        args=SFTConfig(**shared_arguments(spec), max_length=spec["max_length"], **settings),
        train_dataset=Dataset.from_list([conversation(row) for row in read_rows(spec["train"])]),
        peft_config=LoraConfig(
            task_type=TaskType.CAUSAL_LM, r=spec["rank"], lora_alpha=spec["alpha"], target_modules="all-linear"
        ),
        callbacks=[watch],
    )
    model: Any = trainer.model
    data: Any = trainer.train_dataset
    ready = time.perf_counter()
    state = trainer.train()
    ended = time.perf_counter()
    trainer.save_model(spec["output"])
    arguments = ("bf16", "gradient_checkpointing", "packing", "optim", "per_device_train_batch_size", "loss_type")
    return {
        "seconds_after_start": ended - ready,
        "seconds_of_start": ready - began,
        "training_seconds": watch.seconds,
        "tokens": sum(len(row) for row in data["input_ids"]) * spec["epochs"],
        "examples": len(read_rows(spec["train"])) * spec["epochs"],
        "steps": state.global_step,
        "trainable": sum(value.numel() for value in model.parameters() if value.requires_grad),
        "adapter": spec["output"],
        "device_memory_bytes": device_memory_bytes(),
        "used": {
            **{name: getattr(trainer.args, name) for name in arguments},
            "frozen_weights": str(next(value.dtype for value in model.parameters() if not value.requires_grad)),
            "completion_only_loss": trainer.completion_only_loss,
            "attention": model.config._attn_implementation,
        },
    }


def conversation(row: dict[str, str]) -> Facts:
    """A question and its answer as turns; with a completion apart, TRL learns the completion only."""
    return {
        "prompt": [{"role": "user", "content": row["question"]}],
        "completion": [{"role": "assistant", "content": row["answer"]}],
    }


if __name__ == "__main__":
    answer(run)
