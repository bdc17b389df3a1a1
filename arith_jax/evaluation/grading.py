"""Programs that grade batches of examples by teacher forcing, split among devices."""

import dataclasses
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Int

from arith_jax.config.model import Execution, ModelConfig
from arith_jax.data.batch import evaluation_batch
from arith_jax.devices import ROWS, make_mesh, whole
from arith_jax.kernels.compile import compiled
from arith_jax.model.banded import Blocks
from arith_jax.model.transformer import Transformer
from arith_jax.positions.schemes import Scheme
from arith_jax.tasks.task import Layout, Task
from arith_jax.training.losses import correct_answers

# Shapes of a tree of parameters, hashable.
Shapes = tuple[Any, tuple[jax.ShapeDtypeStruct, ...]]

tracing = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Program:
    """What a grader is decided by.

    Attributes:
        model: Shape and rules of the model.
        execution: How the device computes it.
        task: Whose examples are graded.
        scheme: How tokens are numbered.
        seed: Of the examples.
        layout: Largest sizes, and tokens of a row.
        blocks: Attention in blocks; None: whole rows.
        batch_size: Rows of a batch, of which every device has its share.
        deterministic: Whether a GPU has to give the same bits every time.
    """

    model: ModelConfig
    execution: Execution
    task: Task
    scheme: Scheme
    seed: int
    layout: Layout
    blocks: Blocks | None
    batch_size: int
    deterministic: bool


def on_all_devices(params: Any) -> tuple[Any, Shapes]:
    """The parameters on every device, and their shapes."""
    if jax.process_count() > 1:
        # Every process has them all, and gives its devices what they need.
        params = jax.device_get(params)
    params = jax.device_put(params, whole(make_mesh()))
    leaves, tree = jax.tree.flatten(params)
    return params, (tree, tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves))


@lru_cache(maxsize=64)
def grader(program: Program, shapes: Shapes, forward: Callable[..., Any]) -> Any:
    """The compiled grader: parameters, rows -> right rows, right answer tokens.

    Args:
        program: What it is decided by.
        shapes: Of the parameters.
        forward: Logits of whole rows, as `model.forward.forward`.
    """
    task, layout = program.task, program.layout
    answer = task.answer_width(*layout.max_cell) + 1
    # A forward pass gains nothing from unrolled layers, which take longer to compile.
    execution = dataclasses.replace(program.execution, unroll=False)
    model = Transformer(program.model, execution)

    def grade(
        params: Any, rows: Int[Array, "b 4"]
    ) -> tuple[Bool[Array, " b"], Bool[Array, "b d"]]:
        key = jax.random.key(program.seed)
        batch = evaluation_batch(task, key, rows, layout, program.scheme)
        # Otherwise a GPU computes positions again in every operation that reads them.
        batch = jax.lax.optimization_barrier(batch)
        options = {"num_segments": 1, "blocks": program.blocks}
        logits = forward(model, params, batch.ids, batch.positions, **options)
        wrong = (jnp.argmax(logits, axis=-1) != batch.labels) & batch.mask
        # Answer token i of a row stands i places after its first counted position.
        start = jnp.argmax(batch.mask, axis=1)[:, None]
        place = jnp.minimum(start + jnp.arange(answer)[None], layout.width - 1)
        right = ~jnp.take_along_axis(wrong, place, axis=1)
        return correct_answers(logits, batch), right

    mesh = make_mesh()
    # The kernels do not say how they could be split: every device runs its own.
    shared = jax.shard_map(
        grade,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(ROWS)),
        out_specs=PartitionSpec(ROWS),
        check_vma=False,
    )
    params = jax.tree.unflatten(*shapes)
    rows = jax.ShapeDtypeStruct((program.batch_size, 4), jnp.int32)
    # Every process has all rows, and wants all results.
    function = jax.jit(shared, in_shardings=whole(mesh), out_shardings=whole(mesh))
    # One thread can trace at a time, in any case: in turn, the first is done sooner.
    with tracing:
        lowered = function.lower(params, rows)
    # Compiled while others run: a search for the best products would wait for those.
    options = {"autotune": False, "deterministic": program.deterministic}
    return compiled(lowered, triton_gemm=False, **options)


def grade_rows(
    grade: Any, params: Any, rows: np.ndarray, *, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Right rows [n] and right answer tokens [n, d] of one bucket, batch by batch.

    Args:
        grade: From `grader`.
        params: Parameters on every device.
        rows: Examples [n, 4], of any number.
        batch_size: That the grader was compiled for.
    """
    results, pending = [], []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        padded = np.pad(part, ((0, batch_size - len(part)), (0, 0)), mode="edge")
        pending.append(grade(params, padded))
        # Two batches in flight keep the device busy and the memory bounded.
        if len(pending) == 2:
            results.append(jax.device_get(pending.pop(0)))
    results += [jax.device_get(batch) for batch in pending]
    right, tokens_right = (
        np.concatenate(parts)[: len(rows)] for parts in zip(*results, strict=True)
    )
    return right, tokens_right
