"""Reads a sweep file: configs x overrides x seeds, written out as entries.

`docs/usage.md` shows a file and says what its keys mean.
"""

import dataclasses
import difflib
import itertools
import pathlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from arith_jax import cli
from arith_jax.config.experiment import MAX_SEED
from arith_jax.training.workdir import flatten

SWEEP_KEYS = {"workdir": str, "overrides": dict, "runs": list}
RUN_KEYS = {"config": (str, list), "seeds": list, "overrides": dict}
# Folders with longer names are no pleasure to read.
MAX_NAME = 100
KINDS = {str: "a string", list: "a list", dict: "a table"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One run of a sweep.

    Attributes:
        config: As after `--config=`.
        overrides: Keys of the config and their values, those of the whole file, too.
        seed: Of the run.
        row: Name of what the seeds have in common: that of the experiment, then the
            overrides of its own table. It does not depend on the rest of the file.
    """

    config: str
    overrides: Mapping[str, Any]
    seed: int
    row: str

    @property
    def name(self) -> str:
        """Folder of the run; unique in the file."""
        return f"{self.row}_s{self.seed}"

    @property
    def assignments(self) -> dict[str, Any]:
        """All keys that are set on the command line."""
        return {**self.overrides, "seed": self.seed}

    def arguments(self, root: pathlib.Path) -> list[str]:
        """The command line of `launch.py` that runs this entry.

        Args:
            root: Folder of the sweep's workdirs.
        """
        keys = [f"--config.{key}={value}" for key, value in self.assignments.items()]
        return [f"--config={self.config}", f"--workdir={root / self.name}", *keys]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep file, read.

    Attributes:
        path: The file.
        root: Folder of the workdirs.
        entries: The runs, in the file's order.
    """

    path: pathlib.Path
    root: pathlib.Path
    entries: tuple[Entry, ...]

    def entry(self, index: int) -> Entry:
        """The entry with this index, from 0.

        Raises:
            ValueError: If there is none.
        """
        if not 0 <= index < len(self.entries):
            raise ValueError(
                f"--index={index}: {self.path} has {len(self.entries)} entries; "
                f"allowed: 0 to {len(self.entries) - 1}"
            )
        return self.entries[index]


def read_sweep(path: pathlib.Path | str) -> Sweep:
    """Reads a sweep file and writes out its entries.

    Names and types of keys are checked here; whether values fit each other is checked
    by the run, which knows its device.

    Args:
        path: Of a TOML file.

    Raises:
        OSError: If the file or a config cannot be read.
        ValueError: If the file is not a sweep, or two entries are the same.
    """
    path = pathlib.Path(path)
    try:
        content = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from error
    check_keys(str(path), content, SWEEP_KEYS)
    runs = content.get("runs", [])
    if not runs:
        raise ValueError(f"{path} lists no runs; add a table [[runs]] with a config")
    common = grid(f"{path}, [overrides]", content.get("overrides", {}))
    if len(common) > 1:
        raise ValueError(
            f"{path}, [overrides]: a grid (any) belongs into [runs.overrides], which "
            "names of entries are made from"
        )
    entries: list[Entry] = []
    for number, run in enumerate(runs, 1):
        where = f"{path}, [[runs]] {number}"
        check_keys(where, run, RUN_KEYS)
        entries += run_entries(where, run, common[0])
    check_names(path, entries)
    root = pathlib.Path(content.get("workdir", f"runs/{path.stem}"))
    return Sweep(path, root, tuple(entries))


def check_keys(where: str, table: Any, kinds: Mapping[str, Any]) -> None:
    """Raises `ValueError` if a table has an unknown key or a value of another type."""
    if not isinstance(table, dict):
        raise ValueError(f"{where}: must be a table, not {table!r}")
    for key, value in table.items():
        if key not in kinds:
            raise ValueError(
                f"{where}: key {key!r} is unknown; allowed: {', '.join(kinds)}"
            )
        if not isinstance(value, kinds[key]):
            allowed = kinds[key] if isinstance(kinds[key], tuple) else (kinds[key],)
            words = " or ".join(KINDS[kind] for kind in allowed)
            raise ValueError(f"{where}: {key}={value!r} must be {words}")


def run_entries(
    where: str, run: Mapping[str, Any], common: Mapping[str, Any]
) -> Iterator[Entry]:
    """The entries of one table.

    Args:
        where: The table, for errors.
        run: Its content.
        common: Overrides of the whole file.

    Raises:
        OSError: If a config cannot be read.
        ValueError: If a config, a key or a value is not allowed.
    """
    configs = run.get("config", [])
    configs = [configs] if isinstance(configs, str) else configs
    if not configs:
        raise ValueError(f"{where}: has no config; add config = 'configs/NAME.py'")
    seeds = run.get("seeds", [0])
    for seed in seeds:
        if type(seed) is not int or not 0 <= seed <= MAX_SEED:
            raise ValueError(
                f"{where}: seeds={seeds!r} must be whole numbers from 0 to {MAX_SEED}"
            )
    if not seeds:
        raise ValueError(f"{where}: seeds=[] makes no entry; leave it out for seed 0")
    choices = grid(where, run.get("overrides", {}))
    for config in (text for listed in configs for text in expand(where, listed)):
        defaults = default_values(where, config)
        name = defaults.get("name", "experiment")
        for own in choices:
            values = {
                key: checked(f"{where}, {config}", key, value, defaults)
                for key, value in sorted({**common, **own}.items())
            }
            if values.get("eval.name", defaults.get("eval.name")):
                raise ValueError(
                    f"{where}, {config}: an evaluation with a name does not train; "
                    "use --config with --mode=eval"
                )
            row = row_name(name, {key: values[key] for key in sorted(own)})
            if len(row) > MAX_NAME:
                raise ValueError(
                    f"{where}: the name {row} has {len(row)} characters; allowed: "
                    f"{MAX_NAME}; move overrides to [overrides], or to the config"
                )
            for seed in seeds:
                yield Entry(config, values, seed, row)


def expand(where: str, text: Any) -> list[str]:
    """Writes out the braces of a config as a shell would: a{1,2} is a1 and a2.

    Raises:
        ValueError: If it is no string, or a brace has no partner.
    """
    if not isinstance(text, str):
        raise ValueError(f"{where}: config={text!r} must be a string")
    parts = re.split(r"\{([^{}]*)\}", text)
    if set("{}") & set("".join(parts)):
        raise ValueError(
            f"{where}: config={text!r} has a brace without its partner, or one inside "
            "another; allowed: {a,b}"
        )
    # Every second part was between braces.
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(words) for words in itertools.product(*choices)]


