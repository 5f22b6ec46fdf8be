"""The base of every options model: strict, frozen, and closed to unknown keys."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """What a recipe section may say. Subclasses live beside the code that reads them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    def identifying(self) -> dict[str, Any]:
        """The options that decide what comes out, in JSON's types: all but those marked :data:`OPERATIONAL`."""
        return {
            name: _identifying(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if field.json_schema_extra is not OPERATIONAL
        }


OPERATIONAL: dict[str, Any] = {"operational": True}
"""`json_schema_extra` of an option that changes how work is done but not what comes out; it may change on resuming."""


def _identifying(value: Any) -> Any:
    if isinstance(value, Options):
        return value.identifying()
    if isinstance(value, dict):
        return {key: _identifying(item) for key, item in value.items()}
    return [_identifying(item) for item in value] if isinstance(value, list | tuple) else value
