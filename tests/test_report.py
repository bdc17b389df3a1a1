import copy
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from arith_jax.evaluation import plots, table
from tools import figures, paper, paper_figures, report, scaling, speed, tables

ROOT = pathlib.Path(report.__file__).parent.parent


def test_readme_and_pictures_are_those_of_the_results():
    done = subprocess.run(
        [sys.executable, "-m", "tools.report", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_changed_result_is_noticed():
    results = report.load()
    made = report.texts(results)
    _, drawn = figures.grids(results)
    mark = figures.fingerprint(drawn)
    name = next(iter(figures.PANELS))
    results[name]["cells"][0]["correct"] -= 1
    results[name]["train_seconds"] += 1
    assert report.texts(results)["README.md"]["results"] != made["README.md"]["results"]
    assert figures.fingerprint(figures.grids(results)[1]) != mark


def test_speed_has_a_row_for_every_file():
    records = report.load(report.RESULTS / "speed")
    table = speed.speed_table(records)
    assert len(table.splitlines()) == 2 + len(records)
    for name, record in records.items():
        assert not record["dirty"], name
        assert speed.LINES[name][0] in table
        what = {"train": "train", "grid": "eval", "decode": "decode"}
        assert record["what"] == what[name.split("_")[0]]
    with pytest.raises(KeyError, match=r"speed/other.json is not in tools/speed.py"):
        speed.speed_table({**records, "other": {}})


def test_scaling_says_what_a_sum_and_layer_take():
    row = {"samples_per_step": 200, "layers": 5, "seconds_per_step": 0.0321}
    record = {"measured": {"scaling": [row | {"program_bytes": 3 * 2**30}]}}
    line = speed.scaling_table(record).splitlines()[-1]
    assert line == "| 200 | 5 | 32.1 ms | 32.10 us | 3,072 MiB |"


def test_speed_says_what_was_measured():
    train = {"samples_per_second": 6557.4, "share_of_peak": 0.374}
    record = {"what": "train", "measured": {**train, "useful_share_of_peak": 0.21}}
    assert speed.measured(record) == "6,557 sums/s, 37% / 21% of the peak"
    grid = {"grid_seconds_with_compilation": 59.96, "grid_seconds": {"median": 20.0}}
    record = {"what": "eval", "measured": {**grid, "sums": 10**6}}
    assert speed.measured(record) == "60.0 s, 20.0 s compiled (1,000,000 sums)"
    record["measured"].pop("grid_seconds")
    assert speed.measured(record) == "60.0 s (1,000,000 sums)"
    lengths = [(20, 0.1), (100, 4.9)]
    lengths = [{"digits": n, "seconds": {"median": s}} for n, s in lengths]
    record = {"what": "decode", "measured": {"lengths": lengths}}
    assert speed.measured(record) == "4.90 s"


def test_results_are_clean_runs_of_known_commits():
    for name, result in report.load().items():
        assert not result["dirty"], name
        assert len(result["git_commit"]) == 40, name
        for region, counts in result["exact_match"].items():
            assert counts["correct"] <= counts["total"], (name, region)


def test_dirty_results_are_refused(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"dirty": True}))
    with pytest.raises(ValueError, match="uncommitted changes"):
        report.stripped(tmp_path)
    with pytest.raises(ValueError, match=r"not a finished run: it has no result.json"):
        report.stripped(tmp_path / "nothing")


def test_digit_counts_are_kept_where_they_say_something(tmp_path):
    def cell(a, b, correct):
        return {"a": a, "b": b, "correct": correct, "total": 2, "per_digit_correct": []}

    cells = [cell(5, 5, 1), cell(5, 5, 2), cell(5, 6, 1), cell(2000, 2000, 1)]
    part = {"addition": {"cells": [dict(cell) for cell in cells]}}
    sets = {"equal": cells[:1]}
    result = {"dirty": False, "cells": cells, "sets": sets, "parts": part}
    (tmp_path / "result.json").write_text(json.dumps(result))
    stripped = report.stripped(tmp_path)
    expected = [True, False, False, False]
    for part in (stripped, stripped["parts"]["addition"]):
        assert ["per_digit_correct" in cell for cell in part["cells"]] == expected
    assert "per_digit_correct" in stripped["sets"]["equal"][0]


def test_text_without_its_marks_is_refused():
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb"
    assert report.replaced(text, "x", "new") == text.replace("old", "new")
    with pytest.raises(ValueError, match="<!-- y --> and <!-- /y --> are missing"):
        report.replaced(text, "y", "new")


