"""Models, parameters and rows of this folder's tests.

Compilation is most of a test's time, so nothing here is compiled but what is tested.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from arith_jax import vocab
from arith_jax.config.model import McLeishConfig
from arith_jax.data.batch import make_batch
from arith_jax.model import transformer
from arith_jax.model.forward import forward as run_forward
from arith_jax.model.transformer import Transformer
from arith_jax.tasks.addition import Addition
from arith_jax.tasks.division import Division
from arith_jax.tasks.multi_addition import MultiAddition
from arith_jax.tasks.multiplication import Multiplication
from arith_jax.tasks.radix_sorting import RadixSorting
from arith_jax.tasks.sorting import Sorting
from arith_jax.tasks.square_root import SquareRoot

TASK = Addition()
PROMPTS = ("6789+0421=", "75+9999=", "2+31=", "0001+0=", "5555+5444=")

# Changes of the tiny model: every way to tell positions, and every rule of a layer.
TABLE = {"table_size": 128, "abacus_far": "bias"}
POSITIONS = {
    "relative": {},
    "relative, bias": {"abacus_far": "bias"},
    "nope": {"positions": (), "abacus_far": "bias"},
    "abacus": {"positions": ("abacus",)} | TABLE,
    "learned": {"positions": ("learned",)} | TABLE,
    "fire": {"positions": ("fire",), "abacus_far": "bias"},
    "rope": {"positions": ("rope",), "abacus_far": "bias"},
    "fire, rope": {"positions": ("fire", "rope"), "abacus_far": "bias"},
    "rotary abacus": {"positions": ("rotary_abacus",), "abacus_far": "bias"},
    "abacus, fire, rope": {"positions": ("abacus", "fire", "rope")} | TABLE,
}
LOOPED = {
    "num_recurrences": 2,
    "injection": "recurrence",
    "initial_state": "noise",
}
RULES = {
    "ours": {},
    "original": {
        "norm": "post",
        "qk_norm": False,
        "mcleish": McLeishConfig(head_mlp=True, adapter=True),
    },
    "looped": LOOPED,
    "injected in layers": {"injection": "layer"},
    "length scale": POSITIONS["nope"] | {"length_scale": True},
}

forward = jax.jit(
    run_forward,
    static_argnums=0,
    static_argnames=("num_trained", "num_segments", "blocks"),
)

# Tasks whose work is written out, and the position scheme of each.
WRITTEN = {
    "lines": Multiplication(scratchpad=True),
    "items": Sorting(scratchpad=True),
    "terms": MultiAddition(scratchpad=True),
    "groups": Division(),
    "roots": SquareRoot(),
    "passes": RadixSorting(),
}


def changed_model(tiny, changes, **options):
    """A tiny model with other values; the options are those of `Transformer`."""
    return Transformer(dataclasses.replace(tiny, **changes), **options)


def random_params(model):
    """Parameters of the usual sizes, none at its initial value."""
    rng = np.random.default_rng(0)
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: transformer.init_params(model, key))

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape)
        name = path[-1].key
        if name in ("scale", "qk_scale", "slope", "multiplier"):
            value = 1 + 0.1 * noise
        elif name == "bias":
            value = 0.1 * noise
        else:
            fan_in = leaf.shape[-2 if name == "kernel" else -1]
            value = noise / fan_in**0.5
        return jnp.array(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def batch_of(prompts=PROMPTS, task=TASK, scheme="abacus", width=None):
    """Prompts with their right answers, a row each."""
    rows = [
        [*task.vocab.encode(prompt + task.true_answer(prompt)), vocab.EOS]
        for prompt in prompts
    ]
    width = max(map(len, rows)) if width is None else width
    ids = np.full((len(rows), width), vocab.PAD, np.int32)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row
    make = jax.jit(make_batch, static_argnums=(0, 2))
    return make(task, jnp.array(ids), task.schemes[scheme])


def relative_distance(logits, expected):
    """Largest difference, as a share of the largest number."""
    return float(jnp.max(jnp.abs(logits - expected)) / jnp.max(jnp.abs(expected)))
