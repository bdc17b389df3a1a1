"""Trains, evaluates and plots one experiment, or those that a sweep file lists.

python launch.py --config=configs/abacus_add.py[:smoke|:cpu|:gpu] [--workdir=DIR]
python launch.py --config=... --distributed=auto|HOST:PORT,COUNT,INDEX
python launch.py --sweep=FILE [--list | --index=I] [--workdir=ROOT]
"""

import json
import pathlib
import shlex
import sys
from collections.abc import Sequence

from absl import flags

from arith_jax import cli, distributed
from arith_jax.checks import shown
from arith_jax.run import MODES, run
from arith_jax.sweep import progress, schedule
from arith_jax.sweep.entries import read_sweep
from arith_jax.training.interrupt import noted_signals
from arith_jax.training.log import make_console
from arith_jax.training.workdir import default_workdir
from configs.base import PRESETS


def main(arguments: Sequence[str]) -> None:
    """Runs one experiment, or a sweep.

    Raises:
        ValueError: If the command line or the experiment is not allowed.
    """
    check_together(flag_names(arguments))
    # Before a config asks for the device.
    how = cli.flag_value(arguments, "distributed")
    if how is not None:
        distributed.start(how)
    values = read_flags(with_preset(arguments))
    if values.sweep is not None:
        run_sweep(values)
    else:
        run_one(values)


def read_flags(arguments: Sequence[str]) -> flags.FlagValues:
    """The flags of a command line, read.

    Raises:
        ValueError: If they are not allowed.
    """
    values = make_flags(arguments, is_sweep="sweep" in flag_names(arguments))
    rest = cli.parse(values, arguments, __doc__ or "")
    if rest:
        raise ValueError(
            f"unexpected argument {shown(rest[0])}; allowed: --config, --workdir, "
            "--mode, --config.<key>=<value>, or --sweep"
        )
    return values


def flag_names(arguments: Sequence[str]) -> set[str]:
    """The flags of a command line; keys of the config are `config`."""
    words = [word.lstrip("-") for word in arguments if word.startswith("-")]
    return {word.partition("=")[0].partition(".")[0] for word in words}


def with_preset(arguments: Sequence[str]) -> list[str]:
    """A command line whose config has the preset of its workdir, if it names none.

    A run on a GPU can so be evaluated on a CPU, whose preset is another one.
    """
    names = ("config", "workdir")
    config, workdir = (cli.flag_value(arguments, name) for name in names)
    if not config or not workdir:
        return list(arguments)
    file, _, argument = config.partition(":")
    words = [word for word in argument.split(",") if word]
    try:
        folder = cli.local_path("workdir", workdir)
        saved = json.loads((folder / "config.json").read_text())
        preset = saved["preset"]
    except (OSError, ValueError, KeyError, TypeError):
        return list(arguments)
    if preset not in PRESETS or set(PRESETS) & set(words):
        return list(arguments)
    given = f"{file}:{','.join([*words, preset])}"
    return [
        f"--config={given}" if word.lstrip("-") == f"config={config}" else word
        for word in arguments
    ]


def check_together(given: set[str]) -> None:
    """Raises `ValueError` if flags are given that do not go together."""
    reasons = {
        "config": "the file names configs and their keys",
        "mode": "a sweep trains and evaluates",
        "distributed": "a run of a sweep is one process",
    }
    for name, reason in reasons.items():
        if {"sweep", name} <= given:
            raise ValueError(f"--{name} with --sweep: {reason}; leave out --{name}")
    for name in ("list", "index"):
        if name in given and "sweep" not in given:
            raise ValueError(f"--{name} is about a sweep; add --sweep=FILE")
    if {"list", "index"} <= given:
        raise ValueError("--list with --index: one shows, the other runs; choose one")


def make_flags(arguments: Sequence[str], *, is_sweep: bool) -> flags.FlagValues:
    """The flags of this command.

    Args:
        arguments: Its command line.
        is_sweep: Whether it names a sweep, in place of a config.
    """
    values = cli.new_flags(config_in=arguments, required=not is_sweep)
    texts = {
        "workdir": "Folder of the run; default runs/<config>, with the seed if it is "
        "not 0. Resumed if it exists; gives its preset if --config has none. Of "
        "a sweep: the folder of all its runs; default runs/<file>.",
        "distributed": "Of several processes that run this together: auto, in a job of "
        "Slurm, Open MPI or Kubernetes or on a TPU pod; or HOST:PORT,COUNT,INDEX.",
        "sweep": "File that lists experiments (docs/usage.md); all that are not "
        "finished are run, one at a time on each GPU.",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_enum(
        "mode", MODES[0], MODES, "What to do in the workdir.", flag_values=values
    )
    flags.DEFINE_integer(
        "index",
        None,
        "Only this entry of the sweep, from 0, in this process.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "list", False, "Only show the entries of the sweep.", flag_values=values
    )
    return values


def run_one(values: flags.FlagValues) -> None:
    """Builds the experiment once and runs it."""
    cli.keep_compiled()
    experiment, overrides = cli.experiment_of(values)
    workdir = default_workdir(experiment)
    if values.workdir is not None:
        workdir = cli.local_path("workdir", values.workdir)
    with noted_signals(shlex.join(["python", *sys.argv])) as interrupt:
        run(
            experiment,
            workdir,
            mode=values.mode,
            overrides=overrides,
            interrupt=interrupt,
        )


def run_sweep(values: flags.FlagValues) -> None:
    """Shows a sweep, runs one entry of it, or all."""
    if values.index is None:
        cli.keep_off_devices()
    sweep = read_sweep(cli.local_path("sweep", values.sweep))
    root = sweep.root
    if values.workdir is not None:
        root = cli.local_path("workdir", values.workdir)
    if values.index is not None:
        main(sweep.entry(values.index).arguments(root))
    elif values.list:
        make_console().print(progress.result_table(sweep.entries, root, {}))
    else:
        done = schedule.run_all(
            sweep.entries,
            root,
            launch=pathlib.Path(__file__),
            devices=schedule.host_devices(),
            console=make_console(),
        )
        sys.exit(0 if done else 1)


if __name__ == "__main__":
    cli.run(main)
