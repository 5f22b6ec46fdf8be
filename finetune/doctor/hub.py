"""Whether models and data of the hub can be had. The network is tried only where that was asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator

from finetune.core.errors import first_line
from finetune.doctor.findings import Finding

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
ON = ("1", "on", "yes", "true")
KNOWN = "sentence-transformers/all-MiniLM-L6-v2"
"""A small public model by which access is tried."""
PATIENCE = 10.0
"""Seconds."""


def look_at_hub(asked: bool) -> Iterator[Finding]:
    """Say what the settings are, and, where it was ``asked`` for, whether the hub answers."""
    from huggingface_hub import constants, get_token

    offline = [name for name in OFFLINE if os.environ.get(name, "").strip().lower() in ON]
    token = "a token is there" if get_token() else "no token: public models and data alone"
    if offline:
        state, fix = ("problem", f"unset {' '.join(offline)}") if asked else ("note", "")
        found = f"{', '.join(offline)} keep it off the network: what was fetched before can be used; {token}"
        yield Finding("hub", state, found, fix)  # type: ignore[arg-type]
        return
    if not asked:
        yield Finding("hub", "note", f"{constants.ENDPOINT}, not tried; {token}", "finetune doctor --hub")
        return
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(KNOWN, timeout=PATIENCE)
    except Exception as error:  # whatever a proxy, a resolver or a library makes of it
        found = f"{constants.ENDPOINT} does not answer: {type(error).__name__}: {first_line(error)}"
        yield Finding("hub", "problem", found, f"curl -I {constants.ENDPOINT}; behind a proxy: export HTTPS_PROXY=...")
    else:
        yield Finding("hub", "fine", f"{constants.ENDPOINT} answers; {token}")
