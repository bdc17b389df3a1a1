"""The measurements, at their smallest, and the command as a user types it."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import bench
from arith_jax.benchmark import profiling, training
from arith_jax.benchmark.tables import make_table
from arith_jax.config.experiment import Experiment
from arith_jax.config.model import Execution, McLeishConfig
from arith_jax.data.batch import max_targets, row_width
from arith_jax.model import forward as running
from arith_jax.model.flops import flops_per_row
from arith_jax.model.transformer import Transformer, init_params
from arith_jax.training.losses import Depth
from arith_jax.training.step import depths, sample_depth, step_flops
from configs import abacus_add
from tests.helpers import changed
from tests.test_launch import CONFIG, launch


@pytest.fixture(scope="module")
def unrolled(smoke):
    return changed(smoke, execution__unroll=True)


@pytest.fixture(scope="module")
def packed():
    config = abacus_add.get_config("smoke")
    config.data.problems_per_row = 2
    config.execution.unroll = True
    return Experiment.from_dict(config)


def test_flops_are_the_compiler_s_count_of_an_unrolled_model(tiny):
    # Every matrix of the model, each of which is large enough to be missed.
    config = dataclasses.replace(
        tiny,
        width=256,
        mlp_width=512,
        vocab_size=1024,
        num_recurrences=2,
        injection="recurrence",
        positions=(),
        mcleish=McLeishConfig(head_mlp=True, adapter=True),
    )
    model = Transformer(config, Execution(unroll=True))
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    ids = jax.ShapeDtypeStruct((2, 128), jnp.int32)

    def forward(params, ids, n, k):
        options = {"num_frozen": n, "num_trained": k, "num_segments": 1}
        return running.forward(model, params, ids, ids, **options)

    def counted(function):
        compiled = jax.jit(function).lower(params, ids).compile()
        return compiled.cost_analysis()["flops"] / 2

    passed = counted(lambda p, i: forward(p, i, 0, 2))
    ours = flops_per_row(config, 128, num_frozen=2)
    # The compiler also counts norms, softmax, masks and GELU.
    assert ours < passed < 1.04 * ours
    # One recurrence without gradient and one with; a loop of one is counted right.
    trained = counted(jax.grad(lambda p, i: jnp.sum(forward(p, i, 1, 1) ** 2)))
    ours = flops_per_row(config, 128, num_frozen=1, num_trained=1)
    assert ours < trained < 1.08 * ours


def test_depths_are_those_the_loss_runs(smoke):
    def passes(alpha, **changes):
        experiment = changed(smoke, loss__alpha=alpha, **changes)
        return depths(experiment, 7), sample_depth(experiment, 7)

    assert passes(0.5)[0] == [(0, 1)]
    deep = {
        "model__num_recurrences": 4,
        "model__injection": "recurrence",
    }
    smoke = changed(smoke, **deep)
    smoke = dataclasses.replace(
        smoke, loss=dataclasses.replace(smoke.loss, max_backprop=2)
    )
    full = Depth(2, 2)
    assert passes(0.0)[0] == [full]
    drawn, depth = passes(1.0)
    assert drawn == [depth]
    assert passes(0.5)[0] == [full, depth]


def test_problem_lengths_and_flops_leave_padding_out(unrolled, packed):
    plain = training.problem_sizes(unrolled)
    assert plain.shape == (8 * 16, 2)
    # Rows of `a+b=c` and EOS: from 1+1=2 to two operands of 3 digits and 4 of the sum,
    # of which 5 tokens are predicted.
    assert plain.min(axis=0).tolist() == [6, 2]
    assert plain.max(axis=0).tolist() == [13, 5]
    # Packed, EOS is predicted, but not read.
    sizes = training.problem_sizes(packed)
    assert sizes.min(axis=0).tolist() == [5, 2]
    assert sizes.max(axis=0).tolist() == [12, 5]
    longest = (row_width(unrolled.data), max_targets(unrolled.data))
    assert longest == (13, 5)
    full = np.full((7, 2), longest)
    whole = step_flops(unrolled, 0)
    assert training.useful_flops(unrolled, full, 0) == whole
    short = np.array([(6, 2), longest])
    alone = flops_per_row(unrolled.model, 6, num_trained=1, num_targets=2)
    assert training.useful_flops(unrolled, short, 0) == (16 * alone + whole) / 2
    data = packed.data
    row = flops_per_row(
        packed.model,
        row_width(data),
        num_trained=1,
        num_targets=max_targets(data),
    )
    assert step_flops(packed, 0) == 8 * row


@pytest.fixture(scope="module")
def trained(packed):
    return training.train_speed(packed, 12)


def test_train_speed_agrees_with_its_raw_times(trained, packed):
    assert len(trained["step_seconds"]["raw"]) == 12
    groups = trained["group_seconds"]["raw"]
    assert len(groups) == 2
    rate = 20 * 16 / sum(groups)
    assert trained["samples_per_second"] == pytest.approx(rate)
    width = row_width(packed.data)
    assert trained["tokens_per_second"] == pytest.approx(rate / 2 * width)
    useful = trained["useful_tokens_per_second"]
    assert 0.5 * trained["tokens_per_second"] < useful < trained["tokens_per_second"]
    assert trained["flops_per_second"] == pytest.approx(
        rate / 16 * step_flops(packed, 0)
    )
    assert 0 < trained["useful_share_of_peak"] < trained["share_of_peak"] < 1
    for key in ("step_seconds", "group_seconds"):
        spread = trained[key]
        assert min(spread["raw"]) == spread["min"] <= spread["median"]
        assert spread["median"] <= spread["max"] == max(spread["raw"])
    assert trained["num_params"] == 16224
    # State, its moving average and two moments at least.
    assert trained["program_bytes"] > 3 * 4 * 16224
    assert trained["peak_memory"]["bytes"] > trained["program_bytes"]


@pytest.mark.slow
def test_train_speed_counts_all_seeds(smoke):
    several = dataclasses.replace(smoke, num_seeds=2)
    measured = training.train_speed(several, 3)
    assert (measured["num_seeds"], measured["num_params"]) == (2, 16224)
    assert measured["samples_per_step"] == 2 * 16
    rate = 10 * 2 * 16 / sum(measured["group_seconds"]["raw"])
    assert measured["samples_per_second"] == pytest.approx(rate)
    assert measured["flops_per_second"] == pytest.approx(
        rate / 16 * step_flops(smoke, 0)
    )
    # Problems of the second seed are among those counted.
    sizes = training.problem_sizes(several)
    assert len(sizes) == 2 * 8 * 16
    np.testing.assert_array_equal(
        sizes[8 * 16 :],
        training.problem_sizes(dataclasses.replace(smoke, seed=smoke.seed + 1)),
    )


def test_profile_has_every_part_of_a_step(smoke):
    profile = training.train_profile(smoke, 3)
    assert profile["recurrences"] == [0, 1]
    parts = {part["part"]: part for part in profile["parts"]}
    assert set(parts) - {"rest"} == set(profiling.PARTS)
    with_products = {name for name, part in parts.items() if part["products"] > 0}
    assert with_products >= {"attention", "gated MLP", "optimizer", "readout and loss"}
    assert not with_products & {"norms", "data"}
    assert all(part["products"] + part["other"] > 0 for part in parts.values())
    table = make_table("profile", profile, "title")
    assert table.row_count == len(parts) + 2


PROGRAM = """
%fused (p: f32[2,2]) -> f32[2,2] {
  %p = f32[2,2] parameter(0)
  ROOT %dot.1 = f32[2,2] dot(%p, %p), metadata={op_name="jit(f)/Layer/mlp/in/dot"}
}

