"""Modules and functions of the package stay small enough to be read at one sitting."""

import ast
from pathlib import Path

import pytest

from paths import ROOT

MOST_LINES_OF_A_MODULE = 500
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_STUDY = 300

MODULES = sorted((ROOT / "tune_lr").rglob("*.py"))


def long_functions(source: str, most: int) -> list[str]:
    """Return the functions of a module with more than `most` lines, their decorators and docstrings included."""
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return [f"{node.name} ({lines})" for node in functions if (lines := _lines(node)) > most]


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    assert node.end_lineno is not None
    return node.end_lineno - first + 1


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_and_its_functions_are_small(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= MOST_LINES_OF_A_MODULE
    assert long_functions(source, MOST_LINES_OF_A_FUNCTION) == []


def test_a_long_function_is_found_wherever_it_stands() -> None:
    body = "\n".join(f"        x = {i}" for i in range(4))
    source = f"class A:\n    @property\n    def long(self):\n{body}\n\n    def short(self):\n        pass\n"
    assert long_functions(source, 5) == ["long (6)"]
    assert long_functions(source, 6) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_class_that_coordinates_a_study_stays_short() -> None:
    body = ast.parse((ROOT / "tune_lr/study/study.py").read_text()).body
    (study,) = [node for node in body if isinstance(node, ast.ClassDef) and node.name == "Study"]
    assert study.end_lineno is not None
    assert study.end_lineno - study.lineno + 1 <= MOST_LINES_OF_STUDY
