"""Several runs that end in an error on one set of ranks, each rank with its own settings.

    mpirun -n 2 python ranks_that_differ.py FOLDER        # FOLDER/plan.json says what to run

The plan is a list of objects:

    name        name of the run
    settings    for each rank its settings
    paths       for each rank a folder that precedes all others on Python's path, or null
    gpus        for each rank the models of GPUs that TensorFlow seems to have

Each rank writes FOLDER/NAME.RANK.json: the error's exit code, message and reporting rank, and the output until then.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path

import tensorflow as tf  # before MPI, as distrain does

from distrain.cluster.world import find_world
from distrain.config import TrainConfig
from distrain.errors import DistrainError
from distrain.training.run import train


def main(folder: Path) -> None:
    """Run the plan."""
    rank = find_world(os.environ).rank
    for run in json.loads((folder / "plan.json").read_text(encoding="utf-8")):
        said = io.StringIO()
        path = run["paths"][rank]
        sys.path[:0] = [path] if path else []
        if models := run["gpus"][rank]:
            sys.path.append(str(Path(__file__).parents[2] / "harness"))
            from stand_in_gpus import TensorFlowGpus

            TensorFlowGpus(models).install(tf.config, setattr)
        facts = {"code": 0, "message": "", "reporting_rank": None}
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                train(TrainConfig(**run["settings"][rank]))
            except DistrainError as error:
                facts = {"code": error.exit_code, "message": str(error), "reporting_rank": error.reporting_rank}
        del sys.path[: 1 if path else 0]
        (folder / f"{run['name']}.{rank}.json").write_text(json.dumps({**facts, "said": said.getvalue()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
