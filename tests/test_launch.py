"""The command as a user types it, in workdirs of its own."""

import json
import random
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from arith_jax import run
from arith_jax.config.experiment import Experiment
from arith_jax.released import load_released, load_trained, released_folder
from arith_jax.results import is_drawn
from arith_jax.training import checkpoint
from arith_jax.training.record import write_json
from arith_jax.training.workdir import check_workdir
from configs import abacus_add
from tests.helpers import ENVIRONMENT, ROOT

CONFIG = "--config=configs/abacus_add.py:smoke"


def launch(*arguments, module="launch.py"):
    command = [sys.executable, *module.split(), *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "smoke"
    done = launch(CONFIG, f"--workdir={workdir}", "--config.seed=3")
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def test_run_writes_the_contract_s_files(finished):
    workdir, output = finished
    names = {"config.json", "metrics.jsonl", "checkpoints", "result.json"}
    assert names | {"grid.png", "grid.npz", "digits.png", "curves.png"} == {
        path.name for path in workdir.iterdir()
    }
    assert "preset :smoke, seed 3" in output
    assert "exact match" in output
    assert "999+1 = " in output
    lines = [
        json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == [10, 20, 30]
    assert lines[0]["loss"] > lines[-1]["loss"] > 0


def test_result_has_the_contract_s_fields(finished):
    workdir, _ = finished
    result = json.loads((workdir / "result.json").read_text())
    assert set(result) >= {
        *("config", "seed", "git_commit", "dirty", "versions", "device", "num_params"),
        *("steps", "samples", "train_seconds", "compile_seconds", "flops"),
        *("eval_seconds", "exact_match", "cells"),
    }
    assert set(result["config"]) == {"name", "preset", "overrides", "full"}
    assert result["config"]["overrides"] == {"seed": 3}
    assert (result["seed"], result["steps"], result["samples"]) == (3, 30, 480)
    assert set(result["exact_match"]) == {"id", "ood"}
    assert result["num_params"] == 16224
    cells = result["cells"]
    assert {"a", "b", "correct", "total", "per_digit_correct"} == set(cells[0])
    for name, belongs in (("id", lambda n: n <= 3), ("ood", lambda n: n > 3)):
        inside = [c for c in cells if belongs(max(c["a"], c["b"]))]
        for key in ("correct", "total"):
            assert result["exact_match"][name][key] == sum(c[key] for c in inside)
    grid = np.load(workdir / "grid.npz")
    assert grid["lengths"].tolist() == [1, 2, 3, 4, 8, 12]
    assert grid["total"].sum() == sum(c["total"] for c in cells)


def test_each_phase_says_how_long_it_took_and_the_end_what_to_look_at(finished):
    workdir, output = finished
    assert re.search(r"^trained in [0-9.]+ s, compiled in [0-9.]+ s$", output, re.M)
    assert re.search(r"^evaluated in [0-9.]+ s$", output, re.M)
    grid = re.escape(str(workdir / "grid.png"))
    ending = rf"^results in .*, [0-9.]+ s in all; to see them: [a-z-]+ {grid}$"
    assert re.search(ending, output, re.M)


def test_a_run_that_was_killed_before_its_curve_is_not_fully_drawn(finished, tmp_path):
    workdir, _ = finished
    shutil.copytree(workdir, tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    experiment = Experiment.from_dict(config)
    assert is_drawn(tmp_path / "run", experiment)
    (tmp_path / "run" / "curves.png").unlink()
    assert not is_drawn(tmp_path / "run", experiment)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert is_drawn(tmp_path / "run", experiment)


def test_same_command_again_trains_nothing(finished):
    workdir, _ = finished
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    done = launch(CONFIG, f"--workdir={workdir}", "--config.seed=3")
    assert done.returncode == 0, done.stderr
    assert "finished; nothing to train" in done.stdout
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*")} == before


def weights_in(workdir):
    config = json.loads((workdir / "config.json").read_text())
    return checkpoint.evaluated_weights(Experiment.from_dict(config), workdir)[0]


@pytest.mark.slow
def test_same_seed_gives_identical_parameters_in_another_process(finished, tmp_path):
    workdir, _ = finished
    done = launch(CONFIG, f"--workdir={tmp_path}", "--config.seed=3", "--mode=train")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "result.json").exists()
    jax.tree.map(
        np.testing.assert_array_equal, weights_in(workdir), weights_in(tmp_path)
    )
    evaluated = launch(
        CONFIG, f"--workdir={tmp_path}", "--config.seed=3", "--mode=eval"
    )
    assert evaluated.returncode == 0, evaluated.stderr
    first, second = (
        json.loads((folder / "result.json").read_text())
        for folder in (workdir, tmp_path)
    )
    for key in ("cells", "exact_match", "steps", "flops", "num_params", "sets"):
        assert first[key] == second[key]


def test_solver_answers_and_refuses(finished):
    workdir, _ = finished
    option = f"--checkpoint={workdir}"
    done = launch("12+34", "5+6", option, module="-m arith_jax.solve")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert str(workdir) in done.stderr
    for expression in ("12*34", "-5+3"):
        bad = launch(expression, option, module="-m arith_jax.solve")
        assert bad.returncode == 2
        reason = bad.stderr.strip().splitlines()[-1]
        assert reason.startswith("error: expression ")
        assert f"{expression}' is not a sum; allowed:" in reason


def test_bad_input_ends_with_one_line_and_loses_nothing(finished):
    workdir, _ = finished
    other = launch(CONFIG, f"--workdir={workdir}", "--config.seed=4")
    assert other.returncode == 2
    assert other.stderr.strip().splitlines()[-1] == (
        f"error: workdir {workdir} was made with another config; differing: "
        "seed (there 3, here 4); choose another --workdir, as "
        f"--workdir={workdir}_2, or the same config"
    )
    assert (workdir / "result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/abacus_add.py:huge"], "config argument 'huge' is unknown"),
        (["--config=configs/no_such.py"], "configs/no_such.py"),
        ([], "--config must have a value"),
        ([CONFIG, "--config.model.widht=3"], "did you mean 'model.width'? allowed: "),
        (
            [CONFIG, "--config.train.steps=1.5"],
            "train.steps='1.5': must be of type int",
        ),
        ([CONFIG, "--config.model.width=31"], "model.width=31 is not a multiple"),
        ([CONFIG, "stray"], "unexpected argument 'stray'"),
    ],
)
def test_bad_command_lines_are_explained(arguments, message, tmp_path):
    done = launch(*arguments, f"--workdir={tmp_path / 'new'}")
    assert done.returncode == 2
    assert message in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()


