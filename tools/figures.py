"""Pictures made from results; each keeps a fingerprint of what it was drawn from."""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from arith_jax.evaluation import plots
from tools import tables
from tools.tables import Runs

PANELS = {
    "nope_add_cpu_s0": "no positions (NoPE)",
    "bias_add_cpu_s0": "relative Abacus bias",
    "abacus_add_cpu_s0": "arith_jax: Abacus window",
}
# Position schemes of configs/ablation_add.py with the long budget.
SCHEMES = {
    "none": "window, relative Abacus bias",
    "soft_noise_2": "relative Abacus bias, scaled logits, key noise 2",
    "soft_scaled": "relative Abacus bias, scaled logits",
    "soft": "relative Abacus bias",
    "rotary_soft": "rotary Abacus",
    "table_soft": "learned Abacus table",
    "rope": "RoPE",
    "fire": "FIRE",
    "nope": "no positions",
}
# Where 100-digit sums fail without the window, after the long budget.
FAILING = {
    "soft": "relative Abacus bias",
    "rotary_soft": "rotary Abacus",
    "table_soft": "learned Abacus table",
    "table_soft_noise": "learned table, scaled logits, key noise 2",
}
FOLLOWED = {
    "soft_cpu_s0": "relative Abacus bias",
    "soft_decay_cpu_s0": "with weight decay 0.3",
    "soft_scaled_cpu_s0": "with scaled logits",
    "soft_noise_2_cpu_s0": "scaled, key noise 2",
    "table_soft_gpu_s0": "learned table (GPU)",
    "table_soft_noise_gpu_s0": "table, scaled, noise 2 (GPU)",
}
GROUPS = ("relative_abacus/bias", "qkv_kernel", "attention/out/kernel", "mlp/in/kernel")


def fingerprint(content: Any) -> str:
    """What a picture was drawn from, kept inside it for `--check`."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def save(figure: Figure, path: pathlib.Path, content: Any) -> None:
    """Writes the picture with its fingerprint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = fingerprint(content)
    figure.savefig(path, metadata={"Software": None, "Source": source})


def grids(results: Runs) -> tuple[Figure, Any]:
    """The README's picture: the same model and minute, three position schemes."""
    figure = Figure(figsize=(10.2, 3.9), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for ax, (name, title) in zip(axes, PANELS.items(), strict=True):
        result = results[name]
        trained = tables.trained_on(result)
        mesh = plots.draw_grid_panel(ax, result["cells"], (trained, trained))
        mean = tables.fraction(tables.longer_of(result)) or 0.0
        title = f"{title}\nlonger sums: {tables.percent(mean)}%"
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("digits of the second operand")
    axes[0].set_ylabel("digits of the first operand")
    axes[0].legend(loc="upper right", fontsize=8)
    figure.colorbar(mesh, ax=axes, label="exact match, %", shrink=0.9)
    return figure, [[name, results[name]["cells"]] for name in PANELS]


def lengths(results: Runs) -> tuple[Figure, Any]:
    """Exact match against length for the position schemes, every seed."""
    figure = Figure(figsize=(9.6, 4.2), dpi=110, layout="constrained")
    axes, drawn = figure.add_subplot(), []
    for index, (change, title) in enumerate(SCHEMES.items()):
        for run in tables.seeds_of(results, f"ablation_add_{change}_long"):
            cells = [c for c in run["cells"] if c["a"] == c["b"] and c["a"] >= 5]
            digits = [c["a"] for c in cells]
            share = [100 * c["correct"] / c["total"] for c in cells]
            label = title if run["seed"] == 0 else None
            axes.plot(digits, share, f"C{index}", label=label, linewidth=1.2)
            drawn.append([change, run["seed"], digits, share])
    axes.axvline(20, color="red", linewidth=1)
    axes.annotate("trained to here", (20.5, 50), fontsize=8, color="red")
    axes.set_xscale("log")
    axes.set_xlabel("digits of both operands")
    axes.set_ylabel("exact match, %")
    axes.set_title("4,000 steps of 256 sums of at most 20 digits", fontsize=11)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure, drawn


def places(results: Runs) -> tuple[Figure, Any]:
    """Wrong digits of 100-digit sums at every place of the answer, every seed."""
    figure = Figure(figsize=(10.2, 5.2), dpi=110, layout="constrained")
    axes, drawn = figure.subplots(2, 2, sharex=True, sharey=True).flat, []
    for ax, (change, title) in zip(axes, FAILING.items(), strict=True):
        for run in tables.seeds_of(results, f"ablation_add_{change}_long"):
            cell: Any = tables.diagonal(run, 100)
            right = np.array(cell["per_digit_correct"])
            wrong = (100 * (1 - right / cell["total"])).round(3).tolist()
            at = np.arange(1, len(wrong) + 1)
            label = f"seed {run['seed']}: {cell['correct']} of {cell['total']} right"
            ax.plot(at, wrong, "o-", markersize=2, linewidth=0.8, label=label)
            drawn.append([change, run["seed"], wrong])
        ax.axvspan(0.5, 20.5, color="red", alpha=0.07)
        ax.set_title(title, fontsize=10)
        ax.legend(fontsize=7, loc="upper left")
    figure.supxlabel("place in the answer (Abacus id), least significant first")
    figure.supylabel("wrong, %")
    return figure, drawn


def erosion(followed: Runs) -> tuple[Figure, Any]:
    """Long numbers, the same weights with the window, attention far away, norms."""
    size = (13.0, 3.0 * len(followed))
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    rows = figure.subplots(len(followed), 4, sharex="row", squeeze=False)
    for axes, (name, run) in zip(rows, followed.items(), strict=True):
        curve = run["curve"]
        steps = [point["step"] for point in curve]
        exact, windowed, far, norms = axes
        for ax, key in ((exact, "cells"), (windowed, "cells_windowed")):
            colours = plots.shades(len(curve[0][key]))
            for index, cell in enumerate(curve[0][key]):
                cells = [point[key][index] for point in curve]
                share = [100 * c["correct"] / c["total"] for c in cells]
                label = f"{cell['a']} digits"
                ax.plot(steps, share, color=colours[index], label=label)
            ax.set_ylim(-3, 103)
        keys = [key for key in curve[0] if key.startswith("far_attention_")]
        for colour, key in zip(plots.shades(len(keys)), keys, strict=True):
            values = [100 * point[key] for point in curve]
            label = f"{key.rpartition('_')[2]} digits"
            far.plot(steps, values, color=colour, label=label)
        for group in GROUPS:
            series = [mean_norm(point["norms"], group) for point in curve]
            if series[0] > 0:
                norms.plot(steps, np.array(series) / series[0], label=group)
        exact.set_ylabel(f"{FOLLOWED[name]}\nexact match, %")
        windowed.set_ylabel("same weights, window at test, %")
        far.set_ylabel("attention > 2 places away, %")
        norms.set_ylabel("norm, first point = 1")
        for ax in axes:
            ax.set_xscale("log")
            ax.legend(fontsize=6)
    figure.supxlabel("training steps")
    return figure, [[name, run["curve"]] for name, run in followed.items()]


def mean_norm(norms: Any, group: str) -> float:
    """Mean of the norms whose path ends in this."""
    sizes: Sequence[float] = [v for k, v in norms.items() if k.endswith(group)]
    return float(np.mean(sizes)) if sizes else 0.0
