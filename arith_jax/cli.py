"""What the commands share: flags, one-line errors.

Each command makes its own flags when it is called, so that importing one changes
nothing.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

from arith_jax.config.experiment import Experiment
from arith_jax.memory import keep_freed_memory

HELP = ("--help", "-help", "-h")


def new_flags(*, with_config: bool = False) -> flags.FlagValues:
    """Flags of one command; those of an experiment, if it takes one."""
    values = flags.FlagValues()
    if with_config:
        config_flags.DEFINE_config_file(
            "config",
            None,
            "Experiment, as configs/abacus_add.py:smoke.",
            lock_config=True,
            flag_values=values,
        )
        flags.mark_flag_as_required("config", flag_values=values)
    return values


def parse(values: flags.FlagValues, arguments: Sequence[str], usage: str) -> list[str]:
    """Parses flags and returns the other arguments.

    Args:
        values: From `new_flags`; filled in.
        arguments: Without the program's name.
        usage: What `--help` shows before the flags.
    """
    if any(argument in HELP for argument in arguments):
        print(usage.strip(), values.main_module_help(), sep="\n\n")
        sys.exit(0)
    try:
        return values(["", *arguments])[1:]
    except (flags.Error, AttributeError, ValueError) as error:
        fail(error)


def experiment_of(values: flags.FlagValues) -> tuple[Experiment, dict[str, Any]]:
    """The checked experiment, and the keys given on the command line.

    Raises:
        ValueError: If values are not allowed or do not fit together.
    """
    overrides = config_flags.get_override_values(values["config"])
    return Experiment.from_dict(values.config), overrides


def fail(error: Exception) -> NoReturn:
    """Ends the program with one line that says what is wrong."""
    # Flag libraries wrap the reason in a traceback or a list: its last line says it.
    lines = str(error).replace("\\n", "\n").strip().splitlines()
    sys.exit(f"error: {lines[-1].strip().removeprefix('ValueError: ')}")


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Calls `main` with the command line; bad input ends in one line."""
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    keep_freed_memory()
    try:
        main(sys.argv[1:])
    except (OSError, ValueError, FloatingPointError) as error:
        fail(error)
