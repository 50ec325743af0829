"""Each shipped step as it would run on a GPU: every operation has a kernel, and the host waits for no tensor.

These tests need TensorFlow's build for GPUs, but no GPU: launch/test.sh --gpu-build.
"""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType, SimpleNamespace

import pytest
import tensorflow as tf
from gpu_placement import placement_of
from prepared_data import Result, rows, write_csv

from distrain.cluster.process_group import SingleProcess
from distrain.config import TrainConfig
from distrain.data.batches import sample_batch
from distrain.distribution.multi_process import MultiProcess
from distrain.distribution.single import SingleDevice
from distrain.models.optimizers import default_optimizer
from distrain.training.jobs.job import open_job
from distrain.training.steps.step import make_train_steps
from distrain.training.steps.task import batch_specs, make_task

pytestmark = pytest.mark.skipif(
    not tf.sysconfig.get_build_info().get("is_cuda_build"), reason="needs TensorFlow's build for GPUs"
)

# Operations on the device, and operations on the host that read their result in mid-step.
EXCUSED = {
    ("BitwiseAnd", "Less"),  # Keras' argmax, in its accuracies, looks at the sign of zeros in int32
}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Prepared text by kind."""
    folder = tmp_path_factory.mktemp("text")
    train = write_csv(folder / "train.csv", rows(200))
    for kind in ("ngram", "sequence"):
        Result(train=train, out=folder / kind, vectorizer=kind)
    return folder


@pytest.fixture
def horovod(monkeypatch):
    """Horovod's module with reductions that return their argument: the kernels of Horovod are its own."""
    own, tensorflow = ModuleType("horovod"), ModuleType("horovod.tensorflow")
    own.__version__ = "0"
    tensorflow.Sum = 1
    tensorflow.allreduce = lambda tensor, op, name: tf.identity(tensor)
    tensorflow.allgather = lambda tensor, name: tf.identity(tensor)
    own.tensorflow = tensorflow
    monkeypatch.setitem(sys.modules, "horovod", own)
    monkeypatch.setitem(sys.modules, "horovod.tensorflow", tensorflow)
    from distrain.distribution.collectives import horovod as collectives

    return SimpleNamespace(**{**vars(collectives), "on_device": lambda: collectives})


def placement_of_step(kind, datasets, monkeypatch, distribution, at_once):
    """Compile the training step of a shipped model with the branches for a GPU, and look at its graph."""
    distribution.runs_ahead = True
    distribution.batch_devices = ["GPU:0"]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a GPU"] if kind == "GPU" else [])
    compiled = []
    concrete_of = type(tf.function(lambda: None)).get_concrete_function

    def noting(function, *args, **kwargs):
        compiled.append(concrete_of(function, *args, **kwargs))
        return compiled[-1]

    config = TrainConfig(data=datasets / kind, run=datasets / "run")
    job = open_job(config)
    sample = sample_batch(job.train)
    build = partial(job.build, choose_optimizer=default_optimizer)
    task = make_task(build, sample, scope=distribution.scope(), num_columns=job.train.num_columns)
    monkeypatch.setattr(type(tf.function(lambda: None)), "get_concrete_function", noting)
    make_train_steps(task, distribution, batch_specs(sample), steps_per_execution=at_once)
    return placement_of(compiled[0])


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
@pytest.mark.parametrize(("way", "at_once"), [("single", 1), ("horovod", 1), ("single", 4), ("horovod", 4)])
def test_each_operation_has_a_kernel_and_no_tensor_crosses_to_the_host(
    kind, way, at_once, datasets, monkeypatch, request
):
    if way == "single":
        distribution = SingleDevice()
    else:
        distribution = MultiProcess(request.getfixturevalue("horovod"), SingleProcess())
    placement = placement_of_step(kind, datasets, monkeypatch, distribution, at_once)
    assert placement.num_nodes > 200
    assert placement.without_kernel == []
    assert [edge for edge in placement.to_host if edge[:2] not in EXCUSED] == []
