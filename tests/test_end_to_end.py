"""A whole study on real components: what is promised of its directory, its curves and its answer."""

import math
import shutil
from pathlib import Path

import pytest
import ray
import torch
import yaml
from ray.util.placement_group import placement_group

from finished_study import Finished
from studies import tune_lr
from tune_lr.cluster.workers import WorkerGroup, bundles
from tune_lr.config.load import parse_config
from tune_lr.config.task import make_task
from tune_lr.records.trial import TrialSpec
from tune_lr.store.curves import read_curve
from tune_lr.store.study_dir import StudyDir
from wandb_files import read_run


def test_the_study_directory_is_as_promised(finished: Finished) -> None:
    directory = finished.directory
    names = {path.name for path in directory.root.iterdir()}
    assert names >= {"study.yaml", "study.journal", "bounds.json", "range_test", "trials", "trials.csv", "best.yaml"}
    assert names >= {"report.html", "wandb", "plots"}
    rows = directory.read_rows()
    assert [row.number for row in rows] == list(range(3 + 8 + 4))
    assert [row.phase for row in rows] == ["range_test"] * 3 + ["search"] * 8 + ["confirm"] * 4
    assert {row.state for row in rows} <= {"complete", "pruned", "diverged"}
    for row in rows[:3]:
        assert list(read_curve(directory.range_curve(row.number))) == ["step", "lr", "loss"]
    for row in rows[3:]:
        curve = read_curve(directory.curve(row.number))
        assert list(curve) == ["step", "lr", "train_loss", "val_loss", "val_accuracy"]
        assert curve["step"] == [float(step) for step in range(1, row.steps + 1)]
        assert [step for step, loss in zip(curve["step"], curve["val_loss"], strict=True) if not math.isnan(loss)] == [
            float(step) for step in (31, 62) if step <= row.steps and row.state != "diverged"
        ]
        if row.state == "complete":
            assert curve["val_loss"][-1] == row.metrics["val_loss"]  # the last validation, not the best
        assert directory.read_json(directory.trial(row.number) / "params.json")["lr"] == row.lr
    assert directory.read_json(directory.bounds_json)["status"] == "ok"
    study = directory.read_study()
    assert study["config"]["max_steps"] == 62
    assert study["packages"]["ray"]


def test_every_curve_on_disk_stands_in_wandb_point_for_point(finished: Finished) -> None:
    directory = finished.directory
    runs = {run.config["number"]: run for run in map(read_run, sorted(directory.wandb.glob("offline-run-*")))}
    rows = directory.read_rows()
    assert sorted(runs) == [row.number for row in rows]
    for row in rows:
        run = runs[row.number]
        assert (run.group, run.job_type) == ("study", row.phase)
        if row.phase == "range_test":
            curve = read_curve(directory.range_curve(row.number))
            logged = [(point["range/step"], point["range/lr"], point["range/loss"]) for point in run.history]
            assert logged == list(zip(curve["step"], curve["lr"], curve["loss"], strict=True))
            continue
        curve = read_curve(directory.curve(row.number))
        logged = [(point["train/step"], point["train/lr"], point["train/loss"]) for point in run.history]
        assert logged == list(zip(curve["step"], curve["lr"], curve["train_loss"], strict=True))
        for name in ("loss", "accuracy"):
            shown = [point.get(f"val/{name}", math.nan) for point in run.history]
            assert [v for v in shown if not math.isnan(v)] == [v for v in curve[f"val_{name}"] if not math.isnan(v)]


def test_both_slots_are_busy_in_every_phase(finished: Finished) -> None:
    rows = finished.directory.read_rows()
    for phase in ("range_test", "search", "confirm"):
        mine = [row for row in rows if row.phase == phase]
        assert {row.slot for row in mine} == {0, 1}, phase
    searched = [row for row in rows if row.phase == "search"]
    wall = max(row.started_s + row.duration_s for row in searched) - min(row.started_s for row in searched)
    # Eight short trials on two slots: the last one may leave a slot alone, nothing else may.
    longest = max(row.duration_s for row in searched)
    assert sum(row.duration_s for row in searched) + longest >= 0.7 * 2 * wall


def test_the_code_in_best_yaml_rebuilds_the_lr_of_every_step(finished: Finished) -> None:
    best = yaml.safe_load(finished.directory.best_yaml.read_text())
    space = {"model": torch.nn.Linear(1, 1)}
    exec(best["code"], space)
    lrs = []
    for _ in range(best["max_steps"]):
        lrs.append(space["optimizer"].param_groups[0]["lr"])
        space["optimizer"].step()
        space["scheduler"].step()
    trained = read_curve(finished.directory.curve(best["confirm_trials"][0]))["lr"]
    assert all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(lrs, trained, strict=True))
    assert best["interval"][0] <= best["mean"] <= best["interval"][1]
    assert set(best["test"]) == {"loss", "accuracy"}
    assert best["test"]["accuracy"] > 0.5
    assert best["verdict"] in finished.output


def test_a_trial_in_a_warm_worker_equals_it_in_a_fresh_one_in_every_slot(finished: Finished) -> None:
    directory = finished.directory
    rows = directory.read_rows()
    config = parse_config(directory.read_study()["config"])
    task = make_task(config)
    last = {row.slot: row for row in rows if row.phase == "confirm"}  # after at least five trials in that slot
    assert set(last) == {0, 1}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        for row in last.values():
            params = directory.read_json(directory.trial(row.number) / "params.json")
            spec = TrialSpec.from_dict({**params, "checkpoint": None})
            group = placement_group(bundles(task))
            fresh = WorkerGroup(task, group)
            fresh.start(spec)
            fresh.begin(spec)
            points = [point for _ in range(2) for point in fresh.wait(fresh.reports(spec))[0].points]
            fresh.kill()
            ray.util.remove_placement_group(group)
            curve = read_curve(directory.curve(row.number))
            assert points == list(zip(curve["step"], curve["lr"], curve["train_loss"], strict=True))
    finally:
        ray.shutdown()


def test_report_rebuilds_every_derived_file(finished: Finished, tmp_path: Path) -> None:
    copy = StudyDir(shutil.copytree(finished.directory.root, tmp_path / "study"))
    derived = [copy.bounds_json, copy.trials_csv, copy.best_yaml]
    before = [path.read_text() for path in derived]
    for path in [*derived, copy.report_html, copy.range_test_png]:
        path.unlink()
    process = tune_lr("report", str(copy.root), cwd=tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert [path.read_text() for path in derived] == before
    assert copy.report_html.stat().st_size > 50_000
    assert copy.range_test_png.stat().st_size > 10_000


@pytest.mark.long
def test_a_finished_study_is_extended_and_nothing_finished_runs_again(finished: Finished, tmp_path: Path) -> None:
    copy = StudyDir(shutil.copytree(finished.directory.root, tmp_path / "study"))
    process = tune_lr("resume", str(copy.root), "--num-trials=10", "--wandb=disabled", cwd=tmp_path)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, f"{output}\n{errors}"
    before, after = finished.directory.read_rows(), copy.read_rows()
    assert after[: len(before)] == before
    assert [row.number for row in after] == list(range(len(after)))
    assert sum(row.phase == "search" for row in after) == 10
