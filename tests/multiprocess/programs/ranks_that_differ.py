"""Several runs one after the other on one set of ranks that end in an error, each rank with settings of its own.

    mpirun -n 2 python ranks_commands.py FOLDER           # FOLDER/plan.json says what

The plan is a list of objects: `name`; `settings`, of the run for each rank; and `paths`, for each rank a folder that
goes before all others where Python looks for packages, or null. Each rank writes FOLDER/NAME.RANK.json: the error's
exit code and message, the rank that tells of it, and what was said on standard output and standard error before.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path

import tensorflow  # noqa: F401 - before MPI, as distrain does

from distrain.cluster.world import find_world
from distrain.config import TrainConfig
from distrain.errors import DistrainError
from distrain.training.run import train


def main(folder: Path) -> None:
    """Do what the plan says."""
    rank = find_world(os.environ).rank
    for run in json.loads((folder / "plan.json").read_text(encoding="utf-8")):
        said = io.StringIO()
        path = run["paths"][rank]
        sys.path[:0] = [path] if path else []
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
