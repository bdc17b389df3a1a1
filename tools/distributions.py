"""Checks what the built wheel and source distribution hold.

python -m build --outdir DIST && python -m tools.distributions DIST
"""

import pathlib
import tarfile
import zipfile
from collections.abc import Sequence

from arith_jax import cli

ROOT = pathlib.Path(__file__).parent.parent
WEIGHTS = ("config.json", "weights.safetensors")
# Of the source distribution, beside the package.
BESIDE = (
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "README.md",
    "launch.py",
    "pyproject.toml",
    "requirements.txt",
)


def package_files(root: pathlib.Path = ROOT) -> set[str]:
    """The files of the package, by their place in the repository."""
    package = root / "arith_jax"
    paths = [*package.rglob("*.py"), *package.rglob("*.css"), package / "py.typed"]
    for name in WEIGHTS:
        paths += (root / "checkpoints").glob(f"*/{name}")
    return {path.relative_to(root).as_posix() for path in paths}


def config_files(root: pathlib.Path = ROOT) -> set[str]:
    """The configs, by their place in the repository."""
    paths = (root / "configs").rglob("*.py")
    return {path.relative_to(root).as_posix() for path in paths}


def check_wheel(names: Sequence[str], root: pathlib.Path = ROOT) -> None:
    """Raises `ValueError` if a wheel has not just the package's files.

    Args:
        names: Of the files in it.
        root: Of the repository.
    """
    held = {name for name in names if ".dist-info/" not in name}
    places = package_files(root)
    # Released models are beside the package in the repository, and inside it here.
    expected = {
        f"arith_jax/{name}" if name.startswith("checkpoints/") else name
        for name in places
    }
    if held != expected:
        lacking, others = sorted(expected - held), sorted(held - expected)
        raise ValueError(f"wheel: lacks {lacking}, and has {others}")


def check_sdist(names: Sequence[str], root: pathlib.Path = ROOT) -> None:
    """Raises `ValueError` if a source distribution lacks a file or has a result.

    Args:
        names: Of the files in it, each in the distribution's folder.
        root: Of the repository.
    """
    held = {name.partition("/")[2] for name in names}
    expected = package_files(root) | config_files(root) | set(BESIDE)
    if not expected <= held:
        raise ValueError(f"source distribution: lacks {sorted(expected - held)}")
    results = sorted(name for name in held if name.endswith("result.json"))
    if results:
        raise ValueError(f"source distribution: has {results}")


def main(arguments: Sequence[str]) -> None:
    """Checks the two files of a folder.

    Raises:
        ValueError: If there are not one of each, or one does not hold what it should.
    """
    rest = cli.parse(cli.new_flags(), arguments, __doc__ or "")
    folder = pathlib.Path(rest[0] if rest else "dist")
    wheels, sdists = list(folder.glob("*.whl")), list(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        raise ValueError(f"{folder} must hold one wheel and one source distribution")
    with zipfile.ZipFile(wheels[0]) as file:
        check_wheel(file.namelist())
    with tarfile.open(sdists[0]) as file:
        check_sdist([item.name for item in file if item.isfile()])
    print(f"{wheels[0].name} and {sdists[0].name} hold what they should")


if __name__ == "__main__":
    cli.run(main)
