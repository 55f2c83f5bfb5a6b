"""Checkpoints: a trial that goes on from one is bit for bit one that never stopped, and a damaged one is not used.

The training is real, in this process, on one rank; the files are real; the study is executed by tests/simulated.py. One
test brings it all together on a real Ray.
"""

import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.cluster_utils import Cluster
from torch import Tensor, nn
from torch.utils.data import Dataset

from simulated import SMALL, Log, config_of, execute, open_study
from simulated import train as simulate
from studies import Recorder, ray_node, run_study, toy
from toy import eventful
from tune_lr.config.load import parse_config
from tune_lr.config.model import Config
from tune_lr.config.task import make_task as task_of
from tune_lr.lr.ramp import Ramp
from tune_lr.records.trial import CheckpointPlan, Report, TrialSpec
from tune_lr.store.checkpoints import MANIFEST, Checkpoint
from tune_lr.store.curves import read_curve
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.study import Study
from tune_lr.worker.checkpoint import pack, unpack
from tune_lr.worker.training import Training
from tune_lr.worker.weights import MODEL_FILE
from tune_lr.workloads import Batch
from two_ranks import figures, make_task, make_trial, mean_square, regression

CPU = torch.device("cpu")


def plan(every_steps: int | None = None, every_minutes: float | None = None) -> CheckpointPlan:
    return CheckpointPlan(every_steps, every_minutes, keep=2, root="", study_id="")


# --- a state as bytes -------------------------------------------------------------------------------------------------


def test_a_state_comes_back_as_it_was() -> None:
    tied = torch.randn(3, 2)
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state: dict[Any, Any] = {
        "numbers": [1, 2.0, -0.0, float("inf"), True, None, "text"],
        "tuple": (0.9, (1, 2)),
        0: {"step": torch.tensor(3.0), "half": torch.randn(4).bfloat16(), "none": torch.empty(0)},
        "tied": [tied, tied.T],
        "image": image,
        "part": torch.arange(12).reshape(3, 4)[:, ::2],
    }
    back = unpack(pack(state), CPU)
    assert list(back) == list(state)
    assert back["numbers"] == state["numbers"]
    assert back["tuple"] == state["tuple"]
    assert [type(value) for value in back["numbers"]] == [type(value) for value in state["numbers"]]
    assert torch.equal(back[0]["half"], state[0]["half"])
    assert back[0]["half"].dtype == torch.bfloat16
    assert back[0]["step"].shape == ()
    assert back[0]["none"].shape == (0,)
    assert torch.equal(back["tied"][0], tied)
    assert torch.equal(back["tied"][1], tied.T)
    assert torch.equal(back["image"], image)
    assert back["image"].stride() == image.stride()
    assert torch.equal(back["part"], state["part"])


@pytest.mark.parametrize("value", [object(), {1, 2}, torch.eye(2).to_sparse(), nn.Linear(1, 1)])
def test_what_is_no_plain_data_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be kept in a checkpoint"):
        pack({"state": [value]})


# --- a training that goes on ------------------------------------------------------------------------------------------


def noisy(outputs: Tensor, batch: Batch) -> Tensor:
    """Draws from Python and from numpy, as a user's own code may."""
    loss = mean_square(outputs, batch)
    return loss * (1 + 0.1 * random.random() + 0.1 * float(np.random.rand())) if outputs.requires_grad else loss


RAMP = Ramp(1e-4, 100.0, 200)
TRIALS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sgd onecycle": ({}, {"lr_schedule": "onecycle"}),
    "adamw plateau": (
        {"optimizer": {"name": "adamw", "weight_decay": 0.1}, "report_every": 5},
        {"lr_schedule": "plateau", "parameters": {"patience": 0, "factor": 0.5}, "lr": 0.1},
    ),
    "lamb cosine": ({"optimizer": {"name": "lamb"}, "accumulate": 2}, {"lr_schedule": "cosine"}),
    "a batch size and an optimizer of its own": (
        {"report_every": 20},
        {"lr_schedule": "cosine", "batch_size": 24, "optimizer": {"name": "adamw", "weight_decay": 0.1}},
    ),
    "ramp": ({}, {"phase": "range_test", "ramp": RAMP, "max_steps": RAMP.steps, "lr": 0.0, "lr_schedule": ""}),
}


