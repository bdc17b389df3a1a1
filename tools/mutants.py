"""Breaks the code on purpose, once in each place, and asks whether tests notice.

python -m tools.mutants [GROUP...] [--jobs=N] [--output=results/.../mutants.json]

`tests/mutants.toml` lists what is broken. The tests of the same folder run first; what
they let pass meets the whole default suite. Takes some five hours of one CPU core, or
`--jobs` of them; of groups, what the output has of others is kept.
"""

import json
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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


class Copies:
    """Copies of the repository, in each of which one fault at a time is tried."""

    def __init__(self, parent: pathlib.Path, count: int) -> None:
        """Makes so many copies in a folder."""
        self.count = count
        self.folders: queue.Queue[pathlib.Path] = queue.Queue()
        for index in range(count):
            folder = parent / str(index)
            shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
            self.folders.put(folder)

    def passes(self, tests: Sequence[str]) -> bool:
        """Whether some tests pass without any fault."""
        folder = self.folders.get()
        try:
            return not notices(folder, tests)
        finally:
            self.folders.put(folder)

    def is_killed(self, mutant: Mutant, tests: Sequence[str]) -> bool:
        """Whether some tests notice a fault."""
        folder = self.folders.get()
        path = folder / mutant.file
        whole = path.read_text()
        path.write_text(whole.replace(mutant.old, mutant.new))
        try:
            is_dead = notices(folder, tests)
        finally:
            path.write_text(whole)
            self.folders.put(folder)
        print("killed" if is_dead else "lives ", mutant.group, mutant.old, flush=True)
        return is_dead

    def killed(
        self, mutants: Sequence[Mutant], tests: Sequence[Sequence[str]]
    ) -> list[bool]:
        """Which faults are noticed by their tests, tried side by side.

        Args:
            mutants: The faults.
            tests: Of each; none are the default suite.

        Raises:
            ValueError: If tests fail without any fault: they would kill every mutant.
        """
        every = sorted(set(map(tuple, tests)))
        with ThreadPoolExecutor(self.count) as threads:
            for names, passes in zip(
                every, threads.map(self.passes, every), strict=True
            ):
                if not passes:
                    raise ValueError(
                        f"{' '.join(names) or 'the default suite'} fails without any "
                        "fault; mend it first"
                    )
            return list(threads.map(self.is_killed, mutants, tests))


def try_mutants(mutants: Sequence[Mutant], num_jobs: int) -> dict[Mutant, bool]:
    """Which faults are noticed, by the tests of their folder or else by any.

    Raises:
        ValueError: If tests fail without any fault.
    """
    with tempfile.TemporaryDirectory() as temporary:
        copies = Copies(pathlib.Path(temporary), num_jobs)
        near = copies.killed(mutants, [mutant.tests for mutant in mutants])
        killed = dict(zip(mutants, near, strict=True))
        living = [mutant for mutant in mutants if not killed[mutant]]
        if living:
            print(f"{len(living)} meet the default suite", flush=True)
        far = copies.killed(living, [()] * len(living))
    return killed | dict(zip(living, far, strict=True))


def main(arguments: Sequence[str]) -> None:
    """Tries all mutants, or those of some groups, and writes what became of them.

    Raises:
        ValueError: If a group is unknown or the tests fail without any fault.
    """
    values = cli.new_flags()
    flags.DEFINE_string(
        "output", "results/reliability/mutants.json", "Result.", flag_values=values
    )
    flags.DEFINE_integer(
        "jobs", 1, "Faults tried side by side.", lower_bound=1, flag_values=values
    )
    groups = cli.parse(values, arguments, __doc__ or "")
    mutants = list(read_mutants())
    known = sorted({mutant.group for mutant in mutants})
    for group in groups:
        if group not in known:
            raise ValueError(f"no group {group!r}; allowed: {', '.join(known)}")
    chosen = [m for m in mutants if not groups or m.group in groups]
    killed = try_mutants(chosen, values.jobs)
    print(f"{sum(killed.values())} of {len(killed)} killed")
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
