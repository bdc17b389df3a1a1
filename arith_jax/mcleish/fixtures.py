"""Fixture folders of tensors recorded from the original, and errors against them."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import Array, Float

from arith_jax import vocab
from arith_jax.config.model import ModelConfig
from arith_jax.data.batch import Batch, answer_mask
from arith_jax.mcleish import names
from arith_jax.positions.abacus import abacus_positions

# Largest error allowed: absolute for activations and losses, of the norm for
# gradients and parameters, none for integers.
GATES = {
    "ids": 0.0,
    "buffers": 1e-6,
    "activations": 2e-5,
    "logits": 2e-5,
    "loss": 5e-6,
    "gradients": 1e-4,
    "zero gradients": 1e-4,
    "learning rates": 1e-7,
    "parameters": 1e-4,
}
VOCABS = {"pad": vocab.ARITHMETIC, "index": vocab.INDEX, "sort": vocab.SORT}


class Errors:
    """The largest error of each kind, and which recorded tensors were compared."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self.tensors = tensors
        self.unchecked = set(tensors)
        self.largest: dict[str, float] = {}

    def add(self, kind: str, error: Any) -> None:
        """Records an error; one that is not a number counts as infinite."""
        error = float(error) if np.isfinite(error) else np.inf
        self.largest[kind] = max(self.largest.get(kind, 0.0), error)

    def compare(self, kind: str, name: str, ours: Any) -> None:
        """Compares with a recorded tensor by the largest absolute difference."""
        expected = self.tensors[name]
        ours = np.asarray(ours).reshape(expected.shape)
        self.unchecked.discard(name)
        self.add(kind, np.max(np.abs(ours.astype(np.float64) - expected)))

    def compare_norm(self, kind: str, expected: np.ndarray, ours: np.ndarray) -> None:
        """Compares by the norm of the difference over the norm of what is expected."""
        difference = np.linalg.norm(ours.astype(np.float64) - expected)
        self.add(kind, difference / max(np.linalg.norm(expected), 1e-12))

    @property
    def passed(self) -> bool:
        """Whether every kind is within its gate and no tensor was left out."""
        within = all(error <= GATES[kind] for kind, error in self.largest.items())
        return within and bool(self.largest) and not self.unchecked


class Case:
    """A fixture folder: the original's model as ours, and its recorded tensors."""

    def __init__(self, folder: pathlib.Path, weights: str):
        try:
            self.spec = json.loads((folder / "case.json").read_text())
            self.tensors = safetensors.numpy.load_file(folder / "io.safetensors")
            state = safetensors.numpy.load_file(folder / weights)
        except (OSError, json.JSONDecodeError, safetensors.SafetensorError) as error:
            raise ValueError(f"fixture {folder} cannot be read: {error}") from error
        self.folder = folder
        self.original = names.from_original(state, self.spec["arch"])
        self.errors = Errors(self.tensors)
        self.reduction = self.spec["arch"].get("loss_reduction", "mean")

    def config(self, variant: Mapping[str, Any]) -> ModelConfig:
        """Our model, with the initial state of a variant."""
        randomized = variant.get("initial_hidden_randomized", True)
        state = "noise" if randomized else "embedding"
        return dataclasses.replace(self.original.config, initial_state=state)

    def state(self, name: str | None) -> Float[Array, "b t d"] | None:
        """A recorded initial state; None is the embedding."""
        if name is None:
            return None
        self.errors.unchecked.discard(name)
        return jnp.array(self.tensors[name])

    def batch(self, ids: np.ndarray, offset: int | None) -> Batch:
        """Rows with Abacus ids and the mask of the answer."""
        rows = jnp.array(ids.astype(np.int32))
        positions = abacus_positions(vocab.is_digit(rows), offset or 0)
        counts = answer_mask(rows, self.spec_id("="))
        if not self.spec["arch"].get("mask_before_equals", True):
            counts = rows != vocab.PAD
        labels, mask = jnp.roll(rows, -1, axis=1), jnp.roll(counts, -1, axis=1)
        mask = mask.at[:, -1].set(False)
        return Batch(
            ids=rows,
            positions=positions,
            labels=labels,
            mask=mask,
            segment=jnp.zeros_like(rows),
        )

    def spec_id(self, symbol: str) -> int:
        """Id of a symbol in the case's vocabulary."""
        return VOCABS[self.spec.get("tokenizer_type", "pad")].id(symbol)

    def as_theirs(self, tree: Any) -> dict[str, np.ndarray]:
        """A tree of our parameters' shape under the original's names."""
        theirs = self.original
        return names.to_original(
            theirs.config, tree, by_head=theirs.by_head, compiled=theirs.compiled
        )
