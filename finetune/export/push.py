"""Puts an export on the hub, whole or not at all."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from finetune.core.errors import FinetuneError, bad_input, first_line
from finetune.core.progress import phase

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def check_push(repo: str) -> None:
    """Refuse a repository that cannot be pushed to, before anything is written: its name, the token, the hub."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if not _NAME.fullmatch(repo):
        raise bad_input("--push", f"'{repo}' is no repository's name", "write it as OWNER/NAME")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise bad_input(
            "--push", "HF_HUB_OFFLINE is set, so that nothing can be pushed", "unset it, or leave --push out"
        )
    api = HfApi()
    try:
        api.whoami()
    except HfHubHTTPError as error:
        found = f"the hub does not know you: {first_line(error)}"
        raise bad_input("--push", found, "log in with `hf auth login`, or set HF_TOKEN") from error
    except Exception as error:  # no token at all, and whatever a network gives
        found = f"the hub cannot be asked at {api.endpoint}: {first_line(error)}"
        raise bad_input("--push", found, "log in with `hf auth login`, or set HF_TOKEN; or leave --push out") from error


def push(folder: Path, repo: str, message: str, private: bool = True) -> str:
    """Upload everything in ``folder`` to ``repo`` in one commit, and give its address; a new repository is private,
    unless told otherwise. Raises :class:`FinetuneError` where the hub refuses: the folder stays as it is."""
    from huggingface_hub import HfApi

    api = HfApi()
    links = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink()]
    try:
        with phase(f"uploading to {repo}"):
            api.create_repo(repo, private=private, exist_ok=True)
            # Links are to a base model that lies elsewhere.
            found: Any = api.upload_folder(
                repo_id=repo, folder_path=folder, commit_message=message, ignore_patterns=links or None
            )
    except Exception as error:  # of the hub, of what is between, and of the library itself
        said = f"{folder} is written, and could not be pushed to {repo}: {first_line(error)}"
        raise FinetuneError(f"{said}; try `hf upload {repo} {folder}`") from error
    return str(found.commit_url)
