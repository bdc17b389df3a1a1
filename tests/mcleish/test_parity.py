"""Parity with the original on its recorded tensors, and wrong models that must fail.

`golden.tar.xz` holds tensors recorded by running mcleish7/arithmetic @ 86022a5 on a
CPU; gradients and activations of some cases are left out for size.
"""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from arith_jax import interop, vocab
from arith_jax.config.experiment import Experiment
from arith_jax.config.training import OptimConfig
from arith_jax.data.batch import answer_mask
from arith_jax.mcleish import checkpoint, fixtures, names, options, parity, passes
from arith_jax.mcleish.options import model_config
from arith_jax.model import initializers, layers
from arith_jax.model.transformer import Transformer, init_params, num_params
from arith_jax.positions.abacus import abacus_positions
from arith_jax.training.optim import lr_multiplier, num_micro_batches
from configs.paper import addition
from tests.helpers import slow_but
from tests.model.examples import random_params

ROOT = pathlib.Path(__file__).parent.parent.parent
CASES = ["abacus_lt", "abacus_st", "abacus_st_injection", "alpha_half", "fire_st"]
CASES += ["no_mask_before_equals", "nope_lt", "rope_st", "train_steps"]
# The others are these with another mixture of layers, loops and positions.
FAST = ("abacus_lt", "abacus_st_injection", "alpha_half", "fire_st", "nope_lt")
FAST += ("no_mask_before_equals", "rope_st", "train_steps")
PROGRAMS = (
    passes.logits_and_loss,
    passes.loss_and_gradients,
    passes.combined_gradients,
)


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(pathlib.Path(__file__).parent / "golden.tar.xz") as archive:
        # Python 3.11.4 and later know it.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    return folder


@pytest.fixture(autouse=True)
def fresh_programs():
    """Changed code must be traced again: the programs are keyed by config only."""
    for program in PROGRAMS:
        program.clear_cache()
    yield
    for program in PROGRAMS:
        program.clear_cache()


@pytest.mark.parametrize("name", slow_but(CASES, FAST))
def test_recorded_tensors_are_reproduced(golden, name, capsys):
    assert parity.check([golden / name])
    assert "NOT CHECKED" not in capsys.readouterr().out


