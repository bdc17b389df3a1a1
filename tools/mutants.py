"""Breaks the code on purpose, once in each place, and asks whether tests notice.

python -m tools.mutants [GROUP...] [--output=results/reliability/mutants.json]

`tests/mutants.toml` lists what is broken. The tests of the same folder run first; what
they let pass meets the whole default suite. Takes an hour or two of one CPU core.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from absl import flags

from arith_jax import cli
from arith_jax.training.record import git_state, write_json

ROOT = pathlib.Path(__file__).parent.parent
LIST = ROOT / "tests" / "mutants.toml"
LEFT_OUT = (".git", ".jax_cache", ".pytest_cache", "__pycache__", "runs")


class Mutant(NamedTuple):
    """One fault.

    Attributes:
        group: Its section of the list.
        file: Where it is.
        old: What the file has, once.
        new: What takes its place.
        tests: That run first.
    """

    group: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def read_mutants(path: pathlib.Path = LIST) -> Iterator[Mutant]:
    """The faults of a list.

    Raises:
        ValueError: If a file does not have what is to be replaced exactly once.
    """
    for group, section in tomllib.loads(path.read_text()).items():
        text = (ROOT / section["file"]).read_text()
        for old, new in section["mutants"]:
            if text.count(old) != 1:
                raise ValueError(
                    f"{path}, {group}: {section['file']} has {old!r} "
                    f"{text.count(old)} times; a mutant needs it once"
                )
            yield Mutant(group, section["file"], old, new, tuple(section["tests"]))


def notices(folder: pathlib.Path, tests: Sequence[str]) -> bool:
    """Whether some tests, run in a copy of the repository, fail."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *tests],
        cwd=folder,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=False,
    )
    return done.returncode != 0


def is_killed(folder: pathlib.Path, mutant: Mutant) -> bool:
    """Whether the tests notice a fault in a copy, which is mended afterwards."""
    path = folder / mutant.file
    whole = path.read_text()
    path.write_text(whole.replace(mutant.old, mutant.new))
    try:
        return notices(folder, mutant.tests) or notices(folder, ())
    finally:
        path.write_text(whole)


def main(arguments: Sequence[str]) -> None:
    """Tries all mutants, or those of some groups, and writes what became of them.

    Raises:
        ValueError: If a group is unknown or the tests fail without any fault.
    """
    values = cli.new_flags()
    flags.DEFINE_string(
        "output", "results/reliability/mutants.json", "Result.", flag_values=values
    )
    groups = cli.parse(values, arguments, __doc__ or "")
    mutants = list(read_mutants())
    known = sorted({mutant.group for mutant in mutants})
    for group in groups:
        if group not in known:
            raise ValueError(f"no group {group!r}; allowed: {', '.join(known)}")
    chosen = [m for m in mutants if not groups or m.group in groups]
    tried: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "copy"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
        tests = sorted({test for mutant in chosen for test in mutant.tests})
        if notices(folder, tests):
            raise ValueError("the tests fail without any fault; mend them first")
        for mutant in chosen:
            killed = is_killed(folder, mutant)
            tried.append(mutant._asdict() | {"killed": killed})
            print("killed  " if killed else "SURVIVES", mutant.file, repr(mutant.old))
    num_killed = sum(entry["killed"] for entry in tried)
    print(f"{num_killed} of {len(tried)} killed")
    output = ROOT / values.output
    output.parent.mkdir(parents=True, exist_ok=True)
    commit, dirty = git_state()
    write_json(output, {"git_commit": commit, "dirty": dirty, "mutants": tried})
    print(json.dumps([m["old"] for m in tried if not m["killed"]], indent=1))


if __name__ == "__main__":
    cli.run(main)
