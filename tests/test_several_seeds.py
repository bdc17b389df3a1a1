"""A run of several seeds: its files, and what is left of it when it is cut off."""

import dataclasses
import json
import shutil
import statistics
import time

import numpy as np
import pytest

from arith_jax import results, run
from arith_jax.evaluation import plots
from arith_jax.released import load_trained
from arith_jax.training import checkpoint, fit
from arith_jax.training.workdir import check_workdir, single_runs
from configs import abacus_add
from tests.helpers import assert_trees_equal, experiment_of
from tests.test_launch import CONFIG, launch
from tests.training.test_log import steps_in
from tools import report

# Sums of one digit, learned enough that seeds differ.
CHANGES = {
    "seed": 3,
    "num_seeds": 2,
    "data.max_digits": 1,
    "train.steps": 100,
    "train.checkpoint_minutes": 0.01,
    "eval.grid_samples": 60,
}
FLAGS = [f"--config.{key}={value}" for key, value in CHANGES.items()]
FILES = {"config.json", "metrics.jsonl", "weights.safetensors", "curves.png"}
FILES |= {"result.json", "grid.png", "grid.npz", "digits.png"}


@pytest.fixture(scope="module")
def experiment():
    return experiment_of(abacus_add, "smoke", CHANGES)


def read(path):
    return json.loads(path.read_text())


def cut_training(*args, original=fit.train):
    for progress in original(*args):
        yield progress
        if progress.step == 50:
            time.sleep(0.6)  # The next step is saved.
        if progress.step == 55:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    """A workdir of which every stage was cut off once; seeds evaluated in each."""
    workdir, evaluate = tmp_path_factory.mktemp("run") / "several", run.evaluate
    stages, kept = [], []

    def cut_at(seed):
        def cut_evaluation(single, params):
            if single.seed == seed:
                raise KeyboardInterrupt
            stages[-1].append(single.seed)
            return evaluate(single, params)

        return cut_evaluation

    def broken(*args, **options):
        raise RuntimeError("no picture")

    with pytest.MonkeyPatch.context() as patch:
        for module, name, replacement, error in (
            (fit, "train", cut_training, KeyboardInterrupt),
            (run, "evaluate", cut_at(4), KeyboardInterrupt),
            (run, "evaluate", cut_at(None), RuntimeError),
        ):
            stages.append([])
            with patch.context() as stage:
                stage.setattr(module, name, replacement)
                stage.setattr(plots, "draw_curves", broken)
                with pytest.raises(error):
                    run.run(experiment, workdir)
            saved = (workdir / "checkpoints").iterdir()
            kept.append([int(path.name) for path in saved])
    return workdir, stages, kept


def test_only_what_is_missing_is_done_after_a_cut(finished):
    workdir, stages, kept = finished
    assert stages == [[], [3], [4]]
    for seed in (3, 4):
        assert steps_in(workdir / f"seed_{seed}") == list(range(10, 101, 10))
    assert max(kept[0]) in range(51, 56)
    assert max(kept[1]) == 100


def test_seed_folders_read_like_those_of_single_runs(finished, experiment):
    workdir, *_ = finished
    results.write_curves(experiment, workdir)
    names = {path.name for path in workdir.iterdir()}
    assert names == {
        *("config.json", "checkpoints", "summary.json", "curves.png"),
        *("seed_3", "seed_4"),
    }
    assert read(workdir / "config.json")["num_seeds"] == 2
    stacked, clock, steps = checkpoint.evaluated_weights(experiment, workdir)
    assert (clock.num_seeds, steps) == (2, 100)
    for index, (single, folder) in enumerate(single_runs(experiment, workdir)):
        assert {path.name for path in folder.iterdir()} == FILES
        check_workdir(folder, single.to_dict(), "train_and_eval")
        assert (single.seed, single.num_seeds) == (3 + index, 1)
        trained = load_trained(folder)
        assert trained.experiment.seed == single.seed
        for name, value in trained.params["token"].items():
            np.testing.assert_array_equal(value, stacked["token"][name][index])
        result = read(folder / "result.json")
        assert result["config"]["full"] == single.to_dict()
        assert result["seed"] == single.seed
        assert (result["steps"], result["samples"]) == (100, 1600)
        assert (result["num_params"], result["trained_together"]) == (16224, 2)
        assert result["train_seconds"] == round(clock.train_seconds, 3)
    losses = [
        [json.loads(line)["loss"] for line in path.read_text().splitlines()]
        for path in sorted(workdir.glob("seed_*/metrics.jsonl"))
    ]
    assert all(first != second for first, second in zip(*losses, strict=True))


def test_summary_is_that_of_the_seeds_results(finished):
    workdir, *_ = finished
    summary = read(workdir / "summary.json")
    seeds = [read(workdir / f"seed_{seed}" / "result.json") for seed in (3, 4)]
    assert summary["num_seeds"] == 2
    assert summary["config"]["full"]["num_seeds"] == 2
    for name in ("train_seconds", "compile_seconds"):
        assert summary[name] == seeds[0][name] == seeds[1][name]
    total = sum(result["eval_seconds"] for result in seeds)
    assert summary["eval_seconds"] == pytest.approx(total, abs=2e-3)

    def check(spread, counts):
        shares = [count["correct"] / count["total"] for count in counts]
        assert spread["values"] == shares
        assert (spread["min"], spread["max"]) == (min(shares), max(shares))
        middle = sum(shares) / 2
        assert spread["median"] == spread["mean"] == pytest.approx(middle)
        # t(0.975; one degree of freedom) is 12.706.
        margin = 12.706 * statistics.stdev(shares) / 2**0.5
        expected = max(middle - margin, 0), min(middle + margin, 1)
        assert spread["interval"] == pytest.approx(expected, abs=1e-4)

    assert set(summary["exact_match"]) == {"id", "ood"}
    for name, spread in summary["exact_match"].items():
        check(spread, [result["exact_match"][name] for result in seeds])
    assert len(set(summary["exact_match"]["id"]["values"])) == 2
    diagonal = [
        [cell for cell in result["cells"] if cell["a"] == cell["b"]] for result in seeds
    ]
    assert [cell["a"] for cell in summary["diagonal"]] == [c["a"] for c in diagonal[0]]
    for spread, *cells in zip(summary["diagonal"], *diagonal, strict=True):
        check(spread, cells)


