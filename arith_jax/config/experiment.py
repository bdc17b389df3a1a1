"""What an experiment is: its sections, built from a config and checked together."""

import dataclasses
import json
from typing import Any

from arith_jax.checks import (
    MAX_INT,
    as_mapping,
    build,
    check_name,
    check_types,
    close_first,
    shown,
)
from arith_jax.config.data import DataConfig, round_up
from arith_jax.config.evaluation import EvalConfig
from arith_jax.config.model import Execution, ModelConfig
from arith_jax.config.training import LossConfig, OptimConfig, TrainConfig
from arith_jax.tasks.make import make_task

# What a config may not set: it follows from the task and the data.
DERIVED = ("vocab_size", "scheme")
MAX_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a run is decided by, checked; hashable.

    Attributes:
        name: Of the config; default folder under runs/.
        preset: Size chosen: smoke, cpu or gpu.
        seed: Decides weights, data and noise.
        num_seeds: Models trained at once, with this seed and those that follow.
        deterministic: Whether a GPU has to give the same bits every time.
        task: The section `task` of the config, from which `data.task` was made.
        data: What a training batch holds.
        model: With vocabulary, position scheme and table size as the data need them.
        loss: The progressive loss.
        optim: Optimizer and schedules.
        train: Budget and rhythm.
        eval: What is evaluated.
        execution: How a device computes; see `execution.resolve`.
    """

    name: str
    preset: str
    seed: int
    task: tuple[tuple[str, Any], ...]
    data: DataConfig
    model: ModelConfig
    loss: LossConfig
    optim: OptimConfig
    train: TrainConfig
    eval: EvalConfig
    execution: Execution
    num_seeds: int = 1
    deterministic: bool = False

    @property
    def seeds(self) -> range:
        """The seeds of all models of a run."""
        return range(self.seed, self.seed + self.num_seeds)

    @property
    def seeds_text(self) -> str:
        """The seeds in words: `seed 3`, or `seeds 0 to 7`."""
        first, last = self.seeds[0], self.seeds[-1]
        return f"seed {first}" if first == last else f"seeds {first} to {last}"

    @classmethod
    def from_dict(cls, config: Any) -> "Experiment":
        """Builds and checks an experiment; keys that are missing have their defaults.

            >>> experiment = Experiment.from_dict({"train": {"steps": 100}})
            >>> experiment.model.vocab_size, experiment.data.max_digits
            (19, 20)

        Args:
            config: Nested values: a `ConfigDict`, `config.json` or a dict.

        Raises:
            ValueError: If a key is unknown, or a value is not allowed or does not fit
                the others.
        """
        plain = as_mapping("config", config)
        sections = {
            "data": DataConfig,
            "model": ModelConfig,
            "loss": LossConfig,
            "optim": OptimConfig,
            "train": TrainConfig,
            "eval": EvalConfig,
            "execution": Execution,
        }
        names = ("name", "preset", "seed", "num_seeds", "deterministic", "task")
        names += tuple(sections)
        for name in plain:
            if name not in names:
                raise ValueError(
                    f"config section {shown(name)} is unknown; "
                    f"{close_first(name, names)}"
                )
        values = {
            name: dict(as_mapping(name, plain.get(name, {})))
            for name in ("task", *sections)
        }
        task = {"name": "addition"} | values.pop("task")
        options = {key: value for key, value in task.items() if key != "name"}
        for section, key in (("data", "task"), *(("model", key) for key in DERIVED)):
            if key in values[section]:
                raise ValueError(f"{section}.{key} follows from the task; leave it out")
        made = make_task(task["name"], options)
        data = build("data", DataConfig, values.pop("data") | {"task": made})
        derived = {"vocab_size": len(made.vocab), "scheme": data.scheme}
        model = build("model", ModelConfig, values.pop("model") | derived)
        built = {name: build(name, sections[name], values[name]) for name in values}
        if not model.table_size:
            rows = smallest_table(model, data, built["eval"])
            model = dataclasses.replace(model, table_size=rows)
        top = {"name": "experiment", "preset": "", "seed": 0, "num_seeds": 1}
        top |= {"deterministic": False}
        top |= {name: plain[name] for name in top if name in plain}
        check_types("", cls, top)
        experiment = cls(
            **top,
            task=tuple(sorted(task.items())),
            data=data,
            model=model,
            **built,
        )
        experiment.check()
        return experiment

    def to_dict(self) -> dict[str, Any]:
        """The config that makes this experiment, as plain JSON."""
        config = dataclasses.asdict(self) | {"task": dict(self.task)}
        del config["data"]["task"]
        for key in DERIVED:
            del config["model"][key]
        return json.loads(json.dumps(config))

    def check(self) -> None:
        """Checks what spans sections: recurrences, position tables, packed rows."""
        check_name("name", self.name)
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed={self.seed}: must be from 0 to {MAX_SEED}")
        if not 1 <= self.num_seeds <= MAX_SEED - self.seed + 1:
            raise ValueError(
                f"num_seeds={self.num_seeds}: must be at least 1, and seeds must not "
                f"go beyond {MAX_SEED}"
            )
        if self.loss.max_backprop > self.model.num_recurrences:
            raise ValueError(
                f"loss.max_backprop={self.loss.max_backprop}: must be between 1 and "
                f"model.num_recurrences={self.model.num_recurrences}"
            )
        if self.train.max_far_copies > 1 and self.model.abacus_far == "mask":
            raise ValueError(
                f"train.max_far_copies={self.train.max_far_copies} with "
                "model.abacus_far='mask': far digits are hidden; set "
                "model.abacus_far='bias' or train.max_far_copies=1.0"
            )
        problems = self.data.problems_per_row
        model = self.model
        is_bare_table = model.positions == ("abacus",) and model.abacus_far == "bias"
        has_far = is_bare_table and problems > 1 and self.data.max_offset > 0
        if self.train.far_problems and not has_far:
            raise ValueError(
                "train.far_problems=True is for rows of several problems with a table "
                "alone; set data.problems_per_row and data.max_offset above "
                f"{problems} and {self.data.max_offset}, model.positions=('abacus',), "
                "model.abacus_far='bias', or train.far_problems=False"
            )
        if self.optim.micro_batch_size % problems:
            raise ValueError(
                f"optim.micro_batch_size={self.optim.micro_batch_size}: must be a "
                f"multiple of data.problems_per_row={problems}"
            )
        if problems > 1 and self.loss.reduction == "none":
            raise ValueError(
                "loss.reduction='none' counts the padding that "
                f"data.problems_per_row={problems} leaves out; set "
                "data.problems_per_row=1"
            )
        self.check_gaps()
        self.check_lengths()

    def check_gaps(self) -> None:
        """Raises `ValueError` if gaps would change what is made of places."""
        readers = {
            f"model.positions={self.model.positions}": bool(
                {"relative_abacus", "rotary_abacus"} & {*self.model.positions}
            ),
            "model.abacus_far='mask'": self.model.abacus_far == "mask",
            f"train.max_far_copies={self.train.max_far_copies}": (
                self.train.max_far_copies > 1
            ),
            "train.far_problems=True": self.train.far_problems,
        }
        for reader, applies in readers.items():
            if self.data.max_gap and applies:
                raise ValueError(
                    f"data.max_gap={self.data.max_gap} with {reader}, which reads "
                    "differences of places; change that or set data.max_gap=0"
                )

    def check_lengths(self) -> None:
        """Raises `ValueError` if an index of a row would run past what it is into."""
        task, max_cell = self.data.task, self.data.max_cell
        evaluated = self.eval.max_evaluated(task, max_cell)
        trained_id = self.data.max_position_id(max_cell)
        self.model.check_table(trained_id, self.data.max_shift)
        self.model.check_table(self.data.max_position_id(evaluated))
        trained_width = task.row_width(*max_cell)
        evaluated_width = self.eval.bucket(task.row_width(*evaluated))
        self.model.check_row(max(trained_width, evaluated_width))
        padded = round_up(trained_width, self.data.width_multiple)
        self.model.check_random_places(padded, self.data.problems_per_row)
        self.data.check_sizes(evaluated)
        if self.optim.micro_batch_size * trained_width > MAX_INT:
            raise ValueError(
                f"optim.micro_batch_size={self.optim.micro_batch_size}: rows of "
                f"{trained_width} tokens make more than {MAX_INT} tokens; lower it"
            )
        if evaluated_width > MAX_INT:
            raise ValueError(
                f"eval: rows of {evaluated_width} tokens; at most {MAX_INT}; lower "
                "eval.diagonal, set_lengths or buckets"
            )


def smallest_table(model: ModelConfig, data: DataConfig, config: EvalConfig) -> int:
    """Rows that the longest trained and the longest evaluated numbers need."""
    evaluated = config.max_evaluated(data.task, data.max_cell)
    if "learned" in model.positions:
        return config.bucket(data.task.row_width(*evaluated))
    if "abacus" not in model.positions:
        return 0
    trained = data.max_position_id(data.max_cell) + data.max_shift
    return max(trained, data.max_position_id(evaluated)) + 1
