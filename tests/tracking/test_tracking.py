"""W&B: what is fed is what stands on disk, whatever becomes of the server; and how the mode is chosen."""

import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tune_lr.config.load import parse_config
from tune_lr.config.model import Config
from tune_lr.errors import InputError
from tune_lr.lr.bounds import LRBounds
from tune_lr.lr.ramp import Ramp
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.tracking.key import Mode, choose_mode, find_key, has_key, server_url
from tune_lr.tracking.rows import MAX_POINTS, Row, Thinner
from tune_lr.tracking.runs import run_name
from tune_lr.tracking.tracker import CLOSE_TIMEOUT_S, WandbTracker
from wandb_files import Run, read_run, read_runs

KEY = "c0ffee" * 6 + "cafe"  # 40 characters, as W&B's keys have
CONFIG: Config = parse_config(
    {
        "workload": "tune_lr.workloads.lenet5:mnist_5k",
        "max_steps": 20,
        "report_every": 10,
        "num_trials": 3,
        "optimizer": {"name": "sgd", "momentum": 0.9},
        "parameters": {"lr": {"min": 0.01, "max": 0.1}, "lr_schedule": {"choices": {"constant": {}, "step": {}}}},
        "wandb": {"project": "curves"},
    }
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither key nor settings of whoever runs the tests."""
    import os

    for name in list(os.environ):
        if name.startswith("WANDB_") and name != "WANDB_SILENT":
            monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def study(tmp_path: Path) -> StudyDir:
    directory = StudyDir(tmp_path / "studies" / "first")
    directory.create({"name": "first"})
    return directory


# --- trials to feed ---------------------------------------------------------------------------------------------------


def loss_at(step: int) -> float:
    return 2.3 / (1 + step / 7) + 1e-9 * step


def reports(lr: float, steps: int, every: int = 10, last: float | None = None) -> list[Report]:
    """As a worker gives them: a validation at the end of each report, except of one that diverged."""
    result = []
    for start in range(0, steps, every):
        end = min(start + every, steps)
        points = [(step, lr * (1 - step / 100), loss_at(step)) for step in range(start + 1, end + 1)]
        diverged = last is not None and end == steps
        if diverged:
            points[-1] = (steps, points[-1][1], last or 0.0)
        metrics = {} if diverged else {"val_loss": loss_at(end) * 1.1, "val_accuracy": 1 - 1 / (1 + end)}
        result.append(Report(step=end, points=tuple(points), metrics=metrics, over=end == steps, diverged=diverged))
    return result


def ramp_reports(ramp: Ramp, steps: int) -> list[Report]:
    points = tuple((step + 1, ramp.lr(step), loss_at(step)) for step in range(steps))
    half = steps // 2
    return [Report(step=half, points=points[:half]), Report(step=steps, points=points[half:], over=True, diverged=True)]


def row(trial: TrialSpec, state: str, own: list[Report]) -> TrialRow:
    metrics = next((report.metrics for report in reversed(own) if report.metrics), {})
    return TrialRow(
        trial.number, trial.phase, state, trial.lr_schedule, trial.lr, trial.qualified_parameters(), 0, own[-1].step,
        metrics,
    )  # fmt: skip


RAMP = TrialSpec(0, "range_test", 0, 30, ramp=Ramp(1e-4, 1.0, 30))
COMPLETE = TrialSpec(1, "search", 0, 20, lr=0.05, lr_schedule="step", parameters={"gamma": 0.3, "step_size": 0.5})
PRUNED = TrialSpec(2, "search", 0, 20, lr=0.01234567, lr_schedule="constant")
DIVERGED = TrialSpec(3, "confirm", 9, 20, lr=2.0, lr_schedule="constant")
assert RAMP.ramp is not None
FED: dict[int, tuple[TrialSpec, str, list[Report]]] = {
    0: (RAMP, "complete", ramp_reports(RAMP.ramp, 24)),
    1: (COMPLETE, "complete", reports(0.05, 20)),
    2: (PRUNED, "pruned", reports(0.01234567, 10)),
    3: (DIVERGED, "diverged", reports(2.0, 17, last=math.nan)),
}


def feed(tracker: WandbTracker, *numbers: int) -> None:
    """All of them at once, report by report, as slots do."""
    tracker.phase_started("search", len(numbers))
    for number in numbers:
        tracker.trial_started(FED[number][0])
    for turn in range(2):
        for number in numbers:
            trial, _, own = FED[number]
            if turn < len(own):
                tracker.trial_reported(trial, own[turn])
    tracker.bounds_found(LRBounds(None, None, None, "no_descent", "flat", 1))
    tracker.notice("a note")
    for number in numbers:
        trial, state, own = FED[number]
        tracker.trial_ended(trial, row(trial, state, own))


def expected_rows(number: int) -> list[dict[str, float]]:
    trial, _, own = FED[number]
    rows: list[dict[str, float]] = []
    for report in own:
        for step, lr, loss in report.points:
            if trial.ramp:
                rows.append({"range/lr": lr, "range/step": step, "range/loss": loss})
            else:
                rows.append({"train/step": step, "train/lr": lr, "train/loss": loss})
        if report.metrics:
            rows[-1] |= {"val/loss": report.metrics["val_loss"], "val/accuracy": report.metrics["val_accuracy"]}
    return rows


def same(left: list[dict[str, float]], right: list[dict[str, float]]) -> bool:
    """Exactly, where NaN equals NaN."""
    return repr([sorted(r.items()) for r in left]) == repr([sorted((k, float(v)) for k, v in r.items()) for r in right])


# --- offline ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("offline")
        patch.setenv("HOME", str(folder))
        patch.chdir(folder)
        directory = StudyDir(folder / "studies" / "first")
        directory.create({"name": "first"})
        tracker = WandbTracker(CONFIG, directory, "abcd1234", "offline")
        feed(tracker, *FED)
        tracker.close()
        assert tracker.trouble == ""
        assert tracker.mode == "offline"
        assert {path.name for path in folder.iterdir() if "wandb" in path.name} == set()  # all is in the study
        yield read_runs(directory.wandb)


def test_each_trial_is_one_run_under_its_own_id(runs: dict[str, Run]) -> None:
    assert list(runs) == [f"abcd1234-{number:04d}" for number in FED]


@pytest.mark.parametrize("number", FED, ids=["ramp", "complete", "pruned", "diverged"])
def test_every_point_that_was_fed_stands_in_the_run(number: int, runs: dict[str, Run]) -> None:
    """To the last digit, the NaN that ended a trial included."""
    run, expected = runs[f"abcd1234-{number:04d}"], expected_rows(number)
    assert len(run.history) == len(expected)
    assert same(run.history, expected)


def test_the_last_point_of_a_diverged_trial_is_nan(runs: dict[str, Run]) -> None:
    assert math.isnan(runs["abcd1234-0003"].history[-1]["train/loss"])
    assert "val/loss" in runs["abcd1234-0003"].history[9]
    assert "val/loss" not in runs["abcd1234-0003"].history[-1]


@pytest.mark.parametrize(
    ("number", "job_type", "name", "tags"),
    [
        (0, "range_test", "ramp #0", ["range_test", "complete"]),
        (1, "search", "step lr=0.05 #1", ["search", "step", "complete"]),
        (2, "search", "constant lr=0.0123 #2", ["search", "constant", "pruned"]),
        (3, "confirm", "constant lr=2 #3", ["confirm", "constant", "diverged"]),
    ],
)
def test_group_is_the_study_and_job_type_the_phase(
    number: int, job_type: str, name: str, tags: list[str], runs: dict[str, Run]
) -> None:
    run = runs[f"abcd1234-{number:04d}"]
    assert (run.group, run.job_type, run.name, run.exit_code) == ("first", job_type, name, 0)
    assert sorted(run.tags) == sorted(tags)


def test_the_configuration_of_a_run_is_its_trial_s(runs: dict[str, Run]) -> None:
    shared = {"seed": 0, "optimizer": "sgd", "momentum": 0.9}
    assert runs["abcd1234-0001"].config == {
        **shared, "phase": "search", "number": 1, "max_steps": 20, "lr": 0.05, "lr_schedule": "step",
        "step.gamma": 0.3, "step.step_size": 0.5,
    }  # fmt: skip
    assert runs["abcd1234-0000"].config == {
        **shared, "phase": "range_test", "number": 0, "max_steps": 30, "range_test.low": 1e-4, "range_test.high": 1.0,
    }  # fmt: skip


def test_the_summary_holds_how_the_trial_ended(runs: dict[str, Run]) -> None:
    summary = runs["abcd1234-0001"].summary
    assert (summary["state"], summary["steps"]) == ("complete", 20)
    assert summary["val_loss"] == FED[1][2][-1].metrics["val_loss"]


def test_divergence_is_marked_and_its_last_validation_is_no_result(runs: dict[str, Run]) -> None:
    run = runs["abcd1234-0003"]
    assert "diverged" in run.tags
    assert {name: run.summary[name] for name in ("state", "steps", "diverged", "diverged_at")} == {
        "state": "diverged", "steps": 17, "diverged": True, "diverged_at": 17,
    }  # fmt: skip
    assert "val_loss" not in run.summary
    assert "diverged" not in runs["abcd1234-0001"].summary


def test_wandbs_variables_for_every_run_hold_and_those_for_one_run_do_not(
    study: StudyDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere = {"WANDB_DIR": str(tmp_path / "scratch"), "WANDB_TAGS": "gpu, night", "WANDB_NOTES": "second try"}
    for name, value in everywhere.items():
        monkeypatch.setenv(name, value)
    for name, value in {"WANDB_NAME": "mine", "WANDB_RUN_ID": "abc", "WANDB_RESUME": "must"}.items():
        monkeypatch.setenv(name, value)
    tracker = WandbTracker(CONFIG, study, "abcd1234", "offline")
    feed(tracker, 1, 2)
    tracker.close()
    assert tracker.trouble == ""
    written = read_runs(tmp_path / "scratch/wandb")
    assert set(written) == {"abcd1234-0001", "abcd1234-0002"}
    assert {run.name for run in written.values()} == {
        "step lr=0.05 #1",
        "constant lr=0.0123 #2",
    }
    assert all({"gpu", "night", "search"} <= set(run.tags) for run in written.values())
    assert not list(study.wandb.glob("offline-run-*"))


def test_a_trial_that_begins_again_leaves_one_run(study: StudyDir) -> None:
    """In the same driver (its worker was lost), and in the next one (the study was resumed)."""
    trial, _, own = FED[1]
    tracker = WandbTracker(CONFIG, study, "abcd1234", "offline")
    tracker.trial_started(trial)
    tracker.trial_reported(trial, own[0])
    tracker.trial_started(trial)
    tracker.trial_reported(trial, own[0])
    tracker.close()  # the driver ends here; the trial has not
    assert tracker.trouble == ""
    assert len(list(study.wandb.glob("offline-run-*"))) == 1

    second = WandbTracker(CONFIG, study, "abcd1234", "offline")
    feed(second, 1, 2)
    second.close()
    assert second.trouble == ""
    runs = read_runs(study.wandb)
    assert list(runs) == ["abcd1234-0001", "abcd1234-0002"]
    assert same(runs["abcd1234-0001"].history, expected_rows(1))


def test_a_call_that_makes_no_sense_is_noted_and_the_others_go_on(study: StudyDir) -> None:
    tracker = WandbTracker(CONFIG, study, "abcd1234", "offline")
    tracker.trial_reported(*(FED[2][0], FED[2][2][0]))  # never started
    feed(tracker, 1)
    tracker.close()
    assert tracker.trouble.startswith("KeyError")
    assert same(read_runs(study.wandb)["abcd1234-0001"].history, expected_rows(1))


def test_a_fixed_configuration_goes_by_its_label(study: StudyDir) -> None:
    """One of them may be a ramp, which is trained and validated as any other."""
    ramp = TrialSpec(4, "search", 0, 20, lr=1.0, ramp=Ramp(0.01, 1.0, 20), label="as in the paper")
    assert run_name(ramp) == "as in the paper #4"
    tracker = WandbTracker(CONFIG, study, "abcd1234", "offline")
    own = reports(1.0, 20)
    tracker.trial_started(ramp)
    for report in own:
        tracker.trial_reported(ramp, report)
    tracker.trial_ended(ramp, TrialRow(4, "search", "complete", "ramp", 1.0, {}, 0, 20, own[-1].metrics))
    tracker.close()
    assert tracker.trouble == ""
    run = read_runs(study.wandb)["abcd1234-0004"]
    assert (run.config["lr_schedule"], run.config["label"]) == ("ramp", "as in the paper")
    assert sorted(run.tags) == ["complete", "fixed", "search"]
    assert [row["train/step"] for row in run.history] == list(range(1, 21))
    assert run.history[-1]["val/loss"] == own[-1].metrics["val_loss"]


# --- very long runs ---------------------------------------------------------------------------------------------------


def curve(steps: int) -> list[Row]:
    """With a spike, a dip, a loss that is not finite, and a validation every 1,000 steps."""
    rows: list[Row] = [{"train/step": s, "train/loss": 2 + 1e-3 * math.sin(s)} for s in range(1, steps + 1)]
    rows[1234]["train/loss"], rows[2345]["train/loss"], rows[-2]["train/loss"] = 9.0, 0.5, math.inf
    for row in rows[999::1000]:
        row["val/loss"] = 1.0
    return rows


def thinned(rows: list[Row], max_steps: int, pieces: int) -> list[Row]:
    thinner = Thinner(max_steps, "train/step", "train/loss")
    size = math.ceil(len(rows) / pieces)
    kept = [row for start in range(0, len(rows), size) for row in thinner.add(rows[start : start + size])]
    return [*kept, *thinner.end()]


def test_up_to_the_limit_every_point_is_kept() -> None:
    rows = curve(MAX_POINTS)
    assert thinned(rows, MAX_POINTS, 7) == rows


@pytest.mark.parametrize("steps", [MAX_POINTS + 1, 40_001, 100_000])
def test_beyond_it_points_are_left_out_and_no_extreme_is(steps: int) -> None:
    rows = curve(steps)
    kept = thinned(rows, steps, 13)
    validated = [row for row in rows if "val/loss" in row]
    assert len(kept) <= MAX_POINTS + len(validated) + 6
    assert len(kept) >= MAX_POINTS / 3
    by_step = {row["train/step"]: row for row in kept}
    assert list(by_step) == sorted(by_step)
    assert len(by_step) == len(kept)
    assert all(by_step[row["train/step"]] is row for row in [rows[0], rows[1234], rows[2345], *rows[-2:], *validated])
    every = math.ceil(steps / (MAX_POINTS // 2))
    for start in range(2 * every - 1, steps - every, every):
        losses = [row["train/loss"] for row in rows[start : start + every]]
        own = [row["train/loss"] for row in kept if start < row["train/step"] <= start + every]
        assert (min(own), max(own)) == (min(losses), max(losses))
        if start > 50 * every:
            break


def test_what_is_left_out_does_not_depend_on_how_the_points_came() -> None:
    rows = curve(20_000)
    assert thinned(rows, 20_000, 1) == thinned(rows, 20_000, 7) == thinned(rows, 20_000, 20_000)


# --- a server that does not answer ------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[WandbTracker, StudyDir, float]:
    """A study whose server refuses, to its end; and how long the end took."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("refused")
        patch.setenv("HOME", str(folder))
        patch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed_port()}")
        patch.setenv("WANDB_API_KEY", KEY)
        directory = StudyDir(folder / "studies" / "first")
        directory.create({"name": "first"})
        mode = choose_mode(None)
        assert mode == "online"
        tracker = WandbTracker(CONFIG, directory, "abcd1234", mode)
        started = time.monotonic()
        feed(tracker, *FED)
        assert time.monotonic() - started < 0.5  # the study does not wait for it
        tracker.close()
        return tracker, directory, time.monotonic() - started


