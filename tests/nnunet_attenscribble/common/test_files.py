"""Folders and archives as people have them."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest

from nnunet_attenscribble.common.files import find_files, link_file, unpacked
from nnunet_attenscribble.errors import AttenScribbleError


def test_links_are_followed_once_and_shadows_left_out(tmp_path):
    real, folder = tmp_path / "real", tmp_path / "folder"
    for file in (real / "a", folder / "b", folder / "._b", folder / "__MACOSX" / "c", folder / ".hidden" / "d"):
        file.parent.mkdir(exist_ok=True, parents=True)
        file.touch()
    (folder / "link").symlink_to(real)
    (real / "back").symlink_to(folder)
    assert find_files(folder) == [folder / "b", folder / "link" / "a"]


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AttenScribbleError, match="file: is not a folder"):
        find_files(tmp_path / "file")
    with pytest.raises(AttenScribbleError, match="nowhere: does not exist"):
        find_files(tmp_path / "nowhere")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no file can have such a name")
def test_names_that_are_not_utf8(tmp_path):
    for name in (b"herz_\xe4.png", "herz_ä.png".encode()):
        (tmp_path / os.fsdecode(name)).touch()
    with pytest.raises(AttenScribbleError) as caught:
        find_files(tmp_path)
    assert caught.value.problems == [f"{tmp_path}/herz_\\xe4.png: its name is not UTF-8: rename it"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_file_is_told(tmp_path):
    os.mkfifo(tmp_path / "a.nii.gz")
    with pytest.raises(AttenScribbleError) as caught:
        find_files(tmp_path)
    assert caught.value.problems == [f"{tmp_path}/a.nii.gz: is a pipe, a socket or a device: take it out of the folder"]


def test_an_archive_is_unpacked_under_its_own_name_and_goes_again(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for name in ("in/a.nii.gz", "__MACOSX/in/._a.nii.gz", "in/._b", "../../out"):
            archive.writestr(name, name)
    with unpacked(tmp_path / "s.zip") as folder:
        assert folder.name == "s.zip"
        assert find_files(folder) == [folder / "in" / "a.nii.gz"]
    assert not folder.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zip"]
    with unpacked(tmp_path) as folder:
        assert folder == tmp_path


def test_a_damaged_archive_is_named(tmp_path):
    archive = tmp_path / "s.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a", b"0123456789" * 100)
    whole = archive.read_bytes()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("\u00fc", b"0123456789" * 100)
    packed = bytearray(archive.read_bytes())
    packed[50] ^= 0xFF
    misnamed = archive.read_bytes().replace(b"\xc3\xbc", b"\xc3\xc3")
    for content in (whole[:500], b"text", b"", whole.replace(b"0123456789", b"x123456789", 1), packed, misnamed):
        archive.write_bytes(content)
        with pytest.raises(AttenScribbleError, match=r"s\.zip: is neither a folder nor a whole zip"), unpacked(archive):
            pass
    with pytest.raises(AttenScribbleError, match=r"t\.zip: does not exist"), unpacked(tmp_path / "t.zip"):
        pass


def test_control_characters_in_names_are_refused_and_told_in_one_line(tmp_path):
    try:
        (tmp_path / "a\nb").mkdir()
    except OSError:
        pytest.skip("this system has no such names")
    (tmp_path / "a\nb" / "c").touch()
    with pytest.raises(AttenScribbleError) as caught:
        find_files(tmp_path)
    assert caught.value.problems == [
        f"{tmp_path}/a\\nb/c: its name holds a line break or another control character: rename it"
    ]


def test_where_there_are_no_links_a_file_is_copied(tmp_path, monkeypatch):
    file = tmp_path / "a"
    file.write_text("x")
    link_file(tmp_path / "link", file)
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "sub").mkdir()
    link_file(tmp_path / "sub" / "link", file, tmp_path / "sub")
    assert os.readlink(tmp_path / "sub" / "link") == os.path.join("..", "a")

    def refuse(*_):
        raise OSError(1314, "a required privilege is not held")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    link_file(tmp_path / "copy", file)
    assert not (tmp_path / "copy").is_symlink()
    assert (tmp_path / "copy").read_text() == "x"
