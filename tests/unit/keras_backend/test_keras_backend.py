"""How Keras is imported, and the check of private names."""

from __future__ import annotations

import gc
import sys
import tempfile

import keras
import pytest
import tensorflow as tf

from distrain.distribution.mirrored import Mirrored
from distrain.errors import ConfigurationError
from distrain.keras_backend.start import _kept_modules, require_tensorflow


@pytest.fixture
def frozen():
    """How many objects the collector passes over, and none of them any more afterwards."""
    gc.unfreeze()
    yield gc.get_freeze_count
    gc.unfreeze()


def test_what_is_imported_is_never_collected(monkeypatch, frozen):
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    with _kept_modules():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert frozen() > 0


def test_a_machine_without_a_folder_for_temporary_files_is_told_the_cure(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc", "/sys"])  # which nobody can write
    with pytest.raises(ConfigurationError, match=r"No usable temporary directory .*/proc.* Set TMPDIR"):
        require_tensorflow()


def test_a_failed_import_leaves_the_collector_on(monkeypatch, frozen):
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    with pytest.raises(ImportError), _kept_modules():
        raise ImportError
    assert gc.isenabled()
    assert frozen() == 0


@pytest.mark.parametrize("is_on", [True, False])
def test_a_program_that_has_keras_or_no_collector_keeps_its_own(monkeypatch, frozen, is_on):
    if is_on:
        monkeypatch.setitem(sys.modules, "keras", gc)
    else:
        gc.disable()
    with _kept_modules():
        assert gc.isenabled() == is_on
    assert gc.isenabled() == is_on
    gc.enable()
    assert frozen() == 0


@pytest.mark.parametrize(
    ("owner", "name", "message"),
    [
        (keras.optimizers.Optimizer, "_all_reduce_sum_gradients", r"keras 3\..* has no Optimizer\._all_reduce.*3\.15"),
        (tf.distribute.MirroredStrategy, "_collective_key_base", r"tensorflow 2\..* has no Mirror.*_base.*2\.21"),
    ],
)
def test_a_renamed_private_hook_ends_a_mirrored_run(monkeypatch, owner, name, message):
    definer = next(base for base in owner.__mro__ if name in vars(base))
    value = vars(definer)[name]
    monkeypatch.delattr(definer, name)
    monkeypatch.setattr(definer, f"{name}_renamed", value, raising=False)
    with pytest.raises(ConfigurationError, match=message):
        Mirrored(["CPU:0"])
