"""The training after the search: what a study has chosen, or one of its trials, once more and at any length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_lr.config.load import Space, parse_config
from tune_lr.config.model import Config
from tune_lr.config.user_code import check_code, fingerprint
from tune_lr.errors import InputError, NoAnswerError, ResourceError
from tune_lr.records.answer import Finalist
from tune_lr.records.parameters import BATCH_SIZE, split_parameters, whole_optimizer
from tune_lr.records.predicted_curve import PredictedCurve
from tune_lr.records.trial import TrialSpec
from tune_lr.store.study_dir import StudyDir

STEM_LENGTH = 54  # of a study's name, with room for "-train-999" within the 64 characters that a name may have


@dataclass(frozen=True)
class _Chosen:
    """The configuration that is to be trained."""

    label: str  # where it comes from
    lr_schedule: str
    lr: float
    parameters: Mapping[str, Any]  # of the LR schedule, unqualified
    optimizer: Mapping[str, Any]  # what was searched of it
    batch_size: int | None  # where it was searched


def final_training(
    study: StudyDir, trial: int | None, overrides: Sequence[str] = (), *, accept_changed_code: bool = False
) -> Space:
    """Return a search space with one fixed configuration, that of the study's answer or of a trial; its model is kept.

    `overrides` are laid over the study's configuration. Raises InputError, also where the user's files have changed
    since the study was made and that is not accepted, NoAnswerError and ResourceError.
    """
    record = study.read_record()
    base = record.config
    check_code(record.code, fingerprint(base, record.python_path), accept=accept_changed_code)
    chosen = _answer(study) if trial is None else _trial(study, trial)
    data = base.to_dict()
    data |= {
        "optimizer": whole_optimizer(data["optimizer"], chosen.optimizer),
        "batch_size": chosen.batch_size or base.batch_size,
        "max_steps": base.steps_of(base.max_steps, chosen.batch_size),
        "report_every": base.steps_of(base.report_every, chosen.batch_size),
        "num_trials": 0,
        "budget": None,
        "lengths": "full",
        "pruner": {"name": "none"},
        "confirm": {"top": 0},
        "fixed": [
            {
                "label": f"{study.name} {chosen.label}",
                "keep_model": True,
                "lr_schedule": chosen.lr_schedule,
                "lr": chosen.lr,
                **chosen.parameters,
            }
        ],
    }
    del data["parameters"]
    config = parse_config(data, source=str(study.study_yaml), overrides=overrides)
    return Space(config, record.python_path)


def predicted_training(study: StudyDir, trial: int | None, training: Config) -> PredictedCurve | None:
    """Return what the trials of a study predict along the final training of its answer, or of a trial.

    None where all trials are full trainings, where the training has another length than `max_steps` of the study, or
    where somebody else holds the study.
    """
    record = study.read_record()
    if not record.config.ladder or training.max_steps != record.config.max_steps:
        return None
    from tune_lr.study.curve_prediction import predict_curve
    from tune_lr.study.study import Study  # here, since Optuna takes a second

    chosen = _answer(study) if trial is None else _trial(study, trial)
    spec = TrialSpec(
        number=0,
        phase="search",
        seed=record.config.seed,
        max_steps=record.config.max_steps,
        lr=chosen.lr,
        lr_schedule=chosen.lr_schedule,
        parameters=chosen.parameters,
        optimizer=chosen.optimizer,
    )
    try:
        with study.lock():
            source = Study(record.config, study, phases=record.phases, resume=False)
            source.read_bounds()
            assert source.ladder is not None
            return predict_curve(source, source.ladder.schedule_of(spec), spec.lr)
    except ResourceError:
        return None


def training_name(study: StudyDir) -> str:
    """Return the study's name and "-train", and a number where that is taken."""
    stem = f"{study.name[:STEM_LENGTH]}-train"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    return next(name for name in names if not (study.root.parent / name).exists())


def model_file(training: StudyDir) -> Path:
    """Return the path of the model that a final training has kept."""
    return training.model(0)


def _answer(study: StudyDir) -> _Chosen:
    answer = study.read_answer()
    if answer is None:
        raise NoAnswerError(f"{study.root}: has no winner (yet); wait for its end, or name a trial with --trial")
    chosen = answer.chosen
    parameters, optimizer = split_parameters(chosen.parameters)
    batch_size = chosen.parameters.get(BATCH_SIZE)
    label = f"#{chosen.trial}" if isinstance(chosen, Finalist) else "predicted"
    return _Chosen(label, chosen.lr_schedule, chosen.lr, parameters, optimizer, batch_size)


def _trial(study: StudyDir, number: int) -> _Chosen:
    spec = study.read_trial(number) if study.params_json(number).exists() else None
    if spec is None or spec.ramp is not None:
        raise InputError(f"--trial: is no trial of the search or the confirmation of {study.name} (got {number})")
    return _Chosen(f"#{number}", spec.lr_schedule, spec.lr, spec.parameters, spec.optimizer, spec.batch_size)