def test_tables_give_median_and_worst_seed():
    assert tables.over_seeds([1.0, 1.0]) == "100"
    assert tables.over_seeds([1.0, 0.5, None, 0.99999]) == "99.9990 (50.00)"
    assert tables.over_seeds([None]) == "-"
    runs = [{"train_seconds": t} for t in (1.0, 2.0, 9.0)]
    assert tables.seconds_of(runs) == "2.0 (9.0)"
    runs = {f"x_s{s}": {"seed": s} for s in (10, 9)} | {"xy_s1": {"seed": 1}}
    assert [run["seed"] for run in tables.seeds_of(runs, "x")] == [9, 10]


def test_percentages_are_never_rounded_up():
    assert tables.percent(999_999 / 1_000_000) == "99.9999"
    assert tables.percent(9_999_999 / 10_000_000) == "99.9999"
    assert tables.percent(2 / 3) == "66.66"
    assert tables.percent(0.07) == "7.00"
    assert tables.percent(1.0) == "100"
    assert tables.counts([{"correct": 1, "total": 2}, None]) == "1/2"
    assert tables.counts([None]) == "-"
    assert table.percent(999_999, 1_000_000) == "99.99% (999,999/1,000,000)"
    assert table.percent(3, 3) == "100% (3/3)"


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


def test_rows_of_the_paper_are_results_of_its_sweeps_only():
    results = report.load()
    labels, runs = paper.rows_run(results)["addition_8x2_abacus"]
    assert labels == ["alpha", "4", "10", "19"]
    # The same experiment with 24 minutes is in results/, too, but is no row.
    assert {run["config"]["full"]["train"]["minutes"] for run in runs} == {3.0}
    name = "paper_addition_8x2_abacus_s0"
    longer = copy.deepcopy(results[name])
    longer["config"]["overrides"]["train.minutes"] = 24.0
    assert "addition_8x2_abacus" not in paper.rows_run(results | {name: longer})


def run_of_paper(trained, larger):
    """A run that has so many of 1,000 examples right."""
    counts = {"id": trained, "ood": larger}
    return {
        "exact_match": {
            region: {"correct": correct, "total": 1000}
            for region, correct in counts.items()
        }
    }


def test_a_figure_of_the_paper_lists_what_was_run_and_what_was_not():
    commands = [
        "addition.py:arch={16x1,8x2},pos=abacus,k=100",
        "addition.py:arch=16x1,inject=layer,pos=abacus,k=100",
    ]
    figure = {"figure": "4", "commands": commands, "paper": "99.1%", "says": ""}
    runs = {
        # The default options may be left out.
        paper_figures.decided("configs/paper/addition.py:arch=16x1"): [
            run_of_paper(12, 0)
        ],
        paper_figures.decided("configs/paper/addition.py:arch=8x2"): [
            run_of_paper(1000, 800),
            run_of_paper(999, 900),
            run_of_paper(999, 850),
        ],
    }
    line = paper_figures.figure_line(figure, runs)
    assert (
        line[3] == "16x1 0.00 [1.20]; 8x2 85.00 (80.00); not run yet: 16x1 inject=layer"
    )
    assert line[1] == " and ".join(f"`{command}`" for command in commands)
    assert line[4] == "-"
    assert paper_figures.figure_line(figure, {})[3] == "not run yet"


def test_a_figure_of_the_paper_tells_subtasks_and_first_answers_apart():
    run = run_of_paper(1000, 500)
    parts = {"parts": {"subtraction": run_of_paper(1000, 250)}}
    assert paper_figures.shares([run | parts]) == "50.00, subtraction 25.00"
    first = {"first_answer": run_of_paper(900, 750)["exact_match"]}
    assert paper_figures.shares([run | first]) == "50.00, first 75.00"


def test_two_devices_are_compared_with_one():
    rate = lambda sums: {
        "measured": {"samples_per_second": sums, "samples_per_step": 4096}
    }
    grid = lambda seconds: {
        "measured": {"grid_seconds_with_compilation": seconds, "sums": 10**6}
    }
    records = {"devices_8x2_1": rate(100.0), "devices_8x2_2": rate(190.0)}
    records |= {"devices_16x1_1": rate(50.0), "devices_16x1_2": rate(100.0)}
    records["devices_grid_8x2_2"] = grid(60.0)
    lines = scaling.devices_table(records, grid(108.0)).splitlines()[2:]
    assert [line.split(" | ")[-1] for line in lines] == ["1.90 |", "2.00 |", "1.80 |"]
