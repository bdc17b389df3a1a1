"""The folder of a run: whose folders are in it, and whether it fits an experiment."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from arith_jax.config.experiment import Experiment


class Single(NamedTuple):
    """One model of a run, as if it were a run by itself.

    Attributes:
        experiment: With its seed alone.
        folder: Of its files.
    """

    experiment: Experiment
    folder: pathlib.Path


def seed_folder(workdir: pathlib.Path, seed: int) -> pathlib.Path:
    """The folder of one seed of a run of several."""
    return workdir / f"seed_{seed}"


def single_runs(experiment: Experiment, workdir: pathlib.Path) -> list[Single]:
    """The models of a run: the run itself, or each of its seeds."""
    if experiment.num_seeds == 1:
        return [Single(experiment, workdir)]
    return [
        Single(
            dataclasses.replace(experiment, seed=seed, num_seeds=1),
            seed_folder(workdir, seed),
        )
        for seed in experiment.seeds
    ]


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a nested config, by dotted name."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def completed(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A saved config with the keys it lacks; as it is where it no longer is valid."""
    try:
        return Experiment.from_dict(config).to_dict()
    except (TypeError, ValueError):
        return config


def check_workdir(workdir: pathlib.Path, config: Mapping[str, Any], mode: str) -> None:
    """Refuses a workdir made with another config, naming the keys that differ.

    Keys that did not exist yet have their defaults. `--mode=eval` may evaluate
    otherwise than the run did: `eval` keys are free there.

    Args:
        workdir: Of a run; may be missing.
        config: Of the experiment to be run in it.
        mode: What is to be done in it.

    Raises:
        ValueError: With the keys and both values.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    saved = completed(json.loads(path.read_text()))
    old, new = (dict(flatten(c)) for c in (saved, config))
    differing = [
        f"{key} (there {old.get(key)!r}, here {new.get(key)!r})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not (mode == "eval" and key.startswith("eval."))
    ]
    if differing:
        raise ValueError(
            f"workdir {workdir} was made with another config; differing: "
            f"{', '.join(differing)}; choose another --workdir or the same config"
        )