@pytest.mark.slow
def test_recorded_training_is_reproduced_with_the_usual_optimizations(golden):
    # The other tests compile with few of them.
    unset = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    environment = {k: v for k, v in os.environ.items() if k not in unset}
    environment["JAX_PLATFORMS"] = "cpu"
    environment["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".jax_cache")
    command = [sys.executable, "-m", "arith_jax.interop", "check"]
    command.append(str(golden / "train_steps"))
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout.splitlines()


def errors_of(golden, name, variant="eval_state_random"):
    """Largest errors of one recorded pass."""
    case = fixtures.Case(golden / name, "state_dict.safetensors")
    passes.check_forward(case, variant, case.spec["variants"][variant])
    return case.errors.largest


def change_tensor(monkeypatch, ours, change):
    unchanged = names.ours_from

    def changed(name, tensor, *layout):
        tensor = unchanged(name, tensor, *layout)
        return change(tensor) if name == ours else tensor

    monkeypatch.setattr(names, "ours_from", changed)


def change_config(monkeypatch, **changes):
    unchanged = names.from_original

    def changed(*args):
        original = unchanged(*args)
        config = dataclasses.replace(original.config, **changes)
        return dataclasses.replace(original, config=config)

    monkeypatch.setattr(names, "from_original", changed)


def wrong_eps(monkeypatch):
    change_config(monkeypatch, norm_eps=1e-6)


def wrong_gelu(monkeypatch):
    def geglu(x, **options):
        u, g = jnp.split(x, 2, axis=-1)
        return jax.nn.gelu(g, approximate=True) * u

    monkeypatch.setattr(layers, "geglu", geglu)


def wrong_gate(monkeypatch):
    swap = lambda kernel: np.roll(kernel, kernel.shape[1] // 2, axis=1)
    change_tensor(monkeypatch, "mlp/in/kernel", swap)


def without_row_zero(monkeypatch):
    drop = lambda table: np.concatenate([0 * table[:1], table[1:]])
    change_tensor(monkeypatch, "abacus/embedding", drop)


def transposed_adapter(monkeypatch):
    change_tensor(monkeypatch, "adapter/kernel", lambda kernel: kernel.T)


def pre_norm(monkeypatch):
    class PreNorm(layers.Layer):
        @layers.nn.compact
        def __call__(self, x, emb, context, **options):
            norm = lambda name: layers.Norm(self.norm_eps, self.execution, name=name)
            out, cache = self.attention(norm("attention_norm")(x), context)
            x = x + out
            return x + self.mlp(norm("mlp_norm")(x)), cache

    monkeypatch.setattr(layers, "Layer", PreNorm)


WRONG = [wrong_eps, wrong_gelu, wrong_gate, without_row_zero, transposed_adapter]
WRONG += [pre_norm]


@pytest.mark.parametrize("make_wrong", WRONG)
def test_wrong_models_fail(golden, monkeypatch, make_wrong):
    make_wrong(monkeypatch)
    assert errors_of(golden, "abacus_st")["logits"] > fixtures.GATES["logits"]


def test_injection_in_the_wrong_place_fails(golden, monkeypatch):
    change_config(monkeypatch, injection="recurrence")
    errors = errors_of(golden, "abacus_st_injection")
    assert errors["logits"] > fixtures.GATES["logits"]


def test_gradient_through_the_frozen_recurrences_fails(golden, monkeypatch):
    unchanged = passes.forward

    def through(*args, num_frozen, num_trained, **kwargs):
        return unchanged(*args, num_frozen=0, num_trained=3, **kwargs)

    monkeypatch.setattr(passes, "forward", through)
    errors = errors_of(golden, "abacus_lt", "train_n1_k2_offset33")
    assert errors["logits"] < fixtures.GATES["logits"]
    assert errors["gradients"] > fixtures.GATES["gradients"]


def test_a_loss_of_the_answer_alone_fails_where_the_prompt_is_predicted(golden):
    case = fixtures.Case(golden / "no_mask_before_equals", "state_dict.safetensors")
    case.spec["arch"]["mask_before_equals"] = True
    name = "eval_state_embed"
    passes.check_forward(case, name, case.spec["variants"][name])
    assert case.errors.largest["logits"] < fixtures.GATES["logits"]
    assert case.errors.largest["loss"] > fixtures.GATES["loss"]


def test_a_tensor_left_out_fails(golden, tmp_path, capsys):
    folder = tmp_path / "no_mask_before_equals"
    folder.mkdir()
    for path in (golden / folder.name).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = safetensors.numpy.load_file(folder / "io.safetensors")
    tensors["train_n0_k1.more"] = np.zeros(3, np.float32)
    safetensors.numpy.save_file(tensors, folder / "io.safetensors")
    with pytest.raises(SystemExit) as ended:
        interop.main(["check", str(folder)])
    assert ended.value.code == 1
    assert "NOT CHECKED" in capsys.readouterr().out


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing cannot be read"):
        interop.main(["check", str(tmp_path / "nothing")])
    with pytest.raises(ValueError, match=r"allowed: check, and folders"):
        interop.main(["check"])


@pytest.mark.parametrize("name", CASES[:-1])
@pytest.mark.parametrize("compiled", [True, False])
def test_round_trip_is_bit_identical(golden, name, compiled, tmp_path):
    spec = json.loads((golden / name / "case.json").read_text())
    tensors = safetensors.numpy.load_file(golden / name / "state_dict.safetensors")
    if not compiled:
        tensors = {k.replace("_orig_mod.", ""): v for k, v in tensors.items()}
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    safetensors.numpy.save_file(tensors, source / "model.safetensors")
    (source / "model_config.json").write_text(json.dumps(spec["arch"]))
    loaded = checkpoint.load(source)
    checkpoint.save(copy, loaded)
    written = safetensors.numpy.load_file(copy / "model.safetensors")
    assert written.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert written[key].dtype == tensor.dtype
        np.testing.assert_array_equal(written[key], tensor)
    assert json.loads((copy / "model_config.json").read_text()) == spec["arch"]
    # Buffers that were never read are made as the original would.
    checkpoint.save(copy, dataclasses.replace(loaded, buffers={}))
    written = safetensors.numpy.load_file(copy / "model.safetensors")
    assert written.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_allclose(written[key], tensor, rtol=1e-6)


@pytest.mark.parametrize(
    "argument",
    [
        "arch=8x2,pos=abacus",
        "arch=16x1,pos=abacus+fire,inject=layer",
        "arch=1x16,pos=learned",
        "arch=4x4,pos=rope",
        "arch=16x1,pos=nope",
    ],
)
def test_our_models_are_written_in_the_original_s_format(argument, tmp_path):
    experiment = Experiment.from_dict(addition.get_config(f"{argument},smoke"))
    config, max_backprop = experiment.model, experiment.loss.max_backprop
    params = random_params(Transformer(config))
    exported = checkpoint.export(config, params, max_backprop=max_backprop)
    checkpoint.save(tmp_path, exported)
    loaded = checkpoint.load(tmp_path)
    assert loaded.config.positions == config.positions
    assert loaded.config.injection == config.injection
    assert loaded.max_backprop == max_backprop
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    again = checkpoint.export(loaded.config, loaded.params, max_backprop=max_backprop)
    assert again.arch == loaded.arch


def test_models_the_original_does_not_have_are_not_written(tiny):
    with pytest.raises(ValueError, match=r"no model with .*norm='sandwich' \(there 'p"):
        checkpoint.export(tiny, {})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("norm_scheme", "pre"),
        ("nonlin", "ReLU"),
        ("tie_weights", True),
        ("input_injection_type", "linear"),
        ("embedding.pos_embedding", "sinusoidal"),
        ("attention.rotary_embedding", "fire"),
        ("embedding.embedding_dim", 32),
    ],
)
def test_unsupported_options_are_refused_by_name(golden, path, value):
    arch = json.loads((golden / "abacus_lt" / "case.json").read_text())["arch"]
    *parents, name = path.split(".")
    section = arch[parents[0]] if parents else arch
    section[name] = value
    with pytest.raises(ValueError, match=rf"model_config.json: {path}={value!r}"):
        model_config(arch)


