"""No relative link of a page or notebook leads nowhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from lib import config, paths

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "figures/*.md", "data_scripts/*.md", "notebooks/*.ipynb")
    for path in paths.ROOT.glob(pattern)
)
LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|<(?:img|a)\b[^>]*?(?:src|href)=\"([^\"]+)\"")


def text_of(path: Path) -> str:
    """What is written on a page: of a notebook its Markdown cells, code and inline code apart."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    return re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$", "", text, flags=re.DOTALL))


def anchors(text: str) -> set[str]:
    """What headings are called in a link."""
    titles = re.findall(r"^#+ +(.+?) *#*$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(path: Path, text: str) -> list[str]:
    """Relative links of a page at ``path`` that lead nowhere."""
    found = []
    for link in (one or other for one, other in LINK.findall(text)):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:|//", link) or link.startswith("attachment:"):
            continue
        place = path.parent / unquote(target) if target else path
        if not place.exists():
            found.append(link)
        elif anchor and place.suffix == ".md" and anchor.lower() not in anchors(place.read_text(encoding="utf-8")):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(paths.ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page):
    assert broken(page, text_of(page)) == []


CHAPTERS = [page for page in PAGES if re.match(r"0\d_", page.name)]


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_chapter_links_its_neighbours_its_code_its_numbers_and_its_claims(page):
    links = {(one or other).partition("#")[0] for one, other in LINK.findall(text_of(page))}
    place = CHAPTERS.index(page)
    wanted = {other.name for other in CHAPTERS[max(0, place - 1) : place + 2] if other != page}
    wanted |= {f"../lib/{config.chapter_package(page.stem)}", f"../figures/{page.stem}", "../figures/REPORT.md"}
    assert sorted(wanted - links) == []


def test_the_readme_links_the_papers_and_every_chapter():
    links = {one or other for one, other in LINK.findall(text_of(paths.ROOT / "README.md"))}
    assert {f"notebooks/{page.name}" for page in CHAPTERS} <= links
    papers = ("10.1111/cgf.14062", "2009.04583", "Lossy-Image-Compression", "2201.02624", "1812.03962")
    assert [paper for paper in papers if not any(paper in link for link in links)] == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        '# One heading: here\n\n[a](other.md) [b](#one-heading-here) [c](#two) <img src="x.png"> [d](https://x.y)'
    )
    (tmp_path / "other.md").write_text("")
    assert broken(page, text_of(page)) == ["#two", "x.png"]
