"""What nobody else should see: values of environment variables whose names say so, and passwords in addresses.

Messages of libraries may quote them, and messages are kept: in results, in logs, on a screen that somebody photographs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

SECRET = re.compile(r"TOKEN(?!IZ)|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
"""Names of variables whose values are nobody else's business."""

SHORTEST = 8
"""Characters from which a value is looked for; `KEYBOARD=us` would be found in every other word."""

_WHO = re.compile(r"(?<=://)[^/\s@'\"]*:[^/\s@'\"]+(?=@)")
_SET = re.compile(r"\$\{\w+\}")


def secret_values(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Give the names of secret variables by their values, the longest first; of those with an address, such as a
    proxy's, by the password in it. Paths are none: where a key lies is no secret."""
    found = {
        value: name for name, value in environ.items() if SECRET.search(name) and not value.startswith(("/", "./", "~"))
    }
    found |= {who[0].partition(":")[2]: name for name, value in environ.items() if (who := _WHO.search(value))}
    found = {value: name for value, name in found.items() if len(value) >= SHORTEST}
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))


def without_secrets(text: str) -> str:
    """``text`` with `${NAME}` in place of the value of a secret variable, and without who asks in an address."""
    for value, name in secret_values().items():
        text = text.replace(value, f"${{{name}}}")
    return _WHO.sub(lambda found: found[0] if _SET.search(found[0]) else "…", text) if "://" in text else text
