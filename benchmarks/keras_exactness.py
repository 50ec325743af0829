"""Random models trained by distrain, compared with plain Keras on joined batches.

    python benchmarks/keras_exactness.py                                     # 200 models by one and by three shares
    python benchmarks/keras_exactness.py --ways mpi-3 horovod-2 --seeds 0:30
    python benchmarks/keras_exactness.py --floatx float32 --seeds 200:230

`tests/harness/oracle_runs.py` says which ways exist. A table of all trainings in the folder is printed after each chunk
of models, so a run that is stopped has a result. The models of a chunk share a program; `--folder` keeps the trainings.
The columns are:

- models: models that plain Keras trained, and that this way trained or refused.
- exact: models whose weights and figures are within the bounds.
- weights: largest difference of a weight, relative to the largest weight of the model, over all epochs.
- figures: largest relative difference of a figure of training or validation.
- refused: models that were refused before the first step. Their sentences follow the table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from keras_oracle import Apart

HARNESS = Path(__file__).parents[1] / "tests" / "harness"
WEIGHTS = {"float64": 1e-12, "float32": 1e-5}  # bounds of relative differences
FIGURES = {"float64": 1e-6, "float32": 1e-5}


@dataclass(frozen=True)
class Compared:
    """A model as one way trained it.

    Attributes:
        words: what the model consists of.
        refusal: the sentence of the refusal or of the crash; empty if the model was trained.
        apart: the distance to plain Keras; None if the model was not trained.
    """

    words: str
    refusal: str
    apart: Apart | None


def main() -> None:
    """Train and compare the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:200", help="FIRST:STOP of the models (default: 0:200)")
    parser.add_argument("--ways", nargs="+", default=["single", "shares-3"], help="such as mirrored-2 or horovod-4")
    parser.add_argument("--floatx", choices=WEIGHTS, default="float64", help="floating type of the models")
    parser.add_argument("--chunk", type=int, default=20, help="models that share a program (default: 20)")
    parser.add_argument("--folder", type=Path, help="folder for trainings of this floating type")
    options = parser.parse_args()
    sys.path.insert(0, str(HARNESS))
    from oracle_ways import train_ways

    folder = options.folder or Path(tempfile.mkdtemp(prefix="keras-exactness-"))
    folder.mkdir(parents=True, exist_ok=True)
    first, stop = map(int, options.seeds.split(":"))
    failed = False
    for start in range(first, stop, options.chunk):
        seeds = f"{start}:{min(start + options.chunk, stop)}"
        try:
            train_ways(folder, ["keras", *options.ways], options.floatx, seeds, timeout=3600)
        except AssertionError as error:  # a rank failed: the other models and ways go on
            print(f"From model {start} on: {error}", file=sys.stderr)
            failed = True
        show(folder, options.floatx)
    raise SystemExit(failed)


def show(folder: Path, floatx: str) -> None:
    """Print a table of all trainings in a folder, and each refusal and mismatch."""
    table = Table(title=f"Against plain Keras, {floatx}", title_justify="left")
    for column in ("way", "models", "exact", "weights", "figures", "refused"):
        table.add_column(column, justify="left" if column == "way" else "right")
    lines = []
    for way in sorted({path.name.split(".")[0] for path in folder.glob("*.npz")} - {"keras"}):
        models = dict(compared(folder, way))
        distances = [model.apart for model in models.values() if model.apart]
        largest = [max((getattr(each, name) for each in distances), default=0.0) for name in ("weights", "metrics")]
        exact = sum(is_exact(each, floatx) for each in distances)
        refused = sum(bool(model.refusal) for model in models.values())
        row = [len(models), exact, *(f"{each:.1e}" for each in largest), refused]
        table.add_row(way, *map(str, row))
        for name, model in models.items():
            if model.refusal or (model.apart and not is_exact(model.apart, floatx)):
                lines.append(f"{way}, model {name} ({model.words}): {model.refusal or model.apart}")
    console = Console()
    console.print(table)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def compared(folder: Path, way: str) -> Iterator[tuple[str, Compared]]:
    """Yield each model by name that both plain Keras and this way trained."""
    from keras_oracle import apart
    from oracle_runs import read

    for path in sorted(folder.glob(f"{way}.*.npz")):
        name = path.name.split(".")[1]
        if not (folder / f"keras.{name}.npz").exists():
            continue
        words, right = read(folder, "keras", name)
        _, given = read(folder, way, name)
        if right.refusal:
            yield name, Compared(words, f"plain Keras: {right.refusal}", None)
        else:
            yield name, Compared(words, given.refusal, None if given.refusal else apart(right, given))


def is_exact(distance: Apart, floatx: str) -> bool:
    """Return whether weights and figures are within the bounds."""
    return distance.weights <= WEIGHTS[floatx] and distance.metrics <= FIGURES[floatx]


if __name__ == "__main__":
    main()