def test_a_server_that_refuses_is_noted_and_the_rest_stays_offline(
    refused: tuple[WandbTracker, StudyDir, float],
) -> None:
    tracker, directory, seconds = refused
    assert seconds < CLOSE_TIMEOUT_S
    assert tracker.mode == "offline"
    assert tracker.trouble.startswith("runs were kept offline: http://127.0.0.1:")
    assert "gives no answer (" in tracker.trouble
    for number in (1, 2, 3):
        (folder,) = directory.wandb.glob(f"offline-run-*-{number:04d}")
        assert same(read_run(folder).history, expected_rows(number))


def test_the_trial_that_noticed_it_is_kept_offline_too(refused: tuple[WandbTracker, StudyDir, float]) -> None:
    _, directory, _ = refused
    (folder,) = directory.wandb.glob("offline-run-*-0000")
    assert same(read_run(folder).history, expected_rows(0))


def test_the_key_is_in_no_file_of_the_study(refused: tuple[WandbTracker, StudyDir, float]) -> None:
    _, directory, _ = refused
    files = [path for path in directory.root.rglob("*") if path.is_file()]
    assert len(files) > len(FED)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


# --- the mode ---------------------------------------------------------------------------------------------------------

NETRC = "machine {} login user password " + KEY + "\n"


