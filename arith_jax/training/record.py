"""What every file of results says of where its numbers come from."""

import json
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax

from arith_jax.config.experiment import Experiment

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file in one move, so that a cut-off write loses nothing."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes a file of JSON in one move."""
    write_text(path, json.dumps(content, separators=(",", ":")) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that can change a result."""
    packages = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **packages}


def device_name() -> str:
    """Kind and number of the devices in use."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"


def git_state() -> tuple[str, bool]:
    """Commit of the code that runs and whether files differ from it; "" if unknown."""

    def git(*args: str) -> str:
        folder = pathlib.Path(__file__).parent
        command = ["git", "-C", str(folder), *args]
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return "", False


def run_record(experiment: Experiment, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Config, seed, commit, versions and device.

    Args:
        experiment: What was run.
        overrides: Config keys given on the command line.
    """
    commit, dirty = git_state()
    return {
        "config": {
            "name": experiment.name,
            "preset": experiment.preset,
            "overrides": dict(overrides),
            "full": experiment.to_dict(),
        },
        "seed": experiment.seed,
        "git_commit": commit,
        "dirty": dirty,
        "versions": versions(),
        "device": device_name(),
    }
