"""`--data module:function`: what a function may return, and the sentence for everything else."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from distrain.cluster.process_group import SingleProcess
from distrain.config import TrainConfig
from distrain.data.array_folders.cache import prepare_arrays
from distrain.data.workers.pool import WorkerPool
from distrain.errors import ConfigurationError, DataError
from distrain.training.jobs.given_data import given_examples
from distrain.training.jobs.job import open_job
from distrain.training.jobs.named_data import load_named_data, names_function
from distrain.training.replay import _config as replay_settings
from distrain.training.run import _data_workers

MODULE = """
import numpy as np
from distrain.errors import DataError

ROWS = [([float(row), 0.5], row % 2) for row in range(11)]

def jittered(example, rng):
    return [example[0][0] + rng.random(), 0.5], example[1]

def whole():
    return {"train": ROWS, "validation": ROWS[:3], "test": ROWS[:2], "map": jittered, "validation_map": lambda e: e}

bare = lambda: ROWS
arrays = lambda: (np.zeros((3, 2)), np.arange(3))
nothing = lambda: None
keys = lambda: {"train": ROWS, "x": 1, "y": 2}
empty = lambda: {}
number = lambda: {"train": 3}
no_train = lambda: {"test": ROWS}
no_map = lambda: {"train": ROWS, "map": 3}
random_map = lambda: {"train": ROWS, "validation": ROWS, "map": jittered}
takes_path = lambda path: ROWS
with_default = lambda path="rows": ROWS
wings = 3

def generator():
    yield ROWS[0]

def fails():
    raise KeyError("the shelf\\nis empty")

def leaves():
    raise SystemExit(3)

def no_file():
    raise DataError("rows.csv is not there.")
"""


@pytest.fixture(autouse=True)
def shop(tmp_path, monkeypatch):
    """The modules of a user in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("shop.py").write_text(MODULE)
    Path("broken.py").write_text("import shop\nshelf = 1 +\n")
    Path("failing.py").write_text("import shop\nshop.wings.flap()\n")
    Path("needy.py").write_text("import no_such_library\n")
    yield
    for name in ("shop", "broken", "failing", "needy"):
        sys.modules.pop(name, None)


def features(examples, epoch=0):
    spans = np.array([[0, examples.num_examples]])
    return examples.load(spans, np.arange(examples.num_examples), epoch=epoch)(0, examples.num_examples)[0]


def test_each_part_is_changed_by_its_own_map():
    data = load_named_data("shop:whole")
    train = data.examples("train", seed=4, augments=True)
    assert train.num_examples == 11
    assert not np.array_equal(features(train), features(train, epoch=1))
    assert not np.array_equal(features(train), features(data.examples("train", seed=5, augments=True)))
    for part, count in {"train": 11, "validation": 3, "test": 2}.items():
        assert features(data.examples(part, seed=4)).tolist() == [[float(row), 0.5] for row in range(count)]


def test_the_digest_is_that_of_the_same_data_in_fit():
    data = load_named_data("shop:bare").examples("train", seed=0, augments=True)
    assert data.digest == given_examples(sys.modules["shop"].ROWS, "train").digest
    assert load_named_data("shop:with_default").examples("train", seed=0).digest == data.digest
    assert load_named_data("shop:arrays").examples("train", seed=0).num_examples == 3


def test_a_job_holds_the_digests_of_both_parts_and_the_weights_of_classes():
    config = TrainConfig(data="shop:whole", run="run", model="shop:bare", class_weight="1=3")
    job = open_job(config)
    data = load_named_data("shop:whole")
    assert job.data_digest == data.examples("train", seed=0, augments=True).digest
    validation = data.examples("validation", seed=0).digest
    assert job.metadata == {"validation_digest": validation, "class_weights": {"1": 3.0}}
    _, labels, weights = job.train.load(np.array([[0, 11]]), np.arange(11))(0, 11)
    assert weights.tolist() == [3.0 if label else 1.0 for label in labels]
    assert job.validation.num_examples == 3
    bare = open_job(TrainConfig(data="shop:bare", run="run", model="shop:bare"))
    assert (bare.validation, bare.metadata) == (None, {"validation_digest": None})
    with pytest.raises(ConfigurationError, match=r"shop:whole returns data .* name your model, --model"):
        open_job(TrainConfig(data="shop:whole", run="run"))


