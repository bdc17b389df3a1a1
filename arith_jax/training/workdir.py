"""The folder of a run, and whether it fits an experiment."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a nested config, by dotted name."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_workdir(workdir: pathlib.Path, config: Mapping[str, Any], mode: str) -> None:
    """Refuses a workdir made with another config, naming the keys that differ.

    `--mode=eval` may evaluate otherwise than the run did: `eval` keys are free there.

    Args:
        workdir: Of a run; may be missing.
        config: Of the experiment to be run in it.
        mode: What is to be done in it.

    Raises:
        ValueError: With the keys and both values.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    old, new = (dict(flatten(c)) for c in (json.loads(path.read_text()), config))
    differing = [
        f"{key} (there {old.get(key)!r}, here {new.get(key)!r})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not (mode == "eval" and key.startswith("eval."))
    ]
    if differing:
        raise ValueError(
            f"workdir {workdir} was made with another config; differing: "
            f"{', '.join(differing)}; choose another --workdir or the same config"
        )
