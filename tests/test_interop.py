"""Parity with the original on its recorded tensors, and wrong models that must fail.

`golden.tar.xz` holds tensors recorded by running mcleish7/arithmetic @ 86022a5 on a
CPU; gradients and activations of some cases are left out for size.
"""

import dataclasses
import json
import pathlib
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from arith_jax import (
    attention,
    fixtures,
    gate,
    interop,
    layers,
    linear,
    model,
    original,
    parity,
    vocab,
)
from arith_jax.data import answer_mask
from arith_jax.experiment import Experiment
from arith_jax.positions import abacus_positions
from configs.paper import addition

CASES = ["abacus_lt", "abacus_st", "abacus_st_injection", "fire_st", "nope_lt"]
CASES += ["rope_st", "train_steps"]


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
    parity.logits_and_loss.clear_cache()
    parity.loss_and_gradients.clear_cache()
    yield
    parity.logits_and_loss.clear_cache()
    parity.loss_and_gradients.clear_cache()


@pytest.mark.parametrize("name", CASES)
def test_recorded_tensors_are_reproduced(golden, name, capsys):
    assert parity.check([golden / name])
    assert "NOT CHECKED" not in capsys.readouterr().out


def errors_of(golden, name, variant="eval_state_random"):
    case = fixtures.Case(golden / name, "state_dict.safetensors")
    parity.check_forward(case, variant, case.spec["variants"][variant])
    return case.errors.largest


def change_tensor(monkeypatch, ours, change):
    unchanged = original.ours_from

    def changed(name, tensor, *layout):
        found = unchanged(name, tensor, *layout)
        return change(found) if name == ours else found

    monkeypatch.setattr(original, "ours_from", changed)


def change_config(monkeypatch, **changes):
    unchanged = original.from_original

    def changed(*args):
        found = unchanged(*args)
        config = dataclasses.replace(found.config, **changes)
        return dataclasses.replace(found, config=config)

    monkeypatch.setattr(original, "from_original", changed)


def wrong_eps(monkeypatch):
    change_config(monkeypatch, norm_eps=1e-6)


def wrong_gelu(monkeypatch):
    def gated(in_kernel, x):
        u, g = gate.halves(x)
        return jax.nn.gelu(g, approximate=True) * u

    monkeypatch.setattr(gate, "gated", gated)


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
        def __call__(self, x, injected, context, cache):
            cfg = self.config
            norm = lambda name: layers.Norm(cfg, name=name)
            module = attention.Attention(cfg, name="attention")
            out, cache = module(norm("attention_norm")(x), context, cache)
            x = x + out
            return x + layers.Mlp(cfg, name="mlp")(norm("mlp_norm")(x)), cache

    monkeypatch.setattr(model, "Layer", PreNorm)


WRONG = [wrong_eps, wrong_gelu, wrong_gate, without_row_zero, transposed_adapter]
WRONG += [pre_norm]


@pytest.mark.parametrize("make_wrong", WRONG)
def test_wrong_models_fail(golden, monkeypatch, make_wrong):
    make_wrong(monkeypatch)
    assert errors_of(golden, "abacus_st")["logits"] > fixtures.GATES["logits"]


def test_injection_in_the_wrong_place_fails(golden, monkeypatch):
    change_config(monkeypatch, injection="recurrence")
    found = errors_of(golden, "abacus_st_injection")
    assert found["logits"] > fixtures.GATES["logits"]


def test_gradient_through_the_frozen_recurrences_fails(golden, monkeypatch):
    unchanged = model.forward

    def through(*args, num_frozen, num_trained, **kwargs):
        return unchanged(*args, num_frozen=0, num_trained=3, **kwargs)

    monkeypatch.setattr(model, "forward", through)
    found = errors_of(golden, "abacus_lt", "train_n1_k2_offset33")
    assert found["logits"] < fixtures.GATES["logits"]
    assert found["gradients"] > fixtures.GATES["gradients"]


def test_a_tensor_left_out_fails(golden, tmp_path, capsys):
    folder = tmp_path / "nope_lt"
    folder.mkdir()
    for path in (golden / "nope_lt").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = safetensors.numpy.load_file(folder / "io.safetensors")
    tensors["train_n3_k1.more"] = np.zeros(3, np.float32)
    safetensors.numpy.save_file(tensors, folder / "io.safetensors")
    assert not parity.check([folder])
    assert "NOT CHECKED" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        interop.main(["check", str(tmp_path / "nothing")])
    assert "cannot be read" in str(ended.value)


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
    loaded = interop.load(source)
    interop.save(copy, loaded)
    written = safetensors.numpy.load_file(copy / "model.safetensors")
    assert written.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert written[key].dtype == tensor.dtype
        np.testing.assert_array_equal(written[key], tensor)
    assert json.loads((copy / "model_config.json").read_text()) == spec["arch"]
    # Buffers that were never read are made as the original would.
    interop.save(copy, dataclasses.replace(loaded, buffers={}))
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
    config = Experiment.from_dict(addition.get_config(f"{argument},smoke").to_dict())
    params = model.init_params(config.model, jax.random.key(0))
    interop.save(tmp_path, interop.export(config.model, params))
    loaded = interop.load(tmp_path)
    assert loaded.config.positions == config.model.positions
    assert loaded.config.injection == config.model.injection
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    again = interop.export(loaded.config, loaded.params)
    assert again.arch == loaded.arch


