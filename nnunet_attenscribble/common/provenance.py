"""What made a number: versions and the commit of this package."""

from __future__ import annotations

import json
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

_PACKAGES = ("nnunet-attenscribble", "nnunetv2", "torch")


@cache
def find_commit() -> str | None:
    """The commit of this package's source: of its git checkout, `-dirty` behind it where files were changed, or of the
    repository that it was installed from; None where neither is known.
    """
    folder = Path(__file__).resolve().parent
    try:
        commit = _ask_git(folder, "rev-parse", "HEAD")
        tracked = _ask_git(folder, "ls-files", "__init__.py")
        if tracked:  # not a checkout of something else that this package was installed into
            return commit + ("-dirty" if _ask_git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        pass
    try:
        source = distribution("nnunet-attenscribble").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    return json.loads(source).get("vcs_info", {}).get("commit_id") if source else None


@cache
def list_versions(*packages: str) -> dict[str, str]:
    """Versions of packages, by default of what trains, without importing them."""
    versions = {"python": platform.python_version()}
    for package in packages or _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return versions


def _ask_git(folder: Path, *arguments: str) -> str:
    answer = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return answer.stdout.strip()