RELEASED = sorted(released_folder().parent.iterdir())


ADDING = [folder for folder in RELEASED if folder.name.endswith("_add")]


@pytest.mark.parametrize("folder", ADDING, ids=lambda path: path.name)
def test_released_models_add_a_hundred_digits(folder):
    rng = random.Random(7)
    pairs = [[rng.randrange(10**99, 10**100) for _ in "ab"] for _ in range(4)]
    pairs += [[10**100 - 1, 1], [5, 10**60], [0, 0]]
    given = load_trained(folder).solve([f"{a}+{b}" for a, b in pairs])
    assert [answer.answer for answer in given] == [str(a + b) for a, b in pairs]
    result = json.loads((folder / "result.json").read_text())
    longer = result["exact_match"]["ood"]
    assert longer["correct"] > 0.999 * longer["total"] > 7_000


def test_the_other_released_models_know_their_task():
    rng = random.Random(7)
    # As in the paper, one vector has a single one and the other has none.
    places = [rng.randrange(100) for _ in range(6)]
    vectors = ["0" * place + "1" + "0" * (99 - place) for place in places]
    given = load_released("abacus_or").solve([f"{v}|{'0' * 100}" for v in vectors])
    assert [answer.answer for answer in given] == vectors
    pairs = [[rng.randrange(10**99, 10**100) for _ in "ab"] for _ in range(4)]
    pairs += [[10**100, 1], [5, 10**60], [7, 7]]
    given = load_released("abacus_addsub").solve([f"{a}-{b}" for a, b in pairs])
    assert [answer.answer for answer in given] == [str(a - b) for a, b in pairs]
    # Longer than it was trained on, and alike but for their last digits.
    close = "70000003,70000001,9,70000002,70000001"
    (answer,) = load_released("abacus_radix_sort").solve([close])
    assert answer.answer == ",".join(sorted(close.split(","), key=int))


def test_released_models_are_small():
    files = [path for folder in RELEASED for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) < 16 * 2**20


def test_a_trained_model_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"no valid config.json of .* in it; name"):
        load_trained(tmp_path)


def test_evaluation_needs_a_checkpoint(smoke, tmp_path):
    with pytest.raises(ValueError, match=r"no checkpoint in .*name a workdir"):
        run.run(smoke, str(tmp_path), mode="eval")


def save_run(workdir, config):
    """A workdir in which something was trained."""
    (workdir / "checkpoints").mkdir(exist_ok=True)
    write_json(workdir / "config.json", config)
    write_json(workdir / "result.json", {})


def test_evaluating_otherwise_is_allowed(smoke, tmp_path):
    config = abacus_add.get_config("smoke")
    save_run(tmp_path, Experiment.from_dict(config).to_dict())
    config.eval.grid_samples = 5
    full = Experiment.from_dict(config).to_dict()
    assert check_workdir(tmp_path, full, "eval") == []
    # A result that is there already is not overwritten: see `check_evaluation`.
    assert check_workdir(tmp_path, full, "train_and_eval") == []


def test_keys_that_are_newer_than_a_workdir_have_their_defaults(smoke, tmp_path):
    config = smoke.to_dict()
    old = json.loads(json.dumps(config))
    del old["num_seeds"], old["execution"]["triton_gemm"], old["eval"]["name"]
    save_run(tmp_path, old)
    assert check_workdir(tmp_path, config, "train_and_eval") == []
    with pytest.raises(ValueError, match=r"num_seeds \(there 1, here 2\); choose"):
        check_workdir(tmp_path, config | {"num_seeds": 2}, "train_and_eval")
    old["model"]["heads"] = 2
    save_run(tmp_path, old)
    with pytest.raises(ValueError, match=r"model.heads \(there 2, here None\)"):
        check_workdir(tmp_path, config, "train_and_eval")
