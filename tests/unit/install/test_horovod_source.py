"""The changes to Horovod's source: whole or not at all, and without NVIDIA's compiler for GPUs."""

from __future__ import annotations

import pytest

from distrain.errors import ConfigurationError
from distrain.install import horovod_source
from distrain.install.horovod_source import patch_horovod, recipe

KERNELS = "horovod/common/ops/cuda"


@pytest.fixture
def source(tmp_path):
    """A source that holds the changed lines, and nothing else."""
    for name, old, _ in horovod_source._CHANGES + horovod_source._GPU_CHANGES:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text() if file.exists() else "") + old)
    (tmp_path / KERNELS).mkdir(parents=True)
    return tmp_path


def everything(folder):
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("for_gpu", [False, True])
def test_all_changes_are_made(source, for_gpu):
    patch_horovod(source, for_gpu=for_gpu)
    text = (source / "CMakeLists.txt").read_text()
    assert ("check_language(CUDA)" not in text) == for_gpu
    assert ("find_package(CUDAToolkit" not in text) == for_gpu
    assert "cuda_runtime/lib" in text
    assert (source / KERNELS / "cuda_kernels.cc").exists() == for_gpu
    assert "xla_mpi_ops" not in (source / "horovod/tensorflow/CMakeLists.txt").read_text()


def test_another_source_than_expected_is_not_changed(source):
    file = source / "CMakeLists.txt"
    file.write_text(file.read_text().replace("CUDAToolkit", "CUDA"))
    before = everything(source)
    with pytest.raises(ConfigurationError, match="expected once, but there 0 times"):
        patch_horovod(source, for_gpu=True)
    assert everything(source) == before


def test_another_change_is_another_recipe(monkeypatch):
    before = [recipe(for_gpu=kind) for kind in (False, True)]
    assert before[0] != before[1]
    monkeypatch.setattr(horovod_source, "_GPU_CHANGES", [])
    assert recipe(for_gpu=False) == before[0]
    assert recipe(for_gpu=True) != before[1]
