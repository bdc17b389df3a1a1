"""Checks of values and one-line errors: the key, its value, and what is allowed."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar, cast

Section = TypeVar("Section")


def check_choice(section: str, config: Any, **allowed: tuple[str, ...]) -> None:
    """Raises `ValueError` if a field is none of the allowed words."""
    for name, words in allowed.items():
        value = getattr(config, name)
        if value not in words:
            raise ValueError(
                f"{section}.{name}={value!r} is unknown; allowed: {', '.join(words)}"
            )


def check_at_least(section: str, config: Any, **limits: int | float) -> None:
    """Raises `ValueError` if a field is below its limit, or no number."""
    for name, limit in limits.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not value >= limit:
            raise ValueError(f"{section}.{name}={value}: must be at least {limit}")


def build(section: str, cls: type[Section], values: Mapping[str, Any]) -> Section:
    """A frozen dataclass from the keys of a config; what is missing has its default.

    Lists become tuples, and mappings the dataclasses of their fields.

    Raises:
        ValueError: If a key is unknown.
    """
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls))}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            close = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(
                f"{section}.{key} is unknown; {hint}allowed: {', '.join(fields)}"
            )
        kind = fields[key].type
        if isinstance(value, Mapping) and dataclasses.is_dataclass(kind):
            value = build(f"{section}.{key}", cast(type[Any], kind), value)
        arguments[key] = tuple(value) if isinstance(value, list) else value
    return cls(**arguments)
