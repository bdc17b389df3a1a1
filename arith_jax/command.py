"""What the commands that take an experiment share: flags, one-line errors.

Only entry points (`launch.py`, `arith_jax.bench`) import this: it defines flags.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags
from ml_collections import config_flags

from arith_jax import memory
from arith_jax.experiment import Experiment

logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Experiment, as configs/abacus_add.py:smoke.", lock_config=True
)


def experiment_of_flags() -> tuple[Experiment, dict[str, Any]]:
    """The checked experiment, and the keys given on the command line.

    Raises:
        ValueError: If values are not allowed or do not fit together.
    """
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    return Experiment.from_dict(CONFIG.value.to_dict()), overrides


def fail(error: Exception) -> NoReturn:
    """Ends the program with one line that says what is wrong."""
    # Flag libraries wrap the reason in a traceback or a list: its last line says it.
    lines = str(error).replace("\\n", "\n").strip().splitlines()
    sys.exit(f"error: {lines[-1].strip().removeprefix('ValueError: ')}")


def parse(arguments: list[str]) -> list[str]:
    """Parses the flags."""
    try:
        return flags.FLAGS(arguments)
    except (flags.Error, AttributeError, ValueError) as error:
        fail(error)


def run(main: Callable[[list[str]], None]) -> None:
    """Calls `main` with what is left of the command line; bad input is one line."""
    memory.keep()

    def explained(arguments: list[str]) -> None:
        try:
            main(arguments[1:])
        except (OSError, ValueError, FloatingPointError) as error:
            fail(error)

    flags.mark_flag_as_required("config")
    app.run(explained, flags_parser=parse)
