import importlib
import itertools
import pathlib

import jax
import jax.numpy as jnp
import pytest

from arith_jax import train
from arith_jax.experiment import Experiment
from arith_jax.train import Clock
from configs import abacus_add, ablation_add, base
from configs.paper import addition

ROOT = pathlib.Path(base.__file__).parent
OTHERS = ("__init__", "base", "ablation_add")
OURS = sorted(p.stem for p in ROOT.glob("*.py") if p.stem not in OTHERS)
PAPER_ROWS = [
    f"arch={arch},pos={pos},inject={inject}"
    for arch, pos, inject in itertools.product(
        addition.ARCHITECTURES, addition.POSITIONS, ("recurrence", "layer")
    )
]


def load(name, argument):
    module = importlib.import_module(f"configs.{name}")
    return Experiment.from_dict(module.get_config(argument).to_dict())


@pytest.mark.parametrize(
    ("name", "argument"), list(itertools.product(OURS, [*base.PRESETS, ""]))
)
def test_every_preset_of_ours_builds(name, argument):
    experiment = load(name, argument)
    assert experiment.name == name
    assert experiment.preset == (argument or "cpu")
    assert experiment.full["seed"] == 0


@pytest.mark.parametrize("change", ablation_add.CHANGES)
def test_every_ablation_changes_what_it_says(change):
    base_line = load("ablation_add", "gpu").full
    for budget in ablation_add.STEPS:
        changed = load("ablation_add", f"gpu,change={change},budget={budget}").full
        for key, value in ablation_add.CHANGES[change].items():
            section, name = key.split(".")
            assert changed[section][name] == (
                list(value) if isinstance(value, tuple) else value
            )
            assert changed[section][name] != base_line[section][name]
        allowed = {key.split(".")[0] for key in ablation_add.CHANGES[change]}
        for section in ("model", "data", "optim"):
            assert section in allowed or changed[section] == base_line[section]
    for preset in ("smoke", "cpu"):
        load("ablation_add", f"{preset},change={change}")


@pytest.mark.parametrize("argument", ["", *PAPER_ROWS])
def test_every_row_of_the_paper_builds(argument):
    experiment = load("paper.addition", argument)
    assert experiment.preset == "gpu"
    assert experiment.model.layers * experiment.model.recurrences == 16


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        # The flagship's steps are in test_launch.py.
        *((name, "smoke") for name in OURS if name != "abacus_add"),
        ("paper.addition", "arch=8x2,pos=abacus+fire,smoke"),
        ("paper.addition", "arch=16x1,pos=learned,inject=layer,smoke"),
    ],
)
@pytest.mark.slow
def test_every_experiment_takes_steps(name, argument):
    experiment = load(name, argument)
    state = train.make_state(experiment.model, experiment.optim, 0)
    before = jax.tree.map(jnp.copy, state.params)
    for progress in train.train(experiment.train_configs, state, 0, Clock()):
        assert jnp.isfinite(progress.metrics.loss)
        if progress.step == 4:
            break
    changed = jax.tree.map(
        lambda x, y: bool(jnp.any(x != y)), before, progress.state.params
    )
    assert sum(jax.tree.leaves(changed)) > 10


@pytest.mark.parametrize(
    ("module", "argument", "message"),
    [
        (abacus_add, "large", r"config argument 'large' is unknown; allowed: smoke"),
        (abacus_add, "arch=8x2", r"config argument 'arch' is unknown; allowed keys"),
        (abacus_add, "cpu,smoke", r"config argument 'cpu,smoke' gives 'smoke' twice"),
        (addition, "arch=3y5", r"config argument arch='3y5' is unknown; allowed: 16x1"),
        (addition, "arch=8x2,arch=8x2", r"gives 'arch' twice"),
        (addition, "pos=alibi", r"config argument pos='alibi' is unknown"),
        (addition, "cpu", r"config argument 'cpu' is not for the paper's models"),
    ],
)
def test_bad_arguments_are_refused(module, argument, message):
    with pytest.raises(ValueError, match=message):
        module.get_config(argument)


def test_preset_follows_the_device(monkeypatch):
    assert base.preset_for_device() == "cpu"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert base.preset_for_device() == "gpu"


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("model", "vocab_size", 20, r"model.vocab_size=20: the task 'addition' has 19"),
        (
            "model",
            "extra",
            1,
            r"section 'model' must have exactly.*differing: \['extra",
        ),
    ],
)
def test_experiment_is_checked_as_a_whole(section, key, value, message):
    config = abacus_add.get_config("smoke").to_dict()
    config[section][key] = value
    with pytest.raises(ValueError, match=message):
        Experiment.from_dict(config)


def test_table_too_small_for_the_evaluation_is_refused_before_training():
    config = importlib.import_module("configs.abacus_table_add").get_config("gpu")
    config.eval.diagonal = (500,)
    with pytest.raises(ValueError, match=r"model.table_size=192 is too small: numbers"):
        Experiment.from_dict(config.to_dict())
