"""Ranks that differ stop before the first step, with one message that names the rank and the field."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from launching import environment, launcher_command, needs_horovod, needs_mpi, run_ranks
from preloaded import preloaded_python

from distrain.data.prepared.dataset_index import open_dataset

pytestmark = [pytest.mark.timeout(600), needs_mpi]

PROGRAM = Path(__file__).parent / "programs" / "ranks_that_differ.py"


@pytest.fixture(scope="module")
def folder(text, tmp_path_factory):
    """Folder in which two ranks wrote how each run ended."""
    folder = tmp_path_factory.mktemp("differ")
    other_keras = folder / "other" / "keras-99.0.dist-info"
    other_keras.mkdir(parents=True)
    (other_keras / "METADATA").write_text("Metadata-Version: 2.1\nName: keras\nVersion: 99.0\n")
    alike = {"strategy": "mpi", "epochs": 3, "data": str(text["ngram"])}

    def alike_but(name, *, paths=(None, None), **more):
        own = [{**alike, "run": str(folder / "runs" / f"{name}.{rank}")} for rank in (0, 1)]
        return {"name": name, "settings": [own[0], {**own[1], **more}], "paths": paths, "gpus": [[], []]}

    def of_function(name, *bodies):
        """Each rank has a module of its own whose function returns the data."""
        paths = []
        for rank, body in enumerate(bodies):
            path = folder / f"{name}.{rank}"
            path.mkdir()
            (path / f"{name}_rows.py").write_text(f"def data():\n    {body}\n")
            paths.append(str(path))
        function = {"data": f"{name}_rows:data", "model": f"{name}_rows:data"}
        run = alike_but(name, paths=paths)
        return {**run, "settings": [{**settings, **function} for settings in run["settings"]]}

    plan = [
        alike_but("seed", seed=1),
        alike_but("epochs", epochs=4),
        alike_but("dropout", dropout=0.25),
        alike_but("data", data=str(text["other"])),
        alike_but("version", paths=(None, str(other_keras.parent))),
        alike_but("missing", data=str(folder / "nowhere")),
        of_function("function", "return [([1.0], 0), ([2.0], 1)]", "return [([1.0], 0), ([3.0], 1)]"),
        of_function("failing", "return [([1.0], 0)]", "raise ValueError('no such shelf')"),
    ]
    (folder / "plan.json").write_text(json.dumps(plan))
    done = run_ranks("mpirun", 2, [*preloaded_python(), str(PROGRAM), str(folder)])
    assert done.returncode == 0, done.stderr
    return folder


def ends(folder, name):
    return [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in (0, 1)]


def test_nothing_is_written(folder):
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("name", ["seed", "epochs", "dropout", "version", "data"])
def test_all_ranks_end_with_one_message_that_names_rank_and_field(name, folder, text):
    digests = [open_dataset(text[key]).digest[:64] for key in ("ngram", "other")]
    field, here, there = {
        "seed": ("seed", "0", "1"),
        "epochs": ("epochs", "3", "4"),
        "dropout": ("dropout", "None", "0.25"),
        "version": ("keras's version", version("keras"), "99.0"),
        "data": ("the data", *digests),
    }[name]
    for end in ends(folder, name):
        assert (end["code"], end["reporting_rank"], end["said"]) == (5, 0, "")
        message = f"rank 1 differs from rank 0 in {field}: {there} there, {here} on rank 0. Give all ranks the same"
        assert end["message"].startswith(message)


def test_a_function_that_returns_other_data_on_a_rank_is_refused(folder):
    for end in ends(folder, "function"):
        assert (end["code"], end["reporting_rank"], end["said"]) == (5, 0, "")
        assert end["message"].startswith("rank 1 differs from rank 0 in the data: ")


def test_a_function_that_fails_on_one_rank_ends_all_with_its_message(folder):
    for end in ends(folder, "failing"):
        assert (end["code"], end["reporting_rank"], end["said"]) == (2, 1, "")
        assert "--data failing_rows:data fails: ValueError: no such shelf" in end["message"]


def test_a_folder_that_one_rank_lacks_ends_all_with_its_message(folder):
    for end in ends(folder, "missing"):
        assert (end["code"], end["reporting_rank"], end["said"]) == (3, 1, "")
        assert str(folder / "nowhere") in end["message"]


@pytest.mark.parametrize("strategy", ["mpi", pytest.param("horovod", marks=needs_horovod)])
def test_a_gpu_on_one_rank_alone_is_refused_before_the_first_sum(strategy, text, tmp_path):
    settings = {"strategy": strategy, "data": str(text["ngram"]), "run": str(tmp_path / "run")}
    run = {"name": strategy, "settings": [settings] * 2, "paths": [None] * 2, "gpus": [[], ["NVIDIA H200"] * 2]}
    (tmp_path / "plan.json").write_text(json.dumps([run]))
    done = run_ranks("mpirun", 2, [*preloaded_python(), str(PROGRAM), str(tmp_path)])
    assert done.returncode == 0, done.stderr
    for end in ends(tmp_path, strategy):
        assert (end["code"], end["reporting_rank"], end["said"]) == (2, 0, "")
        assert end["message"].startswith(f"Rank 1 on {socket.gethostname()} has a GPU (NVIDIA H200), but rank 0 on ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("difference", "code", "message"),
    [
        ({"--seed": "1"}, 5, "rank 0: rank 1 differs from rank 0 in seed: 1 there, 0 on rank 0."),
        ({"--data": "nowhere"}, 3, "rank 1: nowhere"),
    ],
)
def test_the_command_says_it_once_and_the_launcher_returns_the_code(difference, code, message, text, tmp_path):
    options = {"--data": str(text["ngram"]), "--run": "run", "--strategy": "mpi"}
    first, second = (
        [*preloaded_python(), "-m", "distrain", "train", *itertools.chain(*of_rank.items())]
        for of_rank in (options, options | difference)
    )
    command = [*launcher_command("mpirun", 1), *first, ":", "-n", "1", *second]
    done = subprocess.run(
        command,
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == code
    (line,) = [line for line in done.stderr.splitlines() if "distrain: " in line]
    assert line.startswith(f"distrain: error: {message}")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
