"""Files as they are written and read back, the names that are allowed, and the lock."""

import json
import math
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from paths import DATA
from tune_lr.config.load import parse_config
from tune_lr.errors import InputError, ResourceError
from tune_lr.records.row import TrialRow
from tune_lr.store.curves import append_points, read_curve, start_curve
from tune_lr.store.files import read_yaml, write_json, write_yaml
from tune_lr.store.record import FORMAT_VERSION
from tune_lr.store.study_dir import StudyDir, check_study_name

FULL_ROW = TrialRow(
    number=12,
    phase="search",
    state="complete",
    lr_schedule="onecycle",
    lr=0.1 + 0.2,
    parameters={"onecycle.pct_start": 1 / 3, "onecycle.three_phase": True, "onecycle.anneal_strategy": "linear"},
    seed=2**31 - 1,
    steps=310,
    metrics={"val_loss": 5e-324, "val_accuracy": 0.9725},
    duration_s=2.5,
    started_s=1e-7,
    slot=3,
    reason='a, "quoted" reason',
)


@pytest.fixture
def study(tmp_path: Path) -> StudyDir:
    directory = StudyDir(tmp_path / "studies" / "mine")
    directory.create({"name": "mine"})
    return directory


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# --- trials.csv ---------------------------------------------------------------------------------------------


def test_a_row_comes_back_as_it_was_written(study: StudyDir) -> None:
    study.write_rows([FULL_ROW])
    assert study.read_rows() == [FULL_ROW]


def test_rows_with_different_parameters_and_metrics_share_a_table(study: StudyDir) -> None:
    rows = [
        TrialRow(0, "range_test", "complete", "ramp", 10.0, {}, 1, 107),
        TrialRow(1, "search", "failed", "constant", 0.1, {}, 0, 0, reason="a worker died"),
        TrialRow(2, "search", "pruned", "step", 0.2, {"step.step_size": 30, "step.gamma": 0.5}, 0, 62),
        FULL_ROW,
    ]  # fmt: skip
    study.write_rows(rows)
    assert study.read_rows() == rows
    header = study.trials_csv.read_text().splitlines()[0].split(",")
    assert header[:5] == ["number", "phase", "state", "lr_schedule", "lr"]
    assert header.index("step.gamma") < header.index("seed") < header.index("val_loss") < header.index("duration_s")


def test_a_table_without_rows_has_a_header(study: StudyDir) -> None:
    study.write_rows([])
    assert study.read_rows() == []
    assert study.trials_csv.read_text().count("\n") == 1


@settings(max_examples=40, deadline=None)
@given(
    lr=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    value=st.floats(allow_nan=False, allow_infinity=False),
    integer=st.integers(-(10**12), 10**12),
)
def test_every_number_comes_back_to_its_last_digit(
    tmp_path_factory: pytest.TempPathFactory, lr: float, value: float, integer: int
) -> None:
    study = StudyDir(tmp_path_factory.mktemp("rows"))
    row = TrialRow(0, "search", "complete", "step", lr, {"step.a": value, "step.b": integer}, 0, 1, {"val_loss": value})
    study.write_rows([row])
    (read,) = study.read_rows()
    assert read == row
    assert {name: type(value) for name, value in read.parameters.items()} == {"step.a": float, "step.b": int}


def test_numpys_numbers_are_written_as_numbers(study: StudyDir) -> None:
    value = np.float64(0.1) + np.float64(0.2)
    row = TrialRow(0, "search", "complete", "step", value, {"step.gamma": value}, 0, 1, {"val_loss": value})
    study.write_rows([row])
    assert "np." not in study.trials_csv.read_text()
    assert study.read_rows()[0].lr == float(value)
    assert study.read_rows()[0].metrics == {"val_loss": float(value)}


@pytest.mark.parametrize(
    "reason",
    [
        "two\nlines",
        'comma, "quote"',
        "tab\tand ünïcode ✓",
    ],
)
def test_a_reason_may_hold_any_text(study: StudyDir, reason: str) -> None:
    study.write_rows([TrialRow(0, "search", "failed", "step", 0.1, {}, 0, 1, reason=reason), FULL_ROW])
    assert [row.reason for row in study.read_rows()] == [reason, FULL_ROW.reason]


def test_a_carriage_return_in_a_reason_does_not_break_the_table(study: StudyDir) -> None:
    study.write_rows([TrialRow(0, "search", "failed", "step", 0.1, {}, 0, 1, reason="10 %\r20 %"), FULL_ROW])
    assert [row.reason for row in study.read_rows()] == ["10 % 20 %", FULL_ROW.reason]


# --- curves -------------------------------------------------------------------------------------------------


