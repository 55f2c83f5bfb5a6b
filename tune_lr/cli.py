"""The command line: subcommands, exit codes, all printing. Nothing heavy is imported before the input is checked."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tune_lr.errors import InputError, Interrupted, NoAnswerError, TuneLRError

if TYPE_CHECKING:
    from rich.console import Console

    from tune_lr.cluster import Hardware
    from tune_lr.config import Config
    from tune_lr.study_dir import StudyDir
    from tune_lr.tracking import Mode

DEFAULT_SPACE = "lenet5_mnist"
SOME_FAILED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand; returns the exit code. Expected errors are one line on stderr."""
    try:
        options = _parser().parse_args(arguments)
        code: int = options.run(options)
        return code
    except TuneLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `tune-lr ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tune-lr",
        description="Find the learning rate and the LR schedule that train your model best, and how sure you can be.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    search = commands.add_parser("search", help="range test, search and confirmation: the whole study")
    _space_options(search)
    search.add_argument("--num-trials", type=int, metavar="N", help="trials of the search")
    search.add_argument("--max-steps", type=int, metavar="N", help="optimizer steps of one full trial")
    _run_options(search)
    search.set_defaults(run=_search, phases=("range_test", "search", "confirm"))

    range_test = commands.add_parser("range-test", help="the LR range test alone: prints and writes the bounds")
    _space_options(range_test)
    _run_options(range_test)
    range_test.set_defaults(run=_search, phases=("range_test",), num_trials=None, max_steps=None)

    resume = commands.add_parser("resume", help="go on where a study stopped")
    resume.add_argument("study", metavar="STUDY_DIR")
    resume.add_argument("--num-trials", type=int, metavar="N", help="extend the search to N trials in all")
    _cluster_options(resume)
    resume.set_defaults(run=_resume)

    report = commands.add_parser("report", help="rebuild every derived file from the study directory alone")
    report.add_argument("study", metavar="STUDY_DIR")
    report.set_defaults(run=_report)

    schedules = commands.add_parser("schedules", help="list the LR schedules with their parameters and curves")
    schedules.add_argument("names", nargs="*", metavar="NAME")
    schedules.set_defaults(run=_schedules)

    check = commands.add_parser("check", help="validate a search space and show the plan; starts nothing")
    _space_options(check)
    check.set_defaults(run=_check, num_trials=None, max_steps=None)
    return parser


def _space_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "space",
        nargs="?",
        default=DEFAULT_SPACE,
        metavar="SPACE",
        help=f"a YAML file, or the name of one in search_spaces/ (default: {DEFAULT_SPACE})",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="any field of the YAML")


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="the study's name (default: SPACE plus date and time)")
    parser.add_argument("--out", default="studies", metavar="DIR", help="where studies lie (default: studies/)")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--workers-per-trial", type=int, metavar="N")
    parser.add_argument("--gpus-per-worker", type=float, metavar="N")
    parser.add_argument("--max-concurrent", type=int, metavar="N", help="trials at once (default: as many as fit)")
    parser.add_argument("--strict", action="store_true", help="end with exit code 5 where the range test abstains")
    _cluster_options(parser)


def _cluster_options(parser: argparse.ArgumentParser) -> None:
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


# --- subcommands --------------------------------------------------------------------------------------------


def _search(options: argparse.Namespace) -> int:
    from tune_lr.config import find_space
    from tune_lr.study_dir import StudyDir, check_study_name

    source, config = find_space(options.space), _config(options)
    name = options.name or f"{Path(options.space).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    directory = StudyDir(Path(options.out) / check_study_name(name))
    mode = _announce(config, directory, options)

    from tune_lr import search

    search.create(config, directory, source, options.phases)
    try:
        return _run(config, directory, options, mode)
    except TuneLRError as error:
        if not isinstance(error, Interrupted) and not directory.has_points():
            directory.remove()  # nothing ran: the name stays free
        raise


def _resume(options: argparse.Namespace) -> int:
    from tune_lr.config import parse_config
    from tune_lr.study_dir import StudyDir

    directory = StudyDir(options.study)
    record = directory.read_resumable()
    if options.num_trials is not None:
        had = record["config"]["num_trials"]
        if options.num_trials < had:
            raise InputError(f"--num-trials: must be at least the study's own {had} (got {options.num_trials})")
        record["config"]["num_trials"] = options.num_trials
    config = parse_config(record["config"], source=str(directory.study_yaml))
    options.phases, options.strict = record["phases"], False
    mode = _announce(config, directory, options)
    with directory.lock():
        directory.write_yaml(directory.study_yaml, record)
    return _run(config, directory, options, mode)


def _announce(config: "Config", directory: "StudyDir", options: argparse.Namespace) -> "Mode":
    """Says what will run; returns the mode of W&B. Refuses what cannot be before anything is imported or made."""
    from tune_lr.plan import check_address, plan
    from tune_lr.terminal import show_plan
    from tune_lr.tracking import choose_mode

    mode = choose_mode(options.wandb)
    check_address(options.address or os.environ.get("RAY_ADDRESS"))
    show_plan(_console(), directory.name, config, plan(config, options.phases))
    return mode


def _run(config: "Config", directory: "StudyDir", options: argparse.Namespace, mode: "Mode") -> int:
    from tune_lr import search
    from tune_lr.plan import plan
    from tune_lr.terminal import Progress, show_outcome
    from tune_lr.tracking import WandbTracker

    console = _console()
    progress = Progress(console, config, plan(config, options.phases))
    tracker = WandbTracker(config, directory, directory.read_resumable()["id"], mode) if mode != "disabled" else None

    def on_cluster(slots: int, hardware: "Hardware") -> None:
        progress.slots(slots)
        where = f"{hardware.nodes} node(s) with {hardware.cpus:g} CPUs and {hardware.gpus:g} GPUs"
        console.print(f"{slots} slot(s) on {where}", highlight=False)
        if hardware.gpus and not config.scaling.gpus_per_worker:
            progress.notice("the cluster has GPUs and none is used; see --gpus-per-worker")

    try:
        with progress:
            outcome = search.run(
                directory,
                address=options.address,
                observers=[progress, tracker] if tracker else [progress],
                strict=options.strict,
                on_cluster=on_cluster,
            )
    finally:
        if tracker is not None:
            tracker.close()
    show_outcome(console, outcome)
    if tracker is not None and tracker.trouble:
        progress.notice(f"W&B: {tracker.trouble}")
    if tracker is not None and tracker.mode == "offline":
        console.print(f"W&B          {tracker.sync_command}", highlight=False, soft_wrap=True)
    if outcome.no_answer and "search" in options.phases:
        raise NoAnswerError(outcome.no_answer)
    if outcome.failed:
        progress.notice(f"{outcome.failed} trial(s) failed for good: see the column reason in {directory.trials_csv}")
        return SOME_FAILED
    return 0


def _report(options: argparse.Namespace) -> int:
    from tune_lr import search
    from tune_lr.study_dir import StudyDir

    outcome = search.report(StudyDir(options.study))
    print(outcome.directory.report_html)
    return 0


def _check(options: argparse.Namespace) -> int:
    from tune_lr.plan import plan
    from tune_lr.terminal import show_plan

    config = _config(options)
    show_plan(_console(), options.space, config, plan(config))
    return 0


def _schedules(options: argparse.Namespace) -> int:
    from tune_lr.errors import suggestion
    from tune_lr.lr_schedules import SCHEDULES
    from tune_lr.terminal import show_schedule

    for name in options.names:
        if name not in SCHEDULES:
            raise InputError(
                f"schedules: no LR schedule {name!r}{suggestion(name, SCHEDULES)}; known: {', '.join(SCHEDULES)}"
            )
    console = _console()
    for name in options.names or SCHEDULES:
        show_schedule(console, SCHEDULES[name])
    return 0


def _config(options: argparse.Namespace) -> "Config":
    """The YAML with everything from the command line laid over it."""
    from tune_lr.config import load_config

    flags = {
        "num_trials": options.num_trials,
        "max_steps": options.max_steps,
        "seed": getattr(options, "seed", None),
        "scaling.workers_per_trial": getattr(options, "workers_per_trial", None),
        "scaling.gpus_per_worker": getattr(options, "gpus_per_worker", None),
        "scaling.max_concurrent": getattr(options, "max_concurrent", None),
    }
    return load_config(
        options.space, [*options.set, *(f"{key}={value}" for key, value in flags.items() if value is not None)]
    )


def _console() -> "Console":
    from rich.console import Console

    return Console(file=sys.stdout)  # this one, whatever is put in its place later


if __name__ == "__main__":
    sys.exit(main())
