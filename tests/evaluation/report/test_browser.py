"""The page of a report in a real browser, where one is installed."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Chromium's own window is never narrower than 500 pixels; a frame is as narrow as a phone.
FRAME = """<!doctype html><body style="margin:0"><pre id="found"></pre>
<iframe id="frame" style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe>
<script>
document.getElementById("frame").addEventListener("load", event => {{
  const inner = event.target.contentDocument, root = inner.documentElement, pictures = [...inner.images];
  inner.querySelectorAll("details").forEach(entry => entry.open = true);
  document.getElementById("found").textContent = JSON.stringify({{
    width: root.clientWidth,
    needed: Math.max(root.scrollWidth, inner.body.scrollWidth),
    pictures: pictures.length,
    broken: pictures.filter(entry => !(entry.complete && entry.naturalWidth > 0)).length,
    wide: [...inner.querySelectorAll("main *")].filter(entry => !entry.closest(".scroll")
      && entry.getBoundingClientRect().right > root.clientWidth + 1).length,
    text: Math.min(...[...inner.querySelectorAll("p, li, td, th, figcaption")]
      .map(entry => parseFloat(inner.defaultView.getComputedStyle(entry).fontSize))),
    scrolling: [...inner.querySelectorAll(".scroll")].filter(entry => entry.scrollWidth > entry.clientWidth).length,
  }});
}});
</script>"""


@pytest.fixture(scope="module")
def browser():
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip(f"no browser to look at the page with: none of {', '.join(BROWSERS)} is installed")
    return found


@pytest.fixture
def page(report):
    return report / "report.html"


def load(browser, file, profile) -> tuple[str, list[str]]:
    """The document after it was loaded, and what the browser's console told."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += [f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"]
    command += ["--window-size=1400,900", "--virtual-time-budget=10000", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_console_stays_empty(browser, page, tmp_path):
    document, told = load(browser, page, tmp_path / "profile")
    assert "</html>" in document
    assert told == []


def test_an_error_in_the_console_would_be_seen(browser, tmp_path):
    (tmp_path / "bad.html").write_text("<script>console.error('planted')</script>")
    _, told = load(browser, tmp_path / "bad.html", tmp_path / "profile")
    assert any("planted" in line for line in told)


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_readable(browser, page, tmp_path, width):
    file = tmp_path / "frame.html"
    text = page.read_text(encoding="utf-8")
    file.write_text(FRAME.format(width=width, page=html.escape(text, quote=True)), encoding="utf-8")
    document, told = load(browser, file, tmp_path / "profile")
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', document, re.DOTALL)[1]))
    assert told == []
    assert found["pictures"] == text.count("<img ")
    assert found["broken"] == 0
    assert found["width"] <= width
    assert found["needed"] <= found["width"]
    assert found["wide"] == 0
    assert found["text"] >= 12
    if width == 400:
        assert found["scrolling"] > 0  # wide tables, in boxes of their own
