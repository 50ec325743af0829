"""Which steps install_horovod takes with a wheel in the cache; `ran` stands in for the commands of the steps."""

from __future__ import annotations

import subprocess

import pytest

from distrain.errors import ConfigurationError
from distrain.install import horovod
from distrain.install.environment import TensorFlow
from distrain.install.horovod_build import wheel_name


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """Titles of the steps that ran; a step whose title holds `ran.failing` fails."""

    class Ran(list):
        failing = "nothing"

    titles = Ran()

    def run_step(title, command, *, log, environ=None):
        titles.append(title)
        return int(titles.failing in title)

    tensorflow = TensorFlow(("tensorflow_cpu2.21.0",), tmp_path, "")
    folder = tmp_path / "distrain" / "horovod" / wheel_name("cpu", tensorflow, None)
    folder.mkdir(parents=True)
    (folder / "horovod-0.28.1-py3-none-any.whl").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(horovod, "_INSTALLED", tmp_path / "horovod-installed")
    monkeypatch.setattr(horovod, "run_step", run_step)
    monkeypatch.setattr(horovod, "check_environment", lambda: None)
    monkeypatch.setattr(horovod, "find_tensorflow", lambda: tensorflow)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)  # pip uninstall
    return titles


def tries_gloo(ran):
    ran.clear()
    horovod.install_horovod("cpu")
    return "5/5  Trying it: a sum over two processes by Gloo" in ran


def test_a_cached_wheel_is_tried_with_gloo_until_that_has_succeeded_once(ran, tmp_path):
    ran.failing = "Gloo"
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="does not work here"):
            horovod.install_horovod("cpu")
        assert not (tmp_path / "horovod-installed").exists()
    ran.failing = "nothing"
    assert tries_gloo(ran)
    (tmp_path / "horovod-installed").unlink()  # another environment
    assert not tries_gloo(ran)
    assert "5/5  Trying it: a sum over two processes by MPI" in ran
