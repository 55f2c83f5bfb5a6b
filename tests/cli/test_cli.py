"""The command line: its surface, its exit codes, and the one line that says what is wrong. No cluster is started."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from paths import DATA
from studies import tune_lr
from tune_lr.cli.main import main
from tune_lr.config.load import load_config
from tune_lr.lr.bounds import LRBounds, find_lr_bounds
from tune_lr.lr.schedules import SCHEDULES
from tune_lr.store.measured_curve import read_curve
from tune_lr.store.study_dir import StudyDir

SPACE = """\
workload: tune_lr.workloads.lenet5:mnist_5k
batch_size: 128
max_steps: 62
report_every: 31
num_trials: 4
parameters:
  lr: {min: 0.01, max: 0.1}
  lr_schedule: {values: [constant, cosine]}
confirm: {top: 0}
"""

# The surface. It changes on purpose only.
CLUSTER = {"--address", "--wandb"}
RUN = CLUSTER | {
    "--name",
    "--out",
    "--seed",
    "--workers-per-trial",
    "--gpus-per-worker",
    "--max-concurrent",
    "--strict",
}
OPTIONS = {
    "search": {"--set", "--num-trials", "--budget", "--max-steps"} | RUN,
    "range-test": {"--set", "--max-steps", "--from", "--json"} | RUN,
    "resume": {"--num-trials", "--budget", "--accept-changed-code"} | CLUSTER,
    "train": {"--set", "--trial", "--max-steps", "--accept-changed-code"} | RUN,
    "report": {"--terminal"},
    "status": {"--json"},
    "stop": set(),
    "sync": set(),
    "dashboard": set(),
    "schedules": {"--png"},
    "check": {"--set", "--budget", "--address"},
    "init": set(),
}
ARGUMENTS = {
    "search": "[SPACE]", "range-test": "[SPACE]", "resume": "STUDY_DIR", "report": "STUDY_DIR", "train": "STUDY_DIR",
    "status": "STUDY_DIR", "stop": "STUDY_DIR", "sync": "STUDY_DIR", "dashboard": "STUDY_DIR",
    "schedules": "[NAME ...]", "check": "[SPACE]", "init": "DIR",
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and current directory with a small search space, no key, no cluster."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "RAY_")) and name != "WANDB_SILENT":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("space.yaml").write_text(SPACE)
    return tmp_path / "here"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code and the error, which is one line of stderr and leaves no file behind."""
    before = contents(Path())
    code = main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert contents(Path()) == before
    return code, line.removeprefix("error: ")


HEAVY = ("torch", "ray", "wandb", "optuna")
LOADED = """\
import contextlib, io, json, sys
from tune_lr.cli.main import main
out, err = io.StringIO(), io.StringIO()
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
        code = main(sys.argv[2:])
    except SystemExit as end:
        code = end.code
loaded = [name for name in sys.argv[1].split(",") if name in sys.modules]
print(json.dumps([code, loaded, out.getvalue(), err.getvalue()]))
"""


