"""Checkpoints of runs and released weights. No other file imports orbax."""

import contextlib
import logging
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
import safetensors.flax
from flax import traverse_util

from arith_jax.config.experiment import Experiment
from arith_jax.training.loop import Clock
from arith_jax.training.state import TrainState, make_state
from arith_jax.training.weights import read_released

RELEASED = "weights.safetensors"


class Checkpoints:
    """The checkpoints of one run: saved in the background, the newest two are kept.

    A save that is cut off leaves a temporary folder which is ignored on the next start.
    """

    def __init__(self, folder: pathlib.Path):
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=2),
            item_names=("state", "clock"),
        )

    def save(self, step: int, state: TrainState, clock: Clock) -> None:
        """Copies the state to the host and writes it in the background."""
        if step == self._manager.latest_step():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                clock=ocp.args.JsonSave(clock._asdict()),
            ),
        )

    def restore(self, like: TrainState) -> tuple[TrainState, Clock] | None:
        """The newest checkpoint, or None if there is none.

        Args:
            like: A state of the run's config, for shapes and placement.

        Raises:
            ValueError: If the newest checkpoint cannot be read as such a state.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(like),
                    clock=ocp.args.JsonRestore(),
                ),
            )
        except Exception as error:
            raise ValueError(
                f"checkpoint {self._manager.directory / str(step)} cannot be read "
                f"({first_line(error)}); nothing was changed: restore the folder or "
                "choose another --workdir"
            ) from error
        return restored["state"], Clock(**restored["clock"])

    def close(self) -> None:
        """Waits for the save in progress."""
        self._manager.wait_until_finished()
        self._manager.close()


@contextlib.contextmanager
def open_checkpoints(folder: pathlib.Path) -> Iterator[Checkpoints]:
    """The checkpoints in a folder, closed at the end even after an error."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    checkpoints = Checkpoints(folder)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def evaluated_weights(
    experiment: Experiment, workdir: pathlib.Path
) -> tuple[Any, Clock, int]:
    """What `restore_weights` returns for a run of this experiment."""
    like = jax.eval_shape(lambda: make_state(experiment))
    use_ema = experiment.optim.ema_decay > 0
    return restore_weights(workdir, like.params, use_ema=use_ema)


def restore_weights(
    workdir: pathlib.Path, like: Any, *, use_ema: bool
) -> tuple[Any, Clock, int]:
    """The weights to evaluate: released ones, or those of the newest checkpoint.

    Args:
        workdir: Of a run, or a released folder, which has no checkpoints.
        like: Parameters of the run's config, for shapes.
        use_ema: Whether to take the moving average; released weights are the ones
            that were evaluated.

    Returns:
        The weights, the seconds they took and the number of steps.

    Raises:
        ValueError: If there is no checkpoint or it does not fit.
    """
    folder = workdir / "checkpoints"
    if (workdir / RELEASED).exists() and not folder.exists():
        return read_released(workdir / RELEASED, like)
    steps = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()]
    if not steps:
        raise ValueError(
            f"no checkpoint in {folder}; name a workdir that holds a trained run"
        )
    path = folder.absolute() / str(max(steps))
    name = "ema" if use_ema else "params"
    restore_args = jax.tree.map(
        lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, global_shape=x.shape),
        on_one_device(like),
    )
    try:
        check_stored(path / "state", {name: like})
        restored = ocp.PyTreeCheckpointer().restore(
            path / "state",
            args=ocp.args.PyTreeRestore(
                item={name: on_one_device(like)},
                restore_args={name: restore_args},
                partial_restore=True,
            ),
        )
        clock = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(path / "clock")
    except Exception as error:
        raise ValueError(
            f"checkpoint {path} cannot be read ({first_line(error)}); restore the "
            "folder or name another one"
        ) from error
    return restored[name], Clock(**clock), max(steps)


def check_stored(path: pathlib.Path, like: Any) -> None:
    """Raises `ValueError` if a checkpoint stores more numbers than `like` has.

    Its metadata is read, no array: pieces of arrays are read whole, so an array of a
    few numbers could come in pieces of terabytes.
    """
    metadata = ocp.PyTreeCheckpointer().metadata(path).item_metadata
    if metadata is None:
        raise ValueError("its metadata are missing")
    tree = metadata.tree
    for key, part in like.items():
        stored: dict[str, Any] = dict(traverse_util.flatten_dict(tree[key], sep="/"))
        wanted: dict[str, Any] = dict(traverse_util.flatten_dict(part, sep="/"))
        for name, leaf in wanted.items():
            array = stored[name]
            piece = array.storage.chunk_shape
            if tuple(array.shape) != leaf.shape or math.prod(piece) > leaf.size:
                raise ValueError(
                    f"{name} has shape {array.shape} in pieces of {piece}, the model "
                    f"needs {leaf.shape}"
                )


def write_released(path: pathlib.Path, weights: Any, clock: Clock, steps: int) -> None:
    """Writes weights as safetensors, each under its path joined with slashes."""
    flat: dict[str, Any] = dict(traverse_util.flatten_dict(weights, sep="/"))
    numbers = {"steps": steps, **clock._asdict()}
    metadata = {key: str(value) for key, value in numbers.items()}
    temporary = path.with_suffix(".tmp")
    safetensors.flax.save_file(flat, temporary, metadata)
    temporary.replace(path)


def on_one_device(like: Any) -> Any:
    """Shapes and types of a tree, to be placed on the first device."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like
    )


def first_line(error: BaseException) -> str:
    """An error in one short line."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200]
