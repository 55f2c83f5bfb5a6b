"""Which mode W&B's own variables ask for."""

from pathlib import Path

import pytest

from tune_lr.errors import InputError
from tune_lr.tracking.key import choose_mode


@pytest.fixture(autouse=True)
def _with_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_DISABLED", raising=False)


@pytest.mark.parametrize(
    ("variable", "value", "mode"),
    [
        ("WANDB_MODE", "offline", "offline"),
        ("WANDB_MODE", "OFFLINE", "offline"),
        ("WANDB_MODE", "dryrun", "offline"),
        ("WANDB_MODE", "disabled", "disabled"),
        ("WANDB_MODE", "online", "online"),
        ("WANDB_MODE", "run", "online"),
        ("WANDB_MODE", "", "online"),
        ("WANDB_DISABLED", "true", "disabled"),
        ("WANDB_DISABLED", "false", "online"),
    ],
)
def test_wandbs_own_variables_hold_where_nothing_else_is_said(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, mode: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert choose_mode(None) == mode


def test_the_command_line_is_stronger_than_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_mode("offline") == "offline"


def test_a_word_that_is_no_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "of")
    with pytest.raises(InputError, match=r"^WANDB_MODE: is no mode of W&B \(got 'of'\); allowed: online, offline"):
        choose_mode(None)


def test_online_by_the_variable_needs_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"^WANDB_MODE: online needs a key"):
        choose_mode(None)


@pytest.mark.parametrize(("written", "mode"), [("offline", "offline"), ("disabled", "disabled"), ("online", "online")])
@pytest.mark.parametrize("folder", ["wandb", ".wandb", ".config/wandb"])
def test_what_wandb_offline_and_wandb_disabled_write_holds(
    folder: str, written: str, mode: str, tmp_path: Path
) -> None:
    """`wandb offline` writes a settings file into the current directory."""
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "settings").write_text(f"[default]\nmode = {written}\n")
    assert choose_mode(None) == mode
    assert choose_mode("offline") == "offline"


def test_the_variable_is_stronger_than_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/settings").write_text("[default]\nmode = disabled\n")
    monkeypatch.setenv("WANDB_MODE", "online")
    assert choose_mode(None) == "online"