def fresh(arguments: Sequence[str], packages: Sequence[str] = HEAVY) -> tuple[int, list[str], str, str]:
    """Exit code, those of the packages that were imported, stdout and stderr of the command in its own process."""
    command = [sys.executable, "-c", LOADED, ",".join(packages), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, loaded, out, err = json.loads(done.stdout)
    return code, loaded, out, err


# --- the surface ------------------------------------------------------------------------------------------------------


def usage(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_lists_the_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    text = usage(capsys)
    assert re.findall(r"^    (\S+)", text, re.MULTILINE) == list(OPTIONS)


@pytest.mark.parametrize("command", OPTIONS)
def test_a_subcommand_has_these_options_and_no_others(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = usage(capsys, command)
    assert set(re.findall(r"(?<!\w)--[a-z-]+", text)) == OPTIONS[command] | {"--help"}
    assert " ".join(text.split("\n\n")[0].split()).endswith(ARGUMENTS[command])


@pytest.mark.parametrize(
    "arguments",
    [[], ["serch"], ["search", "--nam", "x", "--verbose"], ["search", "--seed", "x"], ["check", "--wandb", "offline"],
     ["search", "--wandb", "on"], ["resume"]],
)  # fmt: skip
def test_words_that_are_no_command_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("--help")


# --- check, schedules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["check"], "16 trials of at most 310 steps: constant, step, exponential, cosine, onecycle, cyclic"),
        (["check", "space.yaml", "--set", "num_trials=7"], "7 trials of at most 62 steps: constant, cosine"),
        (["schedules"], "onecycle"),
    ],
)
def test_what_starts_nothing_imports_neither_torch_nor_ray(arguments: list[str], expected: str) -> None:
    code, loaded, out, err = fresh(arguments)
    assert (code, loaded, err) == (0, [], "")
    assert expected in out
    assert [path.name for path in Path().iterdir()] == ["space.yaml"]


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"]])
def test_help_imports_nothing_that_takes_long(arguments: list[str]) -> None:
    packages = (*HEAVY, "colossalai", "matplotlib", "numpy", "pydantic", "rich", "yaml")
    code, loaded, out, err = fresh(arguments, packages)
    assert (code, loaded, err) == (0, [], "")
    assert out.startswith("usage: tune-lr")


def test_the_package_of_the_command_line_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "tune_lr.cli", "schedules", "nix"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: schedules: no LR schedule 'nix'")


def test_the_installed_command_is_this_one() -> None:
    command = Path(sys.executable).with_name("tune-lr")
    done = subprocess.run([command, "check", "space.yaml"], capture_output=True, text=True, check=True)
    assert "248 at most" in done.stdout
    assert done.stderr == ""


def test_schedules_prints_all_or_those_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedules"]) == 0
    heads = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].strip()]
    assert heads == list(SCHEDULES)
    assert main(["schedules", "cyclic", "step"]) == 0
    heads = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].strip()]
    assert heads == ["cyclic", "step"]


def test_an_unknown_schedule_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = refusal(capsys, "schedules", "step", "cosin")
    known = ", ".join(SCHEDULES)
    assert (code, error) == (2, f"schedules: no LR schedule 'cosin'; did you mean 'cosine'?; known: {known}")


# --- range-test --from ------------------------------------------------------------------------------------------------

CURVE = DATA / "lenet5_staircase.csv"
FLAT = "step,lr,loss\n" + "".join(f"{step},{1e-5 * 1.1**step},2.3\n" for step in range(60))


def test_curves_measured_elsewhere_are_read_without_torch_or_ray() -> None:
    code, loaded, out, err = fresh(["range-test", "--from", str(CURVE)])
    assert (code, loaded, err) == (0, [], "")
    first, reason, peak, under, line = out.splitlines()
    assert re.fullmatch(r"LR bounds: \S+ to \S+, suggestion \S+", first)
    assert reason.startswith("  the loss is lowest at LRs from ")
    assert under == "for a search space, under parameters:"
    Path("space.yaml").write_text(SPACE.replace("  lr: {min: 0.01, max: 0.1}", line))
    lr = load_config("space.yaml").parameters.lr
    assert isinstance(lr.min, float)
    assert isinstance(lr.max, float)
    assert first.startswith(f"LR bounds: {lr.min:.3g} to {lr.max:.3g}, ")
    assert isinstance(lr.min, float)
    assert isinstance(lr.max, float)
    assert lr.min < float(first.split()[-1]) < float(peak.split()[-1]) < lr.max


def test_replicates_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["range-test", "--json", "--from", str(CURVE), str(CURVE), "--from", str(CURVE)]) == 0
    bounds = LRBounds.from_dict(json.loads(capsys.readouterr().out))
    assert bounds == find_lr_bounds([read_curve(CURVE)] * 3)
    assert bounds.status == "ok"
    assert bounds.replicates == 3


