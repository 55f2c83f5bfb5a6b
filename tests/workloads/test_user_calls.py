"""What a worker says of a user's module that starts a study when it is imported, or reads data by a relative path."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tune_lr
from paths import DATA
from tune_lr.errors import InputError
from tune_lr.workloads import load_workload


@pytest.fixture(autouse=True)
def fresh_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name in ("w", "starts"):
            del sys.modules[name]


def test_a_search_at_the_top_of_the_workloads_module_names_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DATA / "reported" / "noguard")
    with pytest.raises(InputError) as caught:
        load_workload("w:make", {})
    assert str(caught.value) == (
        "workload: importing w calls tune_lr.search, and workers do so too; in the file that starts the study put that "
        'call under `if __name__ == "__main__":`'
    )


@pytest.mark.parametrize(
    ("call", "function"),
    [("range_test('nowhere.yaml')", "range_test"), ("train('nowhere')", "train"), ("search('nowhere.yaml')", "search")],
)
@pytest.mark.parametrize("inside", [False, True])
def test_every_function_that_starts_a_study_is_named(
    call: str, function: str, inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = f"def make():\n    return tune_lr.{call}\n" if inside else f"tune_lr.{call}\n"
    (tmp_path / "starts.py").write_text(f"import tune_lr\n\n{made}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=rf"calls tune_lr\.{function}, and workers do so too"):
        load_workload("starts:make", {})
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such file"):  # afterwards a study may start
        tune_lr.search("nowhere.yaml")


def test_a_relative_path_is_said_to_be_looked_for_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(DATA / "reported" / "relpath")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        load_workload("w:make", {})
    looked = f"a relative path is looked for in the worker's current directory, {tmp_path}"
    assert looked in str(caught.value)
    assert "there is one in" not in str(caught.value)

    beside = tmp_path / "beside"
    (beside / "data").mkdir(parents=True)
    (beside / "data" / "count.txt").write_text("400")
    monkeypatch.syspath_prepend(beside)
    with pytest.raises(InputError, match=rf"there is one in {beside}; give an absolute path that every node sees"):
        load_workload("w:make", {})
    monkeypatch.chdir(beside)
    assert load_workload("w:make", {}).batch_size == 50
