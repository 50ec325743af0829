"""A run directory after any sequence of failed writes, kills, damages and resumes ends with the undisturbed results."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from failing_disk import KINDS, FailingDisk, is_possible
from fault_subjects import make_subjects
from fault_trials import hidden_files, tree, undisturbed
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from distrain.runs.checkpoint import list_checkpoints, step_of
from distrain.runs.verification import verify_run

MAX_OPERATION = 230  # a few more than a run has
LEFTOVERS = (".config.json.123.tmp", ".vectorizer.tmp", "checkpoints/.step-00000002.tmp", "checkpoints/.step-3.old")


def machine(disk: FailingDisk, folder: Path) -> type[RuleBasedStateMachine]:
    """Return the state machine over one run directory."""
    subject = make_subjects(folder)["write_a_run"]
    expected, operations = undisturbed(disk, subject, folder)
    assert 100 < operations < MAX_OPERATION
    place = folder / "place"
    words, run = [word.replace("{place}", str(place)) for word in subject.words], place / "run"

    class RunDirectory(RuleBasedStateMachine):
        """What happens to a run directory; after each event the saved steps are still there."""

        @initialize()
        def begin(self):
            shutil.rmtree(place)
            place.mkdir()
            self.saved = 0

        @rule(at=st.integers(1, MAX_OPERATION), kind=st.sampled_from(sorted(KINDS)))
        def fault(self, at, kind):
            ended = disk.run(*words, below=place, at=at, kind=kind)
            assert ended.code in ((0, -9) if kind.startswith("kill") else (0, 4)), ended
            assert "Traceback" not in ended.output
            self._check_steps(ended.output)

        @rule()
        def finish(self):
            ended = disk.run(*words)
            assert ended.code == 0, ended
            self._check_steps(ended.output)
            assert subject.results(place) == expected
            assert hidden_files(place) == []
            assert tree(run / "vectorizer") == tree(Path(subject.words[2]))
            assert all(map(json.loads, (run / "metrics.jsonl").read_text().splitlines()))
            findings = verify_run(run)
            assert not findings.faults
            assert not findings.unknown

        @precondition(lambda _: (run / "vectorizer").is_dir())
        @rule(name=st.sampled_from(("vectorizer.json", "words.npy")), content=st.sampled_from((b"", b"other", None)))
        def damage_vectorizer(self, name, content):
            (run / "vectorizer" / name).unlink(missing_ok=True)
            if content is not None:
                (run / "vectorizer" / name).write_bytes(content)

        @precondition(lambda _: (run / "metrics.jsonl").is_file())
        @rule()
        def tear_log(self):
            with (run / "metrics.jsonl").open("ab") as file:
                file.write(b'{"event": "ste')

        @precondition(lambda _: (run / "config.json").is_file())
        @rule(name=st.sampled_from(LEFTOVERS))
        def leave(self, name):
            (run / name).parent.mkdir(exist_ok=True)
            (run / name).write_text("left")

        @precondition(lambda _: len(list_checkpoints(run / "checkpoints")) > 1)
        @rule()
        def damage_newest_checkpoint(self):
            paths = list_checkpoints(run / "checkpoints")
            (paths[-1] / "arrays.safetensors").write_bytes(b"damaged")
            self.saved = step_of(paths[-2])

        def _check_steps(self, output):
            began = re.search(r"^from (\d+)", output, re.MULTILINE)
            if began:
                assert int(began[1]) >= self.saved, output
            self.saved = max([self.saved, *map(int, re.findall(r"^saved (\d+)", output, re.MULTILINE))])

        def teardown(self):
            if place.is_dir() and hasattr(self, "saved"):
                self.finish()

    return RunDirectory


def test_a_run_directory_survives_every_sequence_of_faults(tmp_path):
    if not is_possible():
        pytest.skip("cc is not installed")
    with FailingDisk(tmp_path) as disk:
        run_state_machine_as_test(
            machine(disk, tmp_path),
            settings=settings(
                max_examples=15, stateful_step_count=6, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
