"""The task that a config names, and the options it has."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from arith_jax.checks import as_float, check_types, close_first, shown, shown_key
from arith_jax.tasks.addition import Addition
from arith_jax.tasks.bitwise_or import BitwiseOr
from arith_jax.tasks.copying import Copying
from arith_jax.tasks.division import Division
from arith_jax.tasks.mixture import Mixture
from arith_jax.tasks.multi_addition import MultiAddition
from arith_jax.tasks.multiplication import Multiplication
from arith_jax.tasks.radix_sorting import RadixSorting
from arith_jax.tasks.sorting import Sorting
from arith_jax.tasks.square_root import SquareRoot
from arith_jax.tasks.subtraction import Subtraction
from arith_jax.tasks.task import Task

# Several classes are parts of a mixture.
TASKS: Mapping[str, tuple[type[Any], ...]] = {
    "addition": (Addition,),
    "subtraction": (Subtraction,),
    "multiplication": (Multiplication,),
    "addsub": (Addition, Subtraction),
    "arithmetic": (Addition, Subtraction, Multiplication),
    "multi_addition": (MultiAddition,),
    "division": (Division,),
    "square_root": (SquareRoot,),
    "copying": (Copying,),
    "sorting": (Sorting,),
    "radix_sorting": (RadixSorting,),
    "bitwise_or": (BitwiseOr,),
}


def make_task(name: Any, options: Mapping[str, Any]) -> Task:
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
            raise ValueError(
                f"task.{shown_key(key)}={shown(value)}: {name} has no such option; "
                f"{close_first(key, known)}"
            )
    # A whole number is meant as a float where one is wanted.
    options = {
        key: as_float(value) if type(known[key]) is float else value
        for key, value in options.items()
    }
    for task in TASKS[name]:
        check_types("task", task, options)
    tasks = tuple(
        task(**{key: options[key] for key in options_of(task) if key in options})
        for task in TASKS[name]
    )
    return tasks[0] if len(tasks) == 1 else Mixture(tasks)


def default_options(name: Any) -> dict[str, Any]:
    """All options of a task with their defaults; of a mixture, those of all parts.

    Raises:
        ValueError: If the name is unknown.
    """
    if not isinstance(name, str) or name not in TASKS:
        raise ValueError(
            f"task.name={shown(name)} is unknown; {close_first(name, TASKS)}"
        )
    options: dict[str, Any] = {}
    for task in TASKS[name]:
        options |= options_of(task)
    return options


def options_of(task: type[Any]) -> dict[str, Any]:
    """Options of one class, which are its fields, with their defaults."""
    return {field.name: field.default for field in dataclasses.fields(task)}