def test_a_curve_comes_back_with_nan_where_nothing_was_measured(study: StudyDir) -> None:
    path = study.range_test / "curve-0.csv"
    start_curve(path, ["step", "lr", "train_loss", "val_loss"])
    append_points(path, [(1, 0.1, 2.0, None), (2, np.float64(0.1) * 3, math.nan, 0.5)])
    append_points(path, [(3, 1e-5, math.inf, None)])
    curve = read_curve(path)
    assert curve["step"] == [1, 2, 3]
    assert curve["lr"] == [0.1, 0.1 * 3, 1e-5]
    assert curve["train_loss"] == pytest.approx([2.0, math.nan, math.inf], nan_ok=True)
    assert curve["val_loss"] == pytest.approx([math.nan, 0.5, math.nan], nan_ok=True)
    assert path.read_text().splitlines()[1] == "1,0.1,2.0,"


def test_a_torn_last_line_of_a_curve_is_left_out_wherever_it_was_torn(study: StudyDir) -> None:
    path = study.range_curve(0)
    start_curve(path, ["step", "lr", "loss"])
    append_points(path, [(1, 0.125, 2.5), (2, 0.25, 1.25)])
    whole = path.read_bytes()
    for cut in range(len(whole) - len("2,0.25,1.25\n"), len(whole)):
        path.write_bytes(whole[:cut])
        assert read_curve(path) == {"step": [1], "lr": [0.125], "loss": [2.5]}


@pytest.mark.parametrize("content", ["", "step,lr"])
def test_a_curve_without_a_header_is_one_line_for_the_user(study: StudyDir, content: str) -> None:
    study.range_curve(0).write_text(content)
    with pytest.raises(ResourceError, match=r"curve-0\.csv: empty"):
        read_curve(study.range_curve(0))


def test_a_curve_that_is_begun_again_forgets_what_it_held(study: StudyDir) -> None:
    for loss in (1.0, 2.0):
        start_curve(study.range_curve(0), ["step", "loss"])
        append_points(study.range_curve(0), [(1, loss)])
    assert read_curve(study.range_curve(0)) == {"step": [1], "loss": [2.0]}


def test_range_curves_come_by_number(study: StudyDir) -> None:
    for number in (10, 2, 0):
        start_curve(study.range_curve(number), ["step"])
    assert [path.name for path in study.range_curves()] == ["curve-0.csv", "curve-2.csv", "curve-10.csv"]


# --- YAML and JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1e-5, 1e16, 1e300, 5e-324, 0.1, -2.5e-7, 1.0, 123456789.123456789, 1e22])
def test_a_float_is_read_back_as_the_same_float(study: StudyDir, value: float) -> None:
    write_yaml(study.best_yaml, {"lr": value})
    read = read_yaml(study.best_yaml)["lr"]
    assert type(read) is float
    assert read == value
    assert yaml.safe_load(study.best_yaml.read_text())["lr"] == value  # also by whoever knows only YAML 1.1


def test_floats_that_are_not_finite_are_read_back(study: StudyDir) -> None:
    write_yaml(study.best_yaml, {"values": [math.inf, -math.inf, math.nan]})
    values = read_yaml(study.best_yaml)["values"]
    assert values == pytest.approx([math.inf, -math.inf, math.nan], nan_ok=True)


@pytest.mark.parametrize(
    "value", [True, None, 3, "no", "1e-5", "null", "two words", "", "ü", [1, [2.5]], {"a": {"b": []}}]
)
def test_plain_data_is_read_back_as_it_was(study: StudyDir, value: Any) -> None:
    write_yaml(study.best_yaml, {"value": value})
    assert read_yaml(study.best_yaml) == {"value": value}


def test_code_is_a_block_that_can_be_read_and_pasted(study: StudyDir) -> None:
    code = 'import torch\n\nscheduler = f(\n    optimizer,\n    name="x",  # : - {\n)\n'
    write_yaml(study.best_yaml, {"code": code})
    assert read_yaml(study.best_yaml) == {"code": code}
    text = study.best_yaml.read_text()
    assert text.startswith("code: |\n")
    assert "\n      optimizer,\n" in text
    assert "\\n" not in text


def test_keys_stay_in_their_order(study: StudyDir) -> None:
    write_yaml(study.best_yaml, {"b": 1, "a": 2})
    assert list(read_yaml(study.best_yaml)) == ["b", "a"]


def test_json_is_read_back_and_holds_no_nan(study: StudyDir) -> None:
    write_json(study.bounds_json, {"low": 1e-5, "high": None})
    assert study.read_json(study.bounds_json) == {"low": 1e-5, "high": None}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(study.bounds_json, {"low": math.nan})
    assert study.read_json(study.bounds_json) == {"low": 1e-5, "high": None}


