"""The models that the page offers: those that calculate with two numbers."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from arith_jax import released
from arith_jax.config.experiment import Experiment
from arith_jax.demo.limits import MAX_ANSWER, MAX_FACTOR, OPERATORS, PLUS
from arith_jax.released import TrainedModel, load_trained, read_experiment
from arith_jax.tasks.mixture import part_of
from arith_jax.training.workdir import flatten

# A result.json of 300 x 300 cells has half of that.
MAX_RESULT = 2**25
# Keys of a config that say what was trained, not how it was computed or checked.
COMPARED = ("model.", "data.", "task.", "train.", "optim.", "loss.")
# Names for people; other models go by the name of their experiment.
TITLES = {
    "abacus_add": "Sums: relative bias, window",
    "abacus_table_add": "Sums: the paper's table, window",
    "abacus_soft_add": "Sums: relative bias, no window",
    "abacus_arithmetic": "Sums, differences and products",
}


@dataclasses.dataclass(frozen=True)
class Model:
    """A model on the page.

    Attributes:
        folder: Of a run, or of a released model.
        experiment: What it was trained by.
    """

    folder: pathlib.Path
    experiment: Experiment

    @classmethod
    def in_folder(cls, folder: pathlib.Path) -> "Model":
        """The model of a folder, whose weights are not read yet.

        Raises:
            ValueError: If there is no valid config in it.
        """
        return cls(folder, read_experiment(folder))

    @property
    def title(self) -> str:
        """Name for people; runs have their folder in it, so that no two are alike."""
        name = TITLES.get(self.experiment.name, self.experiment.name)
        is_released = self.folder.parent in released.FOLDERS
        return name if is_released else f"{name} ({self.folder})"

    @property
    def operators(self) -> list[str]:
        """What it calculates, as the page writes it; empty: not with two numbers."""
        return [sign for sign, word in OPERATORS.items() if self.reads(f"1{word}1")]

    def reads(self, expression: str) -> bool:
        """Whether an expression is one of its task."""
        try:
            self.experiment.data.task.prompt(expression)
        except ValueError:
            return False
        return True

    @property
    def has_window(self) -> bool:
        """Whether digits far from its own place are hidden from a digit."""
        return self.experiment.model.abacus_far == "mask"

    @property
    def sight(self) -> str:
        """What a digit sees of the others, for people."""
        if not self.has_window:
            return "a digit sees every digit before it"
        window = self.experiment.model.abacus_window
        return f"a digit sees the digits at most {window} places from its own"

    @property
    def max_cell(self) -> tuple[int, int]:
        """Digits of the longest operands that it was trained on."""
        return self.experiment.data.max_cell

    @property
    def training(self) -> str:
        """What it was trained on, for people."""
        longest = max(self.max_cell)
        return f"trained on numbers of at most {longest} digits"

    @property
    def max_recurrences(self) -> int:
        """The most recurrences that the page offers; 1: the model is not looped."""
        trained = self.experiment.model.num_recurrences
        return MAX_FACTOR * trained if trained > 1 else 1

    @functools.cached_property
    def trained(self) -> TrainedModel:
        """The model with its weights, read when they are first needed."""
        return load_trained(self.folder)

    @functools.cached_property
    def cells(self) -> list[Mapping[str, Any]]:
        """The graded cells beside a released model or a run; empty: there are none."""
        path = self.folder / "result.json"
        try:
            if path.stat().st_size > MAX_RESULT:
                return []
            cells = json.loads(path.read_bytes())["cells"]
            return [cell for cell in cells if cell["total"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def check_length(self, expression: str) -> None:
        """Raises `ValueError` if an answer may have too many tokens for the page."""
        task = self.experiment.data.task
        prompt = task.prompt(expression)
        tokens = part_of(task, prompt).answer_width(*task.sizes(prompt))
        if tokens > MAX_ANSWER:
            raise ValueError(
                f"Answers to numbers of these lengths have up to {tokens:,} symbols; "
                f"this page takes at most {MAX_ANSWER:,}. Give shorter numbers."
            )


def find_models(folders: Sequence[pathlib.Path]) -> list[Model]:
    """The models to choose from: those of given folders, then the released ones.

    Raises:
        ValueError: If a given folder holds no run, or no model for two numbers.
    """
    given = [Model.in_folder(folder) for folder in folders]
    for model in given:
        if not model.operators:
            raise ValueError(
                f"--checkpoint={model.folder} is a model of "
                f"{model.experiment.data.task.title}; this page is for sums, "
                "differences and products of two numbers"
            )
    folders = sorted(released.released_folders().values(), key=by_merit)
    offered = [Model.in_folder(folder) for folder in folders]
    return [*given, *(model for model in offered if model.operators)]


def by_merit(folder: pathlib.Path) -> tuple[bool, str]:
    """The order of released models: the flagship, then by name."""
    return folder.name != released.ANSWERING[0], folder.name


def find_pair(models: Sequence[Model], compare: Model | None) -> tuple[Model, ...]:
    """A model of sums with a window and one without, as far as there are such.

    Args:
        models: To choose from.
        compare: The one without, if it was given.
    """
    adding = [model for model in models if PLUS in model.operators]
    windowed = [model for model in adding if model.has_window]
    other = [compare] if compare else [m for m in adding if not m.has_window]
    return (*windowed[:1], *other[:1])


def what_differs(first: Model, second: Model) -> list[str]:
    """The keys in which the training of two models differs, with both values."""
    old, new = (model.experiment.to_dict() for model in (first, second))
    there, here = dict(flatten(old)), dict(flatten(new))
    return [
        f"{key}: {there.get(key)} and {here.get(key)}"
        for key in sorted(there.keys() | here.keys())
        if key.startswith(COMPARED) and there.get(key) != here.get(key)
    ]
