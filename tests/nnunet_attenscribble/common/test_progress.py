"""Progress on a terminal and in a log."""

from __future__ import annotations

import pytest

from nnunet_attenscribble.common.progress import QUIET, show_progress, show_waiting


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(("total", "lines"), [(1, 1), (3, 3), (10, 10), (137, 10)])
def test_a_log_gets_a_few_lines(capsys, total, lines):
    assert list(show_progress(range(total), total=total, description="Writing")) == list(range(total))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == lines
    assert captured.err.splitlines()[-1] == f"Writing: {total} of {total}"


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert list(show_progress("abc", total=3, description="Writing")) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert "100%" in captured.err
    assert "3 of 3" not in captured.err


def test_silence_on_demand(capsys, monkeypatch):
    assert list(show_progress("abc", total=3, description="Writing", enabled=False)) == ["a", "b", "c"]
    monkeypatch.setenv(QUIET, "1")
    assert list(show_progress("abc", total=3, description="Writing")) == ["a", "b", "c"]
    with show_waiting("Comparing"):
        pass
    assert capsys.readouterr().err == ""


def test_waiting_is_one_line_in_a_log(capsys):
    with show_waiting("Comparing"):
        pass
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "Comparing ...\n")
