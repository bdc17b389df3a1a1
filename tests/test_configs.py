import dataclasses
import importlib
import itertools
import json
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from arith_jax.config.experiment import Experiment
from arith_jax.config.training import Noise
from arith_jax.training.loop import train
from arith_jax.training.state import make_state
from configs import abacus_add, abacus_table_add, ablation_add, base
from configs.paper import addition, sorting

ROOT = pathlib.Path(base.__file__).parent
OTHERS = ("__init__", "base", "ablation_add")
OURS = sorted(p.stem for p in ROOT.glob("*.py") if p.stem not in OTHERS)
PAPER = ("addition", "addsub", "multiplication", "sorting", "bitwise_or")
PAGE = ROOT.parent / "docs" / "paper.md"


def commands():
    """Every command of docs/paper.md: name and argument, lists written out."""
    rows = []
    for name, argument in re.findall(r"`(\w+)\.py:?([^`\s]*)`", PAGE.read_text()):
        parts = re.split(r"(\{[^}]*\})", argument)
        choices = [p.strip("{}").split(",") if p[:1] == "{" else [p] for p in parts]
        rows += [(name, "".join(words)) for words in itertools.product(*choices)]
    return [pair for pair in rows if pair[0] in PAPER]


def load(name, argument):
    module = importlib.import_module(f"configs.{name}")
    return Experiment.from_dict(module.get_config(argument))


@pytest.mark.parametrize(
    ("name", "argument"), list(itertools.product(OURS, [*base.PRESETS, ""]))
)
def test_every_preset_of_ours_builds(name, argument):
    experiment = load(name, argument)
    assert experiment.name.startswith(name)
    assert experiment.preset == (argument or "cpu")
    # What a run writes down makes the same experiment again.
    assert Experiment.from_dict(experiment.to_dict()) == experiment


@pytest.mark.parametrize("preset", base.PRESETS)
def test_a_table_without_a_window_sees_other_problems(preset):
    experiment = load("abacus_table_add", f"far=bias,{preset}")
    experiment.check()
    assert experiment.train.noise == Noise(far_problems=True)
    assert experiment.model.abacus_far == "bias"


@pytest.mark.parametrize("change", ablation_add.CHANGES)
def test_every_ablation_changes_what_it_says(change):
    base_line = load("ablation_add", "gpu").to_dict()
    for budget in ablation_add.STEPS:
        changed = load("ablation_add", f"gpu,change={change},budget={budget}").to_dict()
        for key, value in ablation_add.CHANGES[change].items():
            section, name = key.split(".")
            assert changed[section][name] == (
                list(value) if isinstance(value, tuple) else value
            )
            assert changed[section][name] != base_line[section][name]
        allowed = {key.split(".")[0] for key in ablation_add.CHANGES[change]}
        for section in ("task", "data", "model", "loss", "optim"):
            assert section in allowed or changed[section] == base_line[section]
    for preset in ("smoke", "cpu"):
        load("ablation_add", f"{preset},change={change}")


def test_every_command_of_the_page_builds():
    rows = commands()
    assert len(rows) > 70
    assert {name for name, _ in rows} == set(PAPER)
    configs = {}
    for name, argument in rows:
        experiment = load(f"paper.{name}", argument)
        assert experiment.preset == "gpu"
        # One name, so one folder, for one experiment.
        assert configs.setdefault(experiment.name, experiment) == experiment
        load(f"paper.{name}", f"{argument},smoke")
    assert len(configs) > 80


