"""Makes a study's runs from the study directory, whatever became of them while it ran."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tune_lr.config.model import Config
from tune_lr.errors import ResourceError, one_line
from tune_lr.lr.ramp import Ramp
from tune_lr.records.parameters import BATCH_SIZE, split_parameters
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import TrialSpec
from tune_lr.store.curves import Curve, read_curve
from tune_lr.store.study_dir import StudyDir
from tune_lr.tracking.key import check_server, server_url
from tune_lr.tracking.rows import curve_rows
from tune_lr.tracking.runs import Runs, run_name


def sync(
    config: Config, directory: StudyDir, study_id: str, rows: Sequence[TrialRow], on_arrival: Callable[[str], None]
) -> int:
    """Make the runs that the server does not have, and sum the study up; return their number.

    `on_arrival` is given each run's name as it arrives. Interrupted, it goes on where it stopped: what has arrived is
    written down. Raises InputError and ResourceError.
    """
    otherwise = "and run this line again"
    check_server("sync", otherwise)
    directory.wandb.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tune-lr-") as scratch:
        runs = Runs(config, directory, study_id, "online", folder=Path(scratch))
        missing = runs.missing(rows)
        try:
            for row in missing:
                curve = _curve(directory, row)
                trial = _ramp(config, row, curve) if row.phase == "range_test" else directory.read_trial(row.number)
                runs.start(trial)
                runs.log(row.number, curve_rows(trial, curve))
                runs.finish(row)
                on_arrival(run_name(trial))
            if missing or not runs.has_summary(rows):
                runs.summarize(rows)
        except Exception as error:  # wandb has many
            what = f"{type(error).__name__}: {one_line(error)}"
            raise ResourceError(f"sync: {server_url()} did not take everything ({what}); {otherwise}") from None
        finally:
            with suppress(Exception):
                runs.close()
    return len(missing)


def _curve(directory: StudyDir, row: TrialRow) -> Curve:
    """The trial's curve; one without columns where it failed at once and has none."""
    path = directory.range_curve(row.number) if row.phase == "range_test" else directory.curve(row.number)
    return read_curve(path) if path.exists() else {}


def _ramp(config: Config, row: TrialRow, curve: Curve) -> TrialSpec:
    """What a ramp was, of which the study directory has its row and its curve."""
    settings = config.range_test
    ramp = Ramp(settings.low, settings.high, settings.steps, settings.mode, settings.stairs)
    # A ramp that was extended begins or ends elsewhere than the configuration's.
    ramp = ramp.over(curve["lr"][0] if curve.get("lr") else settings.low, row.lr)
    _, optimizer = split_parameters(row.parameters)
    trial = TrialSpec(row.number, row.phase, row.seed, ramp.steps, ramp=ramp)
    return replace(trial, optimizer=optimizer, batch_size=row.parameters.get(BATCH_SIZE))
