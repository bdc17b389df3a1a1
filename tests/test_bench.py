"""The measurements, at their smallest, and the command as a user types it."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import bench, losses, model, profiling, runlog, throughput
from arith_jax.experiment import Experiment, step_flops
from configs import abacus_add
from tests.test_launch import CONFIG, launch


@pytest.fixture(scope="module")
def packed():
    config = abacus_add.get_config("smoke")
    config.data.problems_per_row = 2
    return Experiment.from_dict(config.to_dict())


def test_flops_are_the_compiler_s_count_of_an_unrolled_model(tiny):
    # Every matrix of the model, none so small that nobody would miss it.
    config = dataclasses.replace(
        tiny,
        width=256,
        mlp_width=512,
        vocab_size=1024,
        recurrences=2,
        max_backprop=1,
        injection="recurrence",
        positions=(),
        head_mlp=True,
        adapter=True,
        unroll=True,
    )
    params = jax.eval_shape(lambda: model.init_params(config, jax.random.key(0)))
    ids = jax.ShapeDtypeStruct((2, 128), jnp.int32)

    def forward(params, ids, num_frozen, num_trained):
        return model.forward(
            config, params, ids, ids, num_frozen=num_frozen, num_trained=num_trained
        )

    def counted(function):
        compiled = jax.jit(function).lower(params, ids).compile()
        return compiled.cost_analysis()["flops"] / 2

    passed = counted(lambda p, i: forward(p, i, 0, 2))
    ours = runlog.flops_per_row(config, 128, 2, 0)
    # The compiler also counts norms, softmax, masks and GELU.
    assert ours < passed < 1.04 * ours
    # One recurrence without gradient and one with; a loop of one is counted right.
    trained = counted(jax.grad(lambda p, i: jnp.sum(forward(p, i, 1, 1) ** 2)))
    ours = runlog.flops_per_row(config, 128, 1, 1)
    assert ours < trained < 1.08 * ours


def test_depths_are_those_the_loss_runs(tiny):
    deep = dataclasses.replace(tiny, recurrences=4, max_backprop=2)
    assert losses.depths(tiny, 0.5, 0, 0) == [(0, 1)]
    drawn = losses.sample_depth(deep, 3, 7)
    assert losses.depths(deep, 0.0, 3, 7) == [(2, 2)]
    assert losses.depths(deep, 1.0, 3, 7) == [drawn]
    assert losses.depths(deep, 0.5, 3, 7) == [(2, 2), drawn]


def test_problem_lengths_and_flops_leave_padding_out(smoke, packed):
    plain = throughput.problem_sizes(smoke)
    assert plain.shape == (8 * 16, 2)
    # Rows of `a+b=c` and EOS: from 1+1=2 to two operands of 3 digits and 4 of the sum,
    # of which 5 tokens are predicted.
    assert plain.min(axis=0).tolist() == [6, 2]
    assert plain.max(axis=0).tolist() == [13, 5]
    # Packed, EOS is predicted, but not read.
    sizes = throughput.problem_sizes(packed)
    assert sizes.min(axis=0).tolist() == [5, 2]
    assert sizes.max(axis=0).tolist() == [12, 5]
    most = (smoke.data.width, smoke.data.most_read)
    assert most == (13, 5)
    full = np.full((7, 2), most)
    assert throughput.useful_flops(smoke, full, 0) == step_flops(smoke, 0)
    short = np.array([(6, 2), most])
    alone = runlog.flops_per_row(smoke.model, 6, 0, 1, 2)
    mean = (16 * alone + step_flops(smoke, 0)) / 2
    assert throughput.useful_flops(smoke, short, 0) == mean
    data = packed.data
    rows = 8 * runlog.flops_per_row(packed.model, data.width, 0, 1, data.most_read)
    assert step_flops(packed, 0) == rows


@pytest.fixture(scope="module")
def trained(packed):
    return throughput.train_speed(packed, 12)


def test_train_speed_agrees_with_its_raw_times(trained, packed):
    assert len(trained["step_seconds"]["raw"]) == 12
    groups = trained["group_seconds"]["raw"]
    assert len(groups) == 2
    rate = 20 * 16 / sum(groups)
    assert trained["samples_per_second"] == pytest.approx(rate)
    width = packed.data.width
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


def test_profile_has_every_part_of_a_step(smoke):
    found = throughput.train_profile(smoke, 3)
    assert found["recurrences"] == [0, 1]
    parts = {part["part"]: part for part in found["parts"]}
    assert set(parts) - {"rest"} == set(profiling.PARTS)
    with_products = {name for name, part in parts.items() if part["products"] > 0}
    assert with_products >= {"attention", "gated MLP", "optimizer", "readout and loss"}
    assert not with_products & {"norms", "data"}
    assert all(part["products"] + part["other"] > 0 for part in parts.values())
    busy = sum(part["products"] + part["other"] for part in parts.values())
    # Two cores, several operations at once; and the clock has gaps in small steps.
    assert 0.02 * found["seconds_per_step"] < busy < 10 * found["seconds_per_step"]
    table = bench.make_table("profile", found, "title")
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
    found = profiling.operations(PROGRAM)
    assert found["a"] == ("gated MLP", True)
    assert found["b"] == ("optimizer", False)
    assert found["c"] == ("rest", True)
    assert found["x"] == ("rest", False)


def test_matmul_peak_is_a_rate_of_this_machine():
    peak = throughput.matmul_peak()
    assert peak["dtype"] == "float32"
    assert 1e9 < peak["flops_per_second"] < 1e14


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
    path = tmp_path / "found.json"
    options = (CONFIG, f"--out={path}")
    done = launch(*arguments, *options, module="-m arith_jax.bench")
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert json.loads(path.read_text())["measured"]


@pytest.mark.slow
def test_planned_memory_grows_linearly_in_batch_and_layers(smoke):
    rows = throughput.train_scaling(smoke, 1)
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
