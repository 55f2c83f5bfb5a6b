"""Runs the tests that need GPUs and writes a table of what came of them.

python tests/gpu_smoke.py [FILE [ARGUMENT ...]]     FILE: gpu-smoke.md by default; the arguments are pytest's
"""

import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
import torch


class Table:
    """A plugin of pytest: the outcome of each test that says its case and its number of GPUs, written after each."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.cells: dict[str, dict[int, str]] = {}
        self.ran = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said = dict(report.user_properties)
        if report.when != "call" or "case" not in said:
            return
        self.ran += not report.skipped
        cell = report.outcome if report.skipped else f"{report.outcome} in {report.duration:.0f} s"
        self.cells.setdefault(str(said["case"]), {})[int(str(said["gpus"]))] = cell
        self.file.write_text(f"# What ran on GPUs\n\n{machine()}\n\n{self.text()}\n")

    def text(self) -> str:
        counts = sorted({count for row in self.cells.values() for count in row})
        rows = [["what", *(f"{count} GPU{'s' * (count > 1)}" for count in counts)], ["---"] * (len(counts) + 1)]
        rows += [[case, *(row.get(count, "") for count in counts)] for case, row in self.cells.items()]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def machine() -> str:
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    seen = ", ".join(f"{gpu.name} (compute capability {gpu.major}.{gpu.minor})" for gpu in gpus) or "none"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "colossalai", "ray"))
    return f"GPUs: {seen}\n\n{datetime.now(UTC):%Y-%m-%d}, {packages}, CUDA {torch.version.cuda}"


if __name__ == "__main__":
    file = Path(sys.argv[1] if len(sys.argv) > 1 else "gpu-smoke.md")
    table = Table(file)
    tests = str(Path(__file__).parent / "worker" / "test_gpu.py")
    code = pytest.main(["-m", "gpu", tests, *sys.argv[2:]], plugins=[table])
    print(f"\n{file.read_text()}\n{table.ran} of {sum(map(len, table.cells.values()))} ran; the table is in {file}")
    sys.exit(code)
