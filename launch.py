"""Trains, evaluates and plots one experiment.

python launch.py --config=configs/abacus_add.py[:smoke|:cpu|:gpu] [--workdir=DIR]
"""

import os
import pathlib
from collections.abc import Sequence

import jax
from absl import flags

from arith_jax import cli
from arith_jax.run import MODES, run

# Compiled programs are kept between runs: the second start takes seconds.
CACHE = pathlib.Path.home() / ".cache" / "arith_jax"


def main(arguments: Sequence[str]) -> None:
    """Builds the experiment once and runs it."""
    values = cli.new_flags(config_in=arguments)
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder of the run; default runs/<config>. Resumed if it exists.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "mode", MODES[0], MODES, "What to do in the workdir.", flag_values=values
    )
    rest = cli.parse(values, arguments, __doc__ or "")
    if rest:
        raise ValueError(
            f"unexpected argument {rest[0]!r}; allowed: --config, --workdir, --mode "
            "and --config.<key>=<value>"
        )
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(CACHE))
    experiment, overrides = cli.experiment_of(values)
    workdir = pathlib.Path(values.workdir or f"runs/{experiment.name}")
    run(experiment, workdir, mode=values.mode, overrides=overrides)


if __name__ == "__main__":
    cli.run(main)
