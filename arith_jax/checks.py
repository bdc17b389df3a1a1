"""Checks of values and one-line errors: the key, its value, and what is allowed."""

import dataclasses
import difflib
import math
import reprlib
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

Section = TypeVar("Section")

# Whole numbers reach the device as int32.
MAX_INT = 2**31 - 1
# Larger numbers are infinite in float32.
MAX_FLOAT = 1e38
# Longest number, in digits, or list that any config may name.
MAX_LENGTH = 10**7
# Items of a tuple in a config.
MAX_ITEMS = 1000
MAX_NAME = 200
# Characters of an error that a person still reads.
MAX_MESSAGE = 500

WORDS = {
    int: "a whole number below 2^63 in size",
    float: f"a number of size {MAX_FLOAT} at most",
    bool: "True or False",
    str: "a string",
}
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxlong = SHORT.maxother = 80
SHORT.maxtuple = SHORT.maxlist = 10


def shown(value: Any) -> str:
    """A value as Python writes it, cut to what one line of an error has room for."""
    try:
        return SHORT.repr(value)
    except (ValueError, RecursionError):
        # An integer of more digits than Python writes out.
        return f"<{type(value).__name__}>"


def shown_key(key: Any) -> str:
    """A key as it is written, if it looks like one."""
    is_plain = isinstance(key, str) and key.isidentifier() and len(key) <= 60
    return key if is_plain else shown(key)


def one_line(text: str) -> str:
    """A text without line ends and the like, cut to `MAX_MESSAGE` characters."""
    line = "".join(c if c.isprintable() else " " for c in text[: 2 * MAX_MESSAGE])
    return line if len(line) <= MAX_MESSAGE else f"{line[: MAX_MESSAGE - 4]} ..."


def close_first(key: Any, names: Iterable[str]) -> str:
    """The names, those that are close to a mistaken one first."""
    names = list(names)
    close = difflib.get_close_matches(str(key)[:100], names, 3)
    hint = f"did you mean {close[0]!r}? " if close else ""
    listed = dict.fromkeys([*close, *names])
    return f"{hint}allowed: {', '.join(listed) or 'none'}"


def check_types(section: str, cls: Any, values: Mapping[str, Any]) -> None:
    """Raises `ValueError` if values of a dataclass are not what its fields declare.

    A whole number is taken for a float; True is no number, and infinity and NaN are
    none either. Fields of other types than numbers, words and tuples of them are not
    looked at.
    """
    for field in dataclasses.fields(cls):
        if field.name not in values:
            continue
        value = values[field.name]
        name = f"{section}.{field.name}" if section else field.name
        if typing.get_origin(field.type) is tuple:
            kind = typing.get_args(field.type)[0]
            if kind not in WORDS:
                continue
            if not isinstance(value, tuple) or len(value) > MAX_ITEMS:
                raise ValueError(
                    f"{name}={shown(value)}: must be a tuple of at most {MAX_ITEMS} "
                    f"items, each {WORDS[kind]}"
                )
            for item in value:
                check_type(name, item, kind)
        elif field.type in WORDS:
            check_type(name, value, cast(type, field.type))
        elif dataclasses.is_dataclass(field.type) and not isinstance(
            value, cast(type, field.type)
        ):
            raise ValueError(f"{name}={shown(value)}: must be a section of keys")


def check_type(name: str, value: Any, kind: type) -> None:
    """Raises `ValueError` if a value is not of a type; an int is a float, too."""
    if kind is float:
        is_right = type(value) is float or type(value) is int
        is_right = is_right and abs(value) <= MAX_FLOAT
    elif kind is int:
        # What is allowed is said by the checks of each key.
        is_right = type(value) is int and abs(value) < 2**63
    else:
        is_right = type(value) is kind
    if not is_right:
        raise ValueError(f"{name}={shown(value)}: must be {WORDS[kind]}")


def check_choice(section: str, config: Any, **allowed: tuple[str, ...]) -> None:
    """Raises `ValueError` if a field is none of the allowed words."""
    for name, words in allowed.items():
        value = getattr(config, name)
        if value not in words:
            raise ValueError(
                f"{section}.{name}={shown(value)} is unknown; allowed: "
                f"{', '.join(words)}"
            )


def check_range(
    section: str, config: Any, low: int | float, high: int | float, *names: str
) -> None:
    """Raises `ValueError` if a field, or an item of one, is not from `low` to `high`.

    Args:
        section: Of the config.
        config: Whose fields they are.
        low: Smallest number allowed.
        high: Largest number allowed; infinity: no bound but that of the type.
        names: Of the fields.
    """
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            # Written so that NaN, which no comparison holds for, is refused.
            if low <= number <= high:
                continue
            below_high = math.isinf(high) or number < low
            limit = f"at least {low}" if below_high else f"at most {high}"
            raise ValueError(f"{section}.{name}={shown(value)}: must be {limit}")


def check_name(key: str, name: str) -> None:
    """Raises `ValueError` if a name cannot be that of a file or folder."""
    is_path = "/" in name or "\\" in name or name in (".", "..")
    if is_path or not name.isprintable() or len(name) > MAX_NAME:
        raise ValueError(
            f"{key}={shown(name)}: must be at most {MAX_NAME} printable characters, "
            "without slashes"
        )


def build(section: str, cls: type[Section], values: Any) -> Section:
    """A frozen dataclass from the keys of a config; what is missing has its default.

    Lists become tuples, whole numbers floats where these are meant, and mappings the
    dataclasses of their fields.

    Raises:
        ValueError: If a key is unknown.
    """
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls))}
    arguments: dict[str, Any] = {}
    for key, value in as_mapping(section, values).items():
        if key not in fields:
            raise ValueError(
                f"{section}.{shown_key(key)} is unknown; {close_first(key, fields)}"
            )
        kind = fields[key].type
        if isinstance(value, Mapping) and dataclasses.is_dataclass(kind):
            value = build(f"{section}.{key}", cast(type[Any], kind), value)
        elif isinstance(value, list):
            value = tuple(value)
        elif kind is float:
            value = as_float(value)
        arguments[key] = value
    check_types(section, cls, arguments)
    return cls(**arguments)


def as_float(value: Any) -> Any:
    """A whole number as a float; anything else as it is."""
    return float(value) if type(value) is int and abs(value) <= MAX_FLOAT else value


def as_mapping(name: str, values: Any) -> Mapping[Any, Any]:
    """A section of a config, a `ConfigDict` too.

    Raises:
        ValueError: If it is no mapping.
    """
    values = values.to_dict() if hasattr(values, "to_dict") else values
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}={shown(values)}: must be a section of keys")
    return dict(values)
