"""Sweeps as a user types them, and their tables."""

import json

import pytest

import launch as launch_module
from tests.test_launch import launch
from tools import report

SMOKE = "configs/abacus_add.py:smoke"
RUN = f"[[runs]]\nconfig = '{SMOKE}'\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep=x.toml", "--config=y.py"], "--config with --sweep: the file names"),
        (
            ["--sweep=x.toml", "--config.seed=1"],
            "--config with --sweep: the file names",
        ),
        (["--sweep=x.toml", "--mode=eval"], "--mode with --sweep: a sweep trains and"),
        (["--index=1", f"--config={SMOKE}"], "--index is about a sweep; add --sweep="),
        (["--list", f"--config={SMOKE}"], "--list is about a sweep; add --sweep=FILE"),
        (["--sweep=x.toml", "--list", "--index=1"], "--list with --index: one shows"),
        (["--sweep=none.toml"], "No such file or directory: 'none.toml'"),
        (["--sweep=sweeps/paper/figure_05.toml", "--index=1"], "allowed: 0 to 0"),
        (
            ["--sweep=sweeps/paper/figure_05.toml", "stray"],
            "unexpected argument 'stray'",
        ),
    ],
)
def test_flags_that_do_not_go_together_are_refused(arguments, message, in_root):
    with pytest.raises((ValueError, OSError)) as caught:
        launch_module.main(arguments)
    assert message in str(caught.value)


@pytest.mark.slow
def test_a_real_sweep_from_list_to_report(tmp_path, write, capsys):
    path = write(
        f"""
        workdir = "{tmp_path}/runs"
        [overrides]
        train.steps = 10
        eval = {{grid_digits = 4, diagonal = [], set_samples = 0}}
        [[runs]]
        config = "{SMOKE}"
        seeds = [0, 1]
        [[runs]]
        config = "{SMOKE}"
        overrides.model.width = 31
        """
    )
    one = launch(f"--sweep={path}", "--index=1")
    assert one.returncode == 0, one.stderr
    rest = launch(f"--sweep={path}")
    assert rest.returncode == 1, rest.stderr
    assert "3 entries, 1 finished before; 1 at a time" in rest.stdout
    assert "finished 0 abacus_add_s0 after" in rest.stdout
    assert "failed 2 abacus_add_width_31_s0 after" in rest.stdout
    assert "exit code 2: error: model.width=31 is not a multiple" in rest.stdout
    launch_module.main([f"--sweep={path}", "--list"])
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert rows[1:3] == [[str(i), "finished", f"abacus_add_s{i}"] for i in (0, 1)]
    assert rows[3] == ["2", "-", "abacus_add_width_31_s0"]
    again = launch(f"--sweep={path}", "--index=1")
    assert again.returncode == 0, again.stderr
    assert "is finished; nothing to train" in again.stdout
    report.main([f"--sweep={path}"])
    *_, line, failed = capsys.readouterr().out.splitlines()
    assert line.startswith("| `abacus_add` | 2 of 2 |")
    assert line.endswith("| 160 |")
    assert failed == "| `abacus_add_width_31` | 0 of 1 | - | - | - | - |"


def test_results_of_a_sweep_are_copied_under_their_names(
    tmp_path, write, monkeypatch, capsys
):
    run = {"dirty": False, "seed": 1, "train_seconds": 2.0, "samples": 30}
    run |= {"cells": [], "sets": {}}
    run["exact_match"] = {"id": {"correct": 1, "total": 2}}
    text = (
        f"workdir = '{tmp_path}/runs'\noverrides.train.steps = 5\n{RUN}seeds = [1, 2]"
    )
    path = write(text)
    for seed, steps in ((1, 5), (2, 6)):
        workdir = tmp_path / "runs" / f"abacus_add_s{seed}"
        workdir.mkdir(parents=True)
        full = {"eval": {"name": ""}}
        config = {"overrides": {"train.steps": steps, "seed": seed}, "full": full}
        (workdir / "result.json").write_text(json.dumps(run | {"config": config}))
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.main(["--add", f"--sweep={path}"])
    # The second was made with other overrides.
    assert [p.name for p in tmp_path.glob("*.json")] == ["abacus_add_s1.json"]
    (tmp_path / "runs" / "abacus_add_s1" / "result.json").unlink()
    report.main([f"--sweep={path}"])
    header, _, line = capsys.readouterr().out.splitlines()
    assert header == "| experiment | seeds | id, % | training, s | samples |"
    assert line == "| `abacus_add` | 1 of 2 | 50.00 | 2.0 | 30 |"
