"""Files and folders whole or not at all, on a disk that fills up as well."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunet_attenscribble.common import files
from nnunet_attenscribble.common.files import (
    replaced_file,
    replaced_files,
    replaced_folder,
    try_lock,
    write_json,
    write_text,
    write_texts,
)
from nnunet_attenscribble.errors import AttenScribbleError


def listing(folder: Path) -> list[str]:
    return sorted(str(entry.relative_to(folder)) for entry in folder.rglob("*"))


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that has room for what holds no `x`."""
    real = Path.write_text

    def write(file, text, *arguments, **options):
        real(file, text[:10], *arguments, **options)
        if "x" in text:
            raise OSError(28, os.strerror(28))  # without a name, as write(2) has it
        return real(file, text, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", write)


def test_a_file_is_replaced_and_nothing_else_stays(tmp_path):
    write_text(tmp_path / "new" / "a", "1\n")
    write_json(tmp_path / "new" / "a", {"ß": 1}, indent=None)
    assert (tmp_path / "new" / "a").read_text(encoding="utf-8") == '{"ß": 1}\n'
    assert listing(tmp_path) == ["new", "new/a"]


def test_on_a_full_disk_the_old_file_stays_and_the_name_is_told(tmp_path, full_disk):
    write_text(tmp_path / "a", "old")
    with pytest.raises(AttenScribbleError) as error:
        write_text(tmp_path / "a", "x" * 99)
    assert error.value.problems == [f"{tmp_path / 'a'}: cannot be written (No space left on device)"]
    assert listing(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_of_several_files_all_are_written_or_none(tmp_path, full_disk):
    first, second = tmp_path / "new" / "deep" / "a", tmp_path / "b"
    with pytest.raises(AttenScribbleError, match="b: cannot be written"):
        write_texts({first: "1", second: "x"})
    assert listing(tmp_path) == []
    write_texts({first: "1", second: "2"})
    assert (first.read_text(), second.read_text()) == ("1", "2")


def test_a_folder_in_the_place_of_a_file_keeps_the_others_from_being_written(tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(AttenScribbleError, match="b: cannot be written"):
        write_texts({tmp_path / "a": "1", tmp_path / "b": "2"})
    assert listing(tmp_path) == ["b"]


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(AttenScribbleError, match="b: cannot be written"):
        write_text(tmp_path / "a" / "b", "")
    assert listing(tmp_path) == ["a"]


@pytest.mark.parametrize("place", ["a", ".", "..", "/"])
def test_a_folder_where_a_file_is_written(tmp_path, monkeypatch, place):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AttenScribbleError, match=f"^{re.escape(place)}: cannot be written"):
        write_text(Path(place), "")
    assert listing(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_file_leaves_nothing(tmp_path, error):
    def interrupt() -> None:
        with replaced_file(tmp_path / "new" / "a") as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        interrupt()
    assert listing(tmp_path) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for content in ("1", "2"):
        with replaced_folder(tmp_path / "new" / "a") as part:
            (part / content).touch()
    assert listing(tmp_path) == ["new", "new/a", "new/a/2"]


def test_a_file_in_a_new_folder_is_told_by_the_name_that_it_would_have_had(tmp_path, full_disk):
    def fill() -> None:
        with replaced_folder(tmp_path / "new" / "a") as part:
            write_text(part / "file", "x")

    with pytest.raises(AttenScribbleError) as error:
        fill()
    assert error.value.problems == [f"{tmp_path / 'new' / 'a' / 'file'}: cannot be written (No space left on device)"]
    assert listing(tmp_path) == []


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    real = Path.rename

    def rename(source, target):
        if source.parent.name.endswith(".part"):
            raise OSError(28, os.strerror(28))
        return real(source, target)

    monkeypatch.setattr(files.Path, "rename", rename)

    def replace() -> None:
        with replaced_folder(tmp_path / "a") as part:
            (part / "new").touch()

    with pytest.raises(AttenScribbleError, match="a: cannot be written"):
        replace()
    assert listing(tmp_path) == ["a", "a/old"]


@pytest.mark.parametrize("renames", [1, 2])
@pytest.mark.parametrize("killed", [False, True])
def test_a_folder_is_there_whatever_ends_its_replacing(tmp_path, monkeypatch, renames, killed):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    real, done = Path.rename, []

    def rename(source, target):
        if killed and len(done) >= renames:
            raise KeyboardInterrupt
        done.append(real(source, target))
        if len(done) == renames:
            raise KeyboardInterrupt

    def replace(error: type[BaseException] | None = None) -> None:
        with replaced_folder(tmp_path / "a") as part:
            (part / "new").touch()
            if error:
                raise error

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        if killed:  # which runs no clean-up either
            patch.setattr(files.shutil, "rmtree", lambda *a, **k: None)
        with pytest.raises(KeyboardInterrupt):
            replace()
    if killed:
        with pytest.raises(RuntimeError):
            replace(RuntimeError)
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["old" if renames == 1 else "new"]
    replace()
    assert listing(tmp_path) == ["a", "a/new"]


def test_what_a_killed_run_has_left_of_a_folder_goes_and_what_a_living_one_writes_stays(tmp_path):
    for name, lock in ((".a.dead.part", "4711"), (".a.begun.part", ""), (".a.mine.part", None), (".b.part", "4711")):
        (tmp_path / name / "a").mkdir(parents=True)
        if lock is not None:
            (tmp_path / name / "lock").write_text(lock)
    with replaced_folder(tmp_path / "a") as living:
        with replaced_folder(tmp_path / "a") as part:
            (part / "new").touch()
        assert listing(tmp_path / "a") == ["new"]
        assert living.is_dir()
    kept = {name for name in listing(tmp_path) if "/" not in name}
    assert kept == {"a", ".a.begun.part", ".a.mine.part", ".b.part"}


@pytest.mark.skipif(os.name != "posix", reason="links are those of POSIX")
def test_of_a_link_the_folder_is_replaced(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "scratch")
    with replaced_folder(tmp_path / "a") as part:
        (part / "new").touch()
    assert (tmp_path / "a").is_symlink()
    assert listing(tmp_path / "scratch") == ["new"]
    assert listing(tmp_path) == ["a", "scratch", "scratch/new"]


def test_the_folder_that_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with replaced_folder(Path(".")) as part:
        (part / "a").touch()
    assert listing(tmp_path) == ["a"]


def _lock_as_windows_does(held: dict[int, int]):
    """A module `msvcrt`: a byte of a file is locked for one descriptor at a time, and others are refused."""

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (2, 1)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) > 1 << 30  # behind whatever is written
        if held.setdefault(os.fstat(descriptor).st_ino, descriptor) != descriptor:
            raise PermissionError(13, "Permission denied")

    return SimpleNamespace(locking=locking, LK_NBLCK=2)


@pytest.mark.parametrize("windows", [False, True])
def test_a_lock_is_held_by_one_at_a_time(tmp_path, monkeypatch, windows):
    held: dict[int, int] = {}
    if windows:
        monkeypatch.setattr(sys, "platform", "win32")
        monkeypatch.setitem(sys.modules, "msvcrt", _lock_as_windows_does(held))
    file = tmp_path / "lock"
    with file.open("a") as first, file.open("a") as second:
        assert try_lock(first)
        assert not try_lock(second)
        second.write("a log goes on")
        second.flush()
        first.close()
        held.clear()
        assert try_lock(second, wait=True)
    assert file.read_text() == "a log goes on"


def test_files_of_several_folders_take_their_places_together(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    (one / "a.txt").write_text("old")
    with replaced_files(one, two) as stage:
        stage(one / "a.txt").write_text("new")
        part = stage(two / "deep/b.tif")
        assert part.name == "b.tif"  # by whose ending writers go
        part.write_text("voxels")
        part.with_suffix(".json").write_text("spacing")  # as a writer of TIFF puts it beside
        assert (one / "a.txt").read_text() == "old"
    assert listing(tmp_path) == ["one", "one/a.txt", "two", "two/deep", "two/deep/b.json", "two/deep/b.tif"]
    assert (one / "a.txt").read_text() == "new"


@pytest.mark.parametrize("late", [False, True])
def test_or_none_of_them_does(tmp_path, monkeypatch, late):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    (one / "a.txt").write_text("old")
    rename = Path.rename

    def fail(path, target):
        if path.name == "b.txt":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(path, target)

    def write() -> None:
        with replaced_files(one, two) as stage:
            stage(one / "a.txt").write_text("new")
            stage(two / "b.txt").write_text("new")
            if not late:
                raise OSError(errno.ENOSPC, "No space left on device")
            monkeypatch.setattr(Path, "rename", fail)

    with pytest.raises(AttenScribbleError, match="No space left"):
        write()
    assert listing(tmp_path) == ["one", "one/a.txt"]
    assert (one / "a.txt").read_text() == "old"


@pytest.mark.parametrize("renames", range(1, 5))
def test_ctrl_c_behind_whichever_renaming_puts_all_of_them_back(tmp_path, monkeypatch, renames):
    for name in "ab":
        (tmp_path / name).write_text("old")
    real, done = Path.rename, []

    def rename(source, target):
        done.append(real(source, target))
        if len(done) == renames:
            raise KeyboardInterrupt

    def write() -> None:
        with replaced_files(tmp_path) as stage:
            for name in "ab":
                stage(tmp_path / name).write_text("new")
            monkeypatch.setattr(Path, "rename", rename)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert listing(tmp_path) == ["a", "b"]
    assert (tmp_path / "a").read_text() + (tmp_path / "b").read_text() == "oldold"


def test_what_cannot_be_put_back_is_kept(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    real = Path.rename

    def rename(source, target):
        if source != tmp_path / "a":
            raise OSError(errno.EIO, "Input/output error")
        return real(source, target)

    def write() -> None:
        with replaced_files(tmp_path) as stage:
            stage(tmp_path / "a").write_text("new")
            monkeypatch.setattr(Path, "rename", rename)

    with pytest.raises(AttenScribbleError, match="a: could not be put back") as error:
        write()
    (kept,) = tmp_path.rglob("a.old")
    assert kept.read_text() == "old"
    assert f"it is {kept}" in str(error.value)
