"""Whatever is put in: a valid object, or one line that a person reads.

Almost 6,000 cases, the same in every run. `FUZZ_FACTOR=100 FUZZ_SEED=1` makes a
hundred times as many, and others.
"""

import datetime
import itertools
import json
import os
import pathlib
import resource
import tempfile

import hypothesis
import jax
import jax.numpy as jnp
import pytest
from hypothesis import strategies as st

import launch
from arith_jax import cli
from arith_jax.checks import MAX_MESSAGE
from arith_jax.config.experiment import Experiment
from arith_jax.evaluation.answers import read_question
from arith_jax.released import read_config
from arith_jax.sweep.entries import read_sweep
from arith_jax.tasks.make import TASKS
from arith_jax.training.checkpoint import write_released
from arith_jax.training.loop import Clock
from arith_jax.training.weights import read_released
from arith_jax.training.workdir import flatten
from configs import abacus_add, abacus_sort
from configs.paper import addition

FACTOR = int(os.environ.get("FUZZ_FACTOR", "1"))
SEED = os.environ.get("FUZZ_SEED")
ROOT = pathlib.Path(launch.__file__).parent
MAX_MEMORY = 2**30


def cases(count):
    """Runs a test on so many cases, times the factor."""

    def decorate(test):
        settings = hypothesis.settings(
            max_examples=count * FACTOR,
            derandomize=SEED is None,
            deadline=datetime.timedelta(seconds=20),
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        if SEED is not None:
            test = hypothesis.seed(int(SEED))(test)
        return settings(test)

    return decorate


def result_or_line(function, *arguments):
    """What a function returns, or None if it refuses in one line."""
    try:
        return function(*arguments)
    except ValueError as error:
        text = str(error)
        assert text.strip()
        assert text.isprintable()
        assert len(text) <= MAX_MESSAGE + 200  # of paths, which are never cut
        return None


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """Nothing that is put in makes us allocate a gigabyte."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < MAX_MEMORY


@pytest.fixture(scope="module", autouse=True)
def in_root():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


# Texts and values that break things, and any others.
ODD_TEXTS = (
    *("", " ", "0", "-1", "00", "1_000", "2147483648", "9" * 5000, "1e30", "1e400"),
    *("nan", "inf", "-inf", "True", "None", "()", "(1,)", "[1, 2]", "(" * 300, "{}"),
    *(
        "'",
        '"',
        "\\n",
        "a\nb",
        "\0",
        "\ud800",
        "\u2028",
        "\u0661",
        "\u00b2",
        "x" * 3000,
    ),
)
texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=20)
ODD_NUMBERS = (
    *(0, -1, 1, 2, 7, 300, 10**4, 2**31 - 1, 2**31, 2**63, 10**400, 0.5, 1e30, 1e300),
    *(-0.0, float("nan"), float("inf"), True, False, None),
)
numbers = st.sampled_from(ODD_NUMBERS)
scalars = numbers | st.integers() | st.floats() | texts
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=6,
)

CONFIGS = (
    abacus_add.get_config("smoke"),
    abacus_sort.get_config("smoke"),
    addition.get_config("pos=abacus+fire,smoke"),
)
PLAIN = [config.to_dict() for config in CONFIGS]
KEYS = [
    (section, key)
    for section, inside in PLAIN[0].items()
    for key in (inside if isinstance(inside, dict) else [None])
]


@st.composite
def config_dicts(draw):
    """A valid config in which a few keys have other values."""
    config = json.loads(json.dumps(draw(st.sampled_from(PLAIN))))
    for _ in range(draw(st.integers(0, 2))):
        section, key = draw(st.sampled_from(KEYS))
        section = draw(texts) if draw(st.integers(0, 20)) == 0 else section
        key = draw(texts) if key and draw(st.integers(0, 20)) == 0 else key
        if key is None or not isinstance(config.get(section), dict):
            config[section] = draw(values)
        elif draw(st.booleans()):
            config[section][key] = draw(numbers)
        else:
            config[section][key] = draw(values)
    return config


@cases(75)
@hypothesis.given(
    config_dicts(),
    st.lists(st.sampled_from(KEYS), min_size=5, max_size=5),
    st.lists(numbers | values, min_size=5, max_size=5),
)
def test_configs(config, keys, others):
    for (section, key), value in itertools.product(keys, others):
        inside = config.get(section)
        if key is not None and isinstance(inside, dict):
            value = inside | {key: value}
        experiment = result_or_line(Experiment.from_dict, config | {section: value})
        if experiment is not None:
            written = json.dumps(experiment.to_dict(), allow_nan=False)
            assert Experiment.from_dict(json.loads(written)) == experiment


DEFAULTS = dict(flatten(PLAIN[0]))
keys = st.sampled_from(list(DEFAULTS)) | texts
paths = st.sampled_from(
    ("configs/abacus_add.py", "configs/paper/addition.py", "configs", "pyproject.toml")
) | texts.map(lambda text: f"/none/{text}")
options = ("smoke", "cpu", "arch=8x2", "pos=abacus", "k=10", "alpha=nan", "eval=reach")
arguments = st.lists(st.sampled_from(options), max_size=2).map(",".join)
flag_names = st.sampled_from(
    ("workdir", "mode", "index", "list", "sweep", "distributed", "x", "flagfile")
)
words = (
    st.builds("--config.{}={}".format, keys, texts | st.integers() | st.floats())
    | st.builds("--{}config.{}".format, st.sampled_from(("", "no")), keys)
    | st.builds("--{}={}".format, flag_names, texts)
    | texts
)


def build(command):
    """What launch.py does before it trains."""
    launch.check_together(launch.flag_names(command))
    flag_values = launch.read_flags(command)
    if flag_values.sweep is None:
        return cli.experiment_of(flag_values)[0]
    return cli.local_path("sweep", flag_values.sweep)


@cases(400)
@hypothesis.given(
    st.builds(
        "--config={}:{}".format, paths, st.lists(arguments, max_size=2).map(",".join)
    ),
    st.lists(words, max_size=3),
    st.integers(0, 9),
)
def test_command_lines(config, others, order):
    command = [config, *others] if order else others
    if not {"-h", "-help", "--help"} & set(command):
        result_or_line(build, command)


@st.composite
def mutated(draw, originals, odd):
    """An original with a few pieces put in, cut out or replaced."""
    content = draw(st.sampled_from(originals))
    pieces = st.sampled_from(odd) | st.binary(max_size=4)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = start + draw(st.sampled_from((0, 0, 1, 2, 8, 50)))
        content = content[:start] + draw(pieces) + content[stop:]
    return content


SWEEPS = [
    b"""workdir = "runs/x"
[overrides]
train.steps = 5
[[runs]]
config = "configs/abacus_add.py:smoke"
seeds = [0, 1]
[runs.overrides]
optim.batch_size = {any = [32, 64]}
""",
    b'[[runs]]\nconfig = "configs/abacus_{add,or}.py:{smoke,cpu}"\n',
]
TOML = (
    *(
        b"\n",
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"=",
        b".",
        b",",
        b"[[runs]]\n",
        b"1",
        b"a.b",
    ),
    *(b"nan", b"1" * 5000, b"a." * 3000, b"[" * 3000, b"{a,b}" * 30, b"\xff", b"\0"),
    *(b"seeds = [" + b"1," * 3000 + b"]\n", b"eval.name = 'x'\n", b"-1", b"1979-05-27"),
)


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield pathlib.Path(name)


@cases(400)
@hypothesis.given(mutated(SWEEPS, TOML))
def test_sweep_files(folder, content):
    path = folder / "made.toml"
    path.write_bytes(content)
    sweep = result_or_line(read_sweep, path)
    assert sweep is None or sweep.entries


TASK_OPTIONS = [(name, {}) for name in TASKS] + [
    ("subtraction", {"complement": True}),
    ("multiplication", {"scratchpad": True}),
    ("sorting", {"scratchpad": True}),
    ("multi_addition", {"scratchpad": True}),
    ("copying", {"reverse": True}),
    ("addsub", {"index_hints": True}),
    ("addition", {"zero_pad": True}),
]
SOLVERS = [
    Experiment.from_dict(
        {
            "task": {"name": name} | options,
            "data": {"max_numbers": 5 if TASKS[name][0].has_lists else 0},
            "train": {"steps": 1},
        }
    )
    for name, options in TASK_OPTIONS
]
SYMBOLS = st.text(
    "0123456789+-x*/\u00f7=,|: \t\n\0.e_\u0661\u00b2\u00bd\u2212", max_size=40
)
NUMBERS = st.from_regex(r"[0-9]{1,30}", fullmatch=True) | st.sampled_from(
    ("0", "00", "007", "1" * 4301, "9" * 3000, "", "-5", "+5", "\uff11", "1e5")
)
expressions = (
    SYMBOLS
    | texts
    | st.builds("{}{}{}".format, NUMBERS, st.sampled_from("+-x*/|,"), NUMBERS)
    | st.builds("{} {} {} =".format, NUMBERS, st.sampled_from("+-x*/|"), NUMBERS)
    | st.lists(NUMBERS, max_size=110).map(",".join)
    | st.lists(NUMBERS, max_size=20).map("+".join)
    | st.builds(lambda text, n: text * n, SYMBOLS, st.sampled_from((100, 5000)))
)


@cases(200)
@hypothesis.given(expressions, SYMBOLS)
def test_expressions(expression, answer):
    for experiment in SOLVERS:
        question = result_or_line(read_question, experiment, expression)
        if question is None:
            continue
        task, prompt = experiment.data.task, question.prompt
        assert task.vocab.encode(prompt)
        assert min(task.sizes(prompt)) >= 1
        assert "\n" not in task.read_answer(prompt, answer.replace("\n", ""))
        right = task.true_answer(prompt)
        assert len(right) <= task.answer_width(*task.sizes(prompt))
        assert task.read_answer(prompt, right)


@pytest.fixture(scope="module")
def weights(folder):
    """A small file of weights, and their shapes."""
    params = {"a": {"bias": jnp.ones(3)}, "b": jnp.ones((2, 2))}
    path = folder / "weights.safetensors"
    write_released(path, params, Clock(1.0, 2.0), 7)
    return path.read_bytes(), jax.eval_shape(lambda: params)


HEADER = (
    *(b"\0", b"\xff" * 8, b"9" * 20, b'"F32"', b'"F64"', b"[3]", b"[2,2]", b"-1", b"{"),
    *(b'"shape":[99999999999999]', b"a/bias", b"}", b"1e999", b"nan", b'"steps":"x"'),
)


@cases(400)
@hypothesis.given(st.data())
def test_weights(folder, weights, data):
    original, like = weights
    content = data.draw(mutated([original, original[:8], original[8:]], HEADER))
    path = folder / "mutated.safetensors"
    path.write_bytes(content)
    read = result_or_line(read_released, path, like)
    if read is not None:
        assert read[0]["a"]["bias"].shape == (3,)
        assert read[2] >= 0


CONFIG_FILES = [json.dumps(plain).encode() for plain in PLAIN]
JSON = (
    *(b"{", b"}", b"[" * 3000, b'"', b":", b",", b"NaN", b"-Infinity", b"1" * 5000),
    *(b"1e999", b"null", b"true", b"\xff\xfe", b"\0", b"999999999", b"0", b"-"),
)


@cases(400)
@hypothesis.given(mutated(CONFIG_FILES, JSON))
def test_config_files(folder, content):
    (folder / "config.json").write_bytes(content)
    config = result_or_line(read_config, folder)
    result_or_line(Experiment.from_dict, config)
