"""`distrain plan` on prepared text: its table, its audit, its warnings and its refusals."""

from __future__ import annotations

from distrain.cli.main import main


def test_plan_fits_80_columns(capsys, monkeypatch, data):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["plan", "--data", data, "--replicas", "6", "--batch-size", "5"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert max(map(len, lines)) <= 80
    shown = dict(line.strip("│|┃ ").rsplit("  ", 1) for line in lines if "steps" in line or "batches" in line)
    shown = {name.strip(" │"): value.strip(" │") for name, value in shown.items()}
    assert shown["batches per epoch"] == "24"
    assert shown["steps per epoch"] == "4"
    assert "Audit" not in captured.out


def test_plan_predicts_the_time(capsys, fails, monkeypatch, data):
    monkeypatch.setenv("COLUMNS", "80")
    plan = ["plan", "--data", data, "--replicas", "2"]
    assert main([*plan, "--step-ms", "2.5", "--bandwidth-gbs", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    shown = "\n".join(" ".join(line.strip("│ ").split()) for line in lines)
    assert "step, computing │ 2.50 ms" in shown
    assert "time per epoch" in shown
    assert main([*plan, "--step-ms", "2.5"]) == 0
    assert "not counted" in capsys.readouterr().out
    fails(2, "--step-ms", *plan, "--bandwidth-gbs", "10")
    fails(2, "--step-ms is 0.0", *plan, "--step-ms", "0")
    fails(2, "--run is 'run'", *plan, "--step-ms", "1", "--run", "run")
    fails(4, "absent is not there", *plan, "--run", "absent")


def test_plan_says_that_more_gpus_do_not_pay(capsys, monkeypatch, data):
    """At the default global batch each of eight replicas has 16 examples."""
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["plan", "--data", data, "--replicas", "8", "--step-ms", "3", "--link", "nvlink"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines()[:-3])) <= 80
    assert "speedup ┃ efficiency" in out
    rows = [line.strip("│ ").split() for line in out.splitlines() if line.strip("│ ")[:1].isdigit()]
    assert [(row[0], row[2]) for row in rows] == [("1", "128"), ("2", "64"), ("4", "32"), ("8", "16")]
    assert "More than 1 replica do not pay" in " ".join(out.split())
    more = ["--hosts", "2", "--network", "10gbe", "--batch-size", "4096", "--step-ms", "300"]
    assert main(["plan", "--data", data, "--replicas", "4", "--link", "pcie", *more]) == 0
    assert "4 replicas pay: they train 4.0 times as fast as one." in " ".join(capsys.readouterr().out.split())


def test_plan_warns_of_more_replicas_than_batches(capsys, data):
    assert main(["plan", "--data", data, "--replicas", "50", "--batch-size", "5"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("distrain: warning: ")
    assert "26 of 50 replicas have nothing to do" in error


def test_plan_audits(capsys, data):
    assert main(["plan", "--data", data, "--replicas", "7", "--audit"]) == 0
    assert "each of 120 examples is read exactly once" in " ".join(capsys.readouterr().out.split())


def test_plan_refuses_an_impossible_run(fails, data):
    fails(2, "--replicas is 0", "plan", "--data", data, "--replicas", "0")
    fails(2, "--global-batch-size is 3", "plan", "--data", data, "--replicas", "4", "--global-batch-size", "3")


def test_plan_refuses_damaged_data(fails, data, tmp_path):
    (tmp_path / data / "train-00000.columns.npy").write_bytes(b"")
    fails(3, "train-00000.columns.npy has 0 bytes", "plan", "--data", data, "--replicas", "2")
