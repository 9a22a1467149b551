"""Progress on a terminal and in a log."""

from __future__ import annotations

import pytest

from nnunet_attenscribble.dataset_conversion.progress import show_progress


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


def test_silence_on_demand(capsys):
    assert list(show_progress("abc", total=3, description="Writing", enabled=False)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
