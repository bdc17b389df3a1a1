"""Checkpoints of unknown origin: nothing in them is run, none uses up the memory."""

import dataclasses
import json
import os
import pathlib
import pickle
import re
import resource
import struct

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import arith_jax
from arith_jax.config import model as model_config
from arith_jax.config.experiment import Experiment
from arith_jax.config.model import ModelConfig
from arith_jax.model.transformer import Transformer, init_params, num_params
from arith_jax.released import load_trained, released_folder
from arith_jax.training import checkpoint
from arith_jax.training.loop import Clock
from arith_jax.training.weights import read_released
from tools.release import in_half

PACKAGE = pathlib.Path(arith_jax.__file__).parent


def test_nothing_that_runs_what_it_reads_is_used():
    running = re.compile(
        r"\b(c?pickle|marshal|shelve|dill|joblib|cloudpickle|torch\.load|yaml)\b"
        r"|allow_pickle|(?<![.\w])(eval|exec|__import__)\("
    )
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.parent.glob("tools/*.py")]
    assert len(files) > 80
    lines = [
        (path.name, line)
        for path in files
        for line in path.read_text().splitlines()
        if running.search(line)
    ]
    assert lines == [
        ("checkpoint.py", "original writes it. No pickle is ever loaded."),
    ]


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_malicious_pickle_is_not_run(tmp_path):
    mark = tmp_path / "mark"
    text = pickle.dumps(Malicious(mark))
    pickle.loads(text)
    assert mark.exists()  # It does what it is meant to.
    mark.unlink()
    folder = tmp_path / "run"
    folder.mkdir()
    config = (released_folder() / "config.json").read_bytes()
    for name in ("weights.safetensors", "config.json"):
        (folder / "config.json").write_bytes(config)
        (folder / name).write_bytes(text)
        with pytest.raises(ValueError, match="cannot be read"):
            load_trained(folder)
    (folder / "config.json").write_bytes(config)
    state = folder / "checkpoints" / "5" / "state"
    state.mkdir(parents=True)
    for name in ("_METADATA", "manifest.ocdbt", "checkpoint", "aggregate", "_sharding"):
        (state / name).write_bytes(text)
    with pytest.raises(ValueError, match="cannot be read"):
        load_trained(folder)
    assert not mark.exists()


@pytest.fixture
def like():
    return jax.eval_shape(lambda: {"a": jnp.ones(3), "b": jnp.ones((2, 2))})


