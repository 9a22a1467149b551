"""What mkdocs calls while it builds the documentation."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from tools.site import api, command_line, formulas  # noqa: E402

_OUTSIDE = re.compile(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")  # a link out of docs/, as GitHub shows it


def on_files(files: Files, config) -> Files:
    """Add generated pages, and the files of the repository that pages link to."""
    pages = {"command_line.md": command_line.describe_commands(), **api.describe_packages(ROOT)}
    pages["changelog.md"] = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    pages["contributing.md"] = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    linked = {
        match[1]
        for page in (ROOT / "docs").glob("*.md")
        for match in _OUTSIDE.finditer(page.read_text(encoding="utf-8"))
    }
    for name in sorted(linked):
        # A link to a file that is not there stays broken, which mkdocs then tells.
        if (ROOT / name).is_file() and name not in ("CHANGELOG.md", "CONTRIBUTING.md"):
            files.append(File.generated(config, f"source/{name}", content=(ROOT / name).read_bytes()))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Lead links out of docs/ to where the files are on the site."""
    if page.file.src_uri == "contributing.md":
        return re.sub(r"\]\(docs/", "](", markdown).replace("](CHANGELOG.md)", "](changelog.md)")
    return _OUTSIDE.sub(_on_the_site, markdown)


def _on_the_site(link: re.Match) -> str:
    own = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
    return f"]({own.get(link[1], f'source/{link[1]}')}{link[2] or ''})"


def on_page_content(html: str, page, config, files) -> str:
    """Write formulas as MathML, which browsers show by themselves."""
    return formulas.to_mathml(html)
