"""Programs that draw examples and grade them, split among devices.

They are apart, because many graders can share what one program draws: on a CPU, half of
the compilation would be the same drawing again for each width of rows.
"""

import dataclasses
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Int, Integer

from arith_jax.config.model import Execution, ModelConfig
from arith_jax.data.batch import evaluation_ids, make_batch
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
class Drawing:
    """What the program that draws examples is decided by.

    Attributes:
        task: Whose examples are drawn.
        seed: Of the examples.
        kind: The set they are of; None: any, as each row says.
        layout: Largest sizes, and tokens of a row.
        batch_size: Rows of a call, of which every device has its share.
    """

    task: Task
    seed: int
    kind: int | None
    layout: Layout
    batch_size: int


@dataclasses.dataclass(frozen=True)
class Program:
    """What a grader is decided by.

    Attributes:
        model: Shape and rules of the model.
        execution: How the device computes it.
        task: Whose examples are graded.
        scheme: How tokens are numbered.
        width: Tokens of a row.
        max_answer: Tokens of the longest answer, with `EOS`.
        blocks: Attention in blocks; None: whole rows.
        batch_size: Rows of a batch, of which every device has its share.
        deterministic: Whether a GPU has to give the same bits every time.
    """

    model: ModelConfig
    execution: Execution
    task: Task
    scheme: Scheme
    width: int
    max_answer: int
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


def token_dtype(task: Task) -> Any:
    """Of the tokens that the host puts into rows of other widths: a byte if it can."""
    return jnp.uint8 if len(task.vocab) < 256 else jnp.int32


@lru_cache(maxsize=64)
def drawer(drawing: Drawing) -> Any:
    """The compiled program: rows (set, a, b, example) -> tokens.

    Args:
        drawing: What it is decided by.
    """
    task, layout = drawing.task, drawing.layout

    def draw(rows: Int[Array, "b 4"]) -> Integer[Array, "b t"]:
        key = jax.random.key(drawing.seed)
        ids = evaluation_ids(task, key, rows, layout, kind=drawing.kind)
        return ids.astype(token_dtype(task))

    rows = jax.ShapeDtypeStruct((drawing.batch_size, 4), jnp.int32)
    return compile_split(draw, rows, runs_briefly=True)


@lru_cache(maxsize=64)
def grader(program: Program, shapes: Shapes, forward: Callable[..., Any]) -> Any:
    """The compiled grader: tokens, parameters -> right rows, right answer tokens.

    Args:
        program: What it is decided by.
        shapes: Of the parameters.
        forward: Logits of whole rows, as `model.forward.forward`.
    """
    # A forward pass gains nothing from unrolled layers, which take longer to compile.
    execution = dataclasses.replace(program.execution, unroll=False)
    model = Transformer(program.model, execution)

    def grade(
        ids: Integer[Array, "b t"], params: Any
    ) -> tuple[Bool[Array, " b"], Bool[Array, "b d"]]:
        batch = make_batch(program.task, ids.astype(jnp.int32), program.scheme)
        # Otherwise a GPU computes positions again in every operation that reads them.
        batch = jax.lax.optimization_barrier(batch)
        options = {"num_segments": 1, "blocks": program.blocks}
        logits = forward(model, params, batch.ids, batch.positions, **options)
        wrong = (jnp.argmax(logits, axis=-1) != batch.labels) & batch.mask
        # Answer token i of a row stands i places after its first counted position.
        start = jnp.argmax(batch.mask, axis=1)[:, None]
        answer = jnp.arange(program.max_answer)[None]
        place = jnp.minimum(start + answer, program.width - 1)
        right = ~jnp.take_along_axis(wrong, place, axis=1)
        return correct_answers(logits, batch), right

    shape = (program.batch_size, program.width)
    ids = jax.ShapeDtypeStruct(shape, token_dtype(program.task))
    params = jax.tree.unflatten(*shapes)
    return compile_split(grade, ids, params, deterministic=program.deterministic)


def compile_split(
    function: Callable[..., Any],
    rows: Any,
    *whole_arguments: Any,
    deterministic: bool = False,
    runs_briefly: bool = False,
) -> Any:
    """Compiles a function whose rows are split among all devices.

    Args:
        function: Of arrays whose first axis is that of rows, and others; what it
            returns begins with that axis.
        rows: Shape of the first argument.
        whole_arguments: Shapes of the others, which every device has.
        deterministic: Whether a GPU has to give the same bits every time.
        runs_briefly: Whether compiling takes longer than running.
    """
    mesh = make_mesh()
    # The kernels do not say how they could be split: every device runs its own.
    shared = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(PartitionSpec(ROWS), *[PartitionSpec()] * len(whole_arguments)),
        out_specs=PartitionSpec(ROWS),
        check_vma=False,
    )
    # Every process has all rows, and wants all results.
    split = jax.jit(shared, in_shardings=whole(mesh), out_shardings=whole(mesh))
    # One thread can trace at a time, in any case: in turn, the first is done sooner.
    with tracing:
        lowered = split.lower(rows, *whole_arguments)
    # Compiled while others run: a search for the best products would wait for those.
    options = {"deterministic": deterministic, "runs_briefly": runs_briefly}
    return compiled(lowered, triton_gemm=False, autotune=False, **options)


def in_batches(
    function: Callable[[np.ndarray], Any], rows: np.ndarray, batch_size: int
) -> Any:
    """What a compiled program makes of rows of any number, batch by batch.

    Args:
        function: Of a batch.
        rows: Its first axis is cut into batches, the last one filled up.
        batch_size: That the program was compiled for.

    Returns:
        An array, or a tuple of arrays, as the function does, for all rows.
    """
    results, pending = [], []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        missing = [(0, batch_size - len(part))] + [(0, 0)] * (rows.ndim - 1)
        pending.append(function(np.pad(part, missing, mode="edge")))
        # Two batches in flight keep the device busy and the memory bounded.
        if len(pending) == 2:
            results.append(jax.device_get(pending.pop(0)))
    results += [jax.device_get(batch) for batch in pending]
    joined = lambda *parts: np.concatenate(parts)[: len(rows)]
    return jax.tree.map(joined, *results)
