"""The report in processes of its own."""

from __future__ import annotations

import subprocess
import sys

from reported_runs import make_run

from distrain.reporting.html.page import write_report


def test_the_same_runs_give_the_same_page_in_another_process(tmp_path):
    run = make_run(tmp_path / "run")
    write_report([run], tmp_path / "here.html")
    code = (
        "import sys, pathlib; from distrain.reporting.html.page import write_report; "
        "write_report([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, str(run), str(tmp_path / "there.html")], check=True)
    assert (tmp_path / "here.html").read_bytes() == (tmp_path / "there.html").read_bytes()


def test_nothing_heavy_is_imported_before_it_is_needed():
    heavy = "{'tensorflow', 'matplotlib', 'keras'}"
    code = f"import sys, distrain.reporting.reporter, distrain.reporting.html.page; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
