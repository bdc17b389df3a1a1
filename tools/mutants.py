"""Breaks the code on purpose, once in each place, and asks whether tests notice.

python -m tools.mutants [GROUP...] [--output=results/reliability/mutants.json]

`tests/mutants.toml` lists what is broken. The tests of the same folder run first; what
they let pass meets the whole default suite. Takes two hours of one CPU core or more; of
groups, what the output has of others is kept.
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
from typing import NamedTuple

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


def is_killed(folder: pathlib.Path, mutant: Mutant, tests: Sequence[str]) -> bool:
    """Whether some tests notice a fault in a copy, which is mended afterwards."""
    path = folder / mutant.file
    whole = path.read_text()
    path.write_text(whole.replace(mutant.old, mutant.new))
    try:
        return notices(folder, tests)
    finally:
        path.write_text(whole)


def check_whole(folder: pathlib.Path, tests: Sequence[str]) -> None:
    """Refuses tests that fail without any fault: they would kill every mutant.

    Raises:
        ValueError: If they do.
    """
    if notices(folder, tests):
        name = " ".join(tests) or "the default suite"
        raise ValueError(f"{name} fails without any fault; mend it first")


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
    killed: dict[Mutant, bool] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "copy"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
        check_whole(folder, sorted({test for m in chosen for test in m.tests}))
        for mutant in chosen:
            killed[mutant] = is_killed(folder, mutant, mutant.tests)
            print("killed  " if killed[mutant] else "lives   ", mutant.old, flush=True)
        if not all(killed.values()):
            check_whole(folder, ())
        for mutant in [mutant for mutant in chosen if not killed[mutant]]:
            killed[mutant] = is_killed(folder, mutant, ())
            print("killed  " if killed[mutant] else "SURVIVES", mutant.old, flush=True)
    num_killed = sum(killed.values())
    print(f"{num_killed} of {len(killed)} killed")
    output = ROOT / values.output
    output.parent.mkdir(parents=True, exist_ok=True)
    commit, dirty = git_state()
    origin = {"git_commit": commit, "dirty": dirty}
    tried = [
        m._asdict() | {"killed": is_dead} | origin for m, is_dead in killed.items()
    ]
    earlier = json.loads(output.read_text()) if output.exists() else []
    names = {mutant.group for mutant in chosen}
    write_json(output, [m for m in earlier if m["group"] not in names] + tried)
    survivors = [mutant.old for mutant, is_dead in killed.items() if not is_dead]
    print(json.dumps(survivors, indent=1))


if __name__ == "__main__":
    cli.run(main)
