"""Copies the evaluated weights of a finished run into `checkpoints/`.

python tools/release.py RUN [RUN...]    -> checkpoints/<name>/ of each run's config
"""

import argparse
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from arith_jax import checkpoint, runlog
from arith_jax.experiment import Experiment
from tools import report


def release(workdir: pathlib.Path, root: pathlib.Path = ROOT) -> pathlib.Path:
    """Writes config, weights and result of a run into its folder of `checkpoints/`.

    Raises:
        ValueError: If the run is not finished or was made with uncommitted changes.
    """
    result = report.stripped(workdir)
    config = json.loads((workdir / "config.json").read_text())
    experiment = Experiment.from_dict(config)
    weights, clock, steps = checkpoint.evaluated_weights(experiment, workdir)
    folder = root / "checkpoints" / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_released(folder / checkpoint.RELEASED, weights, clock, steps)
    runlog.write_json(folder / "config.json", config)
    runlog.write_json(folder / "result.json", result)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    for run in parser.parse_args().runs:
        print(release(run))
