"""Programs that grade batches of examples by teacher forcing, split among devices.

Imports `compiling`, `data`, `model` and `losses`.
"""

import dataclasses
import threading
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int

from arith_jax import compiling, losses
from arith_jax.banded import Blocks
from arith_jax.data import DataConfig, evaluation_batch
from arith_jax.model import forward
from arith_jax.model_config import ModelConfig

# Shapes of a tree of parameters, hashable.
Shapes = tuple[Any, tuple[jax.ShapeDtypeStruct, ...]]

tracing = threading.Lock()


def devices_mesh() -> Mesh:
    """All devices of this process, among which batches are split."""
    return Mesh(np.array(jax.local_devices()), ("rows",))


def on_all_devices(params: Any) -> tuple[Any, Shapes]:
    """The parameters on every device, and their shapes."""
    params = jax.device_put(params, NamedSharding(devices_mesh(), PartitionSpec()))
    leaves, tree = jax.tree.flatten(params)
    return params, (tree, tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves))


@lru_cache(maxsize=64)
def grader(
    model: ModelConfig,
    data: DataConfig,
    seed: int,
    sizes: tuple[int, int],
    width: int,
    blocks: Blocks | None,
    batch_size: int,
    shapes: Shapes,
) -> Any:
    """The program of one bucket: parameters, rows -> right rows, right answer tokens.

    Compiled for batches of `batch_size` rows, of which every device has its share.
    """
    task = data.make_task()
    answer = task.answer_width(*sizes) + 1

    def grade(
        params: Any, rows: Int[Array, "b 4"]
    ) -> tuple[Bool[Array, " b"], Bool[Array, "b d"]]:
        key = jax.random.key(seed)
        batch = evaluation_batch(task, key, rows, sizes, width, data.position_ids)
        # Or a GPU works positions out again in every operation that reads them.
        batch = jax.lax.optimization_barrier(batch)
        logits = forward(model, params, batch.ids, batch.positions, blocks=blocks)
        labels, mask = losses.targets(batch)
        wrong = (jnp.argmax(logits, axis=-1) != labels) & mask
        # Answer token i of a row stands i places after its first counted position.
        start = jnp.argmax(mask, axis=1)[:, None]
        place = jnp.minimum(start + jnp.arange(answer)[None], width - 1)
        right = ~jnp.take_along_axis(wrong, place, axis=1)
        return losses.correct_rows(logits, batch), right

    # A forward pass gains nothing from unrolled layers, which take longer to compile.
    model = dataclasses.replace(model, unroll=False)
    mesh, whole, split = devices_mesh(), PartitionSpec(), PartitionSpec("rows")
    placed = NamedSharding(mesh, whole), NamedSharding(mesh, split)
    # The kernels do not say how they could be split: every device runs its own.
    shared = jax.shard_map(
        grade, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False
    )
    params = jax.tree.unflatten(*shapes)
    rows = jax.ShapeDtypeStruct((batch_size, 4), jnp.int32)
    program = jax.jit(shared, in_shardings=placed, out_shardings=placed[1])
    # One thread can trace at a time, in any case: in turn, the first is done sooner.
    with tracing:
        lowered = program.lower(params, rows)
    # Compiled while others run: a search for the best products would wait for those.
    return compiling.compiled(lowered, libraries=True, search=False)


def grade_rows(
    grade: Any, size: int, params: Any, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Right rows [n] and right answer tokens [n, d] of one bucket, batch by batch."""
    found, pending = [], []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        padded = np.pad(part, ((0, size - len(part)), (0, 0)), mode="edge")
        pending.append(grade(params, padded))
        # Two batches in flight keep the device busy and the memory bounded.
        if len(pending) == 2:
            found.append(jax.device_get(pending.pop(0)))
    found += [jax.device_get(batch) for batch in pending]
    right, digits_right = (
        np.concatenate(parts)[: len(rows)] for parts in zip(*found, strict=True)
    )
    return right, digits_right
