"""Follows one training run: long numbers, attention and weights at growing steps.

python tools/erosion.py FILE.json --config=configs/ablation_add.py:change=soft,cpu \
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
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jaxtyping import Array, Float, Int
from ml_collections import config_flags

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from arith_jax import biases, evaluate, model, runlog, train
from arith_jax.data import evaluation_batch, round_up
from arith_jax.experiment import Experiment
from arith_jax.model_config import ModelConfig

CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment to follow.")
LENGTHS = (10, 20, 40, 60, 80, 100)
PROBED = (10, 40, 100)  # lengths at which attention is measured
SAMPLES = 100
NEAR = 2  # places: what the flagship's window keeps


@partial(jax.jit, static_argnums=0)
def attention_outside(
    config: ModelConfig,
    params: Any,
    ids: Int[Array, "b t"],
    abacus: Int[Array, "b t"],
    is_answer: Float[Array, "b t"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Attention of the answer's digits to digits more than `NEAR` places away.

    Returns:
        The share of it, and the margin ln(near / far); both are means over answer
        tokens, layers and heads.
    """
    weights = model.attention_weights(config, params, ids, abacus)
    far = biases.out_of_window(abacus, abacus, NEAR)[None, None, :, None]
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


def probe(experiment: Experiment, weights: Any) -> dict[str, Any]:
    """Everything measured at one step."""
    config, data = experiment.model, experiment.data
    requests = {"uniform": [(n, n, SAMPLES) for n in LENGTHS]}
    windowed = dataclasses.replace(config, abacus_far="mask", abacus_window=NEAR)
    found: dict[str, Any] = {}
    for name, changed, used in (
        ("cells", config, weights),
        ("cells_windowed", windowed, weights),
        ("cells_sharper", config, sharper(weights)),
    ):
        cells = evaluate.exact_match(changed, data, experiment.eval, used, requests)
        found[name] = runlog.cells_json(cells["uniform"])
    task = data.make_task()
    for length in PROBED:
        rows = jnp.array([[0, length, length, i] for i in range(8)])
        sizes = (length, length)
        width = round_up(task.row_width(length, length), 64)
        batch = evaluation_batch(task, jax.random.key(1), rows, sizes, width)
        counted = jnp.asarray(batch.mask & (batch.positions > 0), jnp.float32)
        share, margin = attention_outside(
            config, weights, batch.ids, batch.positions, counted
        )
        found[f"far_attention_{length}"] = float(share)
        found[f"margin_{length}"] = float(margin)
    found["norms"] = norms(weights)
    return found


def milestones(steps: int, count: int = 16) -> list[int]:
    """Steps at equal ratios from 100 to the last."""
    return sorted({round(x) for x in np.geomspace(min(100, steps), steps, count)})


def follow(experiment: Experiment) -> Iterator[dict[str, Any]]:
    """Trains and measures at the milestones."""
    wanted = milestones(experiment.train.steps)
    state = train.make_state(experiment.model, experiment.optim, experiment.seed)
    steps = train.train(experiment.train_configs, state, experiment.seed, train.Clock())
    for progress in steps:
        if progress.step in wanted:
            weights = progress.state.ema
            measured = probe(experiment, weights)
            yield {"step": progress.step, "loss": progress.metrics.loss, **measured}


def main(arguments: list[str]) -> None:
    """Runs and writes."""
    path, config = pathlib.Path(arguments[1]), CONFIG.value
    experiment = Experiment.from_dict(config.to_dict())
    if experiment.train.steps == 0 or experiment.optim.ema_decay == 0:
        sys.exit("error: needs train.steps above 0 and optim.ema_decay above 0")
    curve = []
    for point in follow(experiment):
        curve.append(point)
        shown = {c["a"]: c["correct"] / c["total"] for c in point["cells"]}
        far = [round(point[f"far_attention_{n}"], 3) for n in PROBED]
        print(point["step"], f"{point['loss']:.2e}", shown, "far", far, flush=True)
    commit, dirty = runlog.git_state()
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "config": experiment.full,
        "seed": experiment.seed,
        "git_commit": commit,
        "dirty": dirty,
        "versions": runlog.versions(),
        "device": runlog.device_name(),
        "curve": curve,
    }
    runlog.write_json(path, content)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
