"""What mkdocs calls while it builds the documentation."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from tools.site import api, command_line, formulas  # noqa: E402

#: Pages beside docs/, and what they are called on the site.
_BESIDE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
_LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")  # to a file of the repository, as GitHub shows it


def on_files(files: Files, config) -> Files:
    """Add generated pages, those beside docs/, and the files of the repository that pages link to."""
    pages = {"command_line.md": command_line.describe_commands(), **api.describe_packages()}
    pages.update((site, (ROOT / name).read_text(encoding="utf-8")) for name, site in _BESIDE.items())
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    for name in sorted(_find_linked()):
        # A link to a file that is not there stays broken, which mkdocs then tells.
        if (ROOT / name).is_file():
            files.append(File.generated(config, _place(name), content=(ROOT / name).read_bytes()))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Lead links to where the files are on the site."""
    name = page.file.src_uri
    return markdown if "/" in name else lead_links(markdown, "" if name in _BESIDE.values() else "docs")


def lead_links(markdown: str, folder: str) -> str:
    """A page of a folder of the repository, with its links as the site has them."""
    return _LINK.sub(lambda link: f"]({_place(_resolve(link, folder))}{link[2] or ''})", markdown)


def _find_linked() -> set[str]:
    """Files of the repository that pages link to and that are no pages themselves."""
    pages = [(ROOT / name, "") for name in _BESIDE] + [(page, "docs") for page in (ROOT / "docs").glob("*.md")]
    names = {_resolve(link, folder) for page, folder in pages for link in _LINK.finditer(page.read_text("utf-8"))}
    return {name for name in names if _place(name).startswith("source/")}


def _resolve(link: re.Match, folder: str) -> str:
    return posixpath.normpath(posixpath.join(folder, link[1]))


def _place(name: str) -> str:
    """Where a file of the repository is on the site."""
    if name in _BESIDE:
        return _BESIDE[name]
    return name.removeprefix("docs/") if name.startswith("docs/") else f"source/{name}"


def on_page_content(html: str, page, config, files) -> str:
    """Write formulas as MathML, which browsers show by themselves."""
    return formulas.to_mathml(html)