def test_workers_that_have_nothing_to_read_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(WorkerPool, "start", lambda pool: None)
    np.save(tmp_path / "train.x.npy", np.zeros((3, 2), "f4"))
    for data, is_told in (("shop:whole", False), (tmp_path, True)):
        config = TrainConfig(data=data, run="run", model="shop:bare", data_workers=2)
        with _data_workers(SimpleNamespace(group=SingleProcess()), config, open_job(config)):
            assert ["--data-workers has no effect" in message for message in caplog.messages] == [True] * is_told


def test_another_example_in_the_middle_of_recorded_arrays_is_other_data(tmp_path):
    def digest_with(value):
        rows = [(np.full(2**15, value if number == 22 else number, np.float32), 0) for number in range(41)]
        prepare_arrays(tmp_path / "data", {"train": rows}, None, lambda *told: None)
        return open_job(TrainConfig(data=tmp_path / "data", run="run", model="shop:bare")).data_digest

    assert digest_with(22) == digest_with(22) != digest_with(7)


def test_a_folder_wins_over_a_function_of_its_name(tmp_path):
    assert names_function(Path("shop:whole"))
    assert not names_function(Path("shop"))
    assert not names_function(tmp_path / "shop:whole")
    (tmp_path / "shop:whole").mkdir()
    assert not names_function(Path("shop:whole"))


@pytest.mark.parametrize("name", ["shop:", ":whole", "shop:whole:x", "shop.:whole", "1shop:whole", "shop:who le"])
def test_a_name_that_is_neither_a_folder_nor_a_function_is_refused(name):
    with pytest.raises(ConfigurationError, match=r"a folder that is there, or package\.module:function"):
        names_function(Path(name))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stall:whole", r"--data stall:whole cannot be found: No module named 'stall'\. .*in the folder that holds"),
        ("shop.py:whole", r"Name the module without \.py: shop:function"),
        ("needy:whole", "No module named 'no_such_library'"),
        ("broken:whole", r"fails while it is imported: SyntaxError: .*broken\.py, line 2"),
        ("failing:whole", r"fails while it is imported: AttributeError: .*failing\.py, line 2"),
        ("shop:wheel", "shop has no 'wheel'"),
        ("shop:wings", "shop:wings is not a function"),
        ("shop:takes_path", "takes arguments, but it is called with none"),
        ("shop:fails", r"--data shop:fails fails: KeyError: 'the shelf.*shop\.py, line \d+"),
        ("shop:leaves", "fails: SystemExit: 3"),
        ("shop:nothing", "returned None: return training data, or a dict with the keys train, .* give a tuple"),
        ("shop:keys", "a dict with 'x', 'y'; return a dict with the keys train, validation, test, map and"),
        ("shop:empty", "returned no 'train' part: it has no part at all"),
        ("shop:no_train", "returned no 'train' part: it has test"),
        ("shop:number", "train of shop:number is of type int: give a tuple"),
        ("shop:no_map", "map is 3; give a function"),
        ("shop:random_map", "map draws random numbers, .* give validation_map"),
        ("shop:generator", "train of shop:generator is of type generator"),
    ],
)
def test_a_bad_function_is_a_sentence(name, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        open_job(TrainConfig(data=name, run="run", model="shop:bare"))
    assert "\n" not in str(caught.value)


def test_the_function_that_a_run_names_is_called_in_a_trusted_run_alone(tmp_path):
    settings = {"data": "failing:whole", "run": "run", "strategy": "single", "num_replicas": 1}
    settings |= {"replica_batch_size": 4, "text": {"kind": "ngram"}}
    words = r"was trained with --data failing:whole\. If you trust .* imports and calls failing:whole\."
    with pytest.raises(ConfigurationError, match=words):
        replay_settings(tmp_path, settings, None, trust=False)
    assert replay_settings(tmp_path, settings, None, trust=True).data == Path("failing:whole")
    assert replay_settings(tmp_path, settings, Path("shop:whole"), trust=False).data == Path("shop:whole")
    with pytest.raises(ConfigurationError, match=r"with --data failing:whole --model m:f\. .* failing:whole and m:f\."):
        replay_settings(tmp_path, {**settings, "model": "m:f"}, None, trust=False)
    with pytest.raises(ConfigurationError, match=r"with --model m:f\. "):
        replay_settings(tmp_path, {**settings, "model": "m:f"}, Path("shop:whole"), trust=False)


def test_an_error_of_the_data_keeps_its_exit_code():
    with pytest.raises(DataError, match=r"^rows.csv is not there\.$"):
        load_named_data("shop:no_file")