def test_finished_run_shows_its_summary_and_trains_nothing(finished):
    workdir, *_ = finished
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    done = launch(CONFIG, f"--workdir={workdir}", *FLAGS)
    assert done.returncode == 0, done.stderr
    assert "finished; nothing to train" in done.stdout
    assert "abacus_add, seeds 3 to 4" in done.stdout
    assert "95% interval of the mean" in done.stdout
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*")} == before


def test_solver_takes_the_folder_of_one_seed(finished):
    workdir, *_ = finished
    assert len(load_trained(workdir / "seed_4").solve(["1+2", "3+4"])) == 2
    with pytest.raises(ValueError, match=r"several seeds; name .*seed_3 to seed_4"):
        load_trained(workdir)


def test_one_seed_can_be_evaluated_again_by_itself(finished, experiment):
    workdir, *_ = finished
    single, folder = single_runs(experiment, workdir)[1]
    before = read(folder / "result.json")
    result = run.run(single, folder, mode="eval")
    for name in ("cells", "steps", "trained_together", "train_seconds"):
        assert result[name] == before[name]


@pytest.mark.slow
def test_evaluation_with_a_name_has_files_of_its_own(
    finished, experiment, tmp_path, monkeypatch
):
    workdir = shutil.copytree(finished[0], tmp_path / "copy")
    again = dataclasses.replace(experiment.eval, name="again", grid_samples=3)
    experiment = dataclasses.replace(experiment, eval=again)
    seeds, evaluate = [], run.evaluate
    noted = lambda one, params: seeds.append(one.seed) or evaluate(one, params)
    monkeypatch.setattr(run, "evaluate", noted)
    run.run(experiment, workdir, mode="eval")
    summary = run.run(experiment, workdir, mode="eval")
    # A finished evaluation is made again.
    assert seeds == [3, 4, 3, 4]
    assert read(workdir / "summary_again.json") == summary
    for seed in (3, 4):
        folder = workdir / f"seed_{seed}"
        assert read(folder / "result_again.json")["seed"] == seed
        assert (folder / "grid_again.png").exists()
        kept = finished[0] / f"seed_{seed}" / "result.json"
        assert read(folder / "result.json") == read(kept)


def test_results_of_other_weights_or_another_evaluation_are_not_kept(
    finished, experiment
):
    single = single_runs(experiment, finished[0])[0]
    record = read(single.folder / "result.json")
    assert run.saved_result(single, record, 100) == record
    assert run.saved_result(single, record, 99) is None
    record["config"]["full"]["eval"]["grid_samples"] += 1
    assert run.saved_result(single, record, 100) is None


def test_weights_of_a_cut_off_run_are_those_of_an_unbroken_one(
    finished, experiment, tmp_path
):
    assert run.run(experiment, tmp_path, mode="train") is None
    assert not list(tmp_path.rglob("result.json"))
    for seed in (3, 4):
        folders = [folder / f"seed_{seed}" for folder in (finished[0], tmp_path)]
        assert_trees_equal(*(load_trained(folder).params for folder in folders))
        assert (tmp_path / f"seed_{seed}" / "curves.png").exists()
    assert (tmp_path / "curves.png").exists()


def test_curves_are_drawn_over_the_steps_that_all_seeds_have(
    experiment, tmp_path, monkeypatch
):
    drawn = {}
    draw = lambda path, samples, **values: drawn.update(
        {path.parent: values | {"samples": samples}}
    )
    monkeypatch.setattr(plots, "draw_curves", draw)
    for single, folder in single_runs(experiment, tmp_path):
        folder.mkdir()
        lines = [
            {"step": step, "samples": 16 * step, "loss": single.seed, "exact_match": 0}
            for step in (10, 20, 30)[single.seed - 3 :]
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
    results.write_curves(experiment, tmp_path)
    assert drawn[tmp_path]["samples"] == [320, 480]
    assert drawn[tmp_path]["loss"].tolist() == [[3, 3], [4, 4]]
    assert drawn[tmp_path / "seed_3"]["loss"].tolist() == [[3, 3, 3]]
    drawn.clear()
    (tmp_path / "seed_4" / "metrics.jsonl").write_text("")
    results.write_curves(experiment, tmp_path)
    assert list(drawn) == [tmp_path / "seed_3"]


def test_results_are_added_under_the_name_of_the_run(tmp_path, monkeypatch):
    result = {"config": {"full": {"eval": {"name": ""}}}, "seed": 3}
    folder = tmp_path / "abacus_add_gpu" / "seed_3"
    folder.mkdir(parents=True)
    assert report.result_id(folder, result) == "abacus_add_gpu_s3"
    monkeypatch.chdir(folder.parent)
    assert report.result_id(folder.relative_to(folder.parent), result) == (
        "abacus_add_gpu_s3"
    )
    assert report.result_id(folder.parent, result) == "abacus_add_gpu"
