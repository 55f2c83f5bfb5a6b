"""The wheel: what is in it works away from the checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from paths import ROOT as CHECKOUT

LOOK = """\
import json
from importlib.resources import files
from pathlib import Path
import tune_lr
from tune_lr.cli.commands.init import write_scaffold
from tune_lr.config.load import load_config
from tune_lr.config.spaces import find_space
print(json.dumps({
    "package": tune_lr.__file__,
    "space": str(find_space("lenet5_mnist")),
    "trials": load_config("lenet5_mnist").num_trials,
    "template": len(files("tune_lr.show.report").joinpath("templates/report.css").read_text()),
    "scaffold": len(write_scaffold(Path("scaffold"))),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the files that belong into it alone, by the build backend that is installed; no network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source / name)
    for name in ("tune_lr", "search_spaces"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = out.iterdir()
    return built


def test_the_wheel_holds_the_package_its_data_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "tune_lr/_search_spaces/lenet5_mnist.yaml" in names
    paths = [path for path in (CHECKOUT / "tune_lr").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    package = {str(path.relative_to(CHECKOUT)) for path in paths}
    assert {"tune_lr/show/report/templates/report.html", "tune_lr/cli/templates/my_space.yaml.template"} <= package
    assert {n for n in names if n.startswith("tune_lr/") and not n.startswith("tune_lr/_search_spaces/")} == package
    assert {name.partition("/")[0] for name in names} == {"tune_lr", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}


def test_the_wheel_installs_the_command_and_the_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist() if ".dist-info/" in name}
    assert b"tune-lr = tune_lr.cli.main:main" in texts["entry_points.txt"]
    assert texts["licenses/LICENSE"] == (CHECKOUT / "LICENSE").read_bytes()


def test_the_package_finds_its_data_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    unpacked, elsewhere = tmp_path / "unpacked", tmp_path / "elsewhere"
    zipfile.ZipFile(wheel).extractall(unpacked)
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["package"] == str(unpacked / "tune_lr" / "__init__.py")
    assert found["space"] == str(unpacked / "tune_lr" / "_search_spaces" / "lenet5_mnist.yaml")
    assert found["trials"] == 16
    assert found["template"] > 1000
    assert found["scaffold"] == 3