ENTRY %main (x: f32[2,2]) -> f32[2,2] {
  %x = f32[2,2] parameter(0), metadata={op_name="x"}
  %a = f32[2,2] fusion(%x), calls=%fused, metadata={op_name="jit(f)/Layer/mlp/in/dot"}
  %b = f32[2,2] add(%a, %a), metadata={op_name="jit(f)/optimizer/Layer/mlp/add"}
  ROOT %c = f32[2,2] custom-call(%b), custom_call_target="__cublas$gemm"
}
"""


def test_operations_of_a_program_are_told_apart():
    operations = profiling.operations(PROGRAM)
    assert operations["a"] == ("gated MLP", True)
    assert operations["b"] == ("optimizer", False)
    assert operations["c"] == ("rest", True)
    assert operations["x"] == ("rest", False)


def test_command_measures_and_writes(tmp_path):
    path = tmp_path / "new" / "data.json"
    options = (CONFIG, f"--out={path}", "--config.seed=3", "--steps=20")
    done = launch("data", *options, module="-m arith_jax.bench")
    assert done.returncode == 0, done.stderr
    assert "examples/s" in done.stdout
    record = json.loads(path.read_text())
    assert record["what"] == "data"
    assert record["config"]["overrides"] == {"seed": 3}
    assert {"seed", "git_commit", "dirty", "versions", "device"} <= set(record)
    measured = record["measured"]
    seconds = measured["group_seconds"]["raw"]
    assert len(seconds) == 2
    assert measured["examples_per_second"] == pytest.approx(20 * 16 / sum(seconds))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["speed", CONFIG],
            "what to measure is 'speed'; allowed: one of train, profile,",
        ),
        (["data", CONFIG, "--scaling"], "--scaling is for train, not for data"),
        (["data", CONFIG, "--steps=0"], "--steps=0: must be at least 1 for data"),
        (["data", CONFIG, "--config.nosuch=1"], "nosuch"),
    ],
)
def test_bad_command_lines_are_explained(arguments, message):
    done = launch(*arguments, module="-m arith_jax.bench")
    assert done.returncode != 0
    assert message in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["train", "--steps=3"], "without padding"),
        (["train", "--steps=3", "--scaling"], "us / sample / layer"),
        (["eval"], "sums/s, compiled"),
        (["eval", "--steps=0"], "whole grid, first time"),
        (["decode", "--steps=1"], "100 sums of 100 digits"),
    ],
)
def test_every_measurement_runs(arguments, shown, tmp_path):
    path = tmp_path / "measured.json"
    options = (CONFIG, f"--out={path}")
    done = launch(*arguments, *options, module="-m arith_jax.bench")
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert json.loads(path.read_text())["measured"]


@pytest.mark.slow
def test_planned_memory_grows_linearly_in_batch_and_layers(smoke):
    rows = training.train_scaling(smoke, 1)
    assert [(row["samples_per_step"], row["layers"]) for row in rows] == [
        *((4, 2), (8, 2), (16, 2), (16, 1), (16, 4), (16, 8)),
    ]
    size = {(r["samples_per_step"], r["layers"]): r["program_bytes"] for r in rows}
    # Twice the growth for twice the step, if linear; four times, if quadratic.
    assert size[16, 2] - size[8, 2] < 2.5 * (size[8, 2] - size[4, 2])
    assert size[16, 8] - size[16, 4] < 2.5 * (size[16, 4] - size[16, 2])


def test_only_a_profile_runs_operations_one_by_one(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    bench.show_operations(["bench", "train"])
    assert os.environ["XLA_FLAGS"] == "--xla_a=1"
    bench.show_operations(["bench", "profile"])
    flags = os.environ["XLA_FLAGS"].split()
    assert flags == ["--xla_a=1", "--xla_gpu_enable_command_buffer="]
