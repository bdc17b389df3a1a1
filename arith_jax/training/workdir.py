"""The folder of a run: whose folders are in it, and whether it fits an experiment."""

import contextlib
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from arith_jax.config.experiment import Experiment
from arith_jax.training.lock import locked
from arith_jax.training.record import write_json
from arith_jax.training.saved import saved_text, steps_in, unused

# Keys of how often something is written or done, which may change from start to start.
RHYTHM = ("log_every", "checkpoint_minutes", "keep_checkpoints", "tensorboard", "wandb")
FREE = {f"train.{name}" for name in (*RHYTHM, "skip_nonfinite")}


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


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> dict[str, str]:
    """What differs between two configs: by key, in words.

    Args:
        old: There.
        new: Here.
        prefix: Of the keys.
    """
    there, here = dict(flatten(old, prefix)), dict(flatten(new, prefix))
    return {
        key: f"{key} (there {there.get(key)!r}, here {here.get(key)!r})"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    }


def check_workdir(
    workdir: pathlib.Path, config: Mapping[str, Any], mode: str
) -> list[str]:
    """Refuses a workdir made with another config, naming the keys that differ.

    Keys that did not exist yet have their defaults. Free are the keys of the evaluation
    and of the rhythm (FREE), and a larger budget. A workdir without a checkpoint is
    taken over by any config.

    Args:
        workdir: Of a run; may be missing.
        config: Of the experiment to be run in it.
        mode: What is to be done in it.

    Returns:
        What to say of the keys that have changed.

    Raises:
        ValueError: With the keys and both values.
    """
    path = workdir / "config.json"
    if not path.exists():
        return []
    try:
        raw = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); restore it or choose another --workdir"
        ) from error
    saved = completed(raw)
    differing = {
        key: text
        for key, text in differences(saved, config).items()
        if not key.startswith("eval.") and key not in FREE
    }
    if not differing:
        return []
    if mode != "eval" and is_empty(workdir):
        return [f"{workdir} has no checkpoint: begun anew with this config"]
    notes = []
    for key in ("train.steps", "train.minutes"):
        old, new = (config["train"].get(key[6:], 0) for config in (saved, config))
        if key in differing and 0 < old < new and mode != "eval":
            del differing[key]
            notes.append(
                f"{key} goes from {old} to {new}: schedules follow the new budget from "
                "here on, so that a learning rate that had fallen rises again"
            )
    if differing:
        preset = saved.get("preset")
        hint = f"the run's preset (--config=FILE:{preset})" if preset else ""
        same = hint if "preset" in differing and hint else "the same config"
        other = unused(workdir.with_name(f"{workdir.name}_2"))
        raise ValueError(
            f"workdir {workdir} was made with another config; differing: "
            f"{', '.join(differing.values())}; choose another --workdir, as "
            f"--workdir={other}, or {same}"
        )
    return notes


def is_empty(workdir: pathlib.Path) -> bool:
    """Whether a workdir holds nothing that training has made, but for its log."""
    patterns = ("checkpoints/damaged_*", "weights.safetensors")
    patterns += ("result*.json", "summary*.json")
    others = [path for pattern in patterns for path in workdir.glob(pattern)]
    return not others and not steps_in(workdir / "checkpoints")


def local_path(path: pathlib.Path | str) -> pathlib.Path:
    """A path of this machine, with `~` as the home folder.

    Raises:
        ValueError: If it is one of a service, as gs://bucket/run.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise ValueError(
            f"{path} is not on a file system; allowed: a local or mounted folder, "
            "which may be copied to the service afterwards"
        )
    return pathlib.Path(path).expanduser()


def default_workdir(experiment: Experiment) -> pathlib.Path:
    """The folder of a run that names none: with the seed, if it is not 0 alone."""
    first, last = experiment.seeds[0], experiment.seeds[-1]
    name = experiment.name
    if last > first:
        name = f"{name}_s{first}_to_s{last}"
    elif first:
        name = f"{name}_s{first}"
    return pathlib.Path("runs") / name


def write_configs(experiment: Experiment, workdir: pathlib.Path) -> None:
    """Writes `config.json` of the run, and of each seed into its folder.

    An evaluation with a name does not change how the run itself is evaluated.
    """
    for one, folder in [(experiment, workdir), *single_runs(experiment, workdir)]:
        folder.mkdir(parents=True, exist_ok=True)
        path, config = folder / "config.json", one.to_dict()
        if experiment.eval.name and path.exists():
            config["eval"] = completed(json.loads(path.read_text()))["eval"]
        write_json(path, config)


@contextlib.contextmanager
def opened(workdir: pathlib.Path, mode: str) -> Iterator[str]:
    """The workdir for this process alone; what goes wrong in writing is one line.

    Args:
        workdir: Made if it is missing, unless it is only evaluated.
        mode: `eval` may read where nothing can be written.

    Yields:
        Why nothing can be written; empty: it can.

    Raises:
        ValueError: If another process is at work there.
        OSError: If something cannot be written.
    """
    with contextlib.ExitStack() as stack:
        reason = ""
        if mode != "eval" or workdir.exists():
            try:
                stack.enter_context(locked(workdir))
            except OSError as error:
                reason = error.strerror or str(error)
        if reason and mode != "eval":
            raise OSError(
                f"workdir {workdir} cannot be written ({reason}); change that or "
                "choose another --workdir"
            )
        try:
            yield reason
        except OSError as error:
            if error.errno is None:
                raise
            raise OSError(
                f"{error.filename or workdir} cannot be written ({error.strerror}); "
                "free space or change permissions, then the same command goes on "
                f"({saved_text(workdir)})"
            ) from error
