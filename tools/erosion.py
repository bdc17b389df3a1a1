"""Follows one training run: long numbers, attention and weights at growing steps.

python -m tools.erosion FILE.json --config=configs/ablation_add.py:change=soft,cpu \
    [--config.train.steps=3000] [--config.seed=1]

Files in results/erosion/ that tools/figures.py names are drawn by tools/report.py.

At about equal ratios of steps the moving average of the weights is asked for sums of
growing lengths. Measured beside exact match: the attention that digits of the answer
pay to digits more than two places away, the margin behind it, the weights' norms, and
what becomes of the same weights if they are evaluated with the window, or with logits
1.5 times as large.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from arith_jax import cli
from arith_jax.config.data import round_up
from arith_jax.config.experiment import Experiment
from arith_jax.data.batch import evaluation_batch
from arith_jax.evaluation.evaluate import exact_match
from arith_jax.model.execution import resolve
from arith_jax.model.forward import attention_weights
from arith_jax.model.transformer import Transformer
from arith_jax.positions.schemes import out_of_window
from arith_jax.tasks.task import Layout
from arith_jax.training.loop import train
from arith_jax.training.record import run_record, write_json
from arith_jax.training.state import make_state

LENGTHS = (10, 20, 40, 60, 80, 100)
PROBED = (10, 40, 100)  # lengths at which attention is measured
SAMPLES = 100
NEAR = 2  # places: what the flagship's window keeps


@partial(jax.jit, static_argnums=0)
def attention_outside(
    model: Transformer,
    params: Any,
    ids: Int[Array, "b t"],
    positions: Int[Array, "b t"],
    is_answer: Float[Array, "b t"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Attention of the answer's digits to digits more than `NEAR` places away.

    Returns:
        The share of it, and the margin ln(near / far); both are means over answer
        tokens, layers and heads.
    """
    weights = attention_weights(model, params, ids, positions)
    far = out_of_window(positions, positions, NEAR)[None, None, :, None]
    share = jnp.sum(jnp.where(far, weights, 0.0), axis=-1)
    margin = jnp.log((1 - share + 1e-9) / (share + 1e-9))
    counted = jnp.broadcast_to(is_answer[None, None, :, None], share.shape)
    total = jnp.sum(counted)
    return jnp.sum(share * counted) / total, jnp.sum(margin * counted) / total


def norms(params: Any) -> dict[str, float]:
    """Root mean square of the parameters, by path."""
    flat = jax.tree_util.tree_leaves_with_path(params)
    return {
        "/".join(entry.key for entry in path): float(jnp.sqrt(jnp.mean(leaf**2)))
        for path, leaf in flat
    }


def sharper(params: Any, factor: float = 1.5) -> Any:
    """The same weights with larger attention logits."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (factor if is_logit_scale(path) else 1.0), params
    )


def is_logit_scale(path: Any) -> bool:
    """Whether attention logits are proportional to a parameter."""
    names = [entry.key for entry in path]
    return names[-1] == "qk_scale" or names[-2:] == ["relative_abacus", "bias"]


def probe(experiment: Experiment, params: Any) -> dict[str, Any]:
    """Everything measured at one step."""
    data, requests = experiment.data, {"uniform": [(n, n, SAMPLES) for n in LENGTHS]}
    window = {"abacus_far": "mask", "abacus_window": NEAR}
    windowed = dataclasses.replace(experiment.model, **window)
    measured: dict[str, Any] = {}
    for name, config, used in (
        ("cells", experiment.model, params),
        ("cells_windowed", windowed, params),
        ("cells_sharper", experiment.model, sharper(params)),
    ):
        changed = dataclasses.replace(experiment, model=config)
        cells = exact_match(changed, used, requests)
        measured[name] = [cell._asdict() for cell in cells["uniform"]]
    model = Transformer(experiment.model, experiment.execution)
    for length in PROBED:
        rows = jnp.array([[0, length, length, i] for i in range(8)])
        cell = (length, length)
        layout = Layout(cell, round_up(data.task.row_width(*cell), 64))
        key = jax.random.key(1)
        batch = evaluation_batch(data.task, key, rows, layout, data.scheme)
        is_answer = jnp.roll(batch.mask, 1, axis=1) & (batch.positions > 0)
        share, margin = attention_outside(
            model, params, batch.ids, batch.positions, is_answer.astype(jnp.float32)
        )
        measured[f"far_attention_{length}"] = float(share)
        measured[f"margin_{length}"] = float(margin)
    return measured | {"norms": norms(params)}


def milestones(steps: int, count: int = 16) -> list[int]:
    """Steps at equal ratios from 100 to the last."""
    return sorted({round(x) for x in np.geomspace(min(100, steps), steps, count)})


def follow(experiment: Experiment) -> Iterator[dict[str, Any]]:
    """Trains and measures at the milestones."""
    wanted = milestones(experiment.train.steps)
    for progress in train(experiment, make_state(experiment)):
        if progress.step in wanted:
            measured = probe(experiment, progress.state.ema)
            yield {"step": progress.step, "loss": progress.metrics.loss, **measured}


def main(arguments: Sequence[str]) -> None:
    """Runs and writes.

    Raises:
        ValueError: If no file is named, or there are no steps or no moving average.
    """
    values = cli.new_flags(config_in=arguments)
    rest = cli.parse(values, arguments, __doc__ or "")
    if len(rest) != 1:
        raise ValueError(f"arguments {' '.join(rest)!r}: must be one file to write")
    path = pathlib.Path(rest[0])
    experiment, overrides = cli.experiment_of(values)
    if experiment.train.steps == 0 or experiment.optim.ema_decay == 0:
        raise ValueError("needs train.steps above 0 and optim.ema_decay above 0")
    record = run_record(experiment, overrides)
    execution, _ = resolve(experiment.execution)
    curve = []
    for point in follow(dataclasses.replace(experiment, execution=execution)):
        curve.append(point)
        shown = {c["a"]: c["correct"] / c["total"] for c in point["cells"]}
        far = [round(point[f"far_attention_{n}"], 3) for n in PROBED]
        print(point["step"], f"{point['loss']:.2e}", shown, "far", far, flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**record, "config": experiment.to_dict(), "curve": curve})


if __name__ == "__main__":
    cli.run(main)
