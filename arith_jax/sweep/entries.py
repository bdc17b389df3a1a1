"""Reads a sweep file: configs x overrides x seeds, written out as entries.

`docs/usage.md` shows a file and says what its keys mean.
"""

import dataclasses
import itertools
import math
import pathlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from arith_jax import cli
from arith_jax.checks import one_line, shown
from arith_jax.config.experiment import MAX_SEED
from arith_jax.training.workdir import flatten

SWEEP_KEYS = {"workdir": str, "overrides": dict, "runs": list}
RUN_KEYS = {"config": (str, list), "seeds": list, "overrides": dict}
# Written out before any of them runs.
MAX_ENTRIES = 10_000
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
        ValueError: If the file cannot be read or is not a sweep, a config cannot be
            read, or two entries are the same.
    """
    path = pathlib.Path(path)
    try:
        return sweep_of(path, tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not a TOML file: {one_line(str(error))}"
        ) from error
    except RecursionError as error:
        raise ValueError(f"{path} has tables in tables that are too deep") from error


def sweep_of(path: pathlib.Path, content: Mapping[str, Any]) -> Sweep:
    """The sweep that the content of a file describes; raises as `read_sweep`."""
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
        for entry in run_entries(where, run, common[0]):
            entries.append(entry)
            if len(entries) > MAX_ENTRIES:
                raise ValueError(f"{where}: {too_many(len(entries))}")
    check_names(path, entries)
    root = cli.local_path("workdir", content.get("workdir", f"runs/{path.stem}"))
    return Sweep(path, root, tuple(entries))


def check_keys(where: str, table: Any, kinds: Mapping[str, Any]) -> None:
    """Raises `ValueError` if a table has an unknown key or a value of another type."""
    if not isinstance(table, dict):
        raise ValueError(f"{where}: must be a table, not {shown(table)}")
    for key, value in table.items():
        if key not in kinds:
            raise ValueError(
                f"{where}: key {shown(key)} is unknown; allowed: {', '.join(kinds)}"
            )
        if not isinstance(value, kinds[key]):
            allowed = kinds[key] if isinstance(kinds[key], tuple) else (kinds[key],)
            words = " or ".join(KINDS[kind] for kind in allowed)
            raise ValueError(f"{where}: {key}={shown(value)} must be {words}")


def run_entries(
    where: str, run: Mapping[str, Any], common: Mapping[str, Any]
) -> Iterator[Entry]:
    """The entries of one table.

    Args:
        where: The table, for errors.
        run: Its content.
        common: Overrides of the whole file.

    Raises:
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
                f"{where}: seeds={shown(seeds)} must be whole numbers from 0 to "
                f"{MAX_SEED}"
            )
    if not seeds:
        raise ValueError(f"{where}: seeds=[] makes no entry; leave it out for seed 0")
    choices = grid(where, run.get("overrides", {}))
    for config in (text for listed in configs for text in expand(where, listed)):
        defaults = default_values(where, config)
        name = defaults.get("name", "experiment")
        for own in choices:
            values = {
                key: checked(f"{where}, {shown_config(config)}", key, value, defaults)
                for key, value in sorted({**common, **own}.items())
            }
            if values.get("eval.name", defaults.get("eval.name")):
                raise ValueError(
                    f"{where}, {shown_config(config)}: an evaluation with a name does "
                    "not train; "
                    "use --config with --mode=eval"
                )
            row = row_name(name, {key: values[key] for key in sorted(own)})
            if len(row) > MAX_NAME:
                raise ValueError(
                    f"{where}: the name {shown(row)} has {len(row)} characters; "
                    f"allowed: {MAX_NAME}; move overrides to [overrides], or to the "
                    "config"
                )
            for seed in seeds:
                yield Entry(config, values, seed, row)


def expand(where: str, text: Any) -> list[str]:
    """Writes out the braces of a config as a shell would: a{1,2} is a1 and a2.

    Raises:
        ValueError: If it is no string, or a brace has no partner.
    """
    if not isinstance(text, str):
        raise ValueError(f"{where}: config={shown(text)} must be a string")
    parts = re.split(r"\{([^{}]*)\}", text)
    if set("{}") & set("".join(parts)):
        raise ValueError(
            f"{where}: config={shown(text)} has a brace without its partner, or one "
            "inside another; allowed: {a,b}"
        )
    # Every second part was between braces.
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    check_product(where, choices)
    return ["".join(words) for words in itertools.product(*choices)]


def check_product(where: str, choices: Iterable[Sequence[Any]]) -> None:
    """Raises `ValueError` if all combinations of choices are too many to write out."""
    count = math.prod(len(choice) for choice in choices)
    if count > MAX_ENTRIES:
        raise ValueError(f"{where}: {too_many(count)}")


def too_many(count: int) -> str:
    """What is wrong with a number of entries."""
    return f"makes {shown(count)} entries or more; at most {MAX_ENTRIES} in a file"


def shown_config(text: str) -> str:
    """A config or a key as it is written, cut."""
    return text if len(text) <= 100 and text.isprintable() else shown(text)


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
            raise ValueError(f"{where}: {shown_config(key)} is given twice")
        if key != dotted and not (isinstance(value, list) and value):
            raise ValueError(
                f"{where}: {key}={{any={shown(value)}}} must be a list of values"
            )
        choices[key] = value if key != dotted else [value]
    check_product(where, choices.values())
    rows = itertools.product(*choices.values())
    return [dict(zip(choices, row, strict=True)) for row in rows]


def default_values(where: str, config: str) -> dict[str, Any]:
    """The keys of a config as its file sets them, by dotted name.

    Raises:
        ValueError: If its file cannot be read or refuses its argument.
    """
    try:
        return cli.default_values(config)
    except ValueError as error:
        raise ValueError(f"{where}, {shown_config(config)}: {error}") from error


def checked(where: str, key: str, value: Any, defaults: Mapping[str, Any]) -> Any:
    """The value of a key with the type that the config has.

    Raises:
        ValueError: If the config has no such key, or one of another type.
    """
    if key == "seed":
        raise ValueError(f"{where}: seed is no override; set seeds = [{shown(value)}]")
    if key not in defaults:
        raise ValueError(f"{where}: {cli.unknown_key(key, defaults)}")
    kind = type(defaults[key])
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        word = "list" if kind is tuple else kind.__name__
        raise ValueError(
            f"{where}: {key}={shown(value)} must be of type {word}, as "
            f"{shown(defaults[key])}"
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