@pytest.mark.parametrize("content", [None, "", '{"low": 1'])
def test_json_that_is_missing_or_cut_is_one_line_for_the_user(study: StudyDir, content: str | None) -> None:
    if content is not None:
        study.bounds_json.write_text(content)
    with pytest.raises(ResourceError, match="missing or cut short"):
        study.read_json(study.bounds_json)


# --- atomic replacement -------------------------------------------------------------------------------------


def test_replacing_leaves_no_temporary_file(study: StudyDir) -> None:
    before = names_in(study.root)
    for _ in range(2):
        study.write_rows([FULL_ROW])
        write_json(study.bounds_json, {})
        write_yaml(study.best_yaml, {"lr": 1.0})
    assert names_in(study.root) == before | {"trials.csv", "bounds.json", "best.yaml"}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(study: StudyDir) -> None:
    write_yaml(study.best_yaml, {"lr": 1.0})
    before = names_in(study.root)
    with pytest.raises(yaml.YAMLError):
        write_yaml(study.best_yaml, {"lr": 2.0, "model": object()})
    assert read_yaml(study.best_yaml) == {"lr": 1.0}
    assert names_in(study.root) == before


def test_a_reader_that_holds_the_old_file_keeps_it(study: StudyDir) -> None:
    write_json(study.bounds_json, {"low": 1})
    with study.bounds_json.open() as reader:
        write_json(study.bounds_json, {"low": 2})
        assert json.load(reader) == {"low": 1}


# --- the directory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "lenet5_mnist-20260115-101244", "A.b-C_9", "0", "x" * 64])
def test_a_plain_name_is_a_study_name(name: str) -> None:
    assert check_study_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-a",
        "_a",
        "../x",
        "/abs",
        "a/b",
        "a\\b",
        "a b",
        "a\0b",
        "a\n",
        "ü",
        "x" * 65,
        "x" * 300,
    ],
)
def test_any_other_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match="not a study name") as error:
        check_study_name(name)
    assert "\n" not in str(error.value)
    assert "\0" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_new_study_has_its_folders_and_says_its_format(study: StudyDir) -> None:
    assert names_in(study.root) == {"study.yaml", "range_test", "trials"}
    assert study.read_study() == {"format_version": FORMAT_VERSION, "name": "mine"}


def test_create_refuses_a_study_that_exists_and_leaves_it_as_it_is(study: StudyDir) -> None:
    study.start_trial(7, {"lr": 0.1})
    before = {path: path.read_bytes() for path in study.root.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"exists already.*tune-lr resume"):
        StudyDir(study.root).create({"name": "another"})
    assert {path: path.read_bytes() for path in study.root.rglob("*") if path.is_file()} == before


