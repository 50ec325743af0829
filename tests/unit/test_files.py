"""A file or folder is replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
from pathlib import Path

import pytest

from distrain.files import (
    atomic_write,
    copy_folder,
    describe,
    make_folder,
    read_json_object,
    replace_folder,
    swap_folder,
    write_json,
)

STEPS = [(os, "open"), (os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "write_bytes"), (Path, "mkdir")]


class Disk:
    """Counts calls that change the disk, and refuses call `fails_at` for want of space."""

    def __init__(self, monkeypatch, fails_at=None):
        self.calls = []
        for owner, name in STEPS:
            monkeypatch.setattr(owner, name, self.watched(getattr(owner, name), name, fails_at))

    def watched(self, call, name, fails_at):
        def watch(*args, **options):
            self.calls.append(name)
            if len(self.calls) - 1 == fails_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*args, **options)

        return watch


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write_folder(path, text):
    with replace_folder(path) as new:
        (new / "inner").mkdir()
        (new / "a").write_bytes(text.encode())
        (new / "inner" / "b").write_bytes(text.encode())


def interrupted(_):
    raise KeyboardInterrupt


class TestAtomicWrite:
    """A file is replaced whole or not at all."""

    def test_the_file_has_what_was_written(self, tmp_path):
        path = tmp_path / "a.txt"
        for text in ("old", "new"):
            with atomic_write(path) as tmp_path_of_file:
                tmp_path_of_file.write_text(text)
            assert path.read_text() == text
        assert names(tmp_path) == ["a.txt"]

    def test_leftovers_of_dead_processes_are_removed_and_others_stay(self, tmp_path):
        path = tmp_path / "a"
        dead, alive = 2**22 + 1, os.getppid()  # Linux numbers processes up to 2**22
        for name in (f".a.{dead}.tmp", f".a.{alive}.tmp", f".b.{dead}.tmp", f".a.{dead}.keras", ".a.b.tmp"):
            (tmp_path / name).write_text("")
        write_json(path, {})
        assert names(tmp_path) == sorted(["a", f".a.{alive}.tmp", f".b.{dead}.tmp", f".a.{dead}.keras", ".a.b.tmp"])

    def test_the_mode_is_that_of_any_new_file(self, tmp_path):
        (tmp_path / "plain").write_text("")
        write_json(tmp_path / "written", {})
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert len(modes) == 1

    def test_a_reader_finds_the_old_file_until_the_new_one_is_whole(self, tmp_path):
        path = tmp_path / "a"
        path.write_text("old")
        with atomic_write(path) as new:
            new.write_text("half")
            assert path.read_text() == "old"
            assert new.parent == tmp_path
            assert new.name.startswith(".")
            new.write_text("whole")
        assert path.read_text() == "whole"

    def test_file_and_name_reach_the_disk_in_this_order(self, tmp_path, monkeypatch):
        disk = Disk(monkeypatch)
        write_json(tmp_path / "a", {})
        assert disk.calls == ["write_bytes", "open", "fsync", "replace", "open", "fsync"]

    def test_nothing_is_synced_where_no_power_cut_matters(self, tmp_path, monkeypatch):
        disk = Disk(monkeypatch)
        write_json(tmp_path / "a", {}, durable=False)
        assert disk.calls == ["write_bytes", "replace"]

    @pytest.mark.parametrize("fails_at", range(6))
    def test_a_full_disk_leaves_the_old_or_the_new_file(self, tmp_path, monkeypatch, fails_at):
        write_json(tmp_path / "a", {"version": 1})
        with monkeypatch.context() as patch:
            Disk(patch, fails_at)
            with pytest.raises(OSError, match="No space"):
                write_json(tmp_path / "a", {"version": 2})
        replaced = fails_at > 3  # afterwards only the folder is synced
        assert read_json_object(tmp_path / "a") == {"version": 2 if replaced else 1}
        assert names(tmp_path) == ["a"]

    def test_a_write_that_the_system_cuts_leaves_the_old_file(self, tmp_path):
        write_json(tmp_path / "a", {"version": 1})
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                write_json(tmp_path / "a", {"version": "2" * 100_000})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert read_json_object(tmp_path / "a") == {"version": 1}
        assert names(tmp_path) == ["a"]

    def test_an_interrupt_leaves_the_old_file(self, tmp_path):
        (tmp_path / "a").write_text("old")
        with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a") as new:
            interrupted(new.write_text("half"))
        assert tree(tmp_path) == {"a": "old"}

    def test_a_block_that_writes_nothing_is_an_error(self, tmp_path):
        (tmp_path / "a").write_text("old")
        with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
            pass
        assert tree(tmp_path) == {"a": "old"}

    def test_a_symbolic_link_is_replaced_and_its_target_kept(self, tmp_path):
        (tmp_path / "target").write_text("kept")
        (tmp_path / "a").symlink_to("target")
        write_json(tmp_path / "a", {})
        assert not (tmp_path / "a").is_symlink()
        assert (tmp_path / "target").read_text() == "kept"

    def test_a_link_at_the_temporary_name_is_not_followed(self, tmp_path):
        (tmp_path / "target").write_text("kept")
        (tmp_path / f".a.{os.getpid()}.tmp").symlink_to("target")
        write_json(tmp_path / "a", {})
        assert (tmp_path / "target").read_text() == "kept"
        assert names(tmp_path) == ["a", "target"]

    def test_a_folder_in_the_way_stays(self, tmp_path):
        (tmp_path / "a").mkdir()
        with pytest.raises(IsADirectoryError):
            write_json(tmp_path / "a", {})
        assert names(tmp_path) == ["a"]

    def test_the_temporary_name_has_the_ending_that_a_writer_needs(self, tmp_path):
        with atomic_write(tmp_path / "model.keras", suffix=".keras") as new:
            assert new.suffix == ".keras"
            new.write_text("")
        assert names(tmp_path) == ["model.keras"]


class TestErrors:
    """A failed write names one file and the reason."""

    def test_a_copy_that_fails_names_its_file(self, tmp_path, monkeypatch):
        (tmp_path / "source" / "inner").mkdir(parents=True)
        (tmp_path / "source" / "inner" / "words").write_text("abc")
        (tmp_path / "target").mkdir()

        def fail(*_, **__):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr("shutil.copyfile", fail)
            with pytest.raises(OSError, match="words") as caught:
                copy_folder(tmp_path / "source", tmp_path / "target")
        assert describe(caught.value) == f"{tmp_path}/target/inner/words: Input/output error"
        (tmp_path / "target" / "inner").rmdir()
        copy_folder(tmp_path / "source", tmp_path / "target")
        assert tree(tmp_path / "target") == tree(tmp_path / "source")

    def test_the_temporary_name_is_not_told(self, tmp_path):
        with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "nowhere" / "a") as new:
            new.write_text("")
        assert describe(caught.value) == f"{tmp_path}/nowhere/a: No such file or directory"

    def test_new_folders_are_synced_from_the_top(self, tmp_path, monkeypatch):
        synced = []
        monkeypatch.setattr("distrain.files.sync", synced.append)
        for _ in range(2):
            make_folder(tmp_path / "a" / "b")
        assert synced == [tmp_path, tmp_path / "a"]


class TestReplaceFolder:
    """A folder is replaced whole or not at all."""

    def test_the_folder_is_replaced_whole(self, tmp_path):
        for text in ("old", "new"):
            write_folder(tmp_path / "data", text)
            assert tree(tmp_path) == {"data/a": text, "data/inner/b": text}
        assert names(tmp_path) == ["data"]

    def count_steps(self, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            disk = Disk(patch)
            write_folder(tmp_path / "data", "counted")
        return disk.calls

    @pytest.mark.parametrize("replaces", [False, True])
    def test_a_full_disk_at_any_step_leaves_one_whole_folder(self, tmp_path, monkeypatch, replaces):
        (tmp_path / "counting").mkdir()
        if replaces:
            (tmp_path / "counting" / "data").mkdir()
        num_steps = len(self.count_steps(tmp_path / "counting", monkeypatch))
        assert num_steps >= 15
        passed = []  # steps of the removal of old content, whose failure ends no write
        for fails_at in range(num_steps):
            here = tmp_path / str(fails_at)
            here.mkdir()
            if replaces:
                write_folder(here / "data", "old")
            with monkeypatch.context() as patch:
                Disk(patch, fails_at)
                try:
                    write_folder(here / "data", "new")
                    passed.append(fails_at)
                except OSError as error:
                    assert "No space" in str(error)  # noqa: PT017 - the last steps raise nothing
            found = tree(here / "data") if (here / "data").exists() else {}
            old = {"a": "old", "inner/b": "old"} if replaces else {}
            new = {"a": "new", "inner/b": "new"}
            assert found == new if fails_at in passed else found in (old, new)
            assert not (here / ".data.tmp").exists()
            write_folder(here / "data", "next")
            assert tree(here) == {"data/a": "next", "data/inner/b": "next"}
        assert passed == list(range(num_steps - len(passed), num_steps))
        assert bool(passed) == replaces

    def test_all_files_are_synced_before_the_folder_appears(self, tmp_path, monkeypatch):
        calls = self.count_steps(tmp_path, monkeypatch)
        assert calls[calls.index("fsync") :] == [*["fsync", "open"] * 3, "fsync", "rename", "open", "fsync"]

    def test_an_error_in_the_block_leaves_what_was_there(self, tmp_path):
        write_folder(tmp_path / "data", "old")
        with pytest.raises(KeyboardInterrupt), replace_folder(tmp_path / "data") as new:
            interrupted((new / "a").write_text("half"))
        assert tree(tmp_path) == {"data/a": "old", "data/inner/b": "old"}
        assert names(tmp_path) == ["data"]

    def test_what_a_kill_left_is_removed_by_the_next(self, tmp_path):
        for name in (".data.tmp", ".data.old"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "left").write_text("over")
        write_folder(tmp_path / "data", "new")
        assert names(tmp_path) == ["data"]
        assert "left" not in names(tmp_path / "data")

    def test_old_content_that_cannot_be_removed_ends_no_write(self, tmp_path, monkeypatch):
        write_folder(tmp_path / "data", "old")

        def fail(path, *_, **__):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", fail)
            write_folder(tmp_path / "data", "new")
        assert tree(tmp_path / "data")["a"] == "new"
        assert names(tmp_path) == [".data.old", "data"]
        write_folder(tmp_path / "data", "newer")
        assert names(tmp_path) == ["data"]

    @pytest.mark.parametrize("name", ["data", ".data.tmp", ".data.old"])
    @pytest.mark.parametrize("target", ["elsewhere", "missing"])
    def test_symbolic_links_in_the_way_are_replaced_and_their_targets_kept(self, tmp_path, name, target):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "a").write_text("kept")
        (tmp_path / name).symlink_to(target)
        write_folder(tmp_path / "data", "new")
        assert tree(tmp_path / "elsewhere") == {"a": "kept"}
        assert names(tmp_path) == ["data", "elsewhere"]
        assert not (tmp_path / "data").is_symlink()

    def test_the_only_copy_is_kept_until_the_new_folder_is_whole(self, tmp_path):
        """A kill between the two renames leaves the old content under its temporary name alone."""
        write_folder(tmp_path / "data", "old")
        (tmp_path / "data").rename(tmp_path / ".data.old")
        with pytest.raises(ZeroDivisionError), replace_folder(tmp_path / "data"):
            raise ZeroDivisionError
        assert tree(tmp_path / ".data.old")["a"] == "old"

    @pytest.mark.parametrize("can_exchange", [True, False])
    def test_the_folder_is_there_at_every_moment_where_names_can_be_exchanged(
        self, tmp_path, monkeypatch, can_exchange
    ):
        write_folder(tmp_path / "data", "old")
        if not can_exchange:
            monkeypatch.setattr("distrain.files._exchange", lambda *_: False)
        seen = []

        def watched(call):
            def watch(*args, **options):
                seen.append((tmp_path / "data").exists())
                return call(*args, **options)

            return watch

        for owner, name in [(os, "fsync"), (Path, "rename"), (os, "rmdir"), (os, "unlink")]:
            monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
        write_folder(tmp_path / "data", "new")
        assert all(seen) is can_exchange
        assert tree(tmp_path) == {"data/a": "new", "data/inner/b": "new"}

    def test_a_second_rename_that_fails_undoes_the_first(self, tmp_path):
        (tmp_path / "data").mkdir()
        with pytest.raises(FileNotFoundError):
            swap_folder(tmp_path / "absent", tmp_path / "data", old=tmp_path / "old")
        assert names(tmp_path) == ["data"]
