"""Transformers that learn exact arithmetic far beyond their training lengths.

Every name below works on its own in another model or training loop; each docstring has
shapes, errors, source and an example.
"""

from arith_jax.config.data import DataConfig
from arith_jax.config.experiment import Experiment
from arith_jax.config.model import Execution, ModelConfig
from arith_jax.config.training import LossConfig
from arith_jax.data.batch import Batch, training_batch
from arith_jax.model.attention import Attention
from arith_jax.model.biases import FireBias, RelativeBias
from arith_jax.model.context import make_context
from arith_jax.model.decode import decode
from arith_jax.model.embedding import AbacusEmbedding
from arith_jax.model.forward import forward
from arith_jax.model.layers import GatedMlp, Layer, RecurrentBlock
from arith_jax.model.transformer import Transformer, init_params
from arith_jax.positions.abacus import abacus_positions, coupled_positions
from arith_jax.positions.schemes import Abacus, Coupled
from arith_jax.released import TrainedModel, load_released, load_trained
from arith_jax.tasks.addition import Addition
from arith_jax.training.losses import Depth, progressive_loss
from arith_jax.vocab import Vocab, is_digit

__version__ = "0.2.0"

__all__ = [
    "Abacus",
    "AbacusEmbedding",
    "Addition",
    "Attention",
    "Batch",
    "Coupled",
    "DataConfig",
    "Depth",
    "Execution",
    "Experiment",
    "FireBias",
    "GatedMlp",
    "Layer",
    "LossConfig",
    "ModelConfig",
    "RecurrentBlock",
    "RelativeBias",
    "TrainedModel",
    "Transformer",
    "Vocab",
    "abacus_positions",
    "coupled_positions",
    "decode",
    "forward",
    "init_params",
    "is_digit",
    "load_released",
    "load_trained",
    "make_context",
    "progressive_loss",
    "training_batch",
]
