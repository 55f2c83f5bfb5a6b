"""What a study waits for is told: room in a cluster that others use, workers that start, a trial that became silent."""

import shutil
import threading
from pathlib import Path

import pytest
import ray
import yaml
from ray.cluster_utils import Cluster
from ray.tune.experiment import Trial
from ray.util.placement_group import placement_group, remove_placement_group

from paths import SUPPORT
from studies import tune_lr
from tune_lr.cluster.waits import Waits
from tune_lr.config.load import parse_config
from tune_lr.config.task import make_task
from tune_lr.records.trial import Report, TrialSpec

SPACE = {
    "workload": "toy:regression",
    "max_steps": 10,
    "report_every": 5,
    "num_trials": 0,
    "confirm": {"top": 0},
    "optimizer": {"name": "sgd"},
    "fixed": [{"label": "only", "lr_schedule": "cosine", "lr": 0.05}],
}


class Study:
    """Trials in Tune's hands, and a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[str] = []
        self.full = True
        task = make_task(parse_config(SPACE), (), None)
        self.waits = Waits(task, lambda: (0.0, 0.0), lambda: self.full, self.told.append, lambda: self.now)
        self.trials: list[Trial] = []
        self.active: dict[str, TrialSpec] = {}

    def add(self, number: int, status: str) -> TrialSpec:
        trial = Trial("made_up", stub=True)
        trial.status = status
        spec = TrialSpec(number, "search", 0, 100)
        self.trials.append(trial)
        self.active[trial.trial_id] = spec
        return spec

    def look_for(self, seconds: int) -> list[str]:
        """Look twice a second; return what was told meanwhile."""
        before = len(self.told)
        for _ in range(2 * seconds):
            self.waits.look(self.trials, self.active)
            self.now += 0.5
        return self.told[before:]


def test_a_trial_without_room_is_told_of() -> None:
    study = Study()
    study.add(3, Trial.PENDING)
    (line,) = study.look_for(60)
    assert line == (
        "waiting for room in the cluster: trial 3 takes 1 worker of 1 CPU; free now are 0 CPU (15 s so far)"
    )
    assert len(study.look_for(120)) == 2


def test_a_process_that_ray_starts_slowly_is_told_from_a_full_cluster() -> None:
    study = Study()
    study.full = False
    study.add(3, Trial.PENDING)
    assert study.look_for(60) == ["waiting for Ray to start the process of trial 3 (15 s so far)"]


def test_workers_that_start_are_told_of_until_the_first_report() -> None:
    study = Study()
    spec = study.add(0, Trial.RUNNING)
    (line,) = study.look_for(40)
    assert line.startswith("waiting for the first report of trial 0: its workers start (torch, ColossalAI,")
    study.waits.reported(spec, Report(5))
    assert study.look_for(70) == []  # a report took 40 s before


def test_a_trial_that_becomes_silent_is_told_of_while_others_report() -> None:
    study = Study()
    busy, silent = study.add(0, Trial.RUNNING), study.add(1, Trial.RUNNING)
    for _ in range(4):
        assert study.look_for(10) == []
        study.waits.reported(busy, Report(5))
        study.waits.reported(silent, Report(7))
    told = []
    for _ in range(10):
        told += study.look_for(10)
        study.waits.reported(busy, Report(9))
    assert [line.partition(":")[0] for line in told] == ["waiting for a report of trial 1, at step 7 of 100"] * 2
    assert "(20 s so far)" in told[0] or "(21 s so far)" in told[0]


def test_a_trial_that_is_over_is_waited_for_no_more() -> None:
    study = Study()
    study.add(0, Trial.RUNNING)
    study.active.clear()
    assert study.look_for(100) == []


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_cluster_whose_cpus_are_all_taken_is_waited_for_aloud(tmp_path: Path) -> None:
    """The study runs when whoever has the CPUs gives them back."""
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SPACE))
    shutil.copy(SUPPORT / "toy.py", tmp_path)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        ray.init(address=cluster.address, log_to_driver=False)

        taken = placement_group([{"CPU": 1}])
        assert taken.wait(60)
        process = tune_lr(
            *("search", "s.yaml", "--name", "a", "--wandb", "disabled", "--address", cluster.address),
            cwd=tmp_path, PYTHONUNBUFFERED="1",
        )  # fmt: skip
        lines: list[str] = []
        waits = threading.Event()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if "waiting for room in the cluster" in line:
                    waits.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert waits.wait(120), "".join(lines)
        remove_placement_group(taken)
        assert process.wait(240) == 0, "".join(lines)
        reader.join()
        assert process.stderr is not None
        process.stderr.close()
    finally:
        ray.shutdown()
        cluster.shutdown()
    told = next(line for line in lines if "waiting for room" in line)
    assert "free now are 0 CPU" in told
    assert any("1/1" in line for line in lines), "".join(lines)
