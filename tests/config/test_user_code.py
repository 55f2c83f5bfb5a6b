"""The user's Python files: which of them a study imports, what has changed, and which names hide others."""

import shutil
from pathlib import Path

import pytest

from paths import DATA
from tune_lr.config.load import load_config, parse_config, read_space
from tune_lr.config.model import Config
from tune_lr.config.user_code import changes, check_code, check_names, fingerprint
from tune_lr.errors import InputError
from tune_lr.final_training import final_training
from tune_lr.session import create, open_session, resume
from tune_lr.store.files import read_yaml, write_yaml
from tune_lr.store.study_dir import StudyDir

FILES = {
    "w.py": "import torch\nfrom models import net\nfrom models.parts.heads import Head\ndef make():\n    import late\n",
    "late.py": "",
    "models/__init__.py": "",
    "models/net.py": "from . import layers\nfrom .parts import heads\n",
    "models/layers.py": "import models.net\n",
    "models/parts/heads.py": "from ..blocks import Block\n",
    "models/blocks.py": "def broken(:\n",
    "models/unused.py": "",
    "other.py": "",
    "lion.py": "",
    "tune_lr/workloads/digits.py": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "project"


def config_of(workload: str = "w:make", optimizer: str = "sgd") -> Config:
    steps = {"max_steps": 40, "report_every": 10, "num_trials": 4}
    space = {"workload": workload, "optimizer": {"name": optimizer}, **steps}
    return parse_config(
        {**space, "parameters": {"lr": {"min": 0.01, "max": 0.3}, "lr_schedule": {"values": ["cosine"]}}}
    )


def test_the_files_are_those_that_the_workload_imports_directly_or_not(folder: Path) -> None:
    found = fingerprint(config_of(), [str(folder)])
    assert list(found) == [
        "late.py", "models/__init__.py", "models/blocks.py", "models/layers.py", "models/net.py",
        "models/parts/heads.py", "w.py",
    ]  # fmt: skip
    assert "lion.py" in fingerprint(config_of(optimizer="lion:Lion"), [str(folder)])
    assert list(fingerprint(config_of("tune_lr.workloads.digits:digits"), [str(folder)])) == []


def test_the_first_folder_that_has_a_module_counts(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "w.py").write_text("import elsewhere\n")
    both = fingerprint(config_of(), [str(folder), str(tmp_path / "second")])
    assert both == fingerprint(config_of(), [str(folder)])


def test_what_has_changed_is_named_with_old_and_new(folder: Path) -> None:
    before = fingerprint(config_of(), [str(folder)])
    assert changes(before, fingerprint(config_of(), [str(folder)])) == []
    (folder / "models" / "net.py").write_text("import other\n")
    (folder / "late.py").unlink()
    (folder / "models" / "unused.py").write_text("# nobody imports it\n")
    after = fingerprint(config_of(), [str(folder)])
    assert changes(before, after) == [
        f"late.py is gone (was {before['late.py']})",
        f"models/layers.py is gone (was {before['models/layers.py']})",
        f"models/net.py has changed (was {before['models/net.py']}, is {after['models/net.py']})",
        f"other.py is new ({after['other.py']})",
    ]
    with pytest.raises(InputError, match=r"^the code has changed since the study was made: late.py is gone"):
        check_code(before, after, accept=False)
    assert len(check_code(before, after, accept=True)) == 4
    assert check_code({}, after, accept=False) == []  # a study of a version that recorded none


def test_resume_and_train_refuse_changed_code_unless_it_is_accepted(folder: Path, tmp_path: Path) -> None:
    directory = StudyDir(tmp_path / "study")
    create(config_of(), directory, [str(folder)])
    (folder / "w.py").write_text("def make():\n    return 1\n")
    session = open_session(wandb="disabled")
    with pytest.raises(InputError, match=r"w.py has changed .*--accept-changed-code"):
        resume(directory, session, num_trials=99)
    assert directory.read_record().config.num_trials != 99
    with pytest.raises(InputError, match=r"w.py has changed"):
        final_training(directory, 0)
    with pytest.raises(InputError, match=r"^--trial: is no trial"):  # the code is no longer what is wrong
        final_training(directory, 0, accept_changed_code=True)


def test_a_study_that_recorded_no_code_is_not_asked_about_it(folder: Path, tmp_path: Path) -> None:
    directory = StudyDir(tmp_path / "study")
    create(config_of(), directory, [str(folder)])
    study = read_yaml(directory.study_yaml)
    del study["code"]
    write_yaml(directory.study_yaml, study)
    (folder / "w.py").write_text("def make():\n    return 1\n")
    with pytest.raises(InputError, match=r"^--trial: is no trial"):
        final_training(directory, 0)


# --- names that hide others -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("profile.py", "hides the module 'profile' of the standard library"),
        ("random.py", "hides the module 'random' of the standard library"),
        ("types/__init__.py", "hides the module 'types' of the standard library"),
        ("wandb.py", "hides the installed package 'wandb'"),
        ("transformers/__init__.py", "hides the installed package 'transformers'"),
        ("yaml.py", "hides the installed package 'yaml'"),
    ],
)
def test_a_module_that_hides_another_is_named(name: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(InputError) as caught:
        check_names([str(tmp_path)])
    place, kind = (path, "file") if path.parent == tmp_path else (path.parent, "folder")
    assert str(caught.value) == (f"{place}: {expected}, which other libraries import; give the {kind} another name")


@pytest.mark.parametrize(
    "name", ["model.py", "tests/__init__.py", "wandb/latest", "ray/notes.txt", "tune_lr/__init__.py"]
)
def test_other_names_are_free(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    check_names([str(tmp_path), str(tmp_path / "absent")])


def test_what_was_reported_is_refused_when_the_search_space_is_read(tmp_path: Path) -> None:
    folder = shutil.copytree(DATA / "reported" / "named_profile", tmp_path / "named_profile")
    with pytest.raises(InputError, match=r"profile.py: hides the module 'profile' of the standard library"):
        read_space(folder / "s.yaml")
    assert load_config("digits").workload
