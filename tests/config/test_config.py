"""The search space: what is read, what is refused, and the one line that says why."""

# ruff: noqa: E501 - a case of a table stays on one line

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paths import ROOT
from tune_lr.config.load import load_config, parse_config
from tune_lr.config.model import Config
from tune_lr.config.parameters import Distribution, LRRange
from tune_lr.config.spaces import find_space
from tune_lr.config.yaml_file import read_yaml
from tune_lr.errors import InputError

# Every case below changes one line of this, so that the line of the error is the line changed.
BASE = """\
workload: my_module:make_workload
batch_size: 128
max_steps: 310
report_every: 31
num_trials: 48
seed: 0
range_test: {low: 1e-5, high: 10}
pruner: {name: asha, min_steps: 62}
optimizer: {name: sgd, momentum: 0.9}
parameters:
  lr: {min: range_test, max: range_test}
  lr_schedule:
    choices:
      constant: {}
      step:
        step_size: {min: 0.1, max: 0.5}
        gamma: {min: 0.1, max: 0.9}
scaling: {workers_per_trial: 1, plugin: ddp}
"""
LINES = BASE.splitlines()


def base() -> dict[str, Any]:
    data = read_yaml(BASE, "base")[0]
    assert isinstance(data, dict)
    return data


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, so that messages show `space.yaml`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(content: str | bytes, *overrides: str) -> str:
    """The message about a space.yaml with this content."""
    Path("space.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.process_time()
    with pytest.raises(InputError) as caught:
        load_config("space.yaml", overrides)
    assert time.process_time() - started < 2
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert len(message.splitlines()) == 1
    return message


def with_line(number: int, line: str) -> str:
    return "\n".join([*LINES[: number - 1], line, *LINES[number:]])


# --- fields that are wrong ----------------------------------------------------------------------------------------------

PLUGINS = "ddp, low_level_zero, gemini, fsdp, hybrid_parallel"
SIX = "constant, step, exponential, cosine, onecycle, cyclic"
ALL = f"{SIX}, multistep, cosine_restarts, polynomial, linear, inverse_sqrt, wsd, flat_cosine, plateau"
FORMS = "{value: x}, {values: [x, y]} or {min: x, max: y}"
SCHEDULE_FORMS = "{choices: {constant: {}, cosine: {}}}, {value: constant} or {values: [constant, cosine]}"
FIELDS = ", ".join(Config.model_fields)


@pytest.mark.parametrize(
    ("number", "line", "expected"),
    [
        # unknown keys
        (6, "sed: 0", f"sed: is unknown; did you mean 'seed'?; allowed: {FIELDS}"),
        (6, "zzzz: 0", f"zzzz: is unknown; allowed: {FIELDS}"),
        (7, "range_test: {lo: 1}", "range_test.lo: is unknown; did you mean 'low'?; allowed: low, high, steps, replicates, mode, stairs, training_steps"),
        (8, "pruner: {min_step: 62}", "pruner.min_step: is unknown; did you mean 'min_steps'?; allowed: name, min_steps, reduction_factor"),
        (17, "        gama: {value: 0.5}", "parameters.lr_schedule.choices.step.gama: is no parameter of step; did you mean 'gamma'?; allowed: step_size, gamma, warmup, warmup_start"),
        (17, "        gamma: {minn: 1}", "parameters.lr_schedule.choices.step.gamma.minn: is unknown; did you mean 'min'?; allowed: value, values, min, max, distribution"),
        # the LR
        (11, "  lr: {value: 0}", "parameters.lr.value: must be greater than 0 (got 0)"),
        (11, "  lr: {value: -0.1}", "parameters.lr.value: must be greater than 0 (got -0.1)"),
        (11, "  lr: {min: -1, max: 1}", "parameters.lr.min: must be greater than 0 (got -1)"),
        (11, "  lr: {min: 1, max: 0.1}", "parameters.lr.min: must be less than max (got 1.0, max is 0.1)"),
        (11, "  lr: {min: 0.1, max: 0.1}", "parameters.lr.min: must be less than max (got 0.1, max is 0.1)"),
        (11, "  lr: {min: .nan, max: 1}", "parameters.lr.min: must be a finite number (got nan)"),
        (11, "  lr: {min: 0.1, max: .inf}", "parameters.lr.max: must be a finite number (got inf)"),
        (11, "  lr: {min: 0.1, max: 1e999}", "parameters.lr.max: must be a finite number (got inf)"),
        (11, "  lr: {min: nan, max: 1}", "parameters.lr.min: must be a number or range_test (got 'nan')"),
        (11, "  lr: {min: range-test, max: 1}", "parameters.lr.min: must be a number or range_test (got 'range-test'); did you mean 'range_test'?"),
        (11, "  lr: {values: [0.1, 0]}", "parameters.lr.values.1: must be greater than 0 (got 0)"),
        (11, "  lr: {values: []}", "parameters.lr.values: is empty (got []); write at least one value"),
        (11, "  lr: {values: [0.1, 0.1]}", "parameters.lr.values.1: is given twice (got 0.1); keep one of them"),
        (11, "  lr: {values: 0.1}", "parameters.lr.values: must be a list, such as [x, y] (got 0.1)"),
        (11, "  lr: 0.1", "parameters.lr: must say how it is drawn (got 0.1); write {value: 0.1}"),
        (11, "  lr: range_test", "parameters.lr: must say how it is drawn (got 'range_test'); write {min: range_test, max: range_test}"),
        (11, "  lr: {min: 0.1}", f"parameters.lr: has no single form (got min); write {FORMS}"),
        (11, "  lr: {}", f"parameters.lr: has no single form (got none); write {FORMS}"),
        (11, "  lr: {value: 1, max: 2}", f"parameters.lr: has no single form (got value and max); write {FORMS}"),
        (11, "  lr: {min: 1, max: 2, distribution: uniform}", "parameters.lr.distribution: is no choice (got 'uniform'); allowed: log_uniform_values"),
        (11, "  lr: {min: 20, max: range_test}", "parameters.lr.min: must be less than range_test.high (got 20.0)"),
        (11, "  lr: {min: range_test, max: 1e-6}", "parameters.lr.max: must be greater than range_test.low (got 1e-06)"),
        (9, "optimizer: {name: sgd, lr: 0.1}", "optimizer.lr: is searched, not set (got 0.1); write it under parameters.lr"),
        # schedules
        (14, "      cosin: {}", f"parameters.lr_schedule.choices.cosin: is no LR schedule (got 'cosin'); did you mean 'cosine'?; allowed: {ALL}"),
        (14, "      constant: []", "parameters.lr_schedule.choices.constant: must be a mapping, such as {key: value} (got [])"),
        (14, "      constant: 1", "parameters.lr_schedule.choices.constant: must be a mapping, such as {key: value} (got 1)"),
        (17, "        gamma: 0.5", "parameters.lr_schedule.choices.step.gamma: must say how it is drawn (got 0.5); write {value: 0.5}"),
        (17, "        gamma: [0.1, 0.5]", "parameters.lr_schedule.choices.step.gamma: must say how it is drawn (got [0.1, 0.5]); write {values: [...]}"),
        (17, "        gamma:", "parameters.lr_schedule.choices.step.gamma: must say how it is drawn (got null); write {value: x}"),
        (17, "        gamma: {value: 0.5, distribution: uniform}", "parameters.lr_schedule.choices.step.gamma.distribution: goes with min and max only (got 'uniform')"),
        (17, "        gamma: {min: 0.5, max: 0.1}", "parameters.lr_schedule.choices.step.gamma.min: must be less than max (got 0.5, max is 0.1)"),
        (17, "        gamma: {min: 0, max: 0.9, distribution: log_uniform_values}", "parameters.lr_schedule.choices.step.gamma.min: must be greater than 0 for log_uniform_values (got 0.0)"),
        (16, "        step_size: {min: 2, max: 0.5, distribution: int_uniform}", "parameters.lr_schedule.choices.step.step_size.max: must be a whole number for int_uniform (got 0.5)"),
        # numbers and words
        (1, "workload: my_module", "workload: is no workload (got 'my_module'); write module:function"),
        (1, "workload: ../x:f", "workload: is no workload (got '../x:f'); write module:function"),
        (1, "workload: 5", "workload: must be text (got 5)"),
        (2, "batch_size: 0", "batch_size: must be at least 1 (got 0)"),
        (3, "max_steps: many", "max_steps: must be a whole number (got 'many')"),
        (3, "max_steps: 310.0", "max_steps: must be a whole number (got 310.0)"),
        (3, "max_steps: true", "max_steps: must be a whole number (got true)"),
        (3, "max_steps: 10000000000", "max_steps: must be at most 1000000000 (got 10000000000)"),
        (3, "max_steps: 99999999999999999999", "max_steps: is too large a number (got 99999999999999999999); at most 64 bits"),
        (3, f"max_steps: 1{'0' * 400}", f"max_steps: is too long a number (got 1{'0' * 56}...)"),
        (4, "report_every: 311", "report_every: must be at most max_steps (got 311, max_steps is 310)"),
        (5, "num_trials: 0", "num_trials: must be at least 1 where no configuration is fixed (got 0)"),
        (6, "fixed: [{lr: 1}]", "fixed.0: lr_schedule is missing; write {lr_schedule: cosine, lr: 0.1} or {ramp: ...}"),
        (6, "fixed: [{lr_schedule: cosine}]", "fixed.0: lr is missing; write {lr_schedule: cosine, lr: 0.1} or {ramp: ...}"),
        (6, "fixed: [{lr_schedule: step, lr: 1, gama: 0.5}]", "fixed.0.gama: is no parameter of step; did you mean 'gamma'?; allowed: step_size, gamma, warmup, warmup_start"),
        (6, "fixed: [{lr_schedule: step, lr: 0}]", "fixed.0.lr: must be greater than 0 (got 0)"),
        (6, "fixed: [{ramp: {low: 1, high: 0.1}}]", "fixed.0.ramp.low: must be less than high (got 1.0, high is 0.1)"),
        (6, "fixed: [{ramp: {low: 1, high: 2, stairs: 3}}]", "fixed.0.ramp.stairs: goes with mode staircase, and only so (mode is exponential)"),
        (6, "fixed: [{ramp: {low: 1, high: 2}, lr: 1}]", "fixed.0.lr: does not go with ramp"),
        (6, "fixed: [{ramp: {low: 1, high: 2}}, {ramp: {low: 1, high: 3}}]", "fixed.1.label: is there twice (got 'ramp'); give each configuration its own"),
        (6, "seed: -1", "seed: must be at least 0 (got -1)"),
        (6, "seed: 2147483648", "seed: must be at most 2147483647 (got 2147483648)"),
        (6, "metric: {name: loss}", "metric.name: is no metric (got 'loss'); write val_loss, or val_ and the name of a metric"),
        (6, "metric: {goal: minimise}", "metric.goal: is no choice (got 'minimise'); did you mean 'minimize'?; allowed: minimize, maximize"),
        (6, "confirm: {seeds: 0}", "confirm.seeds: must be at least 1 (got 0)"),
        (6, "confirm: {max_seeds: 2}", "confirm.max_seeds: must be at least seeds (got 2, seeds is 3)"),
        (6, "confirm: {top: -1}", "confirm.top: must be at least 0 (got -1)"),
        (6, "wandb: {project: a/b}", "wandb.project: is no W&B project (got 'a/b'); write it without any of / \\ # ? % :"),
        (7, "range_test: {low: 1, high: 0.1}", "range_test.low: must be less than high (got 1.0, high is 0.1)"),
        (7, "range_test: {low: 0}", "range_test.low: must be greater than 0 (got 0)"),
        (7, "range_test: {steps: 19}", "range_test.steps: must be at least 20 (got 19)"),
        (7, "range_test: {stairs: 5}", "range_test.stairs: goes with staircase only (got 5, mode is exponential)"),
        (7, "range_test: null", "range_test: must be a mapping, such as {key: value} (got null)"),
        (8, "pruner: asha", "pruner: must be a mapping, such as {key: value} (got 'asha'); write {name: asha}"),
        (8, "pruner: {min_steps: 50}", "pruner.min_steps: must be a multiple of report_every (got 50, report_every is 31)"),
        (8, "pruner: {min_steps: 310}", "pruner.min_steps: must be less than max_steps (got 310, max_steps is 310); report more often, or write pruner: {name: none}"),
        (8, "pruner: {reduction_factor: 1}", "pruner.reduction_factor: must be at least 2 (got 1)"),
        (9, "optimizer: {betas: [0.9, x]}", "optimizer.betas: must be a number, a list of numbers, true, false or a word (got [0.9, 'x'])"),
        (9, "optimizer: {momentum: .inf}", "optimizer.momentum: must be a finite number (got inf)"),
        (18, "scaling: {plugin: dpp}", f"scaling.plugin: is no choice (got 'dpp'); did you mean 'ddp'?; allowed: {PLUGINS}"),
        (18, "scaling: {gpus_per_worker: -1}", "scaling.gpus_per_worker: must be at least 0 (got -1)"),
        (18, "scaling: {gpus_per_worker: 1.5}", "scaling.gpus_per_worker: must be a whole number or less than 1 (got 1.5)"),
        (18, "scaling: {max_concurrent: 0}", "scaling.max_concurrent: must be at least 1 (got 0)"),
        (6, f"metric: {{name: {'x' * 300}}}", f"metric.name: is no metric (got '{'x' * 56}...); write val_loss, or val_ and the name of a metric"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_line(folder: Path, number: int, line: str, expected: str) -> None:
    assert refusal(with_line(number, line)) == f"space.yaml:{number} {expected}"


@pytest.mark.parametrize(("steps", "stairs", "expected"), [(300, None, 30), (25, None, 25), (300, 10, 10)])
def test_a_staircase_has_30_stairs_where_none_are_given(steps: int, stairs: int | None, expected: int) -> None:
    ramp = {"mode": "staircase", "steps": steps, "stairs": stairs}
    config = parse_config({**base(), "range_test": ramp})
    assert config.range_test.stairs == expected
    assert parse_config(config.to_dict()) == config


@pytest.mark.parametrize(
    ("max_steps", "given", "expected"),
    [(100, {}, 1), (310, {}, 1), (700, {}, 2), (900, {}, 3), (9000, {}, 3), (100, {"replicates": 3}, 3)],
)
def test_there_are_as_many_ramps_as_take_no_longer_than_a_training(
    max_steps: int, given: dict[str, int], expected: int
) -> None:
    config = parse_config({**base(), "max_steps": max_steps, "range_test": {"steps": 300, **given}})
    assert config.range_test.replicates == expected
    assert parse_config(config.to_dict()) == config


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_steps": 5000}, 5000),
        ({"max_steps": 5000, "range_test": {"training_steps": 900}}, 900),
        ({"max_steps": 5000, "lengths": ["1/4", 1], "pruner": {"name": "none"}}, 600),
        ({"max_steps": 400, "lengths": ["1/4", 1], "pruner": {"name": "none"}}, 400),
    ],
)
def test_the_bounds_are_for_trainings_of_max_steps_but_where_trials_have_several_lengths(
    fields: dict[str, Any], expected: int
) -> None:
    config = parse_config({**base(), **fields})
    assert config.range_test.training_steps == expected
    assert parse_config(config.to_dict()) == config


def test_other_ramps_have_no_stairs() -> None:
    for mode in ("exponential", "linear"):
        config = parse_config({**base(), "range_test": {"mode": mode}})
        assert config.range_test.stairs is None


def test_a_fixed_configuration_is_refused_for_what_its_schedule_refuses(folder: Path) -> None:
    message = refusal(with_line(6, "fixed: [{lr_schedule: step, lr: 1, gamma: 1.5}]"))
    assert message.startswith("space.yaml:6 fixed.0: gamma is out of range (got 1.5)")


def test_num_trials_may_be_0_where_all_is_fixed(folder: Path) -> None:
    config = parse_config(
        {**read_yaml(BASE, "base")[0], "num_trials": 0, "fixed": [{"lr_schedule": "cosine", "lr": 0.1}]}
    )
    assert config.fixed[0].name == "cosine lr=0.1"
    assert parse_config(config.to_dict()) == config


@pytest.mark.parametrize(
    ("number", "line", "field", "got"),
    [
        (17, "        gamma: {min: 0.1, max: 1.5}", "step.gamma.max", "1.5"),
        (17, "        gamma: {values: [0.1, 0]}", "step.gamma.values.1", "0"),
        (17, "        gamma: {value: high}", "step.gamma.value", "'high'"),
        (17, f"        gamma: {{value: {'x' * 300}}}", "step.gamma.value", f"'{'x' * 56}..."),
        (16, "        step_size: {min: 2, max: 5, distribution: uniform}", "step.step_size.min", "2.0"),
        (16, "        step_size: {value: 1}", "step.step_size.value", "1"),
        (16, "        step_size: {min: 1, max: 5}", "step.step_size.min", "1"),
        (14, "      exponential: {gamma: {value: 0.9}, final_factor: {value: 0.1}}", "exponential", "final_factor=0.1, gamma=0.9"),
        (14, "      onecycle: {pct_start: {min: 0.1, max: 0.9}, three_phase: {values: [true, false]}}", "onecycle", "0.9"),
    ],
)  # fmt: skip
def test_what_a_schedule_refuses_is_refused_at_its_field(
    folder: Path, number: int, line: str, field: str, got: str
) -> None:
    """Either end of a range, every value of a list, and values that contradict each other."""
    message = refusal(with_line(number, line))
    assert message.startswith(f"space.yaml:{number} parameters.lr_schedule.choices.{field}: ")
    assert f"(got {got})" in message
    assert len(message) < 300


def test_a_batch_that_does_not_divide_is_reported_where_the_batch_size_stands(folder: Path) -> None:
    message = refusal(with_line(18, "scaling: {workers_per_trial: 3}"))
    expected = "batch_size: must be a multiple of scaling.workers_per_trial 3 (got 128)"
    assert message == f"space.yaml:2 {expected}"


@pytest.mark.parametrize(
    ("lr_schedule", "expected"),
    [
        ("constant", f": names no LR schedules (got 'constant'); write {SCHEDULE_FORMS}"),
        ("{choices: [constant]}", f": names no LR schedules (got {{'choices': ['constant']}}); write {SCHEDULE_FORMS}"),
        ("{choices: {}}", f": names no LR schedules (got {{'choices': {{}}}}); write {SCHEDULE_FORMS}"),
        ("{value: cosin}", f".value: is no LR schedule (got 'cosin'); did you mean 'cosine'?; allowed: {ALL}"),
        ("{values: [step, 5]}", f".values.1: is no LR schedule (got 5); allowed: {ALL}"),
        ("{values: [step, step]}", ".values.1: is given twice (got 'step'); keep one of them"),
    ],
)
def test_a_wrong_list_of_schedules_is_refused(folder: Path, lr_schedule: str, expected: str) -> None:
    text = "\n".join([*LINES[:11], f"  lr_schedule: {lr_schedule}"])
    assert refusal(text) == f"space.yaml:12 parameters.lr_schedule{expected}"


def test_a_missing_field_is_reported_at_its_parent(folder: Path) -> None:
    assert refusal("seed: 1\n" + "\n".join(LINES[1:5] + LINES[9:])) == (
        "space.yaml:1 workload: is missing; write, for example, workload: my_module:make_workload"
    )
    assert refusal(with_line(11, "  # no lr")) == (
        "space.yaml:10 parameters.lr: is missing; write, for example, lr: {...}"
    )


def test_of_several_wrong_fields_the_first_is_reported_and_the_others_are_counted(folder: Path) -> None:
    text = with_line(18, "scaling: {plugin: x, max_concurrent: 0}").replace("seed: 0", "seed: -1")
    assert refusal(text) == "space.yaml:6 seed: must be at least 0 (got -1) (and 2 more)"


# --- files that are no YAML, or more than plain YAML --------------------------------------------------------------------

BOMB = "a: &a [x, x]\n" + "\n".join(f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ":1: is empty; write fields, such as `max_steps: 310`"),
        ("# only a comment\n", ":1: is empty; write fields, such as `max_steps: 310`"),
        ("---\nnull\n", ":2: is empty; write fields, such as `max_steps: 310`"),
        ("- a\n- b\n", ":1: is not a mapping (got ['a', 'b']); write fields, such as `max_steps: 310`"),
        ("just text", ":1: is not a mapping (got 'just text'); write fields, such as `max_steps: 310`"),
        ("seed: 1\nmax_steps: 5\nseed: 2\n", ":3 seed: is given twice (first on line 1); keep one of them"),
        ("metric: {name: a, name: b}", ":1 metric.name: is given twice (first on line 1); keep one of them"),
        ("a: 1\n---\nb: 2\n", ":3: a second document begins; write one, without `---`"),
        (BOMB, ":1 a: anchors are not allowed (got &a); write the value out"),
        ("a: *b", ":1 a: aliases are not allowed (got *b); write the value out"),
        ("*a : 1", ":1: aliases are not allowed (got *a); write the value out"),
        ("x: 1\na: !!python/object/apply:os.system [ls]", ":2 a: tags are not allowed (got !!python/object/apply:os.system); write a plain value"),
        ("a: !x 1", ":1 a: tags are not allowed (got !x); write a plain value"),
        ("seed: !!int 1", ":1 seed: tags are not allowed (got !!int); write a plain value"),
        ("a: 2024-01-31", ":1 a: dates are not read (got '2024-01-31'); put it into quotes if it is meant as text"),
        ("1: x", ":1: a key must be text (got 1); put it into quotes"),
        ("true: x", ":1: a key must be text (got true); put it into quotes"),
        ("[a, b]: x", ":1: a key must be one word (got a list or a mapping); check the brackets"),
        ("{" * 5000, ":1: a key must be one word (got a list or a mapping); check the brackets"),
        ("a: " + "[" * 5000, ":1 a.0.0: is nested too deeply; at most 20 levels"),
        ("a: " + "{a: " * 5000, ":1 a.a.a: is nested too deeply; at most 20 levels"),
        ("- " * 5000, ":1 0.0.0: is nested too deeply; at most 20 levels"),
        (b"seed: 1\na: \0\n", ":2: is not text (got byte 0x00); write YAML in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", ":1: is not text (got byte 0x89); write YAML in UTF-8"),
        (b"seed: 1\nname: caf\xe9\n", ":2: is not text (got byte 0xe9); write YAML in UTF-8"),
        ("seed: 1\na: \x07\n", ":2: has a character that YAML does not allow (got \\x07); remove it"),
        (b"x" * 10_000_000, ":1: is too large (got 10000000 bytes); at most 65536 bytes"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_plain_yaml_is_refused(folder: Path, content: str | bytes, expected: str) -> None:
    assert refusal(content) == f"space.yaml{expected}"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a: [1, 2\nb: 3\n", 2),
        ("a: b: c\n", 1),
        ("a:\n\t- b\n", 2),
        ("a: 'open\n", 2),
        ('seed: "\\UFFFFFFFF"', 1),
        (f"%YAML {'9' * 5000}.1\n---\na: 1", 1),
        ("a: %b\n", 1),
    ],
)
def test_broken_yaml_is_reported_with_its_line(folder: Path, content: str, line: int) -> None:
    assert refusal(content).startswith(f"space.yaml:{line}: is not valid YAML: ")


def test_the_largest_file_allowed_is_read_in_under_2_s(folder: Path) -> None:
    text = BASE + "workload_args: {" + ", ".join(f"k{i}: {i}" for i in range(4900)) + "}"
    assert 60_000 < len(text) < 65_536
    Path("space.yaml").write_text(text)
    started = time.process_time()
    load_config("space.yaml")
    assert time.process_time() - started < 2


# --- values parse as they are meant -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("1e-05", 1e-5),
        ("-1.5e+3", -1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("31", 31),
        ("31.0", 31.0),
        ("-7", -7),
        ("10_000", 10_000),
        ("0", 0),
        ("007", "007"),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("'1e-4'", "1e-4"),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("null", None),
        ("~", None),
        ("", None),
        ('""', ""),
        ("e5", "e5"),
        ("1.2.3", "1.2.3"),
        ("'2024-01-31'", "2024-01-31"),
        ("[1, 0.5, no]", [1, 0.5, "no"]),
        ("{no: on}", {"no": "on"}),
    ],
)
def test_a_value_parses_as_it_is_meant(text: str, value: object) -> None:
    data = read_yaml(f"x: {text}", "text")[0]["x"]
    assert data == value
    assert type(data) is type(value)


def test_the_loader_of_pyyaml_is_left_as_it_was() -> None:
    assert yaml.safe_load("a: 1e-4\nb: no") == {"a": "1e-4", "b": False}


@pytest.mark.parametrize(
    ("written", "low", "high", "distribution"),
    [
        ({"min": 0.1, "max": 0.5}, 0.1, 0.5, "uniform"),
        ({"min": 2, "max": 31}, 2, 31, "int_uniform"),
        ({"min": 0.5, "max": 1}, 0.5, 1.0, "uniform"),
        ({"min": 2, "max": 31, "distribution": "log_uniform_values"}, 2.0, 31.0, "log_uniform_values"),
    ],
)
def test_a_range_is_filled_in(written: dict[str, Any], low: float, high: float, distribution: str) -> None:
    drawn = Distribution(**written)
    assert (drawn.min, drawn.max, drawn.distribution) == (low, high, distribution)
    assert (type(drawn.min), type(drawn.max)) == (type(low), type(high))


def test_a_fraction_between_0_and_1_is_not_drawn_as_one_of_the_two() -> None:
    data = base()
    data["parameters"]["lr_schedule"] = {"choices": {"cosine": {"floor": {"min": 0, "max": 1}}}}
    floor = parse_config(data).parameters.lr_schedule["cosine"]["floor"]
    assert (floor.min, floor.max, floor.distribution) == (0.0, 1.0, "uniform")


@pytest.mark.parametrize(
    ("lr", "needs_range_test"),
    [
        ({"value": 1}, False),
        ({"values": [0.1, 1]}, False),
        ({"min": 1e-4, "max": 1}, False),
        ({"min": "range_test", "max": 1}, True),
        ({"min": 1e-4, "max": "range_test"}, True),
        ({"min": "range_test", "max": "range_test", "distribution": "log_uniform_values"}, True),
    ],
)
def test_the_lr_is_drawn_in_any_form(lr: dict[str, Any], needs_range_test: bool) -> None:
    drawn = LRRange(**lr)
    assert drawn.needs_range_test is needs_range_test
    assert drawn.distribution == ("log_uniform_values" if "min" in lr else None)
    assert drawn.value is None or type(drawn.value) is float


@pytest.mark.parametrize(
    ("written", "choices"),
    [
        ({"value": "constant"}, {"constant": {}}),
        ({"values": ["constant", "cosine"]}, {"constant": {}, "cosine": {}}),
        ({"choices": {"cyclic": None}}, {"cyclic": {}}),
    ],
)
def test_schedules_can_be_named_like_a_wandb_sweep(written: dict[str, Any], choices: dict[str, Any]) -> None:
    data = base()
    data["parameters"]["lr_schedule"] = written
    assert parse_config(data).parameters.lr_schedule == choices


@pytest.mark.parametrize(
    ("max_steps", "report_every", "reduction_factor", "min_steps"),
    [(310, 31, 3, 62), (90, 10, 3, 10), (91, 10, 3, 20), (100, 1, 2, 25), (10, 9, 3, 9), (1000, 1, 10, 10)],
)
def test_min_steps_leaves_two_rungs(max_steps: int, report_every: int, reduction_factor: int, min_steps: int) -> None:
    data = base() | {"max_steps": max_steps, "report_every": report_every}
    data["pruner"] = {"reduction_factor": reduction_factor}
    assert parse_config(data).pruner.min_steps == min_steps


def test_optimizer_arguments_are_kept_as_written() -> None:
    data = base() | {"optimizer": {"name": "adamw", "betas": [0.9, 0.99], "fused": True, "weight_decay": 1}}
    optimizer = parse_config(data).optimizer
    assert optimizer.name == "adamw"
    assert optimizer.args == {"betas": [0.9, 0.99], "fused": True, "weight_decay": 1}


# --- overrides ----------------------------------------------------------------------------------------------------------


def test_overrides_are_laid_over_the_file(folder: Path) -> None:
    Path("space.yaml").write_text(BASE)
    config = load_config(
        "space.yaml",
        [
            "max_steps=620",
            "confirm.top=1",
            "parameters.lr={values: [1e-2, 0.1]}",
            "parameters.lr_schedule.choices.cosine.floor.values=[0, 0.1]",
            "optimizer.name=adamw",
            "workload_args.data.path=/data/x=y",
            "seed=1",
            "seed=2",
            "batch_size=",
        ],
    )
    assert (config.max_steps, config.confirm.top, config.confirm.seeds) == (620, 1, 3)
    assert config.parameters.lr.values == (0.01, 0.1)
    assert config.parameters.lr_schedule["cosine"]["floor"].values == (0, 0.1)
    assert config.optimizer.name == "adamw"
    assert config.workload_args == {"data": {"path": "/data/x=y"}}
    assert config.seed == 2
    assert config.batch_size is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=-1", "--set seed=-1 seed: must be at least 0 (got -1)"),
        ("confirm.tpo=1", "--set confirm.tpo=1 confirm.tpo: is unknown; did you mean 'top'?; allowed: top, runners_up, seeds, max_seeds"),
        ("seed.x=1", "--set seed.x=1 seed: has no fields (got 0); set it as a whole"),
        ("seed", "--set seed: is no override; write KEY.PATH=VALUE, such as confirm.top=2"),
        ("a..b=1", "--set a..b=1: is no override; write KEY.PATH=VALUE, such as confirm.top=2"),
        ("=1", "--set =1: is no override; write KEY.PATH=VALUE, such as confirm.top=2"),
        ("seed=*a", "--set seed=*a: aliases are not allowed (got *a); write the value out"),
        ("parameters.lr.value=0.1", f"space.yaml:11 parameters.lr: has no single form (got value and min and max); write {FORMS}"),
        ("range_test.stairs=9", "--set range_test.stairs=9 range_test.stairs: goes with staircase only (got 9, mode is exponential)"),
        (f"seed={'9' * 400}", f"--set seed={'9' * 52}...: is too long a number (got {'9' * 57}...)"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_named(folder: Path, override: str, expected: str) -> None:
    assert refusal(BASE, override) == expected


def test_an_error_elsewhere_still_shows_the_line_of_the_file(folder: Path) -> None:
    assert refusal(with_line(6, "seed: -1"), "confirm.top=1") == "space.yaml:6 seed: must be at least 0 (got -1)"


# --- plain data ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", [[], ["pruner={name: none}"], ["parameters.lr={value: 1}", "batch_size=null"]])
def test_a_round_trip_through_plain_yaml_changes_nothing(overrides: list[str]) -> None:
    config = load_config("lenet5_mnist", overrides)
    assert parse_config(config.to_dict()) == config
    assert parse_config(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


def test_the_configuration_shares_nothing_with_what_it_was_made_from() -> None:
    data = base() | {"workload_args": {"sizes": (1, 2)}}
    config = parse_config(data)
    data["workload_args"]["new"] = 1
    assert config.workload_args == {"sizes": [1, 2]}
    with pytest.raises(ValueError, match="frozen"):
        config.__setattr__("seed", 1)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("seed", 10**400, "seed: is too large a number (got an integer of 1329 bits); at most 64 bits"),
        pytest.param("seed", 10**5000, "seed: is too large a number (got an integer of 16610 bits); at most 64 bits", id="too long for str"),
        ("workload_args", {"x": float("nan")}, "workload_args.x: must be a finite number (got nan)"),
        ("workload_args", {1: 2}, "workload_args: a key must be text (got 1)"),
        ("workload_args", {"x": b"y"}, "workload_args.x: is not plain data (got b'y'); write text, numbers, lists and mappings"),
        ("seed", "a\nb\x1b[31m", r"seed: must be a whole number (got 'a\nb\x1b[31m')"),
        ("a\nb", 1, rf"a\nb: is unknown; allowed: {FIELDS}"),
    ],
)  # fmt: skip
def test_wrong_data_from_python_is_refused(field: str, value: Any, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_config(base() | {field: value}, "study.yaml")
    assert str(caught.value) == f"study.yaml {expected}"


def test_a_loop_in_the_data_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InputError, match="nested too deeply"):
        parse_config(base() | {"workload_args": {"x": loop}})


# --- where search spaces are found --------------------------------------------------------------------------------------


def test_a_space_is_found_by_name_from_anywhere(folder: Path) -> None:
    shipped = ROOT / "search_spaces" / "lenet5_mnist.yaml"
    assert find_space("lenet5_mnist") == find_space("lenet5_mnist.yaml") == shipped
    Path("search_spaces").mkdir()
    Path("search_spaces/lenet5_mnist.yaml").write_text(BASE)
    assert find_space("lenet5_mnist") == Path("search_spaces/lenet5_mnist.yaml")
    Path("lenet5_mnist").write_text(BASE)
    assert find_space("lenet5_mnist") == Path("lenet5_mnist")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("lenet5_minst", r"lenet5_minst: no such file or search space; did you mean 'lenet5_mnist'\?; give a YAML file, or one of: .*lenet5_mnist.*"),
        ("../lenet5_mnist", r"\.\./lenet5_mnist: no such file or search space; .*"),
        ("/abs/x.yaml", r"/abs/x\.yaml: no such file or search space; .*"),
        ("", ": no such file or search space; .*"),
        (".", r"\.: is a directory; .*"),
        ("/dev/null", "/dev/null: is not a regular file; .*"),
        ("a\0b", r"a\\x00b: no such file or search space; .*"),
        ("x" * 300, r"x{57}\.\.\.: no such file or search space; .*"),
        ("a\nb", r"a\\nb: no such file or search space; .*"),
    ],
)  # fmt: skip
def test_a_space_that_is_not_there_is_refused(folder: Path, source: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(source)
    assert re.fullmatch(expected, str(caught.value))


@pytest.mark.parametrize(
    ("confirm", "finalists"),
    [
        ({}, 5),
        ({"seeds": 4}, 5),
        ({"runners_up": 0}, 3),
        ({"top": 2}, 2),
        ({"top": 2, "runners_up": 1}, 3),
        ({"top": 0, "runners_up": 2}, 0),
    ],
)
def test_runners_up_are_confirmed_by_default_and_beside_a_top_where_it_asks_for_them(
    confirm: dict[str, int], finalists: int
) -> None:
    config = parse_config({**base(), "confirm": confirm})
    assert config.confirm.finalists == finalists
    assert parse_config(config.model_dump(mode="json", exclude_none=True)).confirm == config.confirm


def test_the_shipped_space_is_the_default_study() -> None:
    config = load_config("lenet5_mnist")
    assert config.workload == "tune_lr.workloads.lenet5:mnist_5k"
    assert (config.max_steps, config.report_every, config.num_trials, config.sampler.name) == (310, 31, 16, "gp")
    assert list(config.parameters.lr_schedule) == SIX.split(", ")
    assert config.parameters.lr.needs_range_test
    assert config.optimizer.args == {"momentum": 0.9}


# --- laws ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.text(), st.binary(), st.text(alphabet="ab01.e-+:,[]{}&*!|>'\"#%?\\ \n\t")))
def test_whatever_is_in_the_file_only_an_input_error_comes_out(folder: Path, content: str | bytes) -> None:
    refusal(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(alphabet=st.characters(exclude_categories=[])), key=st.sampled_from(["seed=", "workload_args.x=", ""])
)
def test_whatever_an_override_says_only_an_input_error_comes_out(text: str, key: str) -> None:
    message = ""
    try:
        load_config("lenet5_mnist", [key + text])
    except InputError as error:
        message = str(error)
    assert message.isprintable()


def _fields(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = (
        [field for key, item in value.items() for field in _fields(item, (*path, key))]
        if isinstance(value, dict)
        else []
    )
    return [path, *inner] if path else inner


JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(["min", "range_test"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["min", "max", "value", "name"]), inner)),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(field=st.sampled_from(_fields(base())), junk=JUNK)
def test_whatever_a_field_holds_it_is_taken_whole_or_refused_in_one_line(field: tuple[str, ...], junk: Any) -> None:
    data = base()
    node = data
    for key in field[:-1]:
        node = node[key]
    node[field[-1]] = junk
    config, message = None, ""
    try:
        config = parse_config(data)
    except InputError as error:
        message = str(error)
    assert message.isprintable()
    assert config is None or parse_config(config.to_dict()) == config


def test_reading_a_search_space_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys, tune_lr.config.load; tune_lr.config.load.load_config('lenet5_mnist');"
        "print([name for name in ('torch', 'ray', 'wandb', 'optuna', 'colossalai') if name in sys.modules])"
    )
    root = ROOT
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