def test_models_the_original_does_not_have_are_not_written(tiny):
    with pytest.raises(ValueError, match=r"no model with .*norm='sandwich' \(there 'p"):
        interop.export(tiny, {})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("norm_scheme", "pre"),
        ("nonlin", "ReLU"),
        ("tie_weights", True),
        ("input_injection_type", "linear"),
        ("embedding.pos_embedding", "sinusoidal"),
        ("attention.max_length", 2048),
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
        original.config_of(arch)


def test_missing_and_unknown_tensors_are_named(golden):
    spec = json.loads((golden / "nope_lt" / "case.json").read_text())
    path = golden / "nope_lt" / "state_dict.safetensors"
    tensors = safetensors.numpy.load_file(path)
    with pytest.raises(ValueError, match=r"unknown tensors \['extra'\]"):
        original.from_original(tensors | {"extra": np.zeros(1)}, spec["arch"])
    del tensors["adapter.weight"]
    with pytest.raises(ValueError, match=r"tensor 'adapter.weight' is missing"):
        original.from_original(tensors, spec["arch"])


def test_pickles_are_not_loaded(tmp_path):
    (tmp_path / "model_config.json").write_text("{}")
    (tmp_path / "state_dict.pth").write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match=r"it must hold model_config.json and"):
        interop.load(tmp_path)


@jax.jit
def positions_and_mask(row, equals):
    return abacus_positions(vocab.is_digit(row)), answer_mask(row, equals)


def test_data_examples_are_tokenized_as_by_the_original(golden):
    examples = json.loads((golden / "data_examples.json").read_text())
    for name, ids in examples["vocab"].items():
        symbols = fixtures.VOCABS[name]
        assert len(symbols) == len(ids)
        assert all(symbols.symbols[i - 4] == s for s, i in ids.items() if i > 3)
    count = 0
    for task in examples.values():
        for example in task.get("examples", []):
            symbols = fixtures.VOCABS[task["tokenizer"]]
            ids = [*symbols.encode(example["string"]), vocab.EOS]
            assert ids == example["input_ids"]
            row = jnp.array([ids + [vocab.PAD] * (150 - len(ids))])
            positions, mask = positions_and_mask(row, symbols.id("="))
            assert positions[0, : len(ids)].tolist() == example["abacus_ids_offset0"]
            if "answer_ids_with_eos" in example:
                assert row[mask].tolist() == example["answer_ids_with_eos"]
            count += 1
    assert count == 115


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
        config = original.config_of(arch_of(row, golden))
        shapes = jax.eval_shape(
            lambda c=config: model.init_params(c, jax.random.key(0))
        )
        assert model.num_params(shapes) == row["trainable"], row
        # The original also counts FIRE's constant 512, one a layer.
        constants = config.layers * ("fire" in config.positions)
        assert model.num_params(shapes) + constants == row["total"], row


@pytest.mark.slow
def test_initial_values_are_those_of_the_original(golden):
    stats = json.loads((golden / "init_stats.json").read_text())
    for name in ("16x1 abacus", "16x1 fire", "8x1 sort abacus"):
        recorded = stats[name]
        arch, _, variant = name.partition(" ")
        depth, recurrences = (int(part) for part in arch.split("x"))
        row = {"variant": variant, "tokenizer": "sort" if "sort" in name else "pad"}
        row |= {"layers": depth, "recurrences": recurrences}
        spec = arch_of(row, golden)
        config = original.config_of(spec)
        # Depth only sets the gain: one layer of a shallow stack shows the rest.
        shallow = dataclasses.replace(config, layers=1, recurrences=1, max_backprop=1)
        gain = linear.deepnorm_gain(config)
        assert gain == pytest.approx(recorded["gain"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(linear, "deepnorm_gain", lambda _, g=gain: g)
            params = model.init_params(shallow, jax.random.key(1))
        by_head = spec["attention"]["type"] == "self-attention"
        found = original.to_original(shallow, params, by_head)
        compared = 0
        for key, expected in recorded["parameters"].items():
            if key not in found:
                continue
            tensor = found[key].astype(np.float64)
            assert list(tensor.shape) == expected["shape"]
            spread = expected["std"]
            if spread is None or tensor.size < 100 or spread == 0:
                assert tensor.mean() == pytest.approx(expected["mean"], abs=1e-6) or (
                    tensor.size < 100
                )
                continue
            # Both are single draws: five standard errors of their difference.
            tolerance = 5 * spread * (2 / tensor.size) ** 0.5
            assert abs(tensor.std() - spread) < max(tolerance, 1e-9), key
            assert abs(tensor.mean() - expected["mean"]) < 1.5 * tolerance, key
            compared += 1
        assert compared > 5


def test_quirk_scales_whole_heads(golden):
    row = {"layers": 16, "recurrences": 1, "variant": "fire", "tokenizer": "pad"}
    config = original.config_of(arch_of(row, golden))
    config = dataclasses.replace(config, layers=1)
    params = model.init_params(config, jax.random.key(0))
    kernel = params["layers"]["attention"]["qkv_kernel"][0]
    spread = np.asarray(kernel.reshape(1024, 3, 16, 64).std(axis=(0, 3))) * 1024**0.5
    gain = linear.deepnorm_gain(config)
    expected = np.ones((3, 16))
    expected[:, 11:] = gain
    expected[2, 10] = gain
    np.testing.assert_allclose(spread, expected, rtol=0.03)
