"""Loss per answer token of an adapter on held-out questions: float32, one at a time, the same for every contestant."""

from __future__ import annotations

import math
from typing import Any

from scripts._benchmark.corpus import read_rows
from scripts._benchmark.programs import Facts, answer


def run(spec: Facts) -> Facts:
    """Mean negative log-likelihood in nats, and its 95 % interval over the questions."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    base = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32)
    model: Any = PeftModel.from_pretrained(base, spec["adapter"]).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    losses, counts = [], []
    for row in read_rows(spec["held_out"]):
        question = [{"role": "user", "content": row["question"]}]
        asked = str(tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True))
        start = len(tokenizer(asked, add_special_tokens=False).input_ids)
        ids = tokenizer(asked + row["answer"] + tokenizer.eos_token, add_special_tokens=False, return_tensors="pt")
        ids = ids.input_ids.to(model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, logits_to_keep=ids.shape[1] - start + 1).logits[0, :-1].float()
        losses.append(torch.nn.functional.cross_entropy(logits, ids[0, start:], reduction="sum").item())
        counts.append(ids.shape[1] - start)
    return {"score": {"name": "loss per answer token", **ratio_estimate(losses, counts)}}


def ratio_estimate(sums: list[float], counts: list[int]) -> dict[str, float]:
    """The mean over tokens, and its 95 % interval with whole examples drawn (Cochran 1977, section 2.11)."""
    n, value = len(sums), sum(sums) / sum(counts)
    residuals = [total - value * count for total, count in zip(sums, counts, strict=True)]
    error = math.sqrt(sum(r * r for r in residuals) / max(n - 1, 1) / n) / (sum(counts) / n)
    return {"value": value, "low": value - 1.96 * error, "high": value + 1.96 * error}


if __name__ == "__main__":
    answer(run)
