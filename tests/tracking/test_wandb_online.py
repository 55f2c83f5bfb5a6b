"""W&B with a server, a stand-in of our own and the real client: what is asserted is what arrived."""

import gc
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import wandb
from PIL import Image

import simulated
from tune_lr.cli.main import main
from tune_lr.config.model import Config
from tune_lr.errors import InputError, ResourceError
from tune_lr.records.looks import schedule_color
from tune_lr.records.row import TrialRow
from tune_lr.store.curves import read_curve
from tune_lr.store.files import read_yaml
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.answer import answer_of
from tune_lr.tracking.key import ASK_TIMEOUT_S, Mode, check_server, choose_mode
from tune_lr.tracking.process import WandbProcess
from tune_lr.tracking.runs import run_id
from tune_lr.tracking.sync import sync
from tune_lr.tracking.tracker import CLOSE_TIMEOUT_S, WandbTracker
from wandb_files import read_runs
from wandb_server import ENTITY, KEY, ArrivedRun, WandbServer

# wandb-workspaces, with its own use of pydantic
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")

CONFIG: Config = simulated.config_of(num_trials=12)
SHORT: Config = simulated.config_of(num_trials=2, parameters=simulated.FIXED_LR, confirm={"top": 0, "seeds": 1})


@dataclass
class Ran:
    """A study that was run, and where its runs went."""

    directory: StudyDir
    id: str
    rows: list[TrialRow]
    config: Config
    server: WandbServer

    def run(self, number: int) -> ArrivedRun:
        return self.server.runs[run_id(self.id, number)]


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither key nor settings of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("WANDB_") and name not in ("WANDB_SILENT", "WANDB_ERROR_REPORTING"):
                patch.delenv(name)
        patch.delenv("NETRC", raising=False)
        folder = tmp_path_factory.mktemp("home")
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            patch.setenv(name, str(folder))
        patch.chdir(folder)
        yield


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server of the test's own, which the client finds."""
    import wandb

    with WandbServer() as one:
        use(one, monkeypatch)
        yield one
        wandb.teardown()


