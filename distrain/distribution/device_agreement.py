"""Ranks compare their devices before they train.

Decides: which devices may train together, and what the error says if they may not. Never: pins a device.

    own = own_device_or_error(os.environ, world, None)     # before the ranks connect
    models = agree_on_devices(group, own)                  # ["NVIDIA H200", "NVIDIA H200"]

A GPU rank sums its gradients on the GPU, a CPU rank on the host. The two would wait for each other for ever.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Mapping, Sequence

from distrain.cluster.error_relay import run_on_all_ranks
from distrain.cluster.placement import grouped
from distrain.cluster.process_group import ProcessGroup
from distrain.cluster.world import World
from distrain.distribution.devices import CPU, own_device
from distrain.errors import ConfigurationError

_LOG = logging.getLogger(__name__)


def own_device_or_error(environ: Mapping[str, str], world: World, wanted: str | None) -> str | ConfigurationError:
    """Return what `own_device` returns or raises, so that the other ranks hear of an error once all have connected."""
    try:
        return own_device(environ, world, wanted)
    except ConfigurationError as error:
        return error


def agree_on_devices(group: ProcessGroup, own: str | ConfigurationError) -> list[str]:
    """Return the model of each rank's device, such as "NVIDIA H200" or "CPU"; all ranks must call this.

    Different models of GPUs train together: the sums and the weights are the same on all ranks. The chief warns,
    because each step takes as long as the slowest GPU.

    Raises:
        ConfigurationError: some rank has no usable device, or some ranks have a GPU and others have none.
    """

    def own_model() -> str:
        if isinstance(own, ConfigurationError):
            raise own
        return own

    model = run_on_all_ranks(group, own_model)
    host = os.environ.get("HOROVOD_HOSTNAME") or socket.gethostname()
    gathered = [json.loads(content) for content in group.all_gather_bytes(json.dumps([host, model]).encode())]
    hosts, models = [host for host, _ in gathered], [str(model) for _, model in gathered]
    _refuse_mixture(hosts, models)
    if len(set(models)) > 1 and group.is_chief:
        _LOG.warning(
            f"The ranks train on different GPUs ({grouped(models)}): each step takes as long as on the slowest. The "
            "model is the same."
        )
    return models


def _refuse_mixture(hosts: Sequence[str], models: Sequence[str]) -> None:
    is_gpu = [model != CPU for model in models]
    if len(set(is_gpu)) == 1:
        return
    with_gpu, without = is_gpu.index(True), is_gpu.index(False)
    raise ConfigurationError(
        f"Rank {with_gpu} on {hosts[with_gpu]} has a GPU ({models[with_gpu]}), but rank {without} on {hosts[without]} "
        f"computes on the CPU. Such ranks cannot train together. Run 'distrain doctor' on {hosts[without]}, or give "
        "all ranks --devices cpu:1.",
        reporting_rank=0,
    )
