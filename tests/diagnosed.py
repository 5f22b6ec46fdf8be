"""The content of a `diagnosis.json`, made from numbers and no training."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from finetune.stats.components import decompose, orthogonal_array


def content(**changes: Any) -> dict[str, Any]:
    """Sixteen runs in which `init` causes most, and `order` comes out below zero; a change has been named."""
    array = orthogonal_array(4, 3)
    rng = np.random.default_rng(23)
    chances = np.clip(0.8 + 0.1 * np.array([-1, 0.2, 0.5, 1])[array[:, 0]] + rng.normal(0, 0.01, 16), 0, 1)
    examples = (rng.random((16, 400)) < chances[:, None]).astype(float)
    levels = dict(zip(("init", "order", "dropout"), array.T, strict=True))
    found = decompose(examples.mean(axis=1), levels, rng, list(examples))
    made = {
        "format": 1,
        "study": "topics",
        "variant": "full",
        "task": "test",
        "metric": "accuracy",
        "runs": 16,
        "levels": 4,
        "left_out": {"noise": "no strategy or mitigation draws noise in training"},
        "failed": 0,
        "decomposition": found.facts(),
        "reason": None,
        "cause": {"name": "init", "reason": "'init' causes most of it"},
        "cure": {"name": "lp-ft", "why": "it starts alike", "write": ["strategy: {type: linear, mode: lp-ft}"]},
        "refused": {},
        "advice": None,
        "trial": None,
        **changes,
    }
    return json.loads(json.dumps(made))


TRIAL = {
    "study": "runs/topics-full-trial",
    "seeds": [100, 101, 102, 103, 104, 105],
    "before": {"mean": 0.8, "sd": 0.08, "failed": 1, "runs": 6},
    "after": {"mean": 0.82, "sd": 0.02, "failed": 0, "runs": 6},
    "sd_ratio": 0.25,
    "sd_ratio_ci": [0.1, 0.6],
    "p_spread": 0.021,
    "difference": 0.02,
    "difference_ci": [-0.01, 0.05],
    "p_difference": 0.25,
    "p_failures": 1.0,
    "verdict": "helps",
}