def test_an_empty_directory_may_become_a_study(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    StudyDir(tmp_path / "s").create({})
    assert StudyDir(tmp_path / "s").read_study()["format_version"] == FORMAT_VERSION


def test_a_place_that_cannot_hold_a_study_is_one_line_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be written"):
        StudyDir(tmp_path / "file" / "s").create({})


def test_a_file_in_the_studys_place_is_one_line_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    with pytest.raises((InputError, ResourceError)):
        StudyDir(tmp_path / "s").create({})


def test_a_trial_has_a_folder_with_its_parameters(study: StudyDir) -> None:
    study.start_trial(7, {"lr": 0.1})
    study.start_trial(7, {"lr": 0.2})
    assert study.trial(7).name == "0007"
    assert study.trial(12345).name == "12345"
    assert json.loads((study.trial(7) / "params.json").read_text()) == {"lr": 0.2}
    assert study.curve(7).parent == study.checkpoint(7).parent == study.trial(7)


def test_remove_deletes_the_study_and_nothing_beside_it(study: StudyDir) -> None:
    study.remove()
    assert not study.root.exists()
    assert study.root.parent.exists()


@pytest.mark.parametrize("version", [None, 0, FORMAT_VERSION + 1, str(FORMAT_VERSION)])
def test_a_study_of_another_format_is_refused(study: StudyDir, version: Any) -> None:
    write_yaml(study.study_yaml, {"name": "mine"} if version is None else {"format_version": version})
    with pytest.raises(ResourceError, match=f"format_version is {version!r}.*reads {FORMAT_VERSION}"):
        study.read_study()


UNREADABLE = {
    "empty": b"",
    "blank": b"\n",
    "a list": b"- a\n- b\n",
    "text": b"just text",
    "NUL": b"\x00\x01\x02",
    "not UTF-8": b"\xff\xfe\xfa",
    "cut": b"a: [1, 2",
    "no YAML": b"a: b: c",
}


@pytest.mark.parametrize(
    "content",
    [
        *(pytest.param(content, id=name) for name, content in UNREADABLE.items()),
        pytest.param(b"created: 2026-13-99\n", id="no date"),
        pytest.param(b"[" * 2000, id="deep"),
    ],
)
def test_a_study_yaml_that_cannot_be_read_is_one_line_for_the_user(study: StudyDir, content: bytes) -> None:
    study.study_yaml.write_bytes(content)
    with pytest.raises(ResourceError, match=r"study\.yaml: ") as error:
        study.read_study()
    assert "\n" not in str(error.value)


def test_a_study_yaml_that_was_cut_is_refused_or_says_what_it_did(tmp_path: Path) -> None:
    study = StudyDir(tmp_path / "s")
    fixed = [{"lr_schedule": "constant", "lr": 0.1}]
    config = {"workload": "m:f", "max_steps": 8, "report_every": 4, "num_trials": 0, "fixed": fixed}
    study.create({"name": "s", "id": "0a1b", "python_path": ["/x"], "phases": ["search"], "config": config,
                  "packages": {"ray": "2.60.0"}, "hardware": {"host": "here", "cpus": 2}})  # fmt: skip
    whole, refused = study.study_yaml.read_text(), 0
    for length in range(len(whole)):
        study.study_yaml.write_text(whole[:length])
        with suppress(ResourceError):
            assert study.read_record().config == parse_config(config)
            continue
        refused += 1
        with pytest.raises(ResourceError, match=rf"^{re.escape(str(study.study_yaml))}"):
            study.read_record()
    assert refused > len(whole) / 2


def test_where_there_is_no_study_one_line_says_so(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"there is no such file; is .* a study directory"):
        StudyDir(tmp_path).read_study()


def test_a_directory_in_place_of_study_yaml_is_one_line_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").mkdir()
    with pytest.raises(ResourceError, match="cannot be read"):
        StudyDir(tmp_path).read_study()


# --- the answer ---------------------------------------------------------------------------------------------


def test_an_answer_is_read_back_as_it_was_written(study: StudyDir) -> None:
    assert study.read_answer() is None
    answer = StudyDir(DATA / "studies_0_1" / "finished").read_answer()
    assert answer is not None
    study.write_answer(answer)
    assert study.read_answer() == answer
    study.write_answer(None)
    assert study.read_answer() is None


@pytest.mark.parametrize("key", ["finalists", "metric", "steps", "code"])
def test_a_best_yaml_that_lacks_something_is_one_line_for_the_user(study: StudyDir, key: str) -> None:
    whole = read_yaml(DATA / "studies_0_1" / "finished" / "best.yaml")
    write_yaml(study.best_yaml, {name: value for name, value in whole.items() if name != key})
    with pytest.raises(ResourceError, match=rf"best\.yaml: .*'{key}'.*; `tune-lr report .*` writes it again"):
        study.read_answer()


# --- the lock -----------------------------------------------------------------------------------------------

HOLDER = """
import sys
from tune_lr.store.study_dir import StudyDir
with StudyDir(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["kill", "leave"])
def test_one_process_holds_a_study_and_lets_go_however_it_ends(study: StudyDir, end: str) -> None:
    command = [sys.executable, "-c", HOLDER, str(study.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        held = pytest.raises(ResourceError, match=f"in use by process {holder.pid} on .*; one driver a study")
        with held, study.lock():
            pass
        holder.kill() if end == "kill" else holder.stdin.close()
        holder.wait()
    with study.lock():
        assert f"process {os.getpid()} on" in study.lock_file.read_text()


def test_the_same_process_cannot_hold_a_study_twice(study: StudyDir) -> None:
    with study.lock(), pytest.raises(ResourceError, match=f"process {os.getpid()}"), study.lock():
        pass
    with study.lock():
        pass


def test_a_study_is_let_go_of_after_an_error(study: StudyDir) -> None:
    with pytest.raises(ZeroDivisionError), study.lock():
        raise ZeroDivisionError
    with study.lock():
        pass


def test_a_parameter_that_is_a_list_comes_back_as_one(study: StudyDir) -> None:
    parameters = {"multistep.milestones": [0.5, 0.9], "optimizer.betas": [0.9, 0.999], "step.gamma": 0.5}
    row = TrialRow(0, "search", "complete", "multistep", 0.1, parameters, 0, 10, {"val_loss": 1.0})
    study.write_rows([row])
    assert study.read_rows() == [row]