@pytest.mark.parametrize(
    ("env", "netrc", "expected"),
    [
        ({}, None, False),
        ({"WANDB_API_KEY": KEY}, None, True),
        ({"WANDB_API_KEY": ""}, None, False),
        ({}, NETRC.format("api.wandb.ai"), True),
        ({}, NETRC.format("example.org"), False),
        ({}, "machine", False),  # cut short
        ({}, "", False),
        ({"WANDB_BASE_URL": "https://wandb.example.org"}, NETRC.format("wandb.example.org"), True),
        ({"WANDB_BASE_URL": "https://wandb.example.org"}, NETRC.format("api.wandb.ai"), False),
        ({"WANDB_BASE_URL": "https://wandb.example.org", "WANDB_API_KEY": KEY}, None, True),
    ],
)
def test_whether_a_key_is_configured(
    env: dict[str, str], netrc: str | None, expected: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    if netrc is not None:
        write_netrc(home / ".netrc", netrc)
    assert has_key() is expected
    assert choose_mode(None) == ("online" if expected else "offline")


def write_netrc(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def wandb_finds_a_key(url: str) -> bool:
    """What W&B itself makes of the netrc file."""
    from wandb.sdk.lib.wbauth import wbnetrc

    return wbnetrc.read_netrc_auth(host=url) is not None


def test_a_netrc_elsewhere_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_netrc(tmp_path / "secrets", NETRC.format("api.wandb.ai"))
    monkeypatch.setenv("NETRC", str(tmp_path / "secrets"))
    assert wandb_finds_a_key("https://api.wandb.ai")
    assert has_key()


def test_a_key_for_a_server_with_a_port_counts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:8080")
    write_netrc(home / ".netrc", NETRC.format("127.0.0.1:8080"))
    assert wandb_finds_a_key("http://127.0.0.1:8080")
    assert has_key()


@pytest.mark.parametrize(
    ("variable", "file", "expected"),
    [
        (None, None, "https://api.wandb.ai"),
        (None, "[default]\nbase_url = https://w.example.org/\n", "https://w.example.org"),
        ("http://127.0.0.1:8080", "[default]\nbase_url = https://w.example.org\n", "http://127.0.0.1:8080"),
        (None, "base_url", "https://api.wandb.ai"),  # no settings file
    ],
)
def test_where_the_server_is(
    variable: str | None, file: str | None, expected: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv("WANDB_BASE_URL", variable)
    if file:
        (home / ".config" / "wandb").mkdir(parents=True)
        (home / ".config" / "wandb" / "settings").write_text(file)
    assert server_url() == expected
    write_netrc(home / ".netrc", NETRC.format(expected.partition("//")[2]))
    assert find_key() == KEY


@pytest.mark.parametrize("asked", ["offline", "disabled"])
def test_offline_and_disabled_are_taken_as_asked(asked: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_mode(asked) == asked
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert choose_mode(asked) == asked


def test_online_is_tried_where_no_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed_port()}")
    assert choose_mode("online") == "online"


def test_online_without_a_key_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        choose_mode("online")
    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        "--wandb: online needs a key and none is configured; set WANDB_API_KEY, or use --wandb offline"
    )
