"""What an experiment is: its parts, built from a config and checked together."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from arith_jax import losses, runlog
from arith_jax.data import DataConfig
from arith_jax.evaluate import EvalConfig
from arith_jax.model_config import ModelConfig
from arith_jax.optim import OptimConfig
from arith_jax.positions import NUM_LEVELS
from arith_jax.train import TrainConfig

SECTIONS = {
    "model": ModelConfig,
    "data": DataConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
    "eval": EvalConfig,
}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a run is decided by, checked. `full` is the config as plain JSON."""

    name: str
    preset: str
    seed: int
    model: ModelConfig
    data: DataConfig
    optim: OptimConfig
    train: TrainConfig
    eval: EvalConfig
    full: dict[str, Any]

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Experiment":
        """Builds and checks an experiment from the nested values of a config.

        Raises:
            ValueError: If a value is not allowed or values do not fit together.
        """
        sections = {}
        for name, section in SECTIONS.items():
            values = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in config[name].items()
            }
            known = {field.name for field in dataclasses.fields(section)}
            if known != set(values):
                raise ValueError(
                    f"config section {name!r} must have exactly the keys "
                    f"{sorted(known)}; differing: {sorted(known ^ set(values))}"
                )
            sections[name] = section(**values)
        full = json.loads(json.dumps(config))
        plain = {key: full[key] for key in ("name", "preset", "seed")}
        experiment = cls(**plain, **sections, full=full)
        experiment.check()
        return experiment

    def check(self) -> None:
        """Checks what spans sections: vocabulary, position tables, packed rows."""
        task = self.data.make_task()
        if self.model.vocab_size != len(task.vocab):
            raise ValueError(
                f"model.vocab_size={self.model.vocab_size}: the task "
                f"{self.data.task!r} has {len(task.vocab)} symbols"
            )
        levels = NUM_LEVELS.get(self.data.position_ids, 1)
        if self.model.position_levels != levels:
            raise ValueError(
                f"model.position_levels={self.model.position_levels} with "
                f"data.position_ids={self.data.position_ids!r}: must be {levels}"
            )
        if self.optim.micro_batch_size % self.data.problems_per_row:
            raise ValueError(
                f"optim.micro_batch_size={self.optim.micro_batch_size}: must be a "
                f"multiple of data.problems_per_row={self.data.problems_per_row}"
            )
        if self.data.problems_per_row > 1 and self.train.loss_reduction == "none":
            raise ValueError(
                "train.loss_reduction='none' counts the padding that "
                f"data.problems_per_row={self.data.problems_per_row} leaves out; set "
                "data.problems_per_row=1"
            )
        most = self.data.most
        longest = self.eval.longest(task, most)
        self.model.check_table(self.data.longest_position(most), self.data.max_offset)
        self.model.check_table(self.data.longest_position(longest), 0)
        width = self.eval.bucket(task.row_width(*longest))
        self.model.check_row(max(self.data.width, width))

    @property
    def train_configs(
        self,
    ) -> tuple[ModelConfig, DataConfig, OptimConfig, TrainConfig]:
        """What the train step is decided by."""
        return self.model, self.data, self.optim, self.train


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a nested config, by dotted name."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_workdir(workdir: pathlib.Path, full: Mapping[str, Any], mode: str) -> None:
    """Refuses a workdir made with another config, naming the keys that differ.

    `--mode=eval` may evaluate otherwise than the run did: `eval` keys are free there.

    Raises:
        ValueError: With the keys and both values.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    old, new = (dict(flatten(c)) for c in (json.loads(path.read_text()), full))
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


def step_flops(experiment: Experiment, step: int) -> int:
    """Floating-point operations of one step, with the depth it drew."""
    model, seed = experiment.model, experiment.seed
    width, read = experiment.data.width, experiment.data.most_read
    rows = experiment.optim.micro_batch_size // experiment.data.problems_per_row
    passes = losses.depths(model, experiment.train.alpha, seed, step)
    return rows * sum(runlog.flops_per_row(model, width, n, k, read) for n, k in passes)


def run_record(experiment: Experiment, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What every file of results says of where its numbers come from."""
    commit, dirty = runlog.git_state()
    return {
        "config": {
            "name": experiment.name,
            "preset": experiment.preset,
            "overrides": dict(overrides),
            "full": experiment.full,
        },
        "seed": experiment.seed,
        "git_commit": commit,
        "dirty": dirty,
        "versions": runlog.versions(),
        "device": runlog.device_name(),
    }