def finish(training: Training) -> list[Report]:
    reports = [training.run()]
    while not reports[-1].over:
        reports.append(training.run())
    return reports


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_that_goes_on_is_the_one_that_never_stopped(name: str, tmp_path: Path) -> None:
    """From each of its checkpoints, at steps that are no report's and no epoch's end, after another trial has left its
    own random numbers: the same points, validations and weights."""
    task, trial = TRIALS[name]
    workload = regression(criterion=noisy)
    kept_task = make_task(**task, checkpoints=plan(every_steps=9))
    spec = make_trial(**trial, checkpoint=str(tmp_path / "whole"))
    training = Training(workload, kept_task, spec, CPU)
    reports, states = [training.run()], {}
    while not reports[-1].over:
        if reports[-1].checkpoint:
            states[len(reports)] = pack(training.state())
        reports.append(training.run())
    assert len(states) >= 3
    for done, state in states.items():
        Training(regression(), make_task(batch_size=20), make_trial(seed=99, max_steps=3), CPU).run()
        again = Training(workload, kept_task, replace(spec, checkpoint=str(tmp_path / f"after {done}")), CPU)
        again.restore(unpack(state, CPU), unpack(state, CPU))
        assert again.step == reports[done - 1].step
        assert figures(finish(again)) == figures(reports[done:])
        if not reports[-1].diverged:
            weights = [(tmp_path / folder / MODEL_FILE).read_bytes() for folder in ("whole", f"after {done}")]
            assert weights[0] == weights[1]


@pytest.mark.usefixtures("group_of_one")
def test_checkpoints_change_nothing_but_where_reports_are() -> None:
    """A checkpoint between validations has a report of its own, without metrics."""
    plain = finish(Training(regression(), make_task(), make_trial(), CPU))
    kept = finish(Training(regression(), make_task(checkpoints=plan(every_steps=25)), make_trial(), CPU))
    assert [(report.step, report.checkpoint) for report in kept] == [(25, True), (31, False), (50, True), (62, False)]
    assert [bool(report.metrics) for report in kept] == [False, True, False, True]
    assert [report for report in figures(kept)["metrics"] if len(report) > 1] == figures(plain)["metrics"]
    assert figures(kept)["points"] == figures(plain)["points"]


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize(("minutes", "due"), [(1e-9, [16, 31, 47]), (60.0, [])])
def test_a_checkpoint_is_due_after_so_many_minutes(minutes: float, due: list[int]) -> None:
    """Looked at whenever losses are read; never at the trial's end."""
    reports = finish(Training(regression(), make_task(checkpoints=plan(every_minutes=minutes)), make_trial(), CPU))
    assert [report.step for report in reports if report.checkpoint] == due


