"""`distrain install-horovod`: its options, and what it refuses before it builds anything."""

from __future__ import annotations

import pytest

from distrain.cli.main import main
from distrain.install import horovod


@pytest.mark.parametrize(
    ("arguments", "kind"), [([], None), (["--cpu"], "cpu"), (["--gpu"], "gpu"), (["--gpu", "--gpu"], "gpu")]
)
def test_the_kind_is_passed_on(monkeypatch, arguments, kind):
    asked = []
    monkeypatch.setattr(horovod, "install_horovod", asked.append)
    assert main(["install-horovod", *arguments]) == 0
    assert asked == [kind]


def test_the_kinds_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["install-horovod", "--cpu", "--gpu"])
    assert caught.value.code == 2
    assert "not allowed with argument --cpu" in capsys.readouterr().err


def test_gpu_needs_tensorflow_for_gpus(fails, monkeypatch, tmp_path):
    """The refusal comes before any package is fetched or installed."""
    monkeypatch.setattr(horovod, "_install_requirements", lambda log: pytest.fail("began"))
    monkeypatch.setattr(horovod, "find_tensorflow", lambda: horovod.TensorFlow(("tensorflow-cpu2.21.0",), tmp_path, ""))
    fails(2, "--gpu needs TensorFlow's build for GPUs", "install-horovod", "--gpu")


@pytest.mark.parametrize(
    ("installed", "cuda", "gpu", "kind"),
    [
        ("gpu-0.28.1-x", "", False, "gpu"),
        ("cpu-0.28.1-x", "12.5.1", True, "cpu"),
        (None, "12.5.1", True, "gpu"),
        (None, "12.5.1", False, "cpu"),
        (None, "", True, "cpu"),
        ("odd", "", False, "cpu"),
    ],
)
def test_the_default_is_what_is_there_or_fits(monkeypatch, tmp_path, installed, cuda, gpu, kind):
    if installed:
        (tmp_path / "installed").write_text(installed)
    monkeypatch.setattr(horovod, "_INSTALLED", tmp_path / "installed")
    monkeypatch.setattr(horovod, "has_gpu", lambda: gpu)
    assert horovod._default_kind(horovod.TensorFlow((), tmp_path, cuda)) == kind
