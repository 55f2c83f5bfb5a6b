"""What `import tune_lr` offers: other people's programs use it, so it is added to and not broken."""

import dataclasses
import inspect
from typing import Any

import pytest

import tune_lr
from tune_lr.errors import InputError, Interrupted, NoAnswerError, ResourceError

NAMES = {
    "LRBounds",
    "StudyResult",
    "TuneLRError",
    "Workload",
    "find_lr_bounds",
    "range_test",
    "read_study",
    "search",
    "train",
}
REQUIRED = inspect.Parameter.empty

# Parameters in their order: name, whether it may be given by its place, default.
RUNS_A_SPACE = [
    ("space", True, "lenet5_mnist"),
    ("name", False, None),
    ("out", False, "studies"),
    ("settings", False, None),
    ("address", False, None),
    ("wandb", False, None),
    ("strict", False, False),
    ("progress", False, False),
]
SIGNATURES = {
    "search": RUNS_A_SPACE,
    "range_test": RUNS_A_SPACE,
    "train": [
        ("study", True, REQUIRED),
        ("trial", False, None),
        ("name", False, None),
        ("settings", False, None),
        ("address", False, None),
        ("wandb", False, None),
        ("progress", False, False),
        ("accept_changed_code", False, False),
    ],
    "read_study": [("path", True, REQUIRED)],
}
FIELDS = {
    "StudyResult": {"path", "answer", "bounds", "rows"},
    "LRBounds": {"low", "high", "suggestion", "status", "reason", "replicates"},
    "Workload": {
        "model", "train_data", "val_data", "test_data", "criterion", "metrics", "batch_size", "collate_fn", "forward",
        "batch_weight", "param_groups",
    },
}  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert set(tune_lr.__all__) == NAMES
    assert len(tune_lr.__all__) == len(NAMES)
    for name in NAMES:
        assert callable(getattr(tune_lr, name))
    with pytest.raises(AttributeError, match="has no attribute 'sweep'"):
        _ = tune_lr.sweep


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_a_function_takes_what_it_took(name: str) -> None:
    taken: list[tuple[str, bool, Any]] = [
        (parameter.name, parameter.kind is not inspect.Parameter.KEYWORD_ONLY, parameter.default)
        for parameter in inspect.signature(getattr(tune_lr, name)).parameters.values()
    ]
    assert taken == SIGNATURES[name]


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_a_record_has_at_least_the_fields_that_it_had(name: str) -> None:
    record = getattr(tune_lr, name)
    assert {field.name for field in dataclasses.fields(record)} >= FIELDS[name]
    assert record.__dataclass_params__.frozen
    assert inspect.getdoc(record)


def test_a_result_has_its_tables_and_the_answer_as_a_mapping() -> None:
    assert {"best", "trials", "curve", "curves"} <= set(dir(tune_lr.StudyResult))


def test_every_expected_error_has_the_exit_code_of_the_command_line() -> None:
    codes = {InputError: 2, ResourceError: 4, NoAnswerError: 5}
    for error, code in codes.items():
        assert issubclass(error, tune_lr.TuneLRError)
        assert error.exit_code == code
    assert Interrupted("interrupted", 2).exit_code == 130
