"""Trains, evaluates and plots one experiment.

python launch.py --config=configs/abacus_add.py[:smoke|:cpu|:gpu] [--workdir=DIR]
"""

import os
import pathlib

import jax
from absl import flags

from arith_jax import command, run

# Compiled programs are kept between runs: the second start takes seconds.
CACHE = pathlib.Path.home() / ".cache" / "arith_jax"

WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default runs/<config>. Resumed if it exists."
)
MODE = flags.DEFINE_enum(
    "mode", "train_and_eval", run.MODES, "What to do in the workdir."
)


def main(arguments: list[str]) -> None:
    """Builds the dataclasses once and runs."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(CACHE))
    if arguments:
        raise ValueError(
            f"unexpected argument {arguments[0]!r}; allowed: --config, --workdir, "
            "--mode and --config.<key>=<value>"
        )
    chosen, overrides = command.experiment_of_flags()
    workdir = pathlib.Path(WORKDIR.value or f"runs/{chosen.name}")
    run.run(chosen, workdir, MODE.value, overrides)


if __name__ == "__main__":
    command.run(main)