def test_curves_without_an_answer_say_so_and_end_with_5_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("flat.csv").write_text(FLAT)
    assert main(["range-test", "--from", "flat.csv"]) == 0
    title, reason = capsys.readouterr().out.splitlines()
    assert title == "no LR bounds (no_descent)"
    assert reason.startswith("  the loss does not fall")
    assert main(["range-test", "--from", "flat.csv", "--json", "--strict"]) == 5
    shown = capsys.readouterr()
    assert json.loads(shown.out)["status"] == "no_descent"
    assert shown.err.startswith("error: the LR range test abstained (no_descent): ")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--from", "none.csv"], "none.csv: cannot be read (No such file or directory); give a CSV file with"),
        (["--from", "space.yaml"], "space.yaml:1 lr: no such column"),
        (["space.yaml", "--from", str(CURVE)], "--from: reads curves and trains nothing; leave out SPACE and --set"),
        (["--from", str(CURVE), "--max-steps", "0"], "max_steps (got 0) must be at least 1"),
        (["--from", str(CURVE), "--set", "seed=1"], "--from: reads curves and trains nothing; leave out SPACE and --s"),
    ],
)
def test_what_is_no_curve_is_refused(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = refusal(capsys, "range-test", *arguments)
    assert code == 2
    assert error.startswith(expected)


@pytest.mark.parametrize(("name", "noted"), [("AdaGrad", True), ("adafactor", True), ("sgd", False)])
def test_an_optimizer_that_a_range_test_does_not_suit_is_noted_in_the_plan(
    name: str, noted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    lr = "parameters.lr={min: range_test, max: range_test}"
    assert main(["check", "space.yaml", "--set", f"optimizer.name={name}", "--set", lr]) == 0
    assert (f"note: {name}".lower() in capsys.readouterr().out.lower()) is noted
    assert main(["check", "space.yaml", "--set", f"optimizer.name={name}"]) == 0  # the LRs are numbers
    assert "note:" not in capsys.readouterr().out


def test_the_plan_shows_the_shape_of_the_ramp(capsys: pytest.CaptureFixture[str]) -> None:
    lr = "parameters.lr={min: range_test, max: range_test}"
    for ramp, expected in (("{mode: staircase}", "to 10, 30 stairs"), ("{mode: linear}", "to 10, linear")):
        assert main(["check", "space.yaml", "--set", lr, "--set", f"range_test={ramp}"]) == 0
        assert f"1 ramp of 300 steps, LR 1e-05 {expected}" in capsys.readouterr().out


# --- input that is refused before anything starts ---------------------------------------------------------------------


@pytest.mark.parametrize("command", ["check", "search", "range-test"])
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("max_steps: 62", "max_steps: 0", "space.yaml:3 max_steps: must be at least 1 (got 0)"),
        ("min: 0.01", "min: -1", "space.yaml:7 parameters.lr.min: must be greater than 0 (got -1)"),
        ("report_every: 31", "report_every: 63",
         "space.yaml:4 report_every: must be at most max_steps (got 63, max_steps is 62)"),
    ],
)  # fmt: skip
def test_a_bad_field_is_one_line_with_its_place(
    command: str, old: str, new: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("space.yaml").write_text(SPACE.replace(old, new))
    assert refusal(capsys, command, "space.yaml") == (2, expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["search", "spice"], "spice: no such file or search space"),
        (["search", "space.yaml", "--set", "max_step=3"], "--set max_step"),
        (
            ["search", "space.yaml", "--num-trials", "0"],
            "--set num_trials=0 num_trials: must be at least 1 where no configuration is fixed (got 0)",
        ),
        (["search", "space.yaml", "--workers-per-trial", "3"], "space.yaml:2 batch_size: must be a multiple of "
         "scaling.workers_per_trial 3 (got 128)"),
        (["search", "space.yaml", "--budget", "12"], "--set budget='12' budget: is no budget (got '12'); write 12x"),
        (["search", "space.yaml", "--name", "../x"], "--name: not a study name (got '../x')"),
    ],
)  # fmt: skip
def test_a_bad_argument_is_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = refusal(capsys, *arguments)
    assert code == 2
    assert error.startswith(expected)


@pytest.mark.parametrize("command", ["search", "range-test"])
def test_online_without_a_key_is_refused_before_ray(command: str) -> None:
    code, loaded, _, err = fresh([command, "space.yaml", "--wandb", "online", "--name", "first"])
    assert (code, loaded) == (2, [])
    assert err == (
        "error: --wandb: online needs a key and none is configured; set WANDB_API_KEY, or use --wandb offline\n"
    )
    assert [path.name for path in Path().iterdir()] == ["space.yaml"]


