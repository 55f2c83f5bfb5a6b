"""The journal of a study, torn, cut, damaged or empty."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from parts import OUTCOME, parts_of, searched
from simulated import FACTS, FIXED_LR, config_of, execute, open_study
from tune_lr.errors import ResourceError
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.journal import ledgers_of, outcome_of, spec_of, write_outcome, write_spec
from whole_studies import SHORT, assert_goes_on, assert_whole, has_undrawn_trial, optuna_trials


def test_a_torn_last_line_is_cut_wherever_it_was_torn(tmp_path: Path) -> None:
    config = config_of(parameters=FIXED_LR)
    execute(open_study(tmp_path / "s", config), reports=2)
    journal = tmp_path / "s" / "study.journal"
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in range(1, len(lines[-1])):
        journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
        study = open_study(tmp_path / "s", config)
        assert journal.read_bytes().startswith(b"".join(lines[:-1]))
        first = study.next_trial()
        assert first is not None
        assert first.number == 0
        for line in journal.read_bytes().splitlines():
            json.loads(line)
        assert optuna_trials(tmp_path / "s", "search")[0].state == TrialState.RUNNING


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_study_with_a_torn_journal_runs_to_its_end(
    tmp_path: Path, cut_journal: Callable[[int], list[bytes]], kept: int
) -> None:
    for count in range(3, len(cut_journal(0)), 9):
        lines = cut_journal(count)
        if has_undrawn_trial(tmp_path / "s"):
            continue
        with (tmp_path / "s" / "study.journal").open("ab") as journal:
            journal.write(lines[count][:kept])
        assert_goes_on(tmp_path / "s", SHORT, 1)


@pytest.mark.timeout(20)  # Optuna would wait for 30 s
@pytest.mark.parametrize("kind", ["symlink", "file"])
def test_a_lock_that_a_killed_driver_left_on_the_journal_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    execute(open_study(tmp_path / "s"), reports=9)
    lock = tmp_path / "s" / "study.journal.lock"
    lock.symlink_to(tmp_path / "s" / "study.journal") if kind == "symlink" else lock.touch()
    assert_goes_on(tmp_path / "s", config_of(), 1)
    assert os.path.lexists(lock)  # it is not the driver's, and it is in nobody's way


def test_a_journal_that_has_lost_whole_lines_is_refused(
    tmp_path: Path, cut_journal: Callable[[int], list[bytes]]
) -> None:
    whole = cut_journal(10**6)
    journal = tmp_path / "s" / "study.journal"
    for lost in (b"".join(whole[: len(whole) // 2]), b"".join(whole[:6]), b"", None):
        journal.unlink() if lost is None else journal.write_bytes(lost)
        with pytest.raises(ResourceError, match=f"^{journal}: (knows nothing of trial|missing or empty)"):
            open_study(tmp_path / "s", SHORT)
        assert (journal.read_bytes() if journal.exists() else None) == lost


def test_an_empty_journal_is_a_study_that_has_not_begun(tmp_path: Path) -> None:
    StudyDir(tmp_path / "s").create({})
    (tmp_path / "s" / "study.journal").touch()
    study = open_study(tmp_path / "s")
    assert study.rows() == []
    assert not study.over
    execute(study)
    assert_whole(study)


def broken(path: Path, content: bytes | None) -> None:
    StudyDir(path).create({})
    (path / "study.journal").write_bytes(content) if content is not None else (path / "study.journal").mkdir()


@pytest.mark.parametrize("content", [b"this is\nno journal\n", b"\xff\xfe\n\x00\n", b"{}\n"])
def test_a_file_that_is_no_journal_is_one_line_for_the_user(tmp_path: Path, content: bytes) -> None:
    broken(tmp_path / "s", content)
    with pytest.raises(ResourceError, match="cannot be read as an Optuna journal") as error:
        open_study(tmp_path / "s")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [None, b"[1]\n", b"no journal, one line\n"], ids=["a directory", "a list", "a line"]
)
def test_also_these_are_no_journals_and_one_line_for_the_user(tmp_path: Path, content: bytes | None) -> None:
    broken(tmp_path / "s", content)
    with pytest.raises(ResourceError):
        open_study(tmp_path / "s")


@pytest.mark.parametrize(
    "damage", [('"metrics"', '"mgtrics"'), ('"complete"', '"comqlete"'), ('"val_loss"', '"val_lnss"')]
)
def test_a_journal_that_is_json_and_no_outcome_is_refused(tmp_path: Path, damage: tuple[str, str]) -> None:
    execute(open_study(tmp_path / "s"), reports=60)
    journal = StudyDir(tmp_path / "s").journal
    lines = journal.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if '"state":"complete"' in line and '"metrics":{"val_loss"' in line)
    journal.write_text("".join([*lines[:at], lines[at].replace(*damage), *lines[at + 1 :]]))
    with pytest.raises(ResourceError, match="cannot be read as an Optuna journal"):
        open_study(tmp_path / "s")


@pytest.mark.parametrize("damage", ["[99, 2]", "[0, 2]", "7"], ids=["unknown", "a ramp", "no list"])
def test_a_journal_that_names_others_to_be_confirmed_than_trials_is_refused(tmp_path: Path, damage: str) -> None:
    execute(open_study(tmp_path / "s"))
    journal = StudyDir(tmp_path / "s").journal
    whole = journal.read_text()
    damaged = re.sub(r'("finalists": ?\{"[^"]*": ?)\[[^]]*\]', rf"\g<1>{damage}", whole)
    assert damaged != whole
    journal.write_text(damaged)
    with pytest.raises(ResourceError, match="cannot be read as an Optuna journal"):
        open_study(tmp_path / "s")


# --- the journal by itself ------------------------------------------------------------------------------------


def test_a_journal_begins_with_a_ledger_for_each_phase_and_opens_the_wider_search_where_there_is_one(
    tmp_path: Path,
) -> None:
    parts = parts_of(tmp_path / "s")
    assert parts.journal.ledgers() == ("range_test", "fixed", "search", "confirm")
    parts.journal.open("widened")
    assert parts_of(tmp_path / "s").journal.ledgers() == ("range_test", "fixed", "search", "confirm", "widened")
    assert ledgers_of("search") == ("fixed", "search", "widened")
    assert ledgers_of("confirm") == ("confirm",)


def test_what_is_written_of_a_trial_is_read_by_the_next_driver(tmp_path: Path) -> None:
    journal = parts_of(tmp_path / "s").journal
    spec = searched(4, lr_schedule="step", parameters={"gamma": 0.5})
    trial = journal.ledger("fixed").ask()
    write_spec(trial, spec)
    write_outcome(trial, OUTCOME)
    journal.end("fixed", trial, OUTCOME)
    journal.keep_facts(FACTS)
    again = parts_of(tmp_path / "s").journal
    (frozen,) = again.trials("fixed")
    assert (spec_of(frozen.user_attrs), outcome_of(frozen.user_attrs)) == (spec, OUTCOME)
    assert (frozen.state, frozen.value) == (TrialState.COMPLETE, OUTCOME.value)
    assert again.numbers() == {4}
    assert again.facts == FACTS


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("complete", TrialState.COMPLETE),
        ("diverged", TrialState.COMPLETE),
        ("pruned", TrialState.PRUNED),
        ("failed", TrialState.FAIL),
    ],
)
def test_optuna_is_told_how_a_trial_ended(tmp_path: Path, state: str, told: TrialState) -> None:
    journal = parts_of(tmp_path / "s").journal
    trial = journal.ledger("fixed").ask()
    value = OUTCOME.value if told == TrialState.COMPLETE else None
    journal.end("fixed", trial, replace(OUTCOME, state=state, value=value))
    assert journal.trials("fixed")[0].state == told


def test_a_trial_that_is_put_back_is_the_next_with_its_values(tmp_path: Path) -> None:
    journal = parts_of(tmp_path / "s").journal
    asked = [journal.ledger("fixed").ask() for _ in range(2)]
    asked[0].report(2.5, 2)
    journal.put_back(journal.trials("fixed")[0])
    again = journal.ledger("fixed").ask()
    assert again.number == asked[0].number
    assert journal.trials("fixed")[0].intermediate_values == {2: 2.5}


def test_an_error_in_damaged_records_names_the_journal(tmp_path: Path) -> None:
    journal = parts_of(tmp_path / "s").journal
    with (
        pytest.raises(
            ResourceError, match=r"^/\S+/study.journal: cannot be read as an Optuna journal \(KeyError: 'x'\)"
        ),
        journal.damage_reported(),
    ):
        raise KeyError("x")


def test_no_lock_file_is_left_while_a_study_runs(tmp_path: Path) -> None:
    """A driver that is killed then leaves none; the study itself is locked by the kernel."""
    parts_of(tmp_path / "s").journal.ledger("fixed").ask()
    assert not [path for path in (tmp_path / "s").iterdir() if path.name.startswith("study.journal.")]
