"""What the commands share: flags, paths, one-line errors and exit codes.

Bad input ends with `BAD_INPUT`: a command line, a value, or a file that is not what it
should be. A run that fails by itself, as on a full disk or by a loss that is not
finite, ends with 1.

Each command makes its own flags when it is called, so that importing one changes
nothing.
"""

import ast
import contextlib
import difflib
import logging
import os
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jax
from absl import flags
from ml_collections import config_flags

from arith_jax.checks import as_mapping, one_line, shown, shown_key
from arith_jax.config.experiment import Experiment
from arith_jax.memory import keep_freed_memory
from arith_jax.training import workdir

HELP = ("--help", "-help", "-h")
BAD_INPUT = 2
# Compiled programs are kept between runs: the second start takes seconds.
CACHE = pathlib.Path.home() / ".cache" / "arith_jax"
# A key of the config on the command line: -config.x, --config.x=1, --noconfig.x.
OVERRIDE = re.compile(r"--?(no)?config\.([^=]*)(?:=(.*))?", re.DOTALL)


def new_flags(
    *, config_in: Sequence[str] | None = None, required: bool = True
) -> flags.FlagValues:
    """Flags of one command.

    Args:
        config_in: The command line of a command that takes an experiment, without the
            program's name: which keys of the config are flags is read off it.
        required: Whether such a command needs one.

    Raises:
        ValueError: If a --flagfile cannot be read.
    """
    values = flags.FlagValues()
    if config_in is not None:
        # The library runs a file in the module of the one before, whose `get_config`
        # would stand for a missing one.
        sys.modules.pop("config_config", None)
        try:
            config_flags.DEFINE_config_file(
                "config",
                None,
                "Experiment, as configs/abacus_add.py:smoke.",
                lock_config=True,
                flag_values=values,
                sys_argv=["", *config_in],
            )
        except flags.Error as error:
            # It reads a --flagfile already here.
            raise ValueError(reason(error)) from error
        if required:
            flags.mark_flag_as_required("config", flag_values=values)
    return values


def parse(values: flags.FlagValues, arguments: Sequence[str], usage: str) -> list[str]:
    """Parses flags and returns the other arguments.

    Args:
        values: From `new_flags`; filled in.
        arguments: Without the program's name.
        usage: What `--help` shows before the flags.

    Raises:
        ValueError: If a flag is unknown or its value is not allowed.
    """
    if any(argument in HELP for argument in arguments):
        print(usage.strip(), values.main_module_help(), sep="\n\n")
        sys.exit(0)
    check_overrides(arguments)
    try:
        return values(["", *arguments])[1:]
    except (flags.Error, ValueError) as error:
        raise ValueError(reason(error)) from error
    except Exception as error:
        # A config is a program of its own.
        config = flag_value(arguments, "config") or ""
        raise ValueError(f"--config={shown(config)}: {reason(error)}") from error


def check_overrides(arguments: Sequence[str]) -> None:
    """Raises `ValueError` if the config has no such key, or one of another type."""
    keys = [match for word in arguments if (match := OVERRIDE.fullmatch(word))]
    config = flag_value(arguments, "config")
    if not keys or config is None:
        return
    defaults = default_values(config)
    for _, key, text in (match.groups() for match in keys):
        if key not in defaults:
            raise ValueError(f"--config.{unknown_key(key, defaults)}")
        kind = type(defaults[key])
        if text is not None and not is_of_type(text, kind):
            word = {tuple: "list, as (1, 2)"}.get(kind, kind.__name__)
            raise ValueError(
                f"--config.{key}={shown(text)}: must be of type {word}; the default is "
                f"{shown(defaults[key])}"
            )


def flag_value(arguments: Sequence[str], name: str) -> str | None:
    """What a command line says of a flag, as --name=value or --name value, or None."""
    value = None
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if word in (f"-{name}", f"--{name}"):
            value = following
        elif word.startswith((f"-{name}=", f"--{name}=")):
            value = word.partition("=")[2]
    return value