def use(server: WandbServer, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("WANDB_BASE_URL", server.url)
    patch.setenv("WANDB_API_KEY", KEY)


def begin(root: Path, config: Config, ident: str = "abcd1234") -> StudyDir:
    directory = StudyDir(root)
    directory.create(
        {"name": directory.name, "id": ident, "python_path": [], "phases": ["range_test", "search", "confirm"],
         "created": "2026-01-15T10:12:44+00:00", "config": config.to_dict(), "packages": {}, "hardware": {}}
    )  # fmt: skip
    return directory


def run(root: Path, config: Config, mode: Mode) -> tuple[StudyDir, list[TrialRow], WandbProcess]:
    """A whole study, as the command runs it; the report and the picture are put in their places unmade."""
    directory = begin(root, config)
    tracker = WandbProcess(config, directory, "abcd1234", mode)
    study = simulated.open_study(root, config, observers=[tracker])
    simulated.execute(study, slots=2)
    directory.write_rows(study.rows())
    directory.write_answer(answer_of(study))
    directory.report_html.write_text("<!doctype html>")
    Image.new("RGB", (3, 2)).save(directory.range_test_png)
    tracker.study_ended(study.rows())
    tracker.close()
    return directory, study.rows(), tracker


@pytest.fixture(scope="module")
def online(home: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    with pytest.MonkeyPatch.context() as patch, WandbServer() as server:
        use(server, patch)
        directory, rows, tracker = run(tmp_path_factory.mktemp("online") / "first", CONFIG, "online")
        assert (tracker.trouble, tracker.mode) == ("", "online")
        yield Ran(directory, "abcd1234", rows, CONFIG, server)


@pytest.fixture(scope="module")
def synced(home: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """The same study, run offline and uploaded by the command; the first attempt breaks off."""
    with pytest.MonkeyPatch.context() as patch, WandbServer() as server:
        directory, rows, tracker = run(tmp_path_factory.mktemp("offline") / "first", CONFIG, "offline")
        assert (tracker.trouble, tracker.mode) == ("", "offline")
        use(server, patch)
        wandb.teardown()  # in this process another test may have used another server

        def breaks_off(name: str) -> None:
            if len(server.runs) == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sync(CONFIG, directory, "abcd1234", rows, breaks_off)
        assert len(server.runs) == 5
        assert main(["sync", str(directory.root)]) == 0
        yield Ran(directory, "abcd1234", rows, CONFIG, server)


# --- runs -------------------------------------------------------------------------------------------------------------


def on_disk(directory: StudyDir, row: TrialRow) -> list[dict[str, float]]:
    """A trial's curve as its run is to have it."""
    if row.phase == "range_test":
        curve = read_curve(directory.range_curve(row.number))
        names = {"lr": "range/lr", "step": "range/step", "loss": "range/loss"}
    else:
        curve = read_curve(directory.curve(row.number))
        names = {"step": "train/step", "lr": "train/lr", "train_loss": "train/loss"}
        names |= {name: name.replace("val_", "val/") for name in curve if name.startswith("val_")}
    rows = [dict(zip(names.values(), values, strict=True)) for values in zip(*map(curve.get, names), strict=True)]
    unmeasured = [name for name in names.values() if name.startswith("val/")]
    return [{k: v for k, v in row.items() if k not in unmeasured or not math.isnan(v)} for row in rows]


def test_a_study_of_twelve_trials_arrives_point_for_point(online: Ran) -> None:
    assert [row.phase for row in online.rows] == ["range_test"] * 2 + ["search"] * 12 + ["confirm"] * 4
    assert len(online.server.runs) == len(online.rows) + 1
    for row in online.rows:
        arrived, expected = online.run(row.number).history, on_disk(online.directory, row)
        assert len(arrived) == row.steps
        assert repr(sorted_rows(arrived)) == repr(sorted_rows(expected))  # NaN equals NaN


def sorted_rows(rows: list[dict[str, float]]) -> list[list[tuple[str, float]]]:
    return [sorted((name, float(value)) for name, value in row.items()) for row in rows]


def test_the_same_study_offline_and_synced_gives_the_same(online: Ran, synced: Ran) -> None:
    assert sorted(synced.server.runs) == sorted(online.server.runs)
    for row in online.rows:
        left, right = online.run(row.number), synced.run(row.number)
        assert repr(sorted_rows(left.history)) == repr(sorted_rows(right.history))
        for name in ("name", "group", "job_type", "tags", "config", "summary", "axes", "exit_code"):
            assert getattr(left, name) == getattr(right, name), (row.number, name)


def test_what_was_interrupted_is_not_sent_again(synced: Ran) -> None:
    assert {arrived.times_begun for arrived in synced.server.runs.values()} == {1}


def test_a_second_sync_sends_nothing(synced: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    use(synced.server, monkeypatch)
    before = list(synced.server.operations)
    assert sync(CONFIG, synced.directory, synced.id, synced.rows, on_arrival=pytest.fail) == 0
    assert synced.server.operations == [*before, "Viewer"]  # whether it knows the key


def test_runs_say_what_they_are(online: Ran) -> None:
    ramp, trained = online.run(0), online.run(2)
    row = online.rows[2]
    assert (ramp.name, ramp.job_type, ramp.group) == ("ramp #0", "range_test", "first")
    assert (trained.name, trained.job_type) == (f"{row.lr_schedule} lr={row.lr:.3g} #2", "search")
    assert trained.tags == ["search", row.lr_schedule, row.state]
    assert trained.config["lr"] == row.lr
    assert trained.config["lr_schedule"] == row.lr_schedule
    assert {name: trained.config[name] for name in row.parameters} == row.parameters
    assert {arrived.exit_code for arrived in online.server.runs.values()} == {0}


def test_each_kind_of_curve_has_its_axis(online: Ran) -> None:
    assert online.run(0).axes == {"range/*": "range/lr"}
    assert online.run(2).axes == {"train/*": "train/step", "val/*": "train/step"}


def test_the_key_is_in_no_file_of_the_study(online: Ran, synced: Ran) -> None:
    for ran in (online, synced):
        files = [path for path in ran.directory.root.rglob("*") if path.is_file()]
        assert [path for path in files if KEY.encode() in path.read_bytes()] == []


# --- the summary ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", ["online", "synced"])
def test_one_run_sums_the_study_up(fixture: str, request: pytest.FixtureRequest) -> None:
    ran: Ran = request.getfixturevalue(fixture)
    directory, summary = ran.directory, ran.server.runs["abcd1234-summary"]
    assert (summary.name, summary.job_type, summary.group) == ("first summary", "summary", "first")
    best, bounds = read_yaml(directory.best_yaml), directory.read_json(directory.bounds_json)
    assert summary.summary["best/lr"] == best["lr"]
    assert summary.summary["best/verdict"] == best["verdict"]
    assert summary.summary["bounds/low"] == bounds["low"]
    assert summary.summary["bounds/status"] == "ok"

    tables = {
        path.split("/")[-1].split("_0_")[0]: json.loads(content)
        for path, content in ran.server.files.items()
        if path.startswith("abcd1234-summary/media/table/")
    }
    rows = read_table(tables["leaderboard"])
    assert {row["trial"] for row in rows} == {row.number for row in ran.rows if row.phase != "range_test"}
    losses = [row["val_loss"] for row in rows if row["state"] == "complete"]
    assert losses == sorted(losses)
    assert len(losses) > 5
    families = read_table(tables["best_of_family"])
    searched = [row for row in ran.rows if row.phase == "search" and row.state == "complete"]
    for family in families:
        own = [row.metrics["val_loss"] for row in searched if row.lr_schedule == family["lr_schedule"]]
        assert family["val_loss"] == min(own)
    assert {family["lr_schedule"] for family in families} == {row.lr_schedule for row in searched}

    (picture,) = [content for path, content in ran.server.files.items() if "media/images/range_test" in path]
    assert picture == directory.range_test_png.read_bytes()
    artifact = ran.server.artifacts["study-first"]
    assert artifact.type == "study"
    assert artifact.committed
    for path in (directory.best_yaml, directory.report_html, directory.trials_csv, directory.study_yaml):
        assert artifact.files[path.name] == path.read_bytes()


def read_table(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


# --- sync -------------------------------------------------------------------------------------------------------------


def test_a_study_that_was_killed_and_went_on_is_synced_once_a_trial(server: WandbServer, tmp_path: Path) -> None:
    """Its first driver left a half run on disk, under the id that the second one used again."""
    directory = begin(tmp_path / "first", SHORT)
    tracker = WandbTracker(SHORT, directory, "abcd1234", "offline")
    simulated.execute(simulated.open_study(directory.root, SHORT, observers=[tracker]), slots=2, reports=3)
    tracker.close()
    halves = list(directory.wandb.glob("offline-run-*-abcd1234-*"))
    assert len(halves) == 2
    for half in halves:
        shutil.copytree(half, directory.wandb / half.name.replace("offline-run-2026", "offline-run-2025"))
    tracker = WandbTracker(SHORT, directory, "abcd1234", "disabled")
    study = simulated.open_study(directory.root, SHORT, observers=[tracker])
    simulated.execute(study, slots=2)
    tracker.close()

    assert sync(SHORT, directory, "abcd1234", study.rows(), on_arrival=lambda name: None) == 2
    for row in study.rows():
        arrived = server.runs[run_id("abcd1234", row.number)]
        assert (arrived.times_begun, arrived.exit_code) == (1, 0)
        assert repr(sorted_rows(arrived.history)) == repr(sorted_rows(on_disk(directory, row)))


def test_an_unfinished_study_is_synced_as_far_as_it_is(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = begin(tmp_path / "first", SHORT)
    simulated.execute(simulated.open_study(directory.root, SHORT), reports=5)
    assert main(["sync", str(directory.root)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 runs brought to W&B, 0 were there"
    assert set(server.runs) == {"abcd1234-0000", "abcd1234-summary"}
    study = simulated.open_study(directory.root, SHORT)
    simulated.execute(study)
    assert main(["sync", str(directory.root)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 runs brought to W&B, 1 were there"
    assert server.runs["abcd1234-0000"].times_begun == 1
    assert server.runs["abcd1234-summary"].times_begun == 2  # anew


def test_a_server_that_fails_in_the_middle_of_a_sync_is_one_line(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_lr.tracking.runs.RUN_TIMEOUT_S", 1.0)
    directory = begin(tmp_path / "first", SHORT)
    study = simulated.open_study(directory.root, SHORT)
    simulated.execute(study)

    def fails(name: str) -> None:
        server.trouble = "500"

    with pytest.raises(ResourceError, match=f"^sync: {server.url} did not take everything .*; and run this line again"):
        sync(SHORT, directory, "abcd1234", study.rows(), fails)
    server.trouble = None
    assert sync(SHORT, directory, "abcd1234", study.rows(), lambda name: None) == 1


# --- the workspace ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", ["online", "synced"])
def test_the_workspace_opens_arranged(
    fixture: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: Ran = request.getfixturevalue(fixture)
    use(ran.server, monkeypatch)
    ran.server.views.clear()
    (ran.directory.wandb / "dashboard.json").unlink(missing_ok=True)
    capsys.readouterr()  # what the fixture has printed
    assert main(["dashboard", str(ran.directory.root)]) == 0
    ((ident, view),) = ran.server.views.items()
    assert capsys.readouterr().out == f"{ran.server.url}/{ENTITY}/tune-lr?nw={view['name'][3:-2]}\n"
    assert (view["entityName"], view["projectName"], view["displayName"]) == (ENTITY, "tune-lr", "tune-lr first")
    section = json.loads(view["spec"])["section"]
    sections = {part["name"]: part["panels"] for part in section["panelBankConfig"]["sections"]}
    assert list(sections) == ["Best three", "LR range test", "LR schedules compared", "Parameters", "Tables"]

    ramp = sections["LR range test"][0]["config"]
    assert (ramp["xAxis"], ramp["metrics"], ramp["xLogScale"]) == ("range/lr", ["range/loss"], True)
    by_schedule, lrs, scatter = (panel["config"] for panel in sections["LR schedules compared"])
    assert (by_schedule["metrics"], by_schedule["groupBy"]) == (["val/loss"], "lr_schedule.value")
    assert (lrs["xAxis"], lrs["metrics"]) == ("train/step", ["train/lr"])
    assert (scatter["xAxis"], scatter["yAxis"]) == ("config:lr.value", "summary:val_loss")
    assert scatter["xAxisLogScale"] is True
    columns = [column["accessor"] for column in sections["Parameters"][0]["config"]["columns"]]
    assert columns[:2] == ["config:lr_schedule.value", "config:lr.value"]
    assert columns[-1] == "summary:val_loss"
    assert {panel["config"]["limit"] for panel in sections["Best three"]} == {3}

    (runs,) = section["runSets"]
    assert "first" in json.dumps(runs["filters"])
    assert runs["sort"]["keys"][0] == {"key": {"section": "summary", "name": "val_loss"}, "ascending": True}
    colors = section["customRunColors"]
    assert colors["abcd1234-0002"] == schedule_color(ran.rows[2].lr_schedule)

    main(["dashboard", str(ran.directory.root)])
    assert list(ran.server.views) == [ident]  # saved again, not twice


def test_without_the_extra_the_dashboard_says_what_to_install(
    online: Ran, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)  # as Python marks what cannot be imported
    assert main(["dashboard", str(online.directory.root)]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: dashboard: needs wandb-workspaces")
    assert "pip install 'tune-lr[dashboard]'" in line


# --- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["sync", "dashboard"])
def test_without_a_key_or_a_server_one_line_says_what_to_do(
    command: str, online: Ran, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal() -> tuple[int, str]:
        code = main([command, str(online.directory.root)])
        (line,) = capsys.readouterr().err.splitlines()
        return code, line

    use(online.server, monkeypatch)
    monkeypatch.setenv("WANDB_API_KEY", "")
    code, line = refusal()
    assert code == 2
    assert line.startswith(f"error: {command}: needs a W&B key")
    assert "WANDB_API_KEY" in line
    monkeypatch.setenv("WANDB_API_KEY", KEY[::-1])
    code, line = refusal()
    assert code == 2
    assert line.startswith(f"error: {command}: {online.server.url} refuses the key")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed_port()}")
    code, line = refusal()
    assert code == 4
    assert "gives no answer (" in line
    assert line.endswith("run this line again")


def test_online_with_a_wrong_key_is_refused_before_anything_starts(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY[::-1])
    arguments = ["search", "lenet5_mnist", "--wandb", "online", "--out", str(tmp_path), "--name", "first"]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --wandb: {server.url} refuses the key")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert choose_mode("online") == "online"


@pytest.mark.parametrize("trouble", ["500", "hang"])
def test_a_server_in_trouble_is_told_apart_from_a_wrong_key(
    trouble: str, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_lr.tracking.key.ASK_TIMEOUT_S", 0.5)
    server.trouble = trouble
    began = time.monotonic()
    with pytest.raises(ResourceError):
        check_server("sync", "or do without")
    assert choose_mode("online") == "online"  # the study runs, whatever becomes of it
    assert time.monotonic() - began < 5
    server.trouble = None
    monkeypatch.setenv("WANDB_API_KEY", KEY[::-1])
    with pytest.raises(InputError):
        check_server("sync", "or do without")


def test_in_all_it_may_hold_up_a_study_for_30_s() -> None:
    assert ASK_TIMEOUT_S + CLOSE_TIMEOUT_S < 30


@pytest.mark.parametrize("trouble", ["500", "hang", "key"])
def test_a_server_in_trouble_from_the_start_costs_nothing_but_the_asking(
    trouble: str, server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_lr.tracking.key.ASK_TIMEOUT_S", 0.5)
    if trouble == "key":
        monkeypatch.setenv("WANDB_API_KEY", KEY[::-1])
    else:
        server.trouble = trouble
    directory = begin(tmp_path / "first", SHORT)
    began = time.monotonic()
    tracker = WandbTracker(SHORT, directory, "abcd1234", "online")
    study = simulated.open_study(directory.root, SHORT, observers=[tracker])
    simulated.execute(study)
    tracker.close()
    assert time.monotonic() - began < 10
    why = "refuses the key" if trouble == "key" else "gives no answer" if trouble == "hang" else "answers with HTTP 500"
    assert tracker.mode == "offline"
    assert tracker.trouble.startswith(f"runs were kept offline: {server.url} {why}")
    for row in study.rows():
        arrived = read_runs(directory.wandb)[run_id("abcd1234", row.number)]
        assert repr(sorted_rows(arrived.history)) == repr(sorted_rows(on_disk(directory, row)))


@pytest.mark.parametrize("trouble", ["500", "hang"])
def test_a_server_that_dies_in_the_middle_loses_nothing(
    trouble: str, server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_lr.tracking.runs.RUN_TIMEOUT_S", 1.5)
    directory = begin(tmp_path / "first", SHORT)
    tracker = WandbTracker(SHORT, directory, "abcd1234", "online")
    study = simulated.open_study(directory.root, SHORT, observers=[tracker, Breaks(server, trouble, 3)])
    simulated.execute(study)
    tracker.study_ended(study.rows())
    began = time.monotonic()
    tracker.close()
    assert time.monotonic() - began < CLOSE_TIMEOUT_S
    assert (tracker.mode, tracker.trouble) == ("offline", f"runs were kept offline: {server.url} no longer answers")
    assert [row.state for row in study.rows()] == ["complete", "complete"]

    server.recover()
    assert sync(SHORT, directory, "abcd1234", study.rows(), lambda name: None) == 2
    for row in study.rows():
        arrived = server.runs[run_id("abcd1234", row.number)]
        assert repr(sorted_rows(arrived.history)) == repr(sorted_rows(on_disk(directory, row)))


# What wandb's own threads say of a service that was killed under them.
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
)
def test_a_killed_service_of_wandb_loses_nothing(server: WandbServer, tmp_path: Path) -> None:
    directory = begin(tmp_path / "first", SHORT)
    tracker = WandbTracker(SHORT, directory, "abcd1234", "online")
    study = simulated.open_study(directory.root, SHORT, observers=[tracker])
    simulated.execute(study, reports=2)
    server.wait_for(lambda: bool(server.runs))
    (service,) = [child for child in psutil.Process().children(recursive=True) if child.name() == "wandb-core"]
    service.kill()
    study = simulated.open_study(directory.root, SHORT, observers=[tracker])
    simulated.execute(study)
    tracker.study_ended(study.rows())
    tracker.close()
    for one in gc.get_objects():
        if type(one) is subprocess.Popen and one.pid == service.pid:  # `isinstance` would make torch warn
            one.wait()  # wandb never does, and Python would say so
    assert tracker.trouble != ""
    assert sync(SHORT, directory, "abcd1234", study.rows(), lambda name: None) == 2
    for row in study.rows():
        arrived = server.runs[run_id("abcd1234", row.number)]
        assert repr(sorted_rows(arrived.history)) == repr(sorted_rows(on_disk(directory, row)))


def test_a_killed_process_loses_nothing(server: WandbServer, tmp_path: Path) -> None:
    directory = begin(tmp_path / "first", SHORT)
    tracker = WandbProcess(SHORT, directory, "abcd1234", "online")
    simulated.execute(simulated.open_study(directory.root, SHORT, observers=[tracker]), reports=2)
    server.wait_for(lambda: bool(server.runs))
    (process,) = [
        child for child in psutil.Process().children() if "tune_lr.tracking.process" in " ".join(child.cmdline())
    ]
    process.kill()
    study = simulated.open_study(directory.root, SHORT, observers=[tracker])
    simulated.execute(study)
    tracker.close()
    assert tracker.trouble == "its process has ended before the study"
    assert sync(SHORT, directory, "abcd1234", study.rows(), lambda name: None) == 2


class Breaks(simulated.Log):
    """An observer that brings the server into trouble after so many reports, once the first run has begun."""

    def __init__(self, server: WandbServer, trouble: str, reports: int) -> None:
        super().__init__()
        self._server, self._trouble, self._left = server, trouble, reports

    def trial_reported(self, trial: Any, report: Any) -> None:
        self._left -= 1
        if not self._left:
            self._server.wait_for(lambda: bool(self._server.runs))
            self._server.trouble = self._trouble


def test_a_run_that_is_stopped_in_wandb_stops_its_trial_and_nothing_else(server: WandbServer, tmp_path: Path) -> None:
    directory = begin(tmp_path / "first", SHORT)
    tracker = WandbProcess(SHORT, directory, "abcd1234", "online")
    study = simulated.open_study(directory.root, SHORT, observers=[tracker])
    asked: list[int] = []

    def stop(number: int, reason: str) -> None:
        study.stop_trial(number, reason)
        asked.append(number)
        with server.changed:
            server.changed.notify_all()

    tracker.stop_trial = stop
    server.stopped.add("abcd1234-0001")
    simulated.execute(study, slots=2, reports=2)
    server.wait_for(lambda: bool(asked), 40)  # W&B looks every 15 s
    for trial in study.trials.begun():
        study.lost(trial.number)
    simulated.execute(study)
    tracker.close()
    assert set(asked) == {1}
    ends = {row.number: (row.state, row.reason) for row in study.rows()}
    assert ends == {0: ("complete", ""), 1: ("pruned", "stopped in Weights & Biases")}
    assert study.over  # and no signal came: this line is reached


# --- optuna-dashboard -------------------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_optuna_dashboard_opens_the_journal(online: Ran, tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="the extra `dashboard` is not installed")
    journal = shutil.copy(online.directory.journal, tmp_path)
    command = Path(sys.executable).with_name("optuna-dashboard")
    port = closed_port()
    process = subprocess.Popen(
        [command, str(journal), "--port", str(port), "--server", "wsgiref"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        answer = json.loads(fetch(process, f"http://127.0.0.1:{port}/api/studies"))
    finally:
        process.kill()
        process.wait()
    assert {study["study_name"] for study in answer["study_summaries"]} >= {"range_test", "search", "confirm"}


def fetch(process: "subprocess.Popen[bytes]", url: str) -> bytes:
    """What stands there, once the process listens."""
    while process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=20) as response:
                content: bytes = response.read()
                return content
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
            time.sleep(0.2)
    raise AssertionError("the process has ended")
