"""The task that a config names, and the options it has."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from arith_jax.tasks.addition import Addition
from arith_jax.tasks.bitwise_or import BitwiseOr
from arith_jax.tasks.mixture import Mixture
from arith_jax.tasks.multiplication import Multiplication
from arith_jax.tasks.sorting import Sorting
from arith_jax.tasks.subtraction import Subtraction
from arith_jax.tasks.task import Task

# Several classes are parts of a mixture.
TASKS: Mapping[str, tuple[type[Any], ...]] = {
    "addition": (Addition,),
    "subtraction": (Subtraction,),
    "multiplication": (Multiplication,),
    "addsub": (Addition, Subtraction),
    "arithmetic": (Addition, Subtraction, Multiplication),
    "sorting": (Sorting,),
    "bitwise_or": (BitwiseOr,),
}


def make_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task of a config.

    Args:
        name: One of `TASKS`.
        options: Options that differ from `default_options`. Those of a mixture go to
            the parts that have them.

    Raises:
        ValueError: If the name is unknown, the task has no such option, or the value
            of an option does not fit.
    """
    known = default_options(name)
    for key, value in options.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            allowed = list(dict.fromkeys([*close, *known]))
            raise ValueError(
                f"task.{key}={value!r}: {name} has no such option; allowed: "
                f"{', '.join(allowed) or 'none'}"
            )
    tasks = tuple(
        task(**{key: options[key] for key in options_of(task) if key in options})
        for task in TASKS[name]
    )
    return tasks[0] if len(tasks) == 1 else Mixture(tasks)


def default_options(name: str) -> dict[str, Any]:
    """All options of a task with their defaults; of a mixture, those of all parts.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in TASKS:
        raise ValueError(f"task.name={name!r} is unknown; allowed: {', '.join(TASKS)}")
    options: dict[str, Any] = {}
    for task in TASKS[name]:
        options |= options_of(task)
    return options


def options_of(task: type[Any]) -> dict[str, Any]:
    """Options of one class, which are its fields, with their defaults."""
    return {field.name: field.default for field in dataclasses.fields(task)}