# --- a schedule that follows the metric ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("goal", "mode"), [("minimize", None), ("maximize", "max")])
def test_a_plateau_waits_for_the_metric_to_go_the_way_it_should(goal: str, mode: str | None) -> None:
    data = base() | {
        "metric": {"name": "val_accuracy", "goal": goal},
        "fixed": [{"lr_schedule": "plateau", "lr": 0.1, "patience": 1}],
    }
    data["parameters"]["lr_schedule"] = {"choices": {"constant": {}, "plateau": {"patience": {"min": 1, "max": 3}}}}
    config = parse_config(data)
    drawn = config.parameters.lr_schedule["plateau"].get("mode")
    assert (drawn.value if drawn else None, config.fixed[0].parameters.get("mode")) == (mode, mode)
    assert config.parameters.lr_schedule["constant"] == {}
    assert parse_config(config.to_dict()) == config


@pytest.mark.parametrize(
    ("line", "goal", "expected"),
    [
        ("plateau: {mode: {value: min}}", "maximize", "14 parameters.lr_schedule.choices.plateau.mode.value: must be max (got "
         "'min', metric.goal is maximize); or leave it out"),
        ("plateau: {mode: {values: [min, max]}}", "minimize", "14 parameters.lr_schedule.choices.plateau.mode.values.1: must be "
         "min (got 'max', metric.goal is minimize); or leave it out"),
    ],
)  # fmt: skip
def test_a_plateau_that_waits_for_the_wrong_way_is_refused(folder: Path, line: str, goal: str, expected: str) -> None:
    assert refusal(with_line(14, f"      {line}"), f"metric.goal={goal}") == f"space.yaml:{expected}"


def test_a_fixed_plateau_that_waits_for_the_wrong_way_is_refused() -> None:
    data = base() | {"fixed": [{"lr_schedule": "plateau", "lr": 0.1, "mode": "max"}]}
    with pytest.raises(InputError, match=r"fixed\.0\.mode: must be min \(got 'max', metric\.goal is minimize\)"):
        parse_config(data)
