"""`distrain plan` against the weights that Keras counts, and against a walk of the loader."""

from __future__ import annotations

import numpy as np
import pytest

from distrain.config import PlanConfig, TrainConfig
from distrain.data.batches import epoch_batches
from distrain.data.plan import EpochPlan, examples_per_replica
from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.prepared.dataset_writer import DatasetWriter
from distrain.data.prepared.rows import Rows
from distrain.data.shuffle import epoch_order
from distrain.data.sources import part_examples
from distrain.errors import ConfigurationError
from distrain.models.build import text_model
from distrain.models.weight_count import count_weights
from distrain.planning.outlook import outlook
from distrain.planning.run_plan import plan_run
from distrain.planning.scale_out import MeasuredStep
from distrain.planning.traffic import ring_seconds


def prepared(folder, *, kind="ngram", rows=50, test_rows=9, features=30, classes=3, max_length=20, row_length=4):
    def rows_of(count):
        splits = np.arange(count + 1, dtype=np.int64) * row_length
        columns = np.tile(np.arange(row_length, dtype=np.int32), count)
        values = np.ones(len(columns), np.float32) if kind == "ngram" else None
        return Rows(splits, columns, values, (np.arange(count) % classes).astype(np.int32))

    length = max_length if kind == "sequence" else None
    names = [f"class {number}" for number in range(classes)]
    writer = DatasetWriter(folder, kind=kind, num_features=features, classes=names, max_length=length)
    writer.write("train", [rows_of(rows)])
    writer.write("test", [rows_of(test_rows)])
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
    model = text_model(dataset.kind, **shape, config=config)
    assert count_weights(dataset.kind, **shape, config=config) == model.count_params()


def test_a_plan_by_hand(tmp_path):
    """50 examples in batches of 4 over 5 replicas: 13 batches, 3 steps; the last step has 4, 4, 2, 0, 0."""
    plan = plan_run(prepared(tmp_path), settings(batch_size=4), num_replicas=5)
    epoch, validation = plan.batches.epoch, plan.batches.validation
    assert (epoch.num_batches, epoch.num_steps, epoch.batch_size) == (13, 3, 4)
    assert plan.batches.last_step_examples == (4, 4, 2, 0, 0)
    assert tuple(examples_per_replica(epoch)) == (12, 12, 10, 8, 8)
    assert (validation.num_examples, validation.num_steps) == (9, 1)
    assert plan.num_weights == 31 * 64 + 65 * 3
    assert plan.model_bytes == 16 * plan.num_weights
    assert plan.all_reduce_bytes == 4 * plan.num_weights
    assert plan.batches.warnings == ()


@pytest.mark.parametrize(("num_replicas", "batch_size"), [(1, 50), (2, 7), (3, 16), (5, 4), (9, 8)])
def test_steps_and_examples_are_a_walks_of_the_loader(tmp_path, num_replicas, batch_size):
    dataset = prepared(tmp_path)
    plan = plan_run(dataset, settings(batch_size=batch_size), num_replicas=num_replicas).batches
    examples, order = part_examples(dataset.parts["train"], length=1), epoch_order(50, seed=0, epoch=0)
    walked = []
    for replica in range(num_replicas):
        loader = epoch_batches(
            examples, EpochPlan(50, num_replicas, batch_size), order, replicas=range(replica, replica + 1)
        )
        walked.append([int(batch.num_rows) for (batch,) in loader])
    assert {len(steps) for steps in walked} == {plan.epoch.num_steps}
    assert plan.epoch.num_batches == sum(count > 0 for steps in walked for count in steps)
    assert tuple(examples_per_replica(plan.epoch)) == tuple(map(sum, walked))
    assert plan.last_step_examples == tuple(steps[-1] for steps in walked)


