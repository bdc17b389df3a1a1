"""Checkpoints of runs and released weights. No other file imports orbax."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors.flax
from flax import traverse_util
from jax.experimental import multihost_utils

from arith_jax.config.experiment import Experiment
from arith_jax.distributed import is_first, is_from_others
from arith_jax.training.checksums import write_checksums
from arith_jax.training.loop import Clock
from arith_jax.training.saved import (
    disk_error,
    newest_readable,
    quiet_libraries,
    saved_text,
    steps_in,
    unused,
)
from arith_jax.training.state import TrainState, make_state
from arith_jax.training.weights import read_released

RELEASED = "weights.safetensors"


class Checkpoints:
    """The checkpoints of one run, saved in the background; the newest are kept.

    What saves that were cut off have left is removed. Checksums are part of a
    checkpoint, which is complete with its last file.

    Args:
        folder: Of all of them.
        max_to_keep: How many are kept; 0: all.
    """

    def __init__(self, folder: pathlib.Path, max_to_keep: int = 2):
        self._folder = folder.absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=max_to_keep or None,
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(
                    post_finalization_callback=self._add_checksums
                ),
            ),
            item_names=("state", "clock"),
        )

    def save(self, step: int, state: TrainState, clock: Clock) -> None:
        """Copies the state to the host and writes it in the background.

        Raises:
            OSError: If this save, or the one before, cannot be written.
        """
        if step == self._manager.latest_step():
            return
        numbers = clock._asdict()
        if state.num_skipped is not None:
            numbers["num_skipped"] = on_host(state.num_skipped).tolist()
        with self._explained():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(saved_fields(state)),
                    clock=ocp.args.JsonSave(numbers),
                ),
            )

    def restore(self, like: TrainState) -> tuple[TrainState, Clock] | None:
        """The newest checkpoint that can be read, or None if there is none.

        Newer ones, which cannot, are renamed, not deleted.

        Args:
            like: A state of the run's config, for shapes and placement.

        Raises:
            ValueError: If there are checkpoints, but none can be read as such a state.
        """

        def read(path: pathlib.Path) -> tuple[TrainState, Clock]:
            restored = self._manager.restore(
                int(path.name),
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(saved_fields(like)),
                    clock=ocp.args.JsonRestore(),
                ),
            )
            state, numbers = TrainState(**restored["state"]), restored["clock"]
            if like.num_skipped is not None:
                zeros = np.zeros(like.num_skipped.shape, np.int32)
                counted = np.array(numbers.get("num_skipped", zeros), np.int32)
                placed = jax.device_put(counted, like.num_skipped.sharding)
                state = state.replace(num_skipped=placed)
            return state, clock_of(numbers)

        if not steps_in(self._folder):
            return None
        restored, _, damaged = newest_readable(self._folder, read)
        for path in damaged:
            if is_first():
                path.rename(unused(path.with_name(f"damaged_{path.name}")))
        if damaged:
            self._manager.reload()
        return restored

    def close(self) -> None:
        """Waits for the save in progress.

        Raises:
            OSError: If it cannot be written.
        """
        with self._explained():
            self._manager.close()

    def _add_checksums(self) -> None:
        """Completes the folder of the save in progress, before it gets its name."""
        if is_first():
            for path in self._folder.glob("*orbax-checkpoint-tmp*"):
                write_checksums(path)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what goes wrong in writing into one line."""
        try:
            yield
        except Exception as error:
            if isinstance(error, jax.errors.JaxRuntimeError) or is_from_others(error):
                raise
            raise OSError(
                f"a checkpoint cannot be written ({disk_error(error)}); free space or "
                f"change the permissions of {self._folder}, then the same command goes "
                f"on ({saved_text(self._folder.parent)})"
            ) from error


@contextlib.contextmanager
def open_checkpoints(
    folder: pathlib.Path, max_to_keep: int = 2
) -> Iterator[Checkpoints]:
    """The checkpoints in a folder, closed at the end even after an error.

    Unless other processes have died: a save in progress would wait for them.
    """
    quiet_libraries()
    checkpoints = Checkpoints(folder, max_to_keep)
    try:
        yield checkpoints
    except BaseException as error:
        if not is_from_others(error):
            with contextlib.suppress(OSError):
                checkpoints.close()
        raise
    checkpoints.close()


def saved_fields(state: TrainState) -> dict[str, Any]:
    """What is saved of a state as arrays.

    The counter of skipped updates is kept beside the clock: a run may be told to skip
    them, or not to, when it goes on.
    """
    names = [field.name for field in dataclasses.fields(state)]
    return {name: getattr(state, name) for name in names if name != "num_skipped"}


def on_host(array: jax.Array) -> np.ndarray:
    """An array as NumPy's, also if other processes have parts of it."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def clock_of(numbers: Mapping[str, Any]) -> Clock:
    """The clock among the numbers that a checkpoint has."""
    return Clock(**{name: numbers[name] for name in Clock._fields if name in numbers})


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
    if not steps_in(folder):
        raise ValueError(
            f"no checkpoint in {folder}; name a workdir that holds a trained run"
        )
    name = "ema" if use_ema else "params"
    restore_args = jax.tree.map(
        lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, global_shape=x.shape),
        on_one_device(like),
    )

    def read(path: pathlib.Path) -> tuple[Any, Clock]:
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
        return restored[name], clock_of(clock)

    (weights, clock), path, _ = newest_readable(folder, read)
    return weights, clock, int(path.name)


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