def grid(where: str, overrides: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the values of a table of overrides.

    Args:
        where: The table, for errors.
        overrides: Keys, dotted or nested, and values; `{any = [...]}` is a choice.

    Raises:
        ValueError: If a key comes twice or a choice is no list of values.
    """
    choices: dict[str, Sequence[Any]] = {}
    for dotted, value in flatten(overrides):
        key = dotted.removesuffix(".any")
        if key in choices:
            raise ValueError(f"{where}: {key} is given twice")
        if key != dotted and not (isinstance(value, list) and value):
            raise ValueError(
                f"{where}: {key}={{any={value!r}}} must be a list of values"
            )
        choices[key] = value if key != dotted else [value]
    rows = itertools.product(*choices.values())
    return [dict(zip(choices, row, strict=True)) for row in rows]


def default_values(where: str, config: str) -> dict[str, Any]:
    """The keys of a config as its file sets them, by dotted name.

    Raises:
        OSError: If its file cannot be read.
        ValueError: If it refuses its argument.
    """
    arguments = [f"--config={config}"]
    values = cli.new_flags(config_in=arguments)
    try:
        values(["", *arguments])
        return dict(flatten(values.config.to_dict()))
    except (flags.Error, OSError, ValueError) as error:
        raise ValueError(f"{where}, {config}: {cli.reason(error)}") from error


def checked(where: str, key: str, value: Any, defaults: Mapping[str, Any]) -> Any:
    """The value of a key with the type that the config has.

    Raises:
        ValueError: If the config has no such key, or one of another type.
    """
    if key == "seed":
        raise ValueError(f"{where}: seed is no override; set seeds = [{value}]")
    if key not in defaults:
        close = difflib.get_close_matches(key, defaults, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"{where}: {key} is unknown; {hint}allowed: keys of configs/base.py"
        )
    kind = type(defaults[key])
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        word = "list" if kind is tuple else kind.__name__
        raise ValueError(
            f"{where}: {key}={value!r} must be of type {word}, as {defaults[key]!r}"
        )
    return value


def row_name(name: str, overrides: Mapping[str, Any]) -> str:
    """Name of what seeds have in common, in letters, digits and `._-`.

    Args:
        name: Of the experiment.
        overrides: Those that tell it from others of this name.
    """
    words = [name]
    for key, value in overrides.items():
        listed = value if isinstance(value, tuple) else (value,)
        text = "-".join(map(str, listed)) or "none"
        words.append(f"{key.rpartition('.')[2]}_{text}")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(words))


def check_names(path: pathlib.Path, entries: Sequence[Entry]) -> None:
    """Raises `ValueError` if two entries would share a folder."""
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        first = seen.setdefault(entry.name, index)
        if first != index:
            raise ValueError(
                f"{path}: entries {first} ({entries[first].config}) and {index} "
                f"({entry.config}) are both {entry.name}; experiment, [runs.overrides] "
                "and seed make the name: remove one, or change one of these"
            )