@pytest.mark.parametrize("row_length", [4, 25])
def test_bytes_of_a_batch_and_of_a_window_are_those_of_the_loaders_arrays(tmp_path, row_length):
    dataset = prepared(tmp_path, rows=5000, row_length=row_length)
    examples = part_examples(dataset.parts["train"], length=1)
    whole = EpochPlan(5000, 1, 16)
    order = epoch_order(5000, seed=0, epoch=0)
    (batch,) = next(epoch_batches(examples, whole, order, replicas=range(1)))
    one, two = (plan_run(dataset, settings(batch_size=16), num_replicas=n).batches for n in (1, 2))
    batch_bytes = sum(array.nbytes for array in batch.features[:3])  # row ids, columns and values
    assert one.batch_bytes == pytest.approx(batch_bytes, rel=0.01)  # file headers count as entries
    window = dataset.parts["train"].gather(np.array([[0, 5000]]), np.arange(5000))
    window_bytes = sum(array.nbytes for array in window if array is not None)
    # One of two replicas loads half of the window's rows, and prefetches as many batches.
    assert one.host_bytes - two.host_bytes == pytest.approx(window_bytes / 2, rel=0.01)


@pytest.mark.parametrize(("kind", "width"), [("ngram", 16), ("sequence", 32)])
def test_rows_that_a_batch_touches_by_hand(tmp_path, kind, width):
    """Each row has columns 0 to 3 of 30, so 26 rows of weights are not sent; a mask of 30 bytes marks the rows."""
    config = settings(batch_size=4, units=16, embedding=32)
    plan = plan_run(prepared(tmp_path, kind=kind), config, num_replicas=5)
    assert (plan.num_rows, plan.touched_rows) == (30, 4.0)
    assert plan.touched_bytes == plan.all_reduce_bytes + 30 - 26 * width * 4


def test_all_rows_are_sent_when_nearly_all_are_touched(tmp_path):
    plan = plan_run(prepared(tmp_path, features=5), settings(batch_size=4), num_replicas=5)
    assert plan.touched_bytes == plan.all_reduce_bytes + 5


def test_more_gpus_are_predicted_with_whole_gradients(tmp_path):
    """Only between CPUs touched rows travel alone."""
    dataset, config = prepared(tmp_path), settings(batch_size=4)
    asked = PlanConfig(replicas=4, step_ms=1.0, bandwidth_gbs=0.001)
    plan = plan_run(dataset, config, num_replicas=4)
    steps = outlook(plan, config, asked, MeasuredStep(0.001, 4, 0.0))
    assert [step.num_replicas for step in steps] == [1, 2, 4]
    whole = ring_seconds(plan.all_reduce_bytes, num_replicas=4, bytes_per_second=1e6)
    assert steps[-1].exposed_seconds == pytest.approx(whole)
    assert plan.touched_bytes < plan.all_reduce_bytes


def test_one_replica_sends_nothing(tmp_path):
    plan = plan_run(prepared(tmp_path), settings(), num_replicas=1)
    assert (plan.all_reduce_bytes, plan.touched_bytes) == (0, 0)


def test_more_replicas_than_batches_give_a_warning(tmp_path):
    plan = plan_run(prepared(tmp_path), settings(batch_size=20), num_replicas=5).batches
    assert len(plan.warnings) == 1
    assert "3 batches of 20: 2 of 5 replicas have nothing to do" in plan.warnings[0]


def test_more_replicas_than_the_default_global_batch(tmp_path):
    """The plan uses a batch size that `distrain train` accepts, and warns."""
    plan = plan_run(prepared(tmp_path, rows=150_000), settings(), num_replicas=1024).batches
    assert (plan.epoch.batch_size, plan.epoch.num_steps) == (128, 2)
    assert "plan for --batch-size 128" in plan.warnings[0]


def test_more_replicas_than_a_global_batch(tmp_path):
    with pytest.raises(ConfigurationError, match="--global-batch-size is 4"):
        plan_run(prepared(tmp_path), settings(global_batch_size=4), num_replicas=5)
