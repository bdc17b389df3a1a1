import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import analyse, checkpoint, model, solve
from arith_jax.addition import Addition
from arith_jax.solve import Trained
from arith_jax.train import Clock
from configs import abacus_add


@pytest.fixture(scope="module")
def trained(smoke):
    looped = dataclasses.replace(
        smoke.model, recurrences=2, injection="recurrence", unroll=False
    )
    params = model.init_params(looped, jax.random.key(3))
    return Trained(dataclasses.replace(smoke, model=looped), looped, params)


@pytest.mark.parametrize(
    ("text", "length"),
    [("1+1=2", 0), ("999+1=0001", 3), ("59+5=001", 2), ("909+101=011", 1)],
)
def test_longest_chain(text, length):
    task = Addition()
    ids = [*task.vocab.encode(text), 3, 0, 0]
    plus, equals = task.vocab.id("+"), task.vocab.id("=")
    assert analyse.longest_chain(ids, plus, equals) == length


def test_predictions_at_the_trained_depth_are_the_model_s(trained):
    batch = analyse.samples(trained.experiment, 4)
    logits = model.forward(trained.model, trained.weights, batch.ids, batch.positions)
    found = analyse.predictions(trained.model, trained.weights, batch, jnp.int32(2))
    assert jnp.array_equal(found, jnp.argmax(logits, axis=-1))
    other = analyse.predictions(trained.model, trained.weights, batch, jnp.int32(1))
    assert not jnp.array_equal(found, other)


def test_thoughts_are_the_predictions_of_the_answer(trained, monkeypatch):
    truth, lines = analyse.thoughts(trained, "98+120", 3)
    assert truth == "812."
    assert [len(line) for line in lines] == [4, 4, 4]
    # A model that knows the next token thinks the truth.
    monkeypatch.setattr(
        analyse, "predictions", lambda c, p, batch, r: jnp.roll(batch.ids, -1, axis=1)
    )
    assert analyse.thoughts(trained, "98+120", 2) == ("812.", ["812."] * 2)
    assert analyse.recurrence_sweep(trained, [4], 2) == {4: [1.0, 1.0]}
    assert set(analyse.digit_accuracy(trained, [4])[4]) == {1.0}
    carries = analyse.carry_accuracy(trained, 4)
    assert sum(total for _, total in carries.values()) == 2 * analyse.NUM_SAMPLES
    assert all(right == total for right, total in carries.values())
    assert max(carries) == 4


def test_attention_maps_are_labelled(trained):
    maps, labels = analyse.attention_maps(trained, "98+120")
    assert "".join(labels) == "89+021=812."
    assert maps.shape == (4, trained.model.heads, 11, 11)
    np.testing.assert_allclose(maps.sum(-1), 1.0, atol=1e-5)


@pytest.mark.parametrize("picture", analyse.PICTURES)
def test_every_picture_is_drawn(picture, smoke, tmp_path):
    params = model.init_params(smoke.model, jax.random.key(0))
    checkpoint.write_released(tmp_path / checkpoint.RELEASED, params, Clock(), 1)
    config = abacus_add.get_config("smoke").to_dict()
    (tmp_path / "config.json").write_text(json.dumps(config))
    option = f"--checkpoint={tmp_path}"
    analyse.main([picture, option, "--sizes", "3", "--recurrences", "2"])
    assert (tmp_path / f"{picture}.png").read_bytes()[:4] == b"\x89PNG"


def test_released_folders_are_left_alone(tmp_path):
    assert analyse.place_of(tmp_path) == tmp_path
    place = analyse.place_of(solve.RELEASED)
    assert solve.RELEASED.parent not in place.resolve().parents


def test_what_cannot_be_drawn_is_explained(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"error: checkpoint .* no valid config.json"):
        analyse.main(["digits", f"--checkpoint={tmp_path}"])
