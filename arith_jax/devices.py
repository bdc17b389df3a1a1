"""How the arrays of a program are split among devices, of all processes together."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# Axes of a mesh: models with seeds of their own, and rows of a batch.
SEEDS, ROWS = "seeds", "rows"


def make_mesh(num_seeds: int = 1) -> Mesh:
    """All devices; as many as divide the seeds evenly train different ones.

        >>> dict(make_mesh().shape)["seeds"]
        1

    Args:
        num_seeds: Models in one program.
    """
    devices = np.array(jax.devices())
    num_groups = math.gcd(num_seeds, len(devices))
    return Mesh(devices.reshape(num_groups, -1), (SEEDS, ROWS))


def whole(mesh: Mesh) -> NamedSharding:
    """For arrays that every device has."""
    return NamedSharding(mesh, PartitionSpec())


def by_seed(mesh: Mesh) -> NamedSharding:
    """For arrays whose first axis is the seed."""
    return NamedSharding(mesh, PartitionSpec(SEEDS))


def split_rows(tree: Any) -> Any:
    """Arrays whose first axis is a batch's, each device with its share of the rows.

    Without a mesh around it (`jax.set_mesh`) it changes nothing.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    return jax.lax.with_sharding_constraint(tree, PartitionSpec(ROWS))


def on_each_device(function: Any, arguments: Any, is_split: Any) -> Any:
    """Calls a function on every device with its share of the rows.

    For operations that XLA cannot split by itself: kernels. Without a mesh around it,
    or with one device for all rows, the function is called as it is.

    Args:
        function: Of arrays; what it returns begins with the axis of rows.
        arguments: A tuple of trees of arrays.
        is_split: Of each leaf of the arguments, whether its first axis is the rows';
            others are passed whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    is_manual = AxisType.Manual in mesh.axis_types
    if mesh.empty or is_manual or mesh.size == 1:
        return function(*arguments)
    specs = jax.tree.map(
        lambda split: PartitionSpec(ROWS) if split else PartitionSpec(), is_split
    )
    shared = jax.shard_map(
        function, in_specs=specs, out_specs=PartitionSpec(ROWS), check_vma=False
    )
    return shared(*arguments)