class Counted(Dataset[tuple[Tensor, Tensor]]):
    """A data set that knows what was read of it."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.read.append(index)
        item: tuple[Tensor, Tensor] = self._data[index]
        return item


@pytest.mark.usefixtures("group_of_one")
def test_a_trial_that_goes_on_reads_no_batch_that_it_had() -> None:
    data = Counted(regression().train_data)
    workload, task = regression(train_data=data), make_task(checkpoints=plan(every_steps=40))
    training = Training(workload, task, make_trial(), CPU)
    while not training.run().checkpoint:
        pass
    state = unpack(pack(training.state()), CPU)
    data.read.clear()
    finish(training)
    rest = list(data.read)
    assert len(rest) == 22 * 32
    data.read.clear()
    again = Training(workload, task, make_trial(), CPU)
    again.restore(state, state)
    finish(again)
    assert data.read == rest


# --- on disk ----------------------------------------------------------------------------------------------------------


def checkpoint_at(step: int, text: bytes = b"") -> Checkpoint:
    files = {f"rank-{rank}.safetensors": text or f"{rank} of {step} ".encode() * 9 for rank in range(2)}
    return Checkpoint(step, step / 4, files)


@pytest.fixture
def directory(tmp_path: Path) -> StudyDir:
    """With the checkpoints of trial 7 at 20 and 30."""
    study = StudyDir(tmp_path / "study")
    for step in (10, 20, 30):
        study.write_checkpoint(7, checkpoint_at(step), keep=2)
    return study


def steps_on_disk(directory: StudyDir) -> list[str]:
    return sorted(path.name for path in directory.checkpoints_of(7).iterdir())


def test_the_newest_are_kept_and_read(directory: StudyDir) -> None:
    assert steps_on_disk(directory) == ["step-000020", "step-000030"]
    assert directory.newest_checkpoint(7, 99) == (checkpoint_at(30), [])
    assert directory.newest_checkpoint(7, 29) == (checkpoint_at(20), [])
    assert directory.newest_checkpoint(7, 19) == directory.newest_checkpoint(8, 99) == (None, [])
    directory.remove_checkpoints(7)
    assert not directory.checkpoints.exists()


def test_one_that_is_damaged_in_any_byte_is_noticed_and_the_one_before_is_taken(directory: StudyDir) -> None:
    """In every byte of every file, the manifest's too: none is read as it should not be."""
    for path in (directory.checkpoints_of(7) / "step-000030").iterdir():
        whole = path.read_bytes()
        for place in range(len(whole)):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << place % 8
            path.write_bytes(flipped)
            found, refused = directory.newest_checkpoint(7, 99)
            if found == checkpoint_at(30):  # nothing but the manifest's layout
                assert path.name == MANIFEST
                assert whole[place : place + 1].isspace()
                assert not refused
            else:
                assert found == checkpoint_at(20)
                assert len(refused) == 1
                assert "checkpoint at step 30 is damaged" in refused[0]
        path.write_bytes(whole)
    assert directory.newest_checkpoint(7, 99) == (checkpoint_at(30), [])


def test_one_that_is_damaged_by_a_cut_is_noticed_and_the_one_before_is_taken(
    directory: StudyDir,
) -> None:
    for path in (directory.checkpoints_of(7) / "step-000030").iterdir():
        whole = path.read_bytes()
        for length in (*range(0, len(whole), 7), len(whole) - 1):
            path.write_bytes(whole[:length])
            assert directory.newest_checkpoint(7, 99)[0] == checkpoint_at(20)
        path.unlink()
        found, refused = directory.newest_checkpoint(7, 99)
        assert found == checkpoint_at(20)
        assert len(refused) == 1
        path.write_bytes(whole)


def test_after_a_damaged_one_the_newer_ones_count(directory: StudyDir) -> None:
    """It went on from 20, and is at 25 now: 30, which is damaged, does not push that out."""
    (directory.checkpoints_of(7) / "step-000030" / MANIFEST).unlink()
    directory.write_checkpoint(7, checkpoint_at(25), keep=1)
    assert steps_on_disk(directory) == ["step-000025"]
    directory.write_checkpoint(7, checkpoint_at(25, b"again"), keep=1)
    assert directory.newest_checkpoint(7, 99) == (checkpoint_at(25, b"again"), [])


def test_a_full_disk_leaves_the_last_checkpoint_whole(directory: StudyDir) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            directory.write_checkpoint(7, checkpoint_at(40, b"x" * 20_000), keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert steps_on_disk(directory) == ["step-000020", "step-000030"]
    assert directory.newest_checkpoint(7, 99) == (checkpoint_at(30), [])


def test_what_a_killed_writer_left_is_cleared_away(directory: StudyDir) -> None:
    half = directory.checkpoints_of(7) / ".half"
    half.mkdir()
    (half / "rank-0.safetensors").write_bytes(b"half")
    assert directory.newest_checkpoint(7, 99) == (checkpoint_at(30), [])
    directory.write_checkpoint(7, checkpoint_at(40), keep=2)
    assert steps_on_disk(directory) == ["step-000030", "step-000040"]


# --- a study that goes on ---------------------------------------------------------------------------------------------


def keeping(directory: StudyDir, begun: list[tuple[int, int]]) -> Any:
    """As a slot does it: goes on after the step that it is told, and writes a checkpoint when it is asked for the next
    report. `begun` collects (trial's number, step from which it goes on)."""

    def train(spec: TrialSpec, config: Config) -> Iterator[Report]:
        begun.append((spec.number, spec.resume))
        for report in simulate(spec, config):
            if report.over or report.step > spec.resume:
                yield report
                if spec.phase != "test":
                    directory.write_checkpoint(spec.number, checkpoint_at(report.step), keep=2)

    return train


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


def curves_of(study: Study) -> dict[str, bytes]:
    root = study.directory.root
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("curve*.csv")}


