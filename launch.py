"""Trains, evaluates and plots one experiment.

python launch.py --config=configs/abacus_add.py[:smoke|:cpu|:gpu] [--workdir=DIR]
"""

import logging
import os
import pathlib
import sys
from typing import NoReturn

import jax
from absl import app, flags
from ml_collections import config_flags

from arith_jax import experiment

# Compiled programs are kept between runs: the second start takes seconds.
CACHE = pathlib.Path.home() / ".cache" / "arith_jax"
logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Experiment, as configs/abacus_add.py:smoke.", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default runs/<config>. Resumed if it exists."
)
MODE = flags.DEFINE_enum(
    "mode", "train_and_eval", experiment.MODES, "What to do in the workdir."
)


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


def main(arguments: list[str]) -> None:
    """Builds the dataclasses once and runs."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(CACHE))
    try:
        if len(arguments) > 1:
            raise ValueError(
                f"unexpected argument {arguments[1]!r}; allowed: --config, --workdir, "
                "--mode and --config.<key>=<value>"
            )
        config = CONFIG.value.to_dict()
        workdir = pathlib.Path(WORKDIR.value or f"runs/{config['name']}")
        overrides = config_flags.get_override_values(flags.FLAGS["config"])
        experiment.run(
            experiment.Experiment.from_dict(config), workdir, MODE.value, overrides
        )
    except (OSError, ValueError, FloatingPointError) as error:
        fail(error)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse)