def file_of(path, header, size=0, claimed=None):
    """A file of safetensors with this header and so many bytes of numbers."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if claimed is None else claimed
    path.write_bytes(struct.pack("<Q", length) + text + bytes(size))
    return path


NUMBERS = {"train_seconds": "1", "compile_seconds": "1", "steps": "5"}
GOOD = {
    "__metadata__": NUMBERS,
    "a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
    "b": {"dtype": "F32", "shape": [2, 2], "data_offsets": [12, 28]},
}
HUGE = {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}


def test_a_good_file_is_read(like, tmp_path):
    read, clock, steps = read_released(file_of(tmp_path / "w", GOOD, 28), like)
    np.testing.assert_array_equal(read["b"], np.zeros((2, 2)))
    assert (clock, steps) == (Clock(1.0, 1.0), 5)


def test_numbers_in_half_precision_become_float32(like, tmp_path):
    params = {"a": jnp.array([0.1, -2.0, 3e-6]), "b": jnp.ones((2, 2))}
    halves = in_half(params)
    checkpoint.write_released(tmp_path / "w", halves, Clock(1.0, 1.0), 5)
    read, _, _ = read_released(tmp_path / "w", like)
    assert read["a"].dtype == jnp.float32
    np.testing.assert_array_equal(read["a"], halves["a"].astype(jnp.float32))
    with pytest.raises(ValueError, match="too large for float16"):
        in_half({"a": jnp.array([7e4])})


@pytest.mark.parametrize(
    ("header", "size", "claimed", "message"),
    [
        (GOOD, 28, 2**62, "its header claims 4611686018427387904 bytes; allowed"),
        (GOOD, 28, 2**23, "its header claims 8388608 bytes; allowed: 4194304"),
        (b"", 0, None, "cannot be read"),
        (GOOD, 27, None, "cannot be read"),
        (GOOD | {"a": HUGE}, 28, None, "cannot be read"),
        (GOOD | {"a": GOOD["a"] | {"dtype": "I32"}}, 28, None, "'a' is I32, the model"),
        (
            GOOD | {"a": GOOD["a"] | {"shape": [1, 3]}},
            28,
            None,
            r"'a' has shape \(1, 3",
        ),
        ({"__metadata__": NUMBERS}, 0, None, "'a' has shape None, the model needs"),
        ({k: v for k, v in GOOD.items() if k != "__metadata__"}, 28, None, "cannot be"),
        (GOOD | {"__metadata__": NUMBERS | {"steps": "-1"}}, 28, None, "from 0 on"),
        (GOOD | {"__metadata__": NUMBERS | {"steps": "x"}}, 28, None, "metadata: inv"),
        (
            GOOD | {"__metadata__": NUMBERS | {"train_seconds": "nan"}},
            *(28, None, "from 0 on"),
        ),
    ],
)
def test_bad_files_are_refused_before_they_are_read(
    header, size, claimed, message, like, tmp_path
):
    path = file_of(tmp_path / "w", header, size, claimed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=message) as caught:
        read_released(path, like)
    assert str(caught.value).isprintable()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 2**17  # kB


def test_arrays_of_other_shapes_or_in_huge_pieces_are_refused(tmp_path, monkeypatch):
    params = {"params": {"a": jnp.ones(3)}}
    ocp.PyTreeCheckpointer().save(tmp_path / "5", params)
    like = jax.eval_shape(lambda: params)
    checkpoint.check_stored(tmp_path / "5", like)
    with pytest.raises(ValueError, match=r"a has shape \(3,\) in pieces of \(3,\)"):
        checkpoint.check_stored(tmp_path / "5", {"params": {"a": jnp.ones(2)}})
    stored = ocp.PyTreeCheckpointer().metadata(tmp_path / "5")
    array = stored.item_metadata.tree["params"]["a"]
    huge = dataclasses.replace(array.storage, chunk_shape=(2**40,))
    monkeypatch.setattr(array, "storage", huge)
    monkeypatch.setattr(ocp.PyTreeCheckpointer, "metadata", lambda *_: stored)
    with pytest.raises(ValueError, match=r"in pieces of \(1099511627776,\)"):
        checkpoint.check_stored(tmp_path / "5", like)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("width", 2**20, "GiB of parameters; allowed: 16 GiB (MAX_PARAMETER_BYTES"),
        ("mlp_width", 2**30, "GiB of parameters; allowed: 16 GiB"),
        ("num_layers", 2**30, "must be at most 1024 layers"),
        ("num_recurrences", 2**30, "must be at most 1024 layers"),
        ("table_size", 2**31 - 1, "GiB of parameters; allowed: 16 GiB"),
    ],
)
def test_a_config_of_terabytes_is_refused(key, value, message, tmp_path):
    config = json.loads((released_folder() / "config.json").read_text())
    config["model"]["positions"] = ["abacus"]
    config["model"][key] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_trained(tmp_path)
    assert str(caught.value).startswith(f"checkpoint {tmp_path}, config.json: model.")


def test_the_limit_is_of_the_parameters_and_can_be_raised(monkeypatch):
    config = ModelConfig(width=64, positions=("abacus", "learned"), table_size=70)
    params = jax.eval_shape(lambda key: init_params(Transformer(config), key), KEY)
    assert 0.97 < config.matrix_size / num_params(params) <= 1
    monkeypatch.setattr(model_config, "MAX_PARAMETER_BYTES", 4 * config.matrix_size - 1)
    with pytest.raises(ValueError, match="MAX_PARAMETER_BYTES"):
        ModelConfig(width=64, positions=("abacus", "learned"), table_size=70)
    monkeypatch.setattr(model_config, "MAX_PARAMETER_BYTES", 2**50)
    assert ModelConfig(width=2**16, mlp_width=2**16).width == 2**16


KEY = jax.random.key(0)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10**5,
        "1" * 5000,
        "[1]",
        "null",
        '{"data": 3}',
        '{"model": {"width": NaN}}',
    ],
)
def test_configs_that_are_none_are_refused_in_one_line(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=f"checkpoint {tmp_path}") as caught:
        load_trained(tmp_path)
    assert str(caught.value).isprintable()


def test_a_config_that_does_not_end_is_not_read(tmp_path):
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"config\.json of at most 1048576 bytes"):
        load_trained(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ValueError, match=r"config\.json of at most 1048576 bytes"):
        load_trained(tmp_path)


def test_lists_longer_than_there_are_keys_are_refused():
    config = {"task": {"name": "sorting"}, "train": {"steps": 1}}
    with pytest.raises(
        ValueError, match="sorting: 103 numbers in the list; allowed: up to 102"
    ):
        Experiment.from_dict(
            config | {"data": {"max_numbers": 5}, "eval": {"diagonal": (103,)}}
        )
    with pytest.raises(ValueError, match=r"data.max_numbers=103: must be at most 102"):
        Experiment.from_dict(config | {"data": {"max_numbers": 103}})
