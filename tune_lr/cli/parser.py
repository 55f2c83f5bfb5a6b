"""The arguments of `tune-lr`: its commands, their options and their help."""

from argparse import ArgumentParser
from typing import TYPE_CHECKING, NoReturn

from tune_lr.cli.commands import (
    check,
    dashboard,
    init,
    range_test,
    report,
    resume,
    schedules,
    search,
    status,
    stop,
    sync,
    train,
)
from tune_lr.cli.options import DEFAULT_SPACE
from tune_lr.errors import InputError
from tune_lr.records.phases import PHASES

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    Commands = _SubParsersAction["Parser"]


class Parser(ArgumentParser):
    """Reports a mistake in the arguments as InputError, so that it is one line like every other error."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(f"{message}; see {self.prog} --help")


def make_parser() -> Parser:
    """Return the parser. The namespace that it makes has `run`, the function of the command."""
    parser = Parser(
        prog="tune-lr",
        description="Find the learning rate and the LR schedule that train your model best, and how sure you can be.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_search(commands)
    _add_range_test(commands)
    _add_resume(commands)
    _add_train(commands)
    _add_report(commands)
    _add_commands_on_a_study(commands)
    _add_schedules(commands)
    _add_check(commands)
    _add_init(commands)
    return parser


def _add_search(commands: "Commands") -> None:
    parser = commands.add_parser("search", help="range test, search and confirmation: the whole study")
    _add_space(parser)
    parser.add_argument("--num-trials", type=int, metavar="N", help="trials of the search")
    _add_budget(parser)
    parser.add_argument("--max-steps", type=int, metavar="N", help="optimizer steps of one full trial")
    _add_new_study(parser)
    parser.set_defaults(run=search.run, phases=PHASES)


def _add_range_test(commands: "Commands") -> None:
    parser = commands.add_parser("range-test", help="the LR range test alone: prints and writes the bounds")
    _add_space(parser)
    _add_new_study(parser)
    parser.add_argument(
        "--from",
        dest="curves",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="read curves measured elsewhere instead: CSV with the columns step, lr, loss; a file a replicate",
    )
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="optimizer steps of the training that the bounds are for"
    )
    parser.add_argument("--json", action="store_true", help="print the bounds as JSON, and nothing else on stdout")
    parser.set_defaults(run=range_test.run, phases=("range_test",), num_trials=None)


def _add_resume(commands: "Commands") -> None:
    parser = commands.add_parser("resume", help="go on where a study stopped")
    _add_study(parser)
    parser.add_argument("--num-trials", type=int, metavar="N", help="extend the search to N trials in all")
    _add_budget(parser)
    _add_accept(parser)
    _add_cluster(parser)
    parser.set_defaults(run=resume.run)


def _add_train(commands: "Commands") -> None:
    parser = commands.add_parser("train", help="train a study's winner once more, at any length, and keep the model")
    _add_study(parser)
    parser.add_argument("--trial", type=int, metavar="N", help="this trial of the study instead of its winner")
    parser.add_argument("--max-steps", type=int, metavar="N", help="optimizer steps (default: the study's)")
    _add_accept(parser)
    _add_set(parser)
    _add_new_study(parser, of_a_study=True)
    parser.set_defaults(run=train.run, phases=("search", "confirm"))


def _add_report(commands: "Commands") -> None:
    parser = commands.add_parser("report", help="rebuild every derived file from the study directory alone")
    _add_study(parser)
    parser.add_argument("--terminal", action="store_true", help="print the leaderboard, the bounds and the verdict")
    parser.set_defaults(run=report.run)


def _add_commands_on_a_study(commands: "Commands") -> None:
    parser = commands.add_parser("status", help="how a study stands, while it runs or after")
    _add_study(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=status.run)

    parser = commands.add_parser("stop", help="end a running study, here or on another host; resume goes on with it")
    _add_study(parser)
    parser.set_defaults(run=stop.run)

    parser = commands.add_parser("sync", help="bring a study's runs to Weights & Biases, those that are not there")
    _add_study(parser)
    parser.set_defaults(run=sync.run)

    parser = commands.add_parser("dashboard", help="save a Weights & Biases workspace arranged for a study")
    _add_study(parser)
    parser.set_defaults(run=dashboard.run)


def _add_schedules(commands: "Commands") -> None:
    parser = commands.add_parser("schedules", help="list the LR schedules with their parameters and curves")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--png", metavar="FILE", help="draw their curves into this file instead")
    parser.set_defaults(run=schedules.run)


def _add_check(commands: "Commands") -> None:
    parser = commands.add_parser("check", help="validate a search space and show the plan; starts nothing")
    _add_space(parser)
    parser.add_argument("--address", metavar="ADDR", help="compare with a running Ray cluster: auto or HOST:PORT")
    _add_budget(parser)
    parser.set_defaults(run=check.run, num_trials=None, max_steps=None)


def _add_init(commands: "Commands") -> None:
    parser = commands.add_parser("init", help="write a workload, a search space and a test for it, to start from")
    parser.add_argument("directory", metavar="DIR")
    parser.set_defaults(run=init.run)


# --- options that several commands have ---------------------------------------------------------------------


def _add_accept(parser: ArgumentParser) -> None:
    what = "go on although your Python files have changed since the study was made"
    parser.add_argument("--accept-changed-code", action="store_true", help=what)


def _add_study(parser: ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY_DIR")


def _add_space(parser: ArgumentParser) -> None:
    parser.add_argument(
        "space",
        nargs="?",
        default=DEFAULT_SPACE,
        metavar="SPACE",
        help=f"a YAML file, or the name of one in search_spaces/ (default: {DEFAULT_SPACE})",
    )
    _add_set(parser)


def _add_set(parser: ArgumentParser) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="any field of the YAML")


def _add_budget(parser: ArgumentParser) -> None:
    parser.add_argument("--budget", metavar="B", help="in place of a number of trials: 12x (full trainings), 30m or 2h")


def _add_new_study(parser: ArgumentParser, of_a_study: bool = False) -> None:
    """Add the options of a command that makes a study: of a search space, or of another study's winner."""
    name = "that study's and -train" if of_a_study else "SPACE plus date and time"
    place = "beside that study" if of_a_study else "studies/"
    out = None if of_a_study else "studies"
    parser.add_argument("--name", help=f"the study's name (default: {name})")
    parser.add_argument("--out", default=out, metavar="DIR", help=f"where studies lie (default: {place})")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--workers-per-trial", type=int, metavar="N")
    parser.add_argument("--gpus-per-worker", type=float, metavar="N")
    parser.add_argument("--max-concurrent", type=int, metavar="N", help="trials at once (default: as many as fit)")
    parser.add_argument("--strict", action="store_true", help="end with exit code 5 where the range test abstains")
    _add_cluster(parser)


def _add_cluster(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--address",
        metavar="ADDR",
        help="a running Ray cluster: auto or HOST:PORT (default: RAY_ADDRESS, else a local Ray)",
    )
    parser.add_argument(
        "--wandb",
        choices=("online", "offline", "disabled"),
        help="Weights & Biases (default: online where a key is configured, else offline)",
    )
