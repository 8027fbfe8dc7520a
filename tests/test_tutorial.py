"""The tutorial is run: every block of every page, and every printed number is compared."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

import steepest as st

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted((DOCS / "tutorial").glob("*.md"))
BESIDE = [DOCS / "own-metric.md", DOCS / "own-world.md", DOCS / "memory.md"]


@pytest.mark.parametrize("page", PAGES + BESIDE, ids=lambda page: page.stem)
def test_a_page_of_the_tutorial_says_what_its_lines_print(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = _code(page.read_text())
    case = doctest.DocTestParser().get_doctest(code, {}, page.stem, str(page), 0)
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(case, out=said.append)
    assert not said, "".join(said)


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = re.search(r"```\{toctree\}.*?\n\n(.*?)```", (PAGES[0].parent / "index.md").read_text(), re.DOTALL)
    assert listed is not None
    assert sorted(listed.group(1).split()) == sorted(page.stem for page in PAGES if page.stem != "index")


def _code(text: str) -> str:
    """The Python blocks of a page, all other lines blank: line numbers stay those of the page."""
    kept, inside = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            kept.append("")
        else:
            kept.append(line if inside else "")
    return "\n".join(kept) + "\n"


def test_every_public_name_is_in_the_reference() -> None:
    page = (PAGES[0].parent.parent / "api.md").read_text()
    assert sorted(re.findall(r"steepest\.(\w+)$", page, re.MULTILINE)) == sorted(set(st.__all__) - {"__version__"})