def test_options_of_the_paper_reach_the_config():
    argument = "arch=4x8,pos=abacus,inject=layer,size=30,k=150,alpha=0.5,budget=2"
    built = load("paper.addition", argument + ",prompt=on,throttle=on,blanks=0.1")
    assert built.name == (
        "paper_addition_4x8_abacus_ii_alpha0.5_blanks0.1_budget2_k150_prompton_size30"
        "_throttleon"
    )
    assert (built.model.num_layers, built.model.num_recurrences) == (4, 8)
    assert built.model.injection == "layer"
    assert (built.data.max_digits, built.data.max_offset) == (30, 150)
    assert (built.loss.alpha, built.train.minutes) == (0.5, 120)
    assert built.data.predict_prompt
    assert built.loss.throttle
    assert built.data.task.blanks == 0.1
    hints = load("paper.addition", "hints=on,pos=fire")
    assert hints.model.vocab_size == len(hints.data.task.vocab) == 121
    product = load("paper.multiplication", "pos=fire")
    assert product.loss.reduction == "none"
    assert product.optim.learning_rate == 6e-5
    assert product.optim.micro_batch_size == 512
    assert load("paper.sorting", "").optim.micro_batch_size == 32
    assert load("paper.bitwise_or", "").train.minutes == 60


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        # The flagship's steps are in test_launch.py.
        *((name, "smoke") for name in OURS if name != "abacus_add"),
        ("abacus_table_add", "far=bias,smoke"),
        ("abacus_sort", "answer=keys,smoke"),
        ("paper.addition", "arch=8x2,pos=abacus+fire,smoke"),
        ("paper.addition", "arch=16x1,pos=learned,inject=layer,smoke"),
        ("paper.addition", "arch=8x1,pos=fire,hints=on,smoke"),
        ("paper.addition", "prompt=on,blanks=0.2,alpha=0.5,smoke"),
        ("paper.addsub", "smoke"),
        ("paper.multiplication", "pos=abacus+fire,smoke"),
        ("paper.sorting", "smoke"),
        ("paper.bitwise_or", "arch=16x1,inject=layer,smoke"),
    ],
)
@pytest.mark.slow
def test_every_experiment_takes_steps(name, argument):
    experiment = load(name, argument)
    state = make_state(experiment)
    before = jax.tree.map(jnp.copy, state.params)
    for progress in train(experiment, state):
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
        (abacus_table_add, "far=off", r"config argument far='off' is unknown; allowed"),
        (addition, "arch=3y5", r"config argument arch='3y5' is unknown; allowed: 8x2"),
        (addition, "arch=8x2,arch=8x2", r"gives 'arch' twice"),
        (addition, "pos=alibi", r"config argument pos='alibi' is unknown"),
        (addition, "cpu", r"config argument 'cpu' is not for the paper's models"),
        (addition, "k=-1", r"config argument k='-1': must be a number from 0 to 400"),
        (addition, "alpha=high", r"config argument alpha='high': must be a number"),
        (addition, "size=15", r"config argument size='15' is unknown; allowed: 20, 10"),
        (sorting, "size=20", r"config argument 'size' is unknown; allowed keys: arch"),
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
        (
            "model",
            "vocab_size",
            20,
            r"model.vocab_size follows from the task; leave it",
        ),
        (
            "model",
            "widht",
            1,
            r"model.widht is unknown; did you mean 'width'\? allowed",
        ),
        (
            "task",
            "complement",
            True,
            r"task.complement=True: addition has no such opti",
        ),
        ("task", "name", "subtract", r"task.name='subtract' is unknown; did you mean"),
        ("loss", "max_backprop", 2, r"loss.max_backprop=2: must be between 1 and mode"),
        (
            "trian",
            "steps",
            1,
            r"config section 'trian' is unknown; did you mean 'train'\?",
        ),
    ],
)
def test_experiment_is_checked_as_a_whole(section, key, value, message):
    config = abacus_add.get_config("smoke").to_dict()
    config.setdefault(section, {})[key] = value
    with pytest.raises(ValueError, match=message):
        Experiment.from_dict(config)


def test_an_experiment_is_made_from_whatever_is_given():
    built = Experiment.from_dict({"train": {"steps": 5}, "model": {"width": 64}})
    assert (built.model.width, built.train.steps) == (64, 5)
    assert built.model.vocab_size == 19
    for seed in (-1, 2**31):
        with pytest.raises(ValueError, match=rf"seed={seed}: must be from 0 to"):
            Experiment.from_dict({"train": {"steps": 5}, "seed": seed})


def test_tables_are_as_long_as_the_longest_number_needs():
    config = importlib.import_module("configs.abacus_table_add").get_config("gpu")
    config.model.table_size = 0
    # 120 + 120 digits have sums of 121; training has 21 digits and offsets to 140.
    assert Experiment.from_dict(config).model.table_size == 162
    config.eval.diagonal = (500,)
    assert Experiment.from_dict(config).model.table_size == 502


def test_table_too_small_for_the_evaluation_is_refused_before_training():
    config = importlib.import_module("configs.abacus_table_add").get_config("gpu")
    config.eval.diagonal = (500,)
    with pytest.raises(ValueError, match=r"model.table_size=192 is too small: posit"):
        Experiment.from_dict(config)


FIELDS = [
    (section.name, field)
    for section in dataclasses.fields(Experiment)
    for field in (
        dataclasses.fields(section.type)
        if dataclasses.is_dataclass(section.type)
        else [section]
    )
    if field.name not in ("task", "vocab_size", "scheme")
]
EXTREMES = (
    *(0, -1, 2**31, 2**63, 10**5000, 1e30, -1e-30, 1e300),
    *(math.nan, math.inf, -math.inf, True, None, "", "x" * 10**5, "a\nb", b"x"),
    *((), (0,), (-1,), (2**31,), ("x",), (math.nan,), (1,) * 10**4, [[[]]], {}),
)


@pytest.mark.parametrize(
    ("section", "field"), FIELDS, ids=lambda x: getattr(x, "name", x)
)
def test_every_key_works_or_is_refused_at_its_extremes(section, field):
    plain = abacus_add.get_config("smoke").to_dict()
    for value in EXTREMES:
        if section == field.name:
            config = plain | {section: value}
        else:
            config = plain | {section: plain[section] | {field.name: value}}
        try:
            experiment = Experiment.from_dict(config)
        except ValueError as error:
            text = str(error)
            assert "\n" not in text
            assert len(text) <= 500
            assert field.name in text or "data." in text or "eval: " in text
            continue
        written = json.dumps(experiment.to_dict(), allow_nan=False)
        assert Experiment.from_dict(json.loads(written)) == experiment
