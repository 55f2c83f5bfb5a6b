"""Slots stay warm, all of them, and a lost worker costs neither a result nor a slot. On a real Ray and real groups."""

import itertools
import os
import signal
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from studies import Recorder, run_study, toy
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.study_dir import StudyDir

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_four_slots_on_two_nodes_stay_warm_through_all_phases(tmp_path: Path) -> None:
    """The canary for a new version of Ray: Tune left alone would collapse to one busy slot."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.add_node(num_cpus=2)
    compiling: set[str] = set()

    def look(trial: object, report: Report) -> None:
        """TorchInductor's pool would take a gigabyte and as long as ColossalAI's import itself."""
        children = psutil.Process(int(report.worker.rpartition(":")[2])).children(recursive=True)
        compiling.update(word for child in children for word in child.cmdline() if "compile_worker" in word)

    recorder = Recorder(look)
    try:
        space = toy(num_trials=24, range_test={**toy()["range_test"], "replicates": 4})
        outcome = run_study(tmp_path / "study", space, recorder, address=cluster.address)
    finally:
        cluster.shutdown()
    rows = outcome.rows
    assert [row.number for row in rows] == list(range(len(rows)))
    assert len(rows) == 4 + 24 + 4
    assert not recorder.notices
    assert not compiling
    # Four groups were started, and these four did everything: no warm worker was lost, none was added.
    assert len(recorder.workers) == 4
    for phase, least in (("range_test", 4), ("search", 4), ("confirm", 3)):
        assert len({row.slot for row in rows if row.phase == phase}) >= least, phase
    # Between a slot's trials there is no more than Tune's own time, nowhere near a worker's start of seconds.
    searched = sorted((row for row in rows if row.phase == "search"), key=lambda row: row.started_s)
    for slot in range(4):
        mine = [row for row in searched if row.slot == slot]
        gaps = [b.started_s - a.started_s - a.duration_s for a, b in itertools.pairwise(mine)]
        assert all(gap < 3.0 for gap in gaps), (slot, gaps)


def test_a_killed_and_a_stopped_rank_change_no_result_and_cost_no_slot(tmp_path: Path) -> None:
    """Three trials of one configuration and one seed: the first is left in peace."""
    labels = ("calm", "killed", "stopped")
    space = toy(
        num_trials=0,
        fixed=[{"label": label, "lr_schedule": "cosine", "lr": 0.05} for label in labels],
        confirm={"top": 0, "seeds": 1},
        workload_args={"dropout": 0.2},
        scaling={"workers_per_trial": 2, "max_concurrent": 1, "timeout_s": 6},
        checkpoints={"every_steps": 10},
    )
    del space["parameters"]
    hurt: dict[str, int] = {}

    def harm(trial: TrialSpec, report: Report) -> None:
        """SIGKILL one rank in the second trial, SIGSTOP one in the third, each in the middle of it."""
        if trial.label != "calm" and trial.label not in hurt and report.step == 20:
            hurt[trial.label] = int(report.worker.partition(":")[2].split(",")[1])
            os.kill(hurt[trial.label], signal.SIGKILL if trial.label == "killed" else signal.SIGSTOP)

    recorder = Recorder(harm)
    outcome = run_study(tmp_path / "study", space, recorder)
    assert len(hurt) == 2
    assert len(recorder.notices) == 2, recorder.notices
    assert all("it went on from its checkpoint at step 10" in notice for notice in recorder.notices)
    assert "no step within 6 s" in recorder.notices[1]
    assert len(recorder.workers) == 3  # one group, replaced twice
    assert not any(psutil.pid_exists(pid) for pid in hurt.values())
    rows = outcome.rows
    assert [(row.label, row.state) for row in rows] == [(label, "complete") for label in labels]
    assert len({(row.steps, str(row.metrics)) for row in rows}) == 1
    assert len({StudyDir(outcome.root).curve(row.number).read_text() for row in rows}) == 1


@pytest.mark.long
def test_a_slot_whose_own_actor_dies_is_replaced_and_its_trial_runs_again(tmp_path: Path) -> None:
    killed: list[int] = []

    def harm(trial: object, report: object) -> None:
        if trial.phase == "search" and report.step == 10 and not killed:  # type: ignore[attr-defined]
            for process in psutil.process_iter(["cmdline"]):
                if "Trainable" in " ".join(process.info["cmdline"] or []):
                    killed.append(process.pid)
                    process.kill()

    recorder = Recorder(harm)
    outcome = run_study(tmp_path / "study", toy(scaling={"max_concurrent": 1}), recorder)
    rows = outcome.rows
    assert killed
    assert any("slot was lost" in notice for notice in recorder.notices)
    assert [row.number for row in rows] == list(range(len(rows)))
    assert sum(row.phase == "search" for row in rows) == 8
    assert not any(row.state == "failed" for row in rows)


@pytest.mark.long
def test_code_that_raises_once_is_run_again_and_code_that_always_raises_fails_its_trials(tmp_path: Path) -> None:
    lr = {**toy()["parameters"], "lr": {"min": 0.01, "max": 0.1}}
    once = toy(workload_args={"fail": "once", "seen": str(tmp_path / "seen")}, num_trials=2, parameters=lr)
    outcome = run_study(tmp_path / "once", once)
    assert (tmp_path / "seen").exists()
    assert outcome.failed == 0
    always = toy(workload_args={"fail": "always"}, num_trials=1, parameters=lr, scaling={"max_concurrent": 1})
    outcome = run_study(tmp_path / "always", always)
    assert outcome.failed == 1
    assert outcome.answer is None
    assert "the user's own code is broken" in outcome.rows[0].reason
