"""What the commands share: flags, one-line errors.

Each command makes its own flags when it is called, so that importing one changes
nothing.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
from absl import flags
from ml_collections import config_flags

from arith_jax.config.experiment import Experiment
from arith_jax.memory import keep_freed_memory

HELP = ("--help", "-help", "-h")


def new_flags(
    *, config_in: Sequence[str] | None = None, required: bool = True
) -> flags.FlagValues:
    """Flags of one command.

    Args:
        config_in: The command line of a command that takes an experiment, without the
            program's name: which keys of the config are flags is read off it.
        required: Whether such a command needs one.
    """
    values = flags.FlagValues()
    if config_in is not None:
        config_flags.DEFINE_config_file(
            "config",
            None,
            "Experiment, as configs/abacus_add.py:smoke.",
            lock_config=True,
            flag_values=values,
            sys_argv=["", *config_in],
        )
        if required:
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


def reason(error: Exception) -> str:
    """What is wrong, in one line."""
    # Flag libraries wrap the reason in a traceback or a list: its last line says it.
    lines = str(error).replace("\\n", "\n").strip().splitlines()
    return lines[-1].strip().removeprefix("ValueError: ")


def fail(error: Exception) -> NoReturn:
    """Ends the program with one line that says what is wrong."""
    sys.exit(f"error: {reason(error)}")


def keep_off_devices() -> None:
    """Lets JAX use the CPU only, before a command that does not compute.

    A config may ask for the device, and JAX would then take the memory of a GPU away
    from the runs on it. The presets of configs that follow the device are those of the
    CPU from here on; processes that this one starts are not affected.
    """
    jax.config.update("jax_platforms", "cpu")


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Calls `main` with the command line; bad input ends in one line."""
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    keep_freed_memory()
    try:
        main(sys.argv[1:])
    except (OSError, ValueError, FloatingPointError) as error:
        fail(error)
