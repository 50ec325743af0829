"""`distrain plan`: its figures against what the model and a walk of the epoch say."""

from __future__ import annotations

import numpy as np
import pytest

from distrain.config import TrainConfig
from distrain.data.batches import epoch_batches
from distrain.data.dataset_index import open_dataset
from distrain.data.dataset_writer import DatasetWriter
from distrain.data.plan import EpochPlan
from distrain.data.prefetch import MAX_PREFETCH_STEPS
from distrain.data.rows import Rows
from distrain.data.shuffle import epoch_order
from distrain.data.sources import part_examples
from distrain.errors import ConfigurationError
from distrain.models.build import text_model
from distrain.planning.run_plan import count_weights, plan_run


def prepared(folder, *, kind="ngram", rows=50, test_rows=9, features=30, classes=3, max_length=20, row_length=4):
    def block(count):
        splits = np.arange(count + 1, dtype=np.int64) * row_length
        columns = np.tile(np.arange(row_length, dtype=np.int32), count)
        values = np.ones(len(columns), np.float32) if kind == "ngram" else None
        return Rows(splits, columns, values, (np.arange(count) % classes).astype(np.int32))

    length = max_length if kind == "sequence" else None
    names = [f"class {number}" for number in range(classes)]
    writer = DatasetWriter(folder, kind=kind, num_features=features, classes=names, max_length=length)
    writer.write("train", [block(rows)])
    writer.write("test", [block(test_rows)])
    writer.finish()
    return open_dataset(folder)


def settings(**others):
    return TrainConfig(data="data", run="run", **others)


@pytest.mark.parametrize(
    ("data", "sizes"),
    [
        ({"kind": "ngram"}, {}),
        ({"kind": "ngram", "classes": 2, "features": 7}, {"units": 5}),
        ({"kind": "ngram", "classes": 14, "features": 100}, {"units": 1}),
        ({"kind": "sequence"}, {}),
        ({"kind": "sequence", "classes": 2, "features": 5}, {"embedding": 3, "filters": 2, "blocks": 1}),
        ({"kind": "sequence", "max_length": 100}, {"embedding": 8, "filters": 4, "blocks": 4}),
        ({"kind": "sequence", "max_length": 2}, {"embedding": 8, "filters": 4, "blocks": 3}),
    ],
)
def test_weights_are_counted_as_keras_counts_them(tmp_path, data, sizes):
    dataset, config = prepared(tmp_path, **data), settings(**sizes)
    shape = {"num_features": dataset.num_features, "num_classes": len(dataset.classes)}
    model = text_model(dataset.kind, **shape, config=config).model
    assert count_weights(dataset, config) == model.count_params()


def test_a_plan_by_hand(tmp_path):
    """50 examples in batches of 4 over 5 replicas: 13 batches, 3 steps; the last one has 4, 4, 2, 0, 0."""
    plan = plan_run(prepared(tmp_path), settings(batch_size=4), num_replicas=5)
    assert (plan.num_batches, plan.num_steps, plan.batch_size) == (13, 3, 4)
    assert plan.last_step_examples == (4, 4, 2, 0, 0)
    assert plan.examples_per_replica == (12, 12, 10, 8, 8)
    assert (plan.num_validation_examples, plan.num_validation_steps) == (9, 1)
    assert plan.num_weights == 31 * 64 + 65 * 3
    assert plan.model_bytes == 16 * plan.num_weights
    assert plan.all_reduce_bytes == 4 * plan.num_weights
    assert plan.warnings == ()


@pytest.mark.parametrize("row_length", [4, 25])
def test_the_bytes_of_a_batch_are_those_of_one_that_is_fed(tmp_path, row_length):
    dataset = prepared(tmp_path, rows=5000, row_length=row_length)
    examples = part_examples(dataset.parts["train"], length=1)
    whole = EpochPlan(5000, 1, 16)
    order = epoch_order(5000, seed=0, epoch=0)
    (batch,) = next(epoch_batches(examples, whole, order, replicas=range(1)))
    entries = batch.features[:3]  # row, column and value of each
    plan = plan_run(dataset, settings(batch_size=16), num_replicas=1)
    expected = sum(array.nbytes for array in entries)
    assert plan.batch_bytes == pytest.approx(expected, rel=0.01)  # files have headers
    ahead = (MAX_PREFETCH_STEPS + 2) * plan.batch_bytes
    one, two = (plan_run(dataset, settings(batch_size=16), num_replicas=n).host_bytes - ahead for n in (1, 2))
    assert one == pytest.approx(2 * two) == pytest.approx(5000 * (8 * row_length + 12), rel=0.01)


@pytest.mark.parametrize(("kind", "width"), [("ngram", 16), ("sequence", 32)])
def test_rows_that_a_batch_touches_by_hand(tmp_path, kind, width):
    """Each row has columns 0 to 3 of 30: 26 rows of weights stay at home, and 30 bytes say so."""
    config = settings(batch_size=4, units=16, embedding=32)
    plan = plan_run(prepared(tmp_path, kind=kind), config, num_replicas=5)
    assert (plan.num_rows, plan.touched_rows) == (30, 4.0)
    assert plan.touched_bytes == plan.all_reduce_bytes + 30 - 26 * width * 4


def test_where_nearly_all_rows_are_touched_all_travel(tmp_path):
    plan = plan_run(prepared(tmp_path, features=5), settings(batch_size=4), num_replicas=5)
    assert plan.touched_bytes == plan.all_reduce_bytes + 5


def test_one_replica_sends_nothing(tmp_path):
    plan = plan_run(prepared(tmp_path), settings(), num_replicas=1)
    assert (plan.all_reduce_bytes, plan.touched_bytes) == (0, 0)


def test_more_replicas_than_batches_is_said(tmp_path):
    plan = plan_run(prepared(tmp_path), settings(batch_size=20), num_replicas=5)
    assert len(plan.warnings) == 1
    assert "3 batches of 20: 2 of 5 replicas have nothing to do" in plan.warnings[0]


def test_more_replicas_than_the_default_global_batch(tmp_path):
    """What train refuses is planned with a batch that it takes, and that is said."""
    plan = plan_run(prepared(tmp_path, rows=150_000), settings(), num_replicas=1024)
    assert (plan.batch_size, plan.num_steps) == (128, 2)
    assert "plan for --batch-size 128" in plan.warnings[0]


def test_more_replicas_than_a_global_batch(tmp_path):
    with pytest.raises(ConfigurationError, match="--global-batch-size is 4"):
        plan_run(prepared(tmp_path), settings(global_batch_size=4), num_replicas=5)
