"""What the documentation points at exists: linked pages, files of the repository, modules and names of the package."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from paths import ROOT

PACKAGE = ROOT / "tune_lr"
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
DESIGN = [ROOT / "docs" / "architecture.md", *sorted((ROOT / "docs" / "decisions").glob("*.md"))]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
every_design_page = pytest.mark.parametrize("page", DESIGN, ids=lambda page: page.stem)


def prose(page: Path) -> str:
    """Return the text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, in the form that code hosts give them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@cache
def defined_names() -> set[str]:
    """Return the names of all classes and functions of the package."""
    return {
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }


@every_page
def test_a_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page)):
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not heading or heading in headings(file), target


@every_page
def test_a_file_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"`((?:tests|benchmarks|docs|examples|search_spaces|tune_lr)/[\w./-]+)`", prose(page))
    assert [name for name in named if not (ROOT / name).exists()] == []


@every_design_page
def test_a_module_that_is_named_exists(page: Path) -> None:
    packages = "|".join(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
    named = re.findall(rf"`({packages})\.([a-z_]+)`", prose(page))
    files = {("study", "yaml"), ("study", "journal"), ("study", "lock"), ("study", "stop")}  # of a study directory
    for package, module in set(named) - files:
        path = PACKAGE / package / module
        assert path.is_dir() or path.with_suffix(".py").is_file(), f"{package}.{module}"


@every_design_page
def test_a_class_that_is_named_exists(page: Path) -> None:
    of_others = {"Searcher", "TrialScheduler", "SequentialLR", "ReduceLROnPlateau"}
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][A-Za-z]*)?)[`.(]", prose(page))) - of_others
    assert named <= defined_names()


def test_the_index_of_decisions_lists_each_of_them() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text())
    assert listed == sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [int(name[:4]) for name in listed] == list(range(1, len(listed) + 1))
