"""One run of SetFit: an encoder tuned on pairs of a few texts, then logistic regression on what it makes of them."""

from __future__ import annotations

import time
from typing import Any

from scripts._benchmark.corpus import read_rows
from scripts._benchmark.programs import Facts, answer, device_memory_bytes


def run(spec: Facts) -> Facts:
    """Train and score, as a person's script would."""
    began = time.perf_counter()
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    train, held_out = (Dataset.from_list(read_rows(spec[part])) for part in ("train", "held_out"))
    model = SetFitModel.from_pretrained(spec["model"], labels=sorted(set(train["label"])))
    model.model_body.max_seq_length = spec["max_length"]
    arguments: dict[str, Any] = {
        "output_dir": spec["output"],
        "seed": spec["seed"],
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "show_progress_bar": False,
        **spec["settings"],
    }
    trainer = Trainer(model=model, args=TrainingArguments(**arguments), train_dataset=train)
    ready = time.perf_counter()
    trainer.train()
    trained = time.perf_counter()
    said = model.predict(held_out["text"])
    right = sum(str(one) == other for one, other in zip(said, held_out["label"], strict=True))
    return {
        "seconds_after_start": time.perf_counter() - ready,
        "seconds_of_start": ready - began,
        "training_seconds": trained - ready,
        "examples": len(train),
        "accuracy": right / len(held_out),
        "held_out": len(held_out),
        "device_memory_bytes": device_memory_bytes(),
    }


if __name__ == "__main__":
    answer(run)