def rows_of(study: Study) -> list[Any]:
    return [replace(row, duration_s=0.0, started_s=0.0, slot=0) for row in study.rows()]


# One trial is drawn: what the sampler draws after that depends on where a driver began.
SPACE = config_of(max_steps=12, num_trials=1, confirm={"top": 1, "seeds": 2})


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Study:
    root = tmp_path_factory.mktemp("calm") / "s"
    study = open_study(root, SPACE)
    execute(study, train=keeping(study.directory, []))
    return study


@pytest.mark.parametrize("killed_after", range(1, 23))
def test_a_killed_study_goes_on_from_its_checkpoints_and_ends_as_if_nothing_had_been(
    tmp_path: Path, calm: Study, killed_after: int
) -> None:
    """With one slot: the same rows, curves and intermediate values, and never more than one interval trained again."""
    study = open_study(tmp_path / "s", SPACE)
    before = execute(study, train=keeping(study.directory, []), reports=killed_after)
    begun: list[tuple[int, int]] = []
    log = Log()
    study = open_study(tmp_path / "s", SPACE, observers=[log])
    interrupted = [spec.number for spec in study.trials.begun()]
    after = execute(study, train=keeping(study.directory, begun))
    assert rows_of(study) == rows_of(calm)
    assert curves_of(study) == curves_of(calm)
    assert not study.directory.checkpoints.exists()
    for number in interrupted:
        reported = [step for trial, step in before if trial == number]
        went_on = dict(begun)[number]
        # The one at the last report is written when the next is asked for: never before the report is on disk.
        assert went_on == (reported[-2] if len(reported) > 1 else 0)
        assert next(step for trial, step in after if trial == number) > went_on
        said = f"trial {number}: goes on from its checkpoint at step {went_on}"
        assert (said in log.of("notice")) == (went_on > 0)
        if went_on:
            assert log.of("trial_reported").count(number) == log_length(study, number)
        assert log.of("trial_started").count(number) == 1


