"""The fault campaign: `make faults` (all rows; the table goes into docs/reliability.md), or by hand

    cd tests; ../.venv/bin/python -m faults.run [ROW ...] [--count N] [--sample]

Each row brings a fault about in a real study and asserts what must hold: that every trial stands once in the ledger
and none runs at the end (I1), that no step was taken after a trial's end (I2), that a trial which begins again begins
where it should (I3), that no process is left (I4), that an error is one line with its exit code (I5), and that the W&B
key stands in no file (I6). --sample runs few of each, and only the quick rows; it writes no table.
"""

import argparse
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from faults import inputs, live, simulated_drivers
from faults.campaign import Held, Skipped

TABLE = Path(__file__).resolve().parent.parent.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- make faults: begin -->", "<!-- make faults: end -->"
HEAD = ["| # | injected | times | what held | seconds | date |", "|---|---|---|---|---|---|"]


@dataclass(frozen=True)
class Fault:
    row: str
    inject: str
    run: Callable[[Path, int], Held]
    count: int = 1
    sample: int | None = None  # how often in CI; None: not there


FAULTS = [
    Fault("1", "SIGKILL one rank in mid-step", live.kill_ranks, 15, 1),
    Fault("2", "SIGKILL the trainable's actor", live.kill_actors, 6),
    Fault("3", "a node removed without grace, another added 5 s later", live.remove_nodes, 9),
    Fault("4", "SIGKILL a driver by its journal's growth, then resume", simulated_drivers.kill_drivers, 100, 8),
    Fault("4 (Ray)", "SIGKILL a driver with its Ray and its workers, then resume", live.kill_ray_drivers, 3),
    Fault("5", "SIGTERM while Ray starts, and while a trial trains", live.terminate, 4, 1),
    Fault("6", "SIGINT; SIGINT twice", live.interrupt, 4),
    Fault("7", "NaN, inf and 1e30 times the loss at step 2", live.diverge),
    Fault("8", "the user's code raises once, and always", live.raise_errors),
    Fault("9", "SIGSTOP a rank; a loop without end in the user's code", live.hang),
    Fault("10", "the data set is missing", live.lose_the_data),
    Fault(
        "10 (files)",
        "data sets cut short, of another format, missing",
        inputs.tests("workloads/test_workloads.py", "not_whole or another_format or without or cut_short or missing"),
        1,
    ),
    Fault("11", "a file system of 20 MB is full; is read-only", simulated_drivers.fill_the_disk, 20, 3),
    Fault(
        "12",
        "W&B refused, silent, HTTP 500, its service or process killed",
        inputs.tests("tracking/test_wandb_online.py", "trouble or dies or killed or 30_s"),
    ),
    Fault(
        "13",
        "`--wandb online` without a key, with a wrong one",
        inputs.tests("cli/test_cli.py tracking/test_wandb_online.py", "online_without_a_key or wrong_key_is_refused"),
        1,
        1,
    ),
    Fault(
        "14",
        "the newest checkpoint cut or bit-flipped",
        inputs.tests("worker/test_checkpoints.py", "damaged or full_disk or killed_writer"),
    ),
    Fault("15", "journal, bounds, curves, study.yaml cut, flipped, missing", simulated_drivers.corrupt_files, 200, 20),
    Fault("16", "a study's name that exists", inputs.refuse_a_name_that_exists, 1, 1),
    Fault("17", "two studies on one cluster; two drivers of one study", live.share_a_cluster),
    Fault("18", "1 GPU of 0; 64 workers on 2 CPUs", live.ask_for_too_much),
    Fault("19", "SIGKILL the head's processes; another cluster", live.lose_the_head),
    Fault("20", "bad YAML, bad names", inputs.refuse_inputs, 10**6, 12),
    Fault("21", "SIGKILL a driver on a ladder, then resume", simulated_drivers.kill_drivers_of_a_ladder, 40, 4),
]


def main() -> int:
    parser = argparse.ArgumentParser(description="the fault campaign")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="by number (default: all)")
    parser.add_argument("--count", type=int, metavar="N", help="how often each fault is brought about")
    parser.add_argument("--sample", action="store_true", help="few of each, the quick rows only, and no table")
    options = parser.parse_args()
    chosen = [
        fault
        for fault in FAULTS
        if (not options.rows or fault.row.split()[0] in options.rows) and not (options.sample and fault.sample is None)
    ]
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", WANDB_SILENT="true")
    broken = []
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory(prefix="r") as ray,
    ):
        os.environ["RAY_TMPDIR"] = ray  # short: sockets lie there; and to be searched for the key
        for fault in chosen:
            here = Path(folder) / re.sub(r"\W+", "-", f"row {fault.row}")
            here.mkdir()
            began = time.monotonic()
            try:
                times, what = fault.run(
                    here, options.count or (fault.sample if options.sample else None) or fault.count
                )
                cells = [fault.row, fault.inject, str(times), what]
            except Skipped as why:
                cells = [fault.row, fault.inject, "0", f"not run: {why}"]
            except Exception as error:
                traceback.print_exc()
                broken.append(fault.row)
                cells = [fault.row, fault.inject, "", f"BROKEN: {' '.join(str(error).split())[:300]}"]
            cells += [f"{time.monotonic() - began:.0f}", f"{datetime.now(UTC):%Y-%m-%d}"]
            print(" | ".join(cells), flush=True)
            if not options.sample:
                _write(cells)
            shutil.rmtree(here, ignore_errors=True)
    print(f"{len(chosen) - len(broken)} rows held, {len(broken)} broken{': ' if broken else ''}{', '.join(broken)}")
    return 1 if broken else 0


def _write(cells: list[str]) -> None:
    """Puts a row into the table; the others stay."""
    before, _, rest = TABLE.read_text().partition(BEGIN)
    inside, _, after = rest.partition(END)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in inside.splitlines() if re.match(r"\| \d", line)}
    rows[cells[0]] = f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
    order = [fault.row for fault in FAULTS]
    lines = [rows[row] for row in order if row in rows]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, not idle."
    TABLE.write_text("\n".join([f"{before}{BEGIN}", f"Machine: {machine}", "", *HEAD, *lines, f"{END}{after}"]))


if __name__ == "__main__":
    sys.exit(main())
