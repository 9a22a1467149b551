"""The notebook runs from its first cell to its last."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOK = ROOT / "examples" / "demo.ipynb"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("DEMO_EPOCHS", "1")
    monkeypatch.setenv("DEMO_ITERATIONS", "5")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # A kernel on a busy machine needs longer to start than the minute that it is given otherwise.
    client = NotebookClient(notebook, timeout=1800, startup_timeout=300, kernel_name="python3")
    client.execute(cwd=str(tmp_path))
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    told = {name: "".join(output.get("text", "") for output in of_cell) for name, of_cell in outputs.items()}
    assert told["predict"].count("foreground mean") == 2
    assert "| partial CE |" in told["compare"]
    assert any("image/png" in output.get("data", {}) for output in outputs["picture"])


def test_the_notebook_is_committed_without_output():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
