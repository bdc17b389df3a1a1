"""Models that cannot be are refused before the first trace."""

import dataclasses

import jax.numpy as jnp
import pytest

from arith_jax.config.experiment import Experiment
from arith_jax.config.model import Execution, McLeishConfig
from arith_jax.model.banded import Blocks
from arith_jax.model.context import make_context
from arith_jax.model.forward import forward as run_forward
from arith_jax.model.transformer import Transformer
from arith_jax.positions.schemes import Abacus
from arith_jax.positions.written_schemes import Lines
from configs.paper import addition
from tests.helpers import changed
from tests.model.examples import (
    POSITIONS,
    WRITTEN,
    batch_of,
    changed_model,
    forward,
    random_params,
)


def test_segments_need_their_number(tiny):
    model, batch = changed_model(tiny, {}), batch_of()
    with pytest.raises(ValueError, match="segment needs num_segments"):
        run_forward(
            model, {}, batch.ids, batch.positions, segment=jnp.zeros_like(batch.ids)
        )


LINES = Lines(equals_id=17, operator_id=16)
BAD = [
    ({"width": 33}, r"model.width=33 is not a multiple of model.num_heads=2"),
    ({"injection": "often"}, r"model.injection='often' is unknown; allowed: none"),
    ({"norm": "pre"}, r"model.norm='pre' is unknown; allowed: post, sandwich"),
    ({"positions": ("alibi",)}, r"model.positions has 'alibi'; allowed: any of abacus"),
    ({"initial_state": "noise"}, r"never shows the input"),
    ({"fire_max_length": 9}, r"fire_max_length=9 needs 'fire' in model.positions"),
    ({"num_layers": 0}, r"model.num_layers=0: must be at least 1"),
    ({"mlp_width": 63}, r"model.mlp_width=63: must be even"),
    (
        {"scheme": LINES, "abacus_window": 7},
        r"abacus_window=7: at most 6 with data.position_ids='lines'",
    ),
    (
        {"scheme": WRITTEN["items"].schemes["items"], "abacus_window": 7},
        r"abacus_window=7: at most 6 with data.position_ids='items'",
    ),
    (
        {"positions": ("rope",), "abacus_far": "bias", "width": 30},
        r"rotary positions need an even head width, got 15",
    ),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_impossible_models_are_refused(tiny, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny, **changes)


@pytest.mark.parametrize("changes", [{"random": 64}, {"random": 128, "packed": 2}])
def test_random_places_that_a_row_has_no_room_for_are_refused(changes):
    argument = f"pos=fire,smoke,random={changes['random']}"
    config = addition.get_config(f"arch=16x1,{argument}")
    config.data.width_multiple = 64
    config.data.problems_per_row = changes.get("packed", 1)
    with pytest.raises(ValueError, match=r"model.fire_max_length=.* above the 64 tok"):
        Experiment.from_dict(config).check()


def test_other_impossible_values_are_refused(smoke):
    with pytest.raises(ValueError, match=r"execution.dtype='float16' is unknown"):
        Execution(dtype="float16")
    with pytest.raises(ValueError, match=r"qkv_gain_quirk=True needs model.mcleish.de"):
        McLeishConfig(qkv_gain_quirk=True)
    hidden = changed(smoke, train__max_far_copies=9.0)
    with pytest.raises(
        ValueError, match=r"max_far_copies=9.0 with model.abacus_far='m"
    ):
        hidden.check()
    far_problems = changed(smoke, train__far_problems=True)
    with pytest.raises(ValueError, match=r"far_problems=True is for rows of several"):
        far_problems.check()
    deeper = changed(smoke, loss__max_backprop=2)
    with pytest.raises(ValueError, match=r"loss.max_backprop=2: must be between 1 and"):
        deeper.check()


def test_ids_past_their_level_are_refused(tiny):
    config = dataclasses.replace(tiny, scheme=LINES)
    config.check_table(2**15 - 1)
    with pytest.raises(ValueError, match=r"ids up to 32768: must be below 32768"):
        config.check_table(2**15)
    tiny.check_table(2**15)


def test_blocks_are_for_rows_of_one_segment_numbered_by_place():
    ids, blocks = jnp.zeros((1, 4), jnp.int32), Blocks(32, 3)
    with pytest.raises(ValueError, match=r"attention in blocks .* 'lines'"):
        make_context(LINES, ids, blocks=blocks)
    with pytest.raises(ValueError, match=r"attention in blocks .* got 2 segments"):
        make_context(Abacus(), ids, segment=ids, num_segments=2, blocks=blocks)


def test_a_table_too_small_is_refused_and_the_needed_size_suffices(tiny):
    abacus, learned = (
        dataclasses.replace(tiny, **POSITIONS[name] | {"table_size": 30})
        for name in ("abacus", "learned")
    )
    abacus.check_table(21, max_offset=8)
    with pytest.raises(ValueError, match=r"model.table_size=30 is too small.*need 31"):
        abacus.check_table(21, max_offset=9)
    model = Transformer(abacus)
    params, ids = random_params(model), jnp.full((1, 21), 5)
    positions = jnp.arange(1, 22)[None] + 8
    logits = forward(model, params, ids, positions, num_segments=1)
    assert jnp.all(jnp.isfinite(logits))
    logits = forward(model, params, ids, positions + 1, num_segments=1)
    assert not jnp.all(jnp.isfinite(logits))
    with pytest.raises(ValueError, match=r"rows of 31 tokens need 31 learned"):
        learned.check_row(31)