def unknown_key(key: str, defaults: Mapping[str, Any]) -> str:
    """What is wrong with a key that a config does not have, and what it has."""
    section, _, name = key.rpartition(".")
    inside = [known for known in defaults if known.startswith(f"{key}.")]
    if inside:
        return f"{key} is a section; allowed: {', '.join(inside)}"
    known = list(defaults)
    last = {other: other.rpartition(".")[2] for other in known}
    near = {*difflib.get_close_matches(name[:100], set(last.values()), 3)}
    same = [other for other in known if last[other] in near]
    same.sort(key=lambda other: last[other] != name)
    close = difflib.get_close_matches(key[:100], known, 3)
    beside = [other for other in known if other.rpartition(".")[0] == section]
    split = [other.partition(".") for other in known]
    sections = dict.fromkeys(first + "..." * bool(dot) for first, dot, _ in split)
    listed = dict.fromkeys([*same, *close, *(beside or sections)])
    hint = f"did you mean {(same or close)[0]!r}? " if same or close else ""
    return f"{shown_path(key)} is unknown; {hint}allowed: {', '.join(listed)}"


def shown_path(key: str) -> str:
    """A dotted key as it is written, if it looks like one."""
    parts = [shown_key(part) for part in key.split(".")[:4]]
    return ".".join(parts)


def is_of_type(text: str, kind: type) -> bool:
    """Whether the text of a value can be read as a type."""
    if kind is bool:
        return text.lower() in ("true", "false", "t", "f", "1", "0")
    if kind is str:
        return True
    try:
        if kind is tuple:
            value = ast.literal_eval(text)
            return isinstance(value, tuple | list | int | float | str)
        kind(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return text.isascii()


def default_values(config: str) -> dict[str, Any]:
    """The keys of a config as its file sets them, by dotted name.

    Args:
        config: As after `--config=`.

    Raises:
        ValueError: If its file cannot be read or refuses its argument.
    """
    arguments = [f"--config={config}"]
    values = new_flags(config_in=arguments)
    try:
        values(["", *arguments])
        return dict(workdir.flatten(values.config.to_dict()))
    except Exception as error:
        raise ValueError(reason(error)) from error


def local_path(flag: str, text: str) -> pathlib.Path:
    """The path that a flag names; `~` is the home.

    Raises:
        ValueError: If it is empty or has a scheme, such as gs://.
    """
    if text and "\0" not in text:
        with contextlib.suppress(RuntimeError, ValueError):
            return workdir.local_path(text)
    raise ValueError(
        f"--{flag}={shown(text)}: must be a path of this machine's file system"
    )


def experiment_of(values: flags.FlagValues) -> tuple[Experiment, dict[str, Any]]:
    """The checked experiment, and the keys given on the command line.

    Raises:
        ValueError: If values are not allowed or do not fit together.
    """
    overrides = config_flags.get_override_values(values["config"])
    try:
        config = as_mapping("config", values.config)
    except OSError as error:
        raise ValueError(reason(error)) from error
    return Experiment.from_dict(config), overrides


def reason(error: BaseException) -> str:
    """What is wrong, in one line, by an error of the flag libraries."""
    text = str(error)
    if "Error whilst parsing config file" in text:
        # A traceback inside a message; the error itself is where it began.
        while error.__context__ is not None:
            error = error.__context__
        text = str(error)
    lines = text.strip().splitlines()
    line = lines[-1].strip() if lines else ""
    if not isinstance(error, flags.Error | ValueError | OSError) or not line:
        line = f"{type(error).__name__}: {line}"
    return one_line(line)


def fail(error: Exception, code: int) -> NoReturn:
    """Ends the program with one line that says what is wrong."""
    text = one_line(str(error).strip() or type(error).__name__)
    print(f"error: {text}", file=sys.stderr)
    sys.exit(code)


def keep_compiled() -> None:
    """Keeps compiled programs for the next start, unless JAX is told where already."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(CACHE))


def keep_off_devices() -> None:
    """Lets JAX use the CPU only, before a command that does not compute.

    A config may ask for the device, and JAX would then take the memory of a GPU away
    from the runs on it. The presets of configs that follow the device are those of the
    CPU from here on; processes that this one starts are not affected.
    """
    jax.config.update("jax_platforms", "cpu")


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Calls `main` with the command line; what it cannot do ends in one line."""
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    keep_freed_memory()
    try:
        main(sys.argv[1:])
    except ValueError as error:
        fail(error, BAD_INPUT)
    except (OSError, FloatingPointError) as error:
        fail(error, 1)
