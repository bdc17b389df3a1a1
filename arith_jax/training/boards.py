"""Copies of the log for TensorBoard and Weights & Biases, both optional packages."""

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import matplotlib.image

from arith_jax.config.experiment import Experiment
from arith_jax.config.training import TrainConfig
from arith_jax.training.record import write_text
from arith_jax.training.saved import first_line


@runtime_checkable
class Board(Protocol):
    """Where one model's numbers are shown."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Adds the numbers of one step, named `step` among them."""
        ...

    def write_result(
        self, scores: Mapping[str, float], picture: pathlib.Path, step: int
    ) -> None:
        """Adds what an evaluation gave.

        Args:
            scores: Exact match of each part, from 0 to 1.
            picture: The heat map, a PNG file.
            step: Of the weights.
        """
        ...

    def close(self) -> None:
        """Writes what is left."""
        ...


class TensorBoard:
    """Event files in a run's folder.

    Args:
        folder: Of the run.
        first_step: Steps after it that the files hold already are dropped.
    """

    def __init__(self, folder: pathlib.Path, first_step: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1)

    def write(self, record: Mapping[str, Any]) -> None:
        """See `Board`."""
        for name, value in record.items():
            if name != "step":
                self._writer.add_scalar(name, value, record["step"])

    def write_result(
        self, scores: Mapping[str, float], picture: pathlib.Path, step: int
    ) -> None:
        """See `Board`."""
        for name, value in scores.items():
            self._writer.add_scalar(name, value, step)
        pixels = matplotlib.image.imread(picture)
        self._writer.add_image("grid", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """See `Board`."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, which a resumed run continues.

    Its identity is kept in `wandb_id.txt`. Steps it has already are not logged again.

    Args:
        experiment: Of one seed; its config goes along.
        folder: Of the run.

    Raises:
        ValueError: If the run cannot be opened there, as without a login.
    """

    def __init__(self, experiment: Experiment, folder: pathlib.Path):
        import wandb

        path = folder / "wandb_id.txt"
        try:
            self._run = wandb.init(
                project=experiment.train.wandb,
                name=f"{experiment.name}_s{experiment.seed}",
                config=experiment.to_dict(),
                dir=folder,
                id=path.read_text().strip() if path.exists() else None,
                resume="allow",
            )
        except wandb.Error as error:
            raise ValueError(
                f"train.wandb={experiment.train.wandb!r}: {first_line(error)}; run "
                "`wandb login`, or set WANDB_MODE=offline and run `wandb sync` later"
            ) from error
        write_text(path, f"{self._run.id}\n")
        self._image = wandb.Image

    def write(self, record: Mapping[str, Any]) -> None:
        """See `Board`."""
        self._run.log(dict(record), step=record["step"])

    def write_result(
        self, scores: Mapping[str, float], picture: pathlib.Path, step: int
    ) -> None:
        """See `Board`."""
        # Of no step: a run that goes on from here has more of them.
        self._run.summary.update({**scores, "grid": self._image(str(picture))})

    def close(self) -> None:
        """See `Board`."""
        self._run.finish()


def check_boards(config: TrainConfig) -> None:
    """Refuses boards whose package is not installed, before anything is computed.

    Raises:
        ValueError: If one is asked for.
    """
    for name, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb")):
        value = getattr(config, name)
        if value and importlib.util.find_spec(package) is None:
            raise ValueError(
                f"train.{name}={value!r} needs the package {package}: pip install "
                f"{package}, or leave train.{name} out"
            )


def open_boards(
    experiment: Experiment, folder: pathlib.Path, first_step: int
) -> list[Board]:
    """The boards that an experiment of one seed asks for.

    Raises:
        ValueError: If one cannot be opened.
    """
    boards: list[Board] = []
    if experiment.train.tensorboard:
        boards.append(TensorBoard(folder, first_step))
    if experiment.train.wandb:
        boards.append(WeightsAndBiases(experiment, folder))
    return boards
