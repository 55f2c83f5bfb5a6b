"""What the commands make of their options: changes to the search space, a session, a console."""

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from tune_lr.session import Session

DEFAULT_SPACE = "lenet5_mnist"

# The options that stand for fields of the YAML.
_FIELDS = {
    "num_trials": "num_trials",
    "max_steps": "max_steps",
    "seed": "seed",
    "workers_per_trial": "scaling.workers_per_trial",
    "gpus_per_worker": "scaling.gpus_per_worker",
    "max_concurrent": "scaling.max_concurrent",
}


def overrides_of(options: Namespace) -> list[str]:
    """Return what is laid over the YAML: `--set`, and the options that stand for fields, as `KEY.PATH=VALUE`."""
    given = {field: getattr(options, name, None) for name, field in _FIELDS.items()}
    if getattr(options, "budget", None) is not None:
        # The quotes keep a bare number of seconds from being read as a number.
        given = {"budget": f"'{options.budget}'", **given}
        if given["num_trials"] is None:
            given["num_trials"] = "null"  # the YAML's own number might end the search earlier
    return [*options.set, *(f"{field}={value}" for field, value in given.items() if value is not None)]


def session_of(options: Namespace) -> "Session":
    """Return the session of a command that drives a study. Raises InputError for what cannot be."""
    from tune_lr.session import open_session

    strict = getattr(options, "strict", False)
    return open_session(options.address, options.wandb, strict=strict, console=make_console())


def tell_waiting(text: str) -> None:
    """Say on stderr what is waited for, for a command whose stdout is its result."""
    print(f"note: {text}", file=sys.stderr, flush=True)


def make_console() -> "Console":
    """Return a console on the stdout of this moment, whatever takes its place later."""
    from tune_lr.show.output import safe_console

    return safe_console(sys.stdout)
