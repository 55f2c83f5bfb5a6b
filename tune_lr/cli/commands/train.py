"""`tune-lr train`: train a study's winner once more and keep the model."""

from argparse import Namespace

from tune_lr.cli.exit_codes import exit_code_of
from tune_lr.cli.options import overrides_of, session_of


def run(options: Namespace) -> int:
    """Train the winner of a study, or one of its trials, in a new study."""
    from tune_lr.final_training import final_training, model_file, predicted_training, training_name
    from tune_lr.session import new_directory, run_new
    from tune_lr.store.study_dir import StudyDir

    study = StudyDir(options.study)
    accept = options.accept_changed_code
    training = final_training(study, options.trial, overrides_of(options), accept_changed_code=accept)
    directory = new_directory(options.out or study.root.parent, options.name or training_name(study), study.root)
    predicted_curve = predicted_training(study, options.trial, training.config)
    outcome = run_new(training, directory, session_of(options), options.phases, predicted_curve)
    print(f"model        {model_file(directory)}")
    return exit_code_of(outcome)
