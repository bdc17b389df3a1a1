import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import model, plots, runlog
from arith_jax.experiment import Experiment
from configs import abacus_add
from tools import report

ROOT = pathlib.Path(report.__file__).parent.parent


def test_readme_and_pictures_are_those_of_the_results():
    done = subprocess.run(
        [sys.executable, "tools/report.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_changed_result_is_noticed():
    results = report.load()
    table, mark = report.table(results), report.fingerprint(results)
    name = next(iter(report.PANELS))
    results[name]["cells"][0]["correct"] += 1
    results[name]["train_seconds"] += 1
    assert report.table(results) != table
    assert report.fingerprint(results) != mark


def test_results_are_clean_runs_of_known_commits():
    for name, result in report.load().items():
        assert not result["dirty"], name
        assert len(result["git_commit"]) == 40, name
        for region, counts in result["exact_match"].items():
            assert counts["correct"] <= counts["total"], (name, region)


def test_dirty_results_are_refused(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"dirty": True}))
    with pytest.raises(ValueError, match="uncommitted changes"):
        report.add(tmp_path)


def test_percentages_are_never_rounded_up():
    assert report.share({"correct": 999_999, "total": 1_000_000}) == "99.9999"
    assert report.share({"correct": 9_999_999, "total": 10_000_000}) == "99.9999"
    assert report.share({"correct": 2, "total": 3}) == "66.66"
    assert report.share({"correct": 7, "total": 7}) == "100"
    assert report.share(None) == "-"
    assert report.counts([{"correct": 1, "total": 2}, None]) == "1/2"
    assert report.counts([None]) == "-"
    assert runlog.percent(999_999, 1_000_000) == "99.99% (999,999/1,000,000)"
    assert runlog.percent(3, 3) == "100% (3/3)"


def test_grid_arrays_leave_out_long_and_missing_cells():
    cells = [
        {"a": 1, "b": 5, "correct": 2, "total": 4},
        {"a": 5, "b": 5, "correct": 1, "total": 1},
        {"a": 120, "b": 120, "correct": 9, "total": 9},
    ]
    lengths, correct, total = plots.grid_arrays(cells)
    assert lengths.tolist() == [1, 5]
    np.testing.assert_array_equal(correct, [[0, 2], [0, 1]])
    np.testing.assert_array_equal(total, [[0, 4], [0, 1]])


def test_flops_are_the_compiler_s_count_of_the_unrolled_model():
    config = Experiment.from_dict(abacus_add.get_config("cpu").to_dict()).model
    params = jax.eval_shape(lambda: model.init_params(config, jax.random.key(0)))
    ids = jax.ShapeDtypeStruct((4, 64), jnp.int32)
    passed = jax.jit(lambda p, i, a: model.forward(config, p, i, a))
    counted = passed.lower(params, ids, ids).compile().cost_analysis()["flops"]
    # The compiler also counts softmax, norms, masks and GELU.
    ours = 4 * runlog.flops_per_row(config, 64, 1, 0)
    assert ours < counted < 1.35 * ours