def test_random_places_of_fire_are_kept(golden):
    arch = json.loads((golden / "fire_st" / "case.json").read_text())["arch"]
    arch["attention"]["max_length"] = 128
    config = model_config(arch)
    assert config.fire_max_length == 128
    assert options.architecture(config, 1)["attention"]["max_length"] == 128
    arch["attention"] |= {"rotary_embedding": False, "type": "pytorch"}
    assert model_config(arch).fire_max_length == 0


def test_missing_and_unknown_tensors_are_named(golden):
    spec = json.loads((golden / "nope_lt" / "case.json").read_text())
    path = golden / "nope_lt" / "state_dict.safetensors"
    tensors = safetensors.numpy.load_file(path)
    with pytest.raises(ValueError, match=r"unknown tensors \['extra'\]"):
        names.from_original(tensors | {"extra": np.zeros(1)}, spec["arch"])
    del tensors["adapter.weight"]
    with pytest.raises(ValueError, match=r"tensor 'adapter.weight' is missing"):
        names.from_original(tensors, spec["arch"])


def test_pickles_are_not_loaded(tmp_path):
    (tmp_path / "model_config.json").write_text("{}")
    (tmp_path / "state_dict.pth").write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match=r"it must hold model_config.json and"):
        checkpoint.load(tmp_path)


def test_data_examples_are_tokenized_as_by_the_original(golden):
    recorded = json.loads((golden / "data_examples.json").read_text())
    for name, ids in recorded["vocab"].items():
        symbols = fixtures.VOCABS[name]
        assert len(symbols) == len(ids)
        assert all(symbols.symbols[i - 4] == s for s, i in ids.items() if i > 3)
    examples = {name: [] for name in fixtures.VOCABS}
    for task in recorded.values():
        if "examples" in task:
            examples[task["tokenizer"]] += task["examples"]
    assert sum(map(len, examples.values())) == 115
    for name, group in examples.items():
        symbols = fixtures.VOCABS[name]
        rows = np.full((len(group), 150), vocab.PAD, np.int32)
        for row, example in zip(rows, group, strict=True):
            ids = [*symbols.encode(example["string"]), vocab.EOS]
            assert ids == example["input_ids"]
            row[: len(ids)] = ids
        positions = np.asarray(abacus_positions(vocab.is_digit(jnp.array(rows))))
        masks = np.asarray(answer_mask(jnp.array(rows), symbols.id("=")))
        for row, places, mask, example in zip(
            rows, positions, masks, group, strict=True
        ):
            length = len(example["input_ids"])
            assert places[:length].tolist() == example["abacus_ids_offset0"]
            if "answer_ids_with_eos" in example:
                assert row[mask].tolist() == example["answer_ids_with_eos"]


def arch_of(row, golden):
    arch = json.loads((golden / "abacus_lt" / "case.json").read_text())["arch"]
    names = row["variant"].replace("+", " ").split()
    arch |= {
        "hidden_size": 1024,
        "intermed_size": 2048,
        "layers_in_recurrent_block": row["layers"],
        "maximal_recurrence": row["recurrences"],
        "forward_only_model_with_skip": "skip" in names,
    }
    table = next((n for n in ("abacus", "learned") if n in names), "None")
    rotary = "fire" if "fire" in names else "rope" in names
    arch["embedding"] |= {
        "vocab_size": len(fixtures.VOCABS[row["tokenizer"]]),
        "embedding_dim": 1024,
        "max_seq_length": 512,
        "pos_embedding": table,
    }
    arch["attention"] |= {
        "num_attention_heads": 16,
        "type": "self-attention" if rotary else "pytorch",
        "rotary_embedding": rotary,
    }
    return arch


