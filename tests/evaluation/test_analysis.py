import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import analyse
from arith_jax.evaluation import analysis
from arith_jax.evaluation.analysis import Analysis, sample_batch
from arith_jax.model.forward import forward
from arith_jax.model.transformer import Transformer, init_params
from arith_jax.training import checkpoint
from arith_jax.training.loop import Clock
from tests.helpers import changed


@pytest.fixture(scope="module")
def trained(smoke):
    looped = changed(smoke, model__num_recurrences=2, model__injection="recurrence")
    model = Transformer(looped.model)
    return Analysis(looped, model, init_params(model, jax.random.key(3)))


def test_predictions_at_the_trained_depth_are_the_model_s(trained):
    batch = sample_batch(trained.experiment, 4)
    logits = forward(trained.model, trained.params, batch.ids, batch.positions)
    predicted = trained.predict(batch, 2)
    np.testing.assert_array_equal(predicted, jnp.argmax(logits, axis=-1))
    assert not np.array_equal(predicted, trained.predict(batch, 1))


def test_thoughts_are_the_predictions_of_the_answer(trained, monkeypatch):
    truth, lines = trained.thoughts("98+120", 3)
    assert truth == "812."
    assert [len(line) for line in lines] == [4, 4, 4]
    # A model that knows the next token thinks the truth.
    monkeypatch.setattr(analysis, "predictions", lambda m, p, batch, r: batch.labels)
    assert trained.thoughts("98+120", 2) == ("812.", ["812."] * 2)
    assert trained.recurrence_sweep([4], 2) == {4: [1.0, 1.0]}
    assert set(trained.digit_accuracy([4])[4]) == {1.0}
    carries = trained.carry_accuracy(4)
    assert sum(total for _, total in carries.values()) == 2 * analysis.NUM_SAMPLES
    assert all(right == total for right, total in carries.values())
    assert max(carries) == 4


def test_attention_maps_are_labelled(trained):
    maps, labels = trained.attention_maps("98+120")
    assert "".join(labels) == "89+021=812."
    assert maps.shape == (4, trained.experiment.model.num_heads, 11, 11)
    np.testing.assert_allclose(maps.sum(-1), 1.0, rtol=1e-5)


@pytest.fixture(scope="module")
def workdir(smoke, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    params = init_params(Transformer(smoke.model), jax.random.key(0))
    checkpoint.write_released(folder / checkpoint.RELEASED, params, Clock(), 1)
    (folder / "config.json").write_text(json.dumps(smoke.to_dict()))
    return folder


@pytest.mark.parametrize("picture", analyse.PICTURES)
def test_every_picture_is_drawn(picture, workdir):
    analyse.main([picture, f"--checkpoint={workdir}", "--sizes=3", "--recurrences=2"])
    assert (workdir / f"{picture}.png").read_bytes()[:4] == b"\x89PNG"


def test_what_cannot_be_drawn_is_explained(smoke, workdir, tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint .* no valid config.json of at"):
        analyse.main(["digits", f"--checkpoint={tmp_path}"])
    with pytest.raises(ValueError, match=r"allowed pictures: recurrences, thinking"):
        analyse.main(["maps", f"--checkpoint={workdir}"])
    plain = dataclasses.replace(smoke.data.task, carry_chains=0.0)
    assert plain.longest_carry("999+1=") == 3
