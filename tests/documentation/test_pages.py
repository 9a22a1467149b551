"""What pages say of the code, held against the code."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

from nnunet_attenscribble.common.nnunet import list_trainers
from nnunet_attenscribble.settings import AttenScribbleSettings
from tests.conftest import CODE, ROOT
from tools.site import api, command_line, formulas, hooks, settings_table
from tools.site.picture import draw

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def names_defined_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def test_the_table_of_settings_has_every_field_with_default_range_and_meaning():
    rows = [re.split(r"(?<!\\)\|", row[1:-1]) for row in settings_table.tabulate_settings().splitlines()[2:]]
    assert [row[0].strip("`") for row in rows] == [field.name for field in fields(AttenScribbleSettings)]
    assert all(len(row) == 4 and all(row) for row in rows)
    by_name = {row[0].strip("`"): row for row in rows}
    assert by_name["crf_weight"][1:3] == ["`0.1`", "a number from 0 to 1000000"]
    assert by_name["similarity_mode"][2] == "one of anchored, paper"


def test_the_page_of_commands_has_every_command():
    page = command_line.describe_commands()
    commands = command_line.list_commands()
    assert len(commands) > 10
    assert all(f"## {name}\n" in page and f"Usage: {name} " in page for name in commands)


def test_the_python_pages_have_every_public_module():
    pages = "\n".join(api.describe_packages().values())
    inner = {"cli"}  # the command line has a page of its own
    for folder in CODE:
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            if not file.stem.startswith("_") and not inner & set(parts):
                module = ".".join(parts if parts[0] == "nnunet_attenscribble" else ("nnunet_attenscribble", *parts))
                assert f"::: {module}\n" in pages, module


def test_formulas_become_mathml_without_scripts():
    inline = '<p>With <span class="arithmatex">\\(s_{ij} &lt; 1\\)</span>:</p>'
    shown = formulas.to_mathml(inline + '<div class="arithmatex">\\[\\frac{1}{N}\\]</div>')
    assert shown.count("<math ") == 2
    assert "<mfrac>" in shown
    assert "arithmatex" not in shown


def test_links_lead_where_the_files_are_on_the_site():
    page = "[a](../README.md#x) [b](next.md#y) ![c](images/c.png) [d](../examples/d.yaml) [e](https://e.e/e.md) [f](#)"
    assert hooks.lead_links(page, "docs") == (
        "[a](index.md#x) [b](next.md#y) ![c](images/c.png) [d](source/examples/d.yaml) [e](https://e.e/e.md) [f](#)"
    )
    assert hooks.lead_links("![a](docs/images/a.png) [b](LICENSE) [c](CHANGELOG.md)", "") == (
        "![a](images/a.png) [b](source/LICENSE) [c](changelog.md)"
    )


def test_the_places_that_the_method_names_are_there():
    page = read("docs/method.md")
    files = set(re.findall(r"`([\w/]+\.py)`", page))
    assert len(files) > 10
    defined = set().union(*(names_defined_in(ROOT / file) for file in files))
    named = set(re.findall(r"`([A-Za-z_]\w+)`", page)) - {"ignore", "anchored"}
    settings = {field.name for field in fields(AttenScribbleSettings)}
    switches = {name for name in named if name.startswith("with_")}
    assert switches <= set(re.findall(r"^    (with_\w+) = ", read("trainers/nnUNetTrainerScribble.py"), re.MULTILINE))
    assert named - settings - switches - set(list_trainers()) <= defined


def test_settings_and_files_that_pages_name_are_there():
    known = {field.name for field in fields(AttenScribbleSettings)}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:--set |`)(\w+)=[\w.]+`?", text)) - {"OMP_NUM_THREADS"} <= known, page
        for file in re.findall(
            r"`((?:tests|nnunet_attenscribble|trainers|dataset_conversion|evaluation|tools|examples)/[\w/.]+)`", text
        ):
            assert (ROOT / file).exists(), f"{page.name}: {file}"


def test_the_table_of_trainers_is_the_ladder():
    rows = re.findall(r"^\| `(nnUNetTrainer\w+)` \|(.*)\|$", read("README.md"), re.MULTILINE)
    assert sorted(name for name, _ in rows) == list_trainers()
    ticks = [row.count("yes") for _, row in rows]
    assert ticks == sorted(ticks) == [0, 1, 2, 3, 4]


def test_the_readme_names_what_it_must():
    text = read("README.md")
    for needed in ("make demo", "make test", "docs/images/phantom.png", "CITATION.cff", "attenscribble doctor"):
        assert needed in text
    assert (ROOT / "docs/images/phantom.png").stat().st_size < 200_000
    assert len(read("CONTRIBUTING.md").splitlines()) <= 40


def test_the_picture_can_be_drawn_again(tmp_path):
    draw(tmp_path / "phantom.png")
    assert 5_000 < (tmp_path / "phantom.png").stat().st_size < 200_000
