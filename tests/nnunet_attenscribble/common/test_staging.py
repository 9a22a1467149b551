"""Whole or not at all, also after a kill at any moment."""

from __future__ import annotations

import os

import pytest

from nnunet_attenscribble.common.files import finish_interrupted, remove_leftovers, reserved, staged_folders
from nnunet_attenscribble.errors import AttenScribbleError


def _write(parent, names=("B", "A"), key="501"):
    with staged_folders(parent, names, key) as hidden:
        for name in names:
            (hidden / name / "file").write_text(name)


def _listing(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


def test_folders_appear_together_and_nothing_else_stays(tmp_path):
    with staged_folders(tmp_path / "new", ["A", "B"], "501") as hidden:
        (hidden / "A" / "file").write_text("A")
        assert [entry.name[0] for entry in (tmp_path / "new").iterdir()] == ["."]
    assert _listing(tmp_path / "new") == ["A", "A/file", "B"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_nothing(tmp_path, error):
    def fail():
        with staged_folders(tmp_path, ["A"], "501"):
            raise error

    with pytest.raises(error):
        fail()
    assert _listing(tmp_path) == []


def test_a_folder_that_appeared_meanwhile_is_left_alone(tmp_path):
    def race():
        with staged_folders(tmp_path, ["B", "A"], "501"):
            (tmp_path / "A").mkdir()

    with pytest.raises(FileExistsError, match="appeared while it was being written"):
        race()
    assert _listing(tmp_path) == ["A"]


@pytest.mark.parametrize("renames", [0, 1, 2])
@pytest.mark.parametrize("killed", [False, True])
def test_a_kill_while_renaming_is_made_good_and_so_is_ctrl_c(tmp_path, monkeypatch, renames, killed):
    done = []

    def rename(source, target, really=os.rename):
        if not source.is_dir():
            return really(source, target)
        if len(done) == renames:
            raise SystemExit("killed")
        done.append(target.name)
        return really(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("nnunet_attenscribble.common.files.os.rename", rename)
        if killed:  # which runs no clean-up either
            patch.setattr("nnunet_attenscribble.common.files.shutil.rmtree", lambda *a, **k: None)
        if renames < 2:
            with pytest.raises(SystemExit):
                _write(tmp_path)
        else:
            _write(tmp_path)
    assert done == ["B", "A"][:renames]  # the order given
    finish_interrupted(tmp_path, "501")
    assert _listing(tmp_path) == ["A", "A/file", "B", "B/file"]


def test_what_a_kill_left_unfinished_goes_and_other_jobs_stay(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("nnunet_attenscribble.common.files.shutil.rmtree", lambda *a, **k: None)
        for key in ("501", "502"):
            with pytest.raises(SystemExit), staged_folders(tmp_path, ["A"], key):
                raise SystemExit("killed")
    leftovers = finish_interrupted(tmp_path, "501")
    assert len(leftovers) == 1
    remove_leftovers(leftovers)
    assert [entry.name.split("-")[1] for entry in tmp_path.iterdir()] == ["502"]


def test_a_folder_that_is_being_written_is_no_leftover(tmp_path):
    pytest.importorskip("fcntl")
    with staged_folders(tmp_path, ["A"], "501") as hidden:
        with pytest.raises(AttenScribbleError, match="is being written by another process: wait for it, or end it"):
            finish_interrupted(tmp_path, "501")
        assert finish_interrupted(tmp_path, "502") == []
        (hidden / "A" / "file").touch()
    assert _listing(tmp_path) == ["A", "A/file"]
    assert finish_interrupted(tmp_path, "501") == []


def test_a_key_is_held_by_one_at_a_time_and_nothing_stays(tmp_path):
    pytest.importorskip("fcntl")
    parent = tmp_path / "new" / "raw"
    with reserved(parent, ["7", "8"], "dataset ID"):
        with (
            pytest.raises(AttenScribbleError, match="raw: dataset ID 8 is being written by another process"),
            reserved(parent, ["8", "9"], "dataset ID"),
        ):
            pytest.fail("it was held")
        with reserved(parent, ["9"], "dataset ID"):
            assert _listing(parent) == [f".attenscribble-{key}.lock" for key in (7, 8, 9)]
        assert not list(parent.glob("*9*"))
    assert _listing(tmp_path) == []
    with reserved(parent, ["7"], "dataset ID"):
        (parent / "Dataset007").mkdir()
    assert _listing(parent) == ["Dataset007"]


def test_what_a_run_of_another_user_left_stays_and_its_key_is_theirs(tmp_path, monkeypatch):
    theirs = [tmp_path / ".attenscribble-501-x", tmp_path / ".attenscribble-501.lock"]
    theirs[0].mkdir()
    theirs[1].touch()
    monkeypatch.setattr(os, "access", lambda path, mode: path not in theirs)
    assert finish_interrupted(tmp_path, "501") == []
    with (
        pytest.raises(AttenScribbleError) as caught,
        reserved(tmp_path, ["501"], "dataset ID"),
    ):
        pytest.fail("it was theirs")
    assert caught.value.problems == [
        f"{tmp_path / '.attenscribble-501*'}: belong to another user: have them removed where nothing is running, "
        "or choose another dataset ID"
    ]
    assert _listing(tmp_path) == [path.name for path in theirs]


def test_a_lock_that_a_kill_left_is_taken(tmp_path):
    (tmp_path / ".attenscribble-7.lock").touch()
    with reserved(tmp_path, ["7"], "dataset ID"):
        pass
    assert _listing(tmp_path) == []
