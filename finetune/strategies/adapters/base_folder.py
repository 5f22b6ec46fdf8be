"""Writes the base model that a saved adapter with a new head needs beside it, with that head's configuration.

peft loads the base model before the adapter, with as many labels as the base model's own configuration has, and no
padding token where that has none. So a folder beside the adapter has the right configuration, and links to the base
model's files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = "base"


def write_base(model: Any, folder: Path, place: Path) -> None:
    """Put the base model's folder into ``folder``, which will stand at ``place``, if an adapter with a head is there.

    `AutoPeftModelForSequenceClassification.from_pretrained(place)` then loads what was trained. A base model from the
    hub keeps its name, under which others can have it too: what the configuration here says of the head has to be told
    there (`num_labels=`, `id2label=`, `label2id=`, `problem_type=`, `pad_token_id=`).
    """
    settings_file = folder / "adapter_config.json"
    if not settings_file.exists():
        return
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    if not settings.get("modules_to_save"):
        return
    base = folder / FOLDER
    model.get_base_model().config.save_pretrained(base)
    source = Path(settings["base_model_name_or_path"] or "")
    if not (source / "config.json").is_file():
        return
    for file in source.iterdir():
        if not (base / file.name).exists():
            (base / file.name).symlink_to(file.resolve())
    settings["base_model_name_or_path"] = str((place / FOLDER).resolve())
    settings_file.write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")