def test_parameter_counts_are_those_of_the_original(golden):
    rows = json.loads((golden / "param_counts.json").read_text())
    for row in rows:
        config = model_config(arch_of(row, golden))
        make = functools.partial(init_params, Transformer(config))
        shapes = jax.eval_shape(make, jax.random.key(0))
        assert num_params(shapes) == row["trainable"], row
        # The original also counts FIRE's constant 512, one a layer.
        constants = config.num_layers * ("fire" in config.positions)
        assert num_params(shapes) + constants == row["total"], row


@pytest.mark.slow
@pytest.mark.parametrize("name", ["16x1 abacus", "16x1 fire", "8x1 sort abacus"])
def test_initial_values_are_those_of_the_original(golden, name, monkeypatch):
    recorded = json.loads((golden / "init_stats.json").read_text())[name]
    arch, _, variant = name.partition(" ")
    depth, recurrences = (int(part) for part in arch.split("x"))
    row = {"variant": variant, "tokenizer": "sort" if "sort" in name else "pad"}
    row |= {"layers": depth, "recurrences": recurrences}
    spec = arch_of(row, golden)
    config = model_config(spec)
    # Depth only sets the gain: one layer of a shallow stack shows the rest.
    gain = initializers.deepnorm_gain(config.depth)
    assert gain == pytest.approx(recorded["gain"])
    monkeypatch.setattr(initializers, "deepnorm_gain", lambda depth: gain)
    shallow = dataclasses.replace(config, num_layers=1, num_recurrences=1)
    params = init_params(Transformer(shallow), jax.random.key(1))
    by_head = spec["attention"]["type"] == "self-attention"
    ours = names.to_original(shallow, params, by_head=by_head)
    num_random = 0
    for key in recorded["parameters"].keys() & ours.keys():
        expected, tensor = recorded["parameters"][key], ours[key].astype(np.float64)
        assert list(tensor.shape) == expected["shape"]
        spread = expected["std"]
        if not spread or tensor.size < 100:
            # Constants, but for FIRE's smallest matrices.
            if tensor.size >= 100:
                assert tensor.mean() == pytest.approx(expected["mean"], abs=1e-6), key
            continue
        # Both are single draws: five standard errors of their difference.
        tolerance = 5 * spread * (2 / tensor.size) ** 0.5
        assert abs(tensor.std() - spread) < tolerance, key
        assert abs(tensor.mean() - expected["mean"]) < 1.5 * tolerance, key
        num_random += 1
    assert num_random > 5


def test_the_quirk_scales_whole_heads(golden):
    row = {"layers": 16, "recurrences": 1, "variant": "fire", "tokenizer": "pad"}
    config = model_config(arch_of(row, golden))
    # One layer of the same depth.
    config = dataclasses.replace(config, num_layers=1, num_recurrences=16)

    @jax.jit
    def kernel():
        params = init_params(Transformer(config), jax.random.key(0))
        return params["layers"]["attention"]["qkv_kernel"][0]

    spread = np.asarray(kernel()).reshape(1024, 3, 16, 64).std(axis=(0, 3)) * 1024**0.5
    gain = (8 * 16) ** -0.25
    expected = np.ones((3, 16))
    expected[:, 11:] = gain
    expected[2, 10] = gain
    np.testing.assert_allclose(spread, expected, rtol=0.03)


def test_schedules_are_the_recorded_ones(golden):
    recorded = json.loads((golden / "schedules.json").read_text())
    shape = recorded["config"]
    config = OptimConfig(
        warmup=shape["warmup"],
        decay_start=1 - shape["cooldown"],
        final_learning_rate=0.0,
        batch_size=shape["batch_size"],
        ramp_until=shape["batch_size_ramp"],
    )
    fractions, multipliers = zip(*recorded["lr_multiplier"], strict=True)
    actual = [lr_multiplier(config, fraction) for fraction in fractions]
    # The original counts in 12 million parts, of which one is 8e-7 of a slope of 10.
    np.testing.assert_allclose(actual, multipliers, rtol=0, atol=1e-6)
    for name, rows in recorded["batch_size"].items():
        size = int(name.removeprefix("effective_microbatch_"))
        micro = dataclasses.replace(config, micro_batch_size=size)
        actual = [size * num_micro_batches(micro, fraction) for fraction, _ in rows]
        assert actual == [expected for _, expected in rows]


def test_the_batch_ramp_has_the_original_s_boundaries():
    # Half of the ramp is 4 of 8 samples, of which the original's rounding leaves a
    # little less.
    config = OptimConfig(batch_size=8, micro_batch_size=4, ramp_until=0.6)
    counts = [num_micro_batches(config, x) for x in (0.0, 0.3, 0.300001, 0.6, 1.0)]
    assert counts == [1, 1, 2, 2, 2]