def log_length(study: Study, number: int) -> int:
    """How many reports an observer hears of a trial in all: one a validation, those before the kill included."""
    row = study.trials.row(number)
    every = 60 if row.phase == "range_test" else SPACE.report_every
    return -(-row.steps // every)


def test_the_reports_that_are_told_again_are_those_of_the_curve(tmp_path: Path, calm: Study) -> None:
    """W&B begins its run again and must have every point once."""
    study = open_study(tmp_path / "s", SPACE)
    execute(study, train=keeping(study.directory, []), reports=9)
    recorder = Recorder()
    study = open_study(tmp_path / "s", SPACE, observers=[recorder])
    (number,) = [spec.number for spec in study.trials.begun()]
    begun: list[tuple[int, int]] = []
    execute(study, train=keeping(study.directory, begun))
    reports = [report for trial, report in recorder.reports if trial.number == number]
    curve = read_curve(calm.directory.curve(number))
    assert [point[0] for report in reports for point in report.points] == curve["step"]
    assert [point[2] for report in reports for point in report.points] == curve["train_loss"]
    measured = [value for value in curve["val_loss"] if value == value]
    assert [report.metrics["val_loss"] for report in reports] == measured
    assert reports[0].seconds == checkpoint_at(dict(begun)[number]).seconds > 0


def killed_with_checkpoints(root: Path) -> tuple[StudyDir, int]:
    """A study with one trial in progress, which has checkpoints at 6 and 8 of its 12 steps, and reports up to 10."""
    config = config_of(max_steps=12, pruner={"name": "none"}, parameters=ONE)
    study = open_study(root, config)
    execute(study, train=keeping(study.directory, []), reports=5)
    assert sorted(path.name for path in study.directory.checkpoints_of(0).iterdir()) == ["step-000006", "step-000008"]
    return study.directory, 0


ONE = {**SMALL["parameters"], "lr": {"min": 0.01, "max": 1.0}}


def goes_on(root: Path) -> tuple[int, list[str]]:
    """From which step the interrupted trial goes on, and what is said of it."""
    log, begun = Log(), []  # type: ignore[var-annotated]
    study = open_study(root, config_of(max_steps=12, pruner={"name": "none"}, parameters=ONE), observers=[log])
    execute(study, train=keeping(study.directory, begun))
    assert read_curve(study.directory.curve(0))["step"] == list(range(1, 13))
    return dict(begun)[0], [text for text in log.of("notice") if text.startswith("trial 0: ")]


def test_a_study_refuses_a_damaged_checkpoint_and_says_so(tmp_path: Path) -> None:
    directory, _ = killed_with_checkpoints(tmp_path / "s")
    path = directory.checkpoints_of(0) / "step-000008" / "rank-1.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    step, said = goes_on(tmp_path / "s")
    assert step == 6
    assert said == [
        "trial 0: its checkpoint at step 8 is damaged (rank-1.safetensors is not what was written)",
        "trial 0: goes on from its checkpoint at step 6",
    ]


def test_without_a_whole_checkpoint_a_trial_begins_anew(tmp_path: Path) -> None:
    directory, _ = killed_with_checkpoints(tmp_path / "s")
    for folder in directory.checkpoints_of(0).iterdir():
        (folder / MANIFEST).unlink()
    step, said = goes_on(tmp_path / "s")
    assert step == 0
    assert len(said) == 2


@pytest.mark.parametrize(("points", "expected"), [(7, 6), (8, 8), (5, 0), (0, 0)])
def test_a_checkpoint_that_is_ahead_of_the_curve_is_not_used(tmp_path: Path, points: int, expected: int) -> None:
    """After a power cut the curve may have lost its end."""
    directory, _ = killed_with_checkpoints(tmp_path / "s")
    curve = directory.curve(0)
    lines = curve.read_text().splitlines(keepends=True)
    curve.write_text("".join(lines[: points + 1]) + lines[points + 1][:3])
    assert goes_on(tmp_path / "s")[0] == expected


def test_a_curve_with_a_hole_is_begun_anew(tmp_path: Path) -> None:
    directory, _ = killed_with_checkpoints(tmp_path / "s")
    curve = directory.curve(0)
    lines = curve.read_text().splitlines(keepends=True)
    curve.write_text("".join(lines[:3] + lines[4:]))
    assert goes_on(tmp_path / "s")[0] == 0


def test_a_trial_whose_slot_was_lost_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    directory, _ = killed_with_checkpoints(tmp_path / "s")
    study = open_study(tmp_path / "s", config_of(max_steps=12, pruner={"name": "none"}, parameters=ONE))
    spec = study.next_trial()
    assert spec is not None
    assert (spec.number, spec.resume) == (0, 8)
    study.lost(0)
    again = study.next_trial()
    assert again == spec
    # What it is in the journal and on disk does not depend on how often it was interrupted.
    assert directory.read_json(directory.trial(0) / "params.json")["resume"] == 0


def test_what_ended_before_its_checkpoints_were_removed_leaves_none(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", config_of(parameters=ONE))
    execute(study, reports=9)
    ended = study.rows()[0].number
    study.directory.write_checkpoint(ended, checkpoint_at(4), keep=2)
    open_study(tmp_path / "s", config_of(parameters=ONE), resume=False)
    assert study.directory.checkpoints_of(ended).exists()
    open_study(tmp_path / "s", config_of(parameters=ONE))
    assert not study.directory.checkpoints_of(ended).exists()


# --- all of it, on a real Ray -----------------------------------------------------------------------------------------


class Harm:
    """Kills a trial's worker at step 60, once: the checkpoint at step 30 is written by then, the one at 60 is not."""

    def __init__(self, number: int, directory: StudyDir) -> None:
        self._number, self._directory = number, directory
        self.found: list[str] = []

    def __call__(self, trial: TrialSpec, report: Report) -> None:
        if trial.number == self._number and report.step == 60 and not self.found:
            self.found = [path.name for path in self._directory.checkpoints_of(trial.number).iterdir()]
            os.kill(int(report.worker.rpartition(":")[2]), signal.SIGKILL)


def slow_space(**changes: Any) -> dict[str, Any]:
    return toy(
        workload="toy:eventful",
        max_steps=80,
        report_every=40,
        pruner={"name": "none"},
        confirm={"top": 0},
        parameters={"lr": {"value": 0.05}, "lr_schedule": {"value": "onecycle"}},
        scaling={"max_concurrent": 1, "timeout_s": 4.0},
        checkpoints={"every_steps": 30, "every_minutes": None},
        **changes,
    )


def assert_as_if_never_stopped(directory: StudyDir, number: int, space: dict[str, Any]) -> None:
    """A trial's curve is that of a training in this process."""
    spec = TrialSpec.from_dict(directory.read_json(directory.trial(number) / "params.json"))
    reports = finish(Training(eventful(), task_of(parse_config(space)), spec, CPU))
    curve = read_curve(directory.curve(number))
    points = zip(curve["step"], curve["lr"], curve["train_loss"], strict=True)
    assert [list(point) for point in points] == figures(reports)["points"]
    assert [value for value in curve["val_loss"] if value == value] == [r.metrics["val_loss"] for r in reports]


@pytest.mark.long
@pytest.mark.usefixtures("group_of_one")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_killed_worker_a_full_gpu_and_slow_steps(tmp_path: Path) -> None:
    """Steps may take longer in all than `timeout_s`. A trial whose GPU's memory is full fails at once, and the next one
    has a new worker. A killed worker's trial goes on from its checkpoint as if it had never stopped."""
    log = tmp_path / "steps"
    space = slow_space(num_trials=2, workload_args={"log": str(log), "memory": str(tmp_path / "memory")})
    harm = Harm(1, StudyDir(tmp_path / "study"))
    recorder = Recorder(harm)
    outcome = run_study(tmp_path / "study", space, recorder)
    full, whole = outcome.rows
    assert (full.state, full.reason) == ("failed", "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert (whole.state, harm.found) == ("complete", ["step-000030"])
    # The slow intervals were not taken for a hang, and the full GPU was not tried again.
    assert len(recorder.notices) == 1, recorder.notices
    assert "checkpoint at step 30" in recorder.notices[0]
    assert len(recorder.workers) == 2 + 1
    # Each new worker has tried one batch first; the third step of all failed.
    assert len(log.read_text().splitlines()) == 3 + (1 + 60) + (1 + 50)
    assert_as_if_never_stopped(StudyDir(outcome.root), 1, space)


@pytest.mark.long
@pytest.mark.usefixtures("group_of_one")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_node_that_does_not_see_the_study_has_its_checkpoints_on_the_drivers(tmp_path: Path) -> None:
    hidden, log = tmp_path / "studies", tmp_path / "steps"
    hidden.mkdir()
    blind = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {hidden} && exec "$@"', "sh"]
    if subprocess.run([*blind, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no mount namespaces")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    ray = Path(sys.executable).with_name("ray")
    start = [ray, "start", "--block", f"--address={cluster.address}", "--num-cpus=1", "--disable-usage-stats"]
    space = slow_space(num_trials=1, workload_args={"log": str(log)})
    harm = Harm(0, StudyDir(hidden / "study"))
    try:
        with ray_node([*blind, *map(str, start)], os.environ):
            outcome = run_study(hidden / "study", space, Recorder(harm), address=cluster.address)
    finally:
        cluster.shutdown()
    assert harm.found == ["step-000030"]
    assert len(log.read_text().splitlines()) == (1 + 60) + (1 + 50)
    assert_as_if_never_stopped(StudyDir(outcome.root), 0, space)