def test_a_study_that_exists_is_refused_and_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    directory = StudyDir("studies/first")
    directory.create({"name": "first"})
    code, error = refusal(capsys, "search", "space.yaml", "--name", "first", "--wandb", "disabled")
    assert (code, error) == (
        2,
        f"--name: {directory.root} exists already; choose another name, or go on with it: "
        f"tune-lr resume {directory.root}",
    )


@pytest.mark.parametrize("where", ["--address", "RAY_ADDRESS"])
def test_ray_client_is_refused_and_the_name_stays_free(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["search", "space.yaml", "--name", "first", "--wandb", "disabled"]
    if where == "RAY_ADDRESS":
        monkeypatch.setenv(where, "ray://head:10001")
    else:
        arguments += [where, "ray://head:10001"]
    code, _, _, err = fresh(arguments)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith(
        f"error: {where}: Ray Client would run Tune elsewhere (got 'ray://head:10001'); submit a job instead "
    )
    assert not Path("studies").exists()


# --- what the machine cannot serve ------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["occupied", "occupied/deeper"])
def test_a_place_that_cannot_be_written_ends_with_4(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("occupied").write_text("a file")
    code, error = refusal(capsys, "search", "space.yaml", "--out", out, "--name", "first", "--wandb", "disabled")
    assert (code, error) == (
        4,
        f"{Path(out).resolve()}/first: cannot be written (Not a directory); give --out a directory that can",
    )


@pytest.mark.parametrize("command", ["resume", "report"])
def test_what_is_no_study_ends_with_4(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    here = Path.cwd()
    code, error = refusal(capsys, command, "nowhere")
    assert (code, error) == (
        4,
        f"{here}/nowhere/study.yaml: there is no such file; is {here}/nowhere a study directory?",
    )
    Path("empty").mkdir()
    assert refusal(capsys, command, "empty")[0] == 4
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "empty or cut short"), ("a: [", "cannot be read as YAML"), ("name: x\n", "format_version is None"),
     ("format_version: 99\n", "format_version is 99; this version of tune-lr reads 1")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["resume", "report"])
def test_a_study_that_cannot_be_read_ends_with_4(
    command: str, text: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken").mkdir()
    Path("broken/study.yaml").write_text(text)
    code, error = refusal(capsys, command, "broken")
    assert code == 4
    assert error.startswith(f"{Path.cwd()}/broken/study.yaml: {expected}")


@pytest.mark.parametrize("command", ["resume", "report"])
def test_a_study_without_its_fields_ends_with_4(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken").mkdir()
    Path("broken/study.yaml").write_text("format_version: 1\n")
    assert refusal(capsys, command, "broken")[0] == 4


def test_a_search_cannot_be_shortened_by_resume(capsys: pytest.CaptureFixture[str]) -> None:
    from tune_lr.config.load import load_config
    from tune_lr.session import create

    create(load_config("space.yaml"), StudyDir("studies/first"), [])
    code, error = refusal(capsys, "resume", "studies/first", "--num-trials", "3")
    assert (code, error) == (2, "--num-trials: must be at least the study's own 4 (got 3)")


def test_a_search_that_a_budget_ends_is_extended_by_a_budget(capsys: pytest.CaptureFixture[str]) -> None:
    from tune_lr.config.load import load_config
    from tune_lr.session import create

    create(load_config("space.yaml", ["budget=12x", "num_trials=null"]), StudyDir("studies/first"), [])
    code, error = refusal(capsys, "resume", "studies/first", "--num-trials", "30")
    assert (code, error) == (2, "--num-trials: a budget ends the search of this study (12x); give --budget")


# --- what only a worker can see ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("optimizer.name=sdg", "error: optimizer.name: no such optimizer (got 'sdg'); did you mean 'sgd'?"),
        pytest.param(
            "scaling.workers_per_trial=64",
            "error: the cluster cannot hold one trial: it wants 64 workers of 1 CPU each",
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_a_worker_finds_wrong_ends_the_study_in_one_line(setting: str, expected: str, tmp_path: Path) -> None:
    process = tune_lr("search", "--name=s", "--wandb=disabled", f"--set={setting}", cwd=tmp_path)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == (4 if "workers" in setting else 2), output
    (line,) = errors.splitlines()
    assert line.startswith(expected)
    assert not (tmp_path / "studies" / "s").exists()  # nothing ran: the name stays free
