"""Unit tests of `distrain.cluster.mpi_group` where MPI is missing; tests/multiprocess has it."""

import importlib
import sys
from types import ModuleType

import pytest

from distrain.errors import ConfigurationError

MODULE = "distrain.cluster.mpi_group"


def test_a_library_of_mpi_that_is_missing_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", _Broken("mpi4py"))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(ConfigurationError, match=r"^mpi4py cannot load MPI: cannot load .* libmpi\.so: no file"):
        importlib.import_module(MODULE)


class _Broken(ModuleType):
    """What mpi4py does at the import of `mpi4py.MPI` without a library."""

    def __getattr__(self, name: str) -> object:
        if name == "MPI":
            raise RuntimeError("cannot load MPI library\nlibmpi.so: no file")
        raise AttributeError(name)
