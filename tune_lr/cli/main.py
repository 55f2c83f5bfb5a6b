"""The command line: subcommands, exit codes, all printing. Nothing heavy is imported before the input is checked."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tune_lr.errors import InputError, NoAnswerError, ResourceError, TuneLRError

if TYPE_CHECKING:
    from rich.console import Console

    from tune_lr.config.model import Config
    from tune_lr.lr.bounds import LRBounds
    from tune_lr.records.outcome import Outcome
    from tune_lr.session import Session
    from tune_lr.store.study_dir import StudyDir

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
    _budget_option(search)
    search.add_argument("--max-steps", type=int, metavar="N", help="optimizer steps of one full trial")
    _run_options(search)
    search.set_defaults(run=_search, phases=("range_test", "search", "confirm"))

    range_test = commands.add_parser("range-test", help="the LR range test alone: prints and writes the bounds")
    _space_options(range_test)
    _run_options(range_test)
    range_test.add_argument(
        "--from",
        dest="curves",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="read curves measured elsewhere instead: CSV with the columns step, lr, loss; a file a replicate",
    )
    range_test.add_argument("--json", action="store_true", help="print the bounds as JSON, and nothing else on stdout")
    range_test.set_defaults(run=_range_test, phases=("range_test",), num_trials=None, max_steps=None)

    resume = commands.add_parser("resume", help="go on where a study stopped")
    resume.add_argument("study", metavar="STUDY_DIR")
    resume.add_argument("--num-trials", type=int, metavar="N", help="extend the search to N trials in all")
    _budget_option(resume)
    _cluster_options(resume)
    resume.set_defaults(run=_resume)

    train = commands.add_parser("train", help="train a study's winner once more, at any length, and keep the model")
    train.add_argument("study", metavar="STUDY_DIR")
    train.add_argument("--trial", type=int, metavar="N", help="this trial of the study instead of its winner")
    train.add_argument("--max-steps", type=int, metavar="N", help="optimizer steps (default: the study's)")
    train.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="any field of the YAML")
    _run_options(train, out=None)
    train.set_defaults(run=_train, phases=("search", "confirm"))

    report = commands.add_parser("report", help="rebuild every derived file from the study directory alone")
    report.add_argument("study", metavar="STUDY_DIR")
    report.add_argument("--terminal", action="store_true", help="print the leaderboard, the bounds and the verdict")
    report.set_defaults(run=_report)

    status = commands.add_parser("status", help="how a study stands, while it runs or after")
    status.add_argument("study", metavar="STUDY_DIR")
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(run=_status)

    stop = commands.add_parser("stop", help="end a running study, here or on another host; resume goes on with it")
    stop.add_argument("study", metavar="STUDY_DIR")
    stop.set_defaults(run=_stop)

    sync = commands.add_parser("sync", help="bring a study's runs to Weights & Biases, those that are not there")
    sync.add_argument("study", metavar="STUDY_DIR")
    sync.set_defaults(run=_sync)

    dashboard = commands.add_parser("dashboard", help="save a Weights & Biases workspace arranged for a study")
    dashboard.add_argument("study", metavar="STUDY_DIR")
    dashboard.set_defaults(run=_dashboard)

    schedules = commands.add_parser("schedules", help="list the LR schedules with their parameters and curves")
    schedules.add_argument("names", nargs="*", metavar="NAME")
    schedules.add_argument("--png", metavar="FILE", help="draw their curves into this file instead")
    schedules.set_defaults(run=_schedules)

    check = commands.add_parser("check", help="validate a search space and show the plan; starts nothing")
    _space_options(check)
    check.add_argument("--address", metavar="ADDR", help="compare with a running Ray cluster: auto or HOST:PORT")
    _budget_option(check)
    check.set_defaults(run=_check, num_trials=None, max_steps=None)

    init = commands.add_parser("init", help="write a workload, a search space and a test for it, to start from")
    init.add_argument("directory", metavar="DIR")
    init.set_defaults(run=_init)
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


def _budget_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget",
        metavar="B",
        help="in place of a number of trials: 12x (full trainings), 30m or 2h",
    )


def _run_options(parser: argparse.ArgumentParser, out: str | None = "studies") -> None:
    called, lies = ("SPACE plus date and time", "studies/") if out else ("that study's and -train", "beside that study")
    parser.add_argument("--name", help=f"the study's name (default: {called})")
    parser.add_argument("--out", default=out, metavar="DIR", help=f"where studies lie (default: {lies})")
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
    from tune_lr.session import new_directory

    return _search_in(new_directory(options.out, options.name, options.space), options)


def _search_in(directory: "StudyDir", options: argparse.Namespace) -> int:
    from tune_lr.config.load import read_space
    from tune_lr.session import run_new

    space = read_space(options.space, _overrides(options))
    return _exit_code(run_new(space, directory, _session(options), options.phases))


def _session(options: argparse.Namespace) -> "Session":
    from tune_lr.session import open_session

    return open_session(options.address, options.wandb, strict=getattr(options, "strict", False), console=_console())


def _exit_code(outcome: "Outcome") -> int:
    return SOME_FAILED if outcome.failed else 0


def _range_test(options: argparse.Namespace) -> int:
    if options.curves:
        return _read_curves(options)
    from tune_lr.session import new_directory

    directory = new_directory(options.out, options.name, options.space)
    code, abstained = 0, None
    try:
        with redirect_stdout(sys.stderr) if options.json else nullcontext():
            code = _search_in(directory, options)
    except NoAnswerError as error:  # --strict: what was read is on disk all the same
        abstained = error
    if directory.bounds_json.exists():
        found, bounds = directory.read_json(directory.bounds_json), directory.read_bounds()
        if options.json:
            print(json.dumps(found, indent=2, allow_nan=False))
        elif bounds.status == "ok" and "combinations" not in found:  # which no single line could say
            print(_line_to_paste(bounds))
    if abstained is not None:
        raise abstained
    return code


def _read_curves(options: argparse.Namespace) -> int:
    """The bounds of curves that were measured elsewhere; trains nothing."""
    from tune_lr.lr.bounds import find_lr_bounds
    from tune_lr.store.measured_curve import read_curve

    if options.space != DEFAULT_SPACE or options.set:
        raise InputError("--from: reads curves and trains nothing; leave out SPACE and --set")
    bounds = find_lr_bounds([read_curve(Path(file)) for file in options.curves])
    if options.json:
        print(json.dumps(bounds.to_dict(), indent=2, allow_nan=False))
    elif bounds.status != "ok":
        print(f"no LR bounds ({bounds.status})\n  {bounds.reason}")
    else:
        print(f"LR bounds: {bounds.low:.3g} to {bounds.high:.3g}, suggestion {bounds.suggestion:.3g}")
        print(f"  {bounds.reason}\n{_line_to_paste(bounds)}")
    if bounds.status != "ok" and options.strict:
        raise NoAnswerError(f"the LR range test abstained ({bounds.status}): {bounds.reason}")
    return 0


def _line_to_paste(bounds: "LRBounds") -> str:
    return (
        f"suggested for a constant LR; for the peak of a one-cycle or a cosine, {bounds.suggestion_for(0.5):.3g}\n"
        f"for a search space, under parameters:\n  lr: {{min: {bounds.low:.3g}, max: {bounds.high:.3g}}}"
    )


def _resume(options: argparse.Namespace) -> int:
    from tune_lr.session import resume
    from tune_lr.store.study_dir import StudyDir

    outcome = resume(StudyDir(options.study), _session(options), num_trials=options.num_trials, budget=options.budget)
    return _exit_code(outcome)


def _train(options: argparse.Namespace) -> int:
    from tune_lr.final_training import final_training, model_file, training_name
    from tune_lr.session import new_directory, run_new
    from tune_lr.store.study_dir import StudyDir

    study = StudyDir(options.study)
    training = final_training(study, options.trial, _overrides(options))
    directory = new_directory(options.out or study.root.parent, options.name or training_name(study), study.root)
    outcome = run_new(training, directory, _session(options), options.phases)
    print(f"model        {model_file(directory)}")
    return _exit_code(outcome)


def _report(options: argparse.Namespace) -> int:
    from tune_lr import run as search
    from tune_lr.store.study_dir import StudyDir

    outcome = search.report(StudyDir(options.study))
    if options.terminal:
        from tune_lr.show.terminal import show_report

        show_report(_console(), outcome)
    else:
        print(StudyDir(outcome.root).report_html)
    return 0


def _status(options: argparse.Namespace) -> int:
    from tune_lr.store.study_dir import StudyDir
    from tune_lr.study.status import read_status

    status = read_status(StudyDir(options.study))
    if options.json:
        print(json.dumps(status.to_dict(), indent=2))
    else:
        from tune_lr.show.terminal import show_status

        show_status(_console(), status)
    return 0


def _stop(options: argparse.Namespace) -> int:
    from tune_lr.store.study_dir import StudyDir
    from tune_lr.study.status import stop

    directory = StudyDir(options.study)
    driver = stop(directory)
    if driver is None:
        print(f"nothing runs in {directory.root}")
    else:
        print(f"stopped ({driver}); go on with: tune-lr resume {directory.root}")
    return 0


def _sync(options: argparse.Namespace) -> int:
    from tune_lr.store.study_dir import StudyDir
    from tune_lr.tracking.sync import sync

    directory = StudyDir(options.study)
    record = directory.read_record()
    with directory.lock():
        from tune_lr.study.study import Study  # the journal knows of every trial, also before the study has ended

        rows = Study(record.config, directory, phases=record.phases, resume=False).rows()
        arrived = sync(record.config, directory, record.id, rows, on_arrival=lambda name: print(name, flush=True))
    print(f"{arrived} runs brought to W&B, {len(rows) - arrived} were there")
    return 0


def _dashboard(options: argparse.Namespace) -> int:
    from tune_lr.store.study_dir import StudyDir
    from tune_lr.tracking.dashboard import save_dashboard

    directory = StudyDir(options.study)
    record = directory.read_record()
    print(save_dashboard(record.config, directory, record.id))
    return 0


def _check(options: argparse.Namespace) -> int:
    from tune_lr.config.hardware import check_address, check_slots, slots_on
    from tune_lr.config.plan import plan
    from tune_lr.show.terminal import show_plan

    config = _config(options)
    console, planned = _console(), plan(config)
    if options.address is None:
        show_plan(console, options.space, config, planned)
        return 0
    check_address(options.address)
    from tune_lr.cluster import cluster
    from tune_lr.show.terminal import show_fit

    scaling = config.scaling
    with cluster.connected(options.address):
        nodes, free = cluster.nodes(), cluster.free()
    slots = slots_on(nodes, scaling, scaling.max_concurrent)
    show_plan(console, options.space, config, planned, slots)
    show_fit(console, scaling, nodes, free, slots, planned)
    check_slots(nodes, scaling)
    return 0


def _schedules(options: argparse.Namespace) -> int:
    from tune_lr.errors import suggestion
    from tune_lr.lr.schedules import SCHEDULES
    from tune_lr.show.terminal import show_schedule

    for name in options.names:
        if name not in SCHEDULES:
            raise InputError(
                f"schedules: no LR schedule {name!r}{suggestion(name, SCHEDULES)}; known: {', '.join(SCHEDULES)}"
            )
    if options.png is not None:
        return _draw_schedules(options.names or list(SCHEDULES), Path(options.png))
    console = _console()
    for name in options.names or SCHEDULES:
        show_schedule(console, SCHEDULES[name])
    return 0


def _draw_schedules(names: Sequence[str], path: Path) -> int:
    if path.suffix.lower() != ".png":
        raise InputError(f"--png: not the name of a PNG file (got {str(path)!r}); write NAME.png")
    from tune_lr.show.charts.schedules import schedules_png

    try:
        path.write_bytes(schedules_png(names))
    except OSError as error:
        raise ResourceError(f"--png: {path} cannot be written ({error.strerror}); name a file that can") from None
    print(path)
    return 0


def _init(options: argparse.Namespace) -> int:
    from tune_lr.cli.scaffold import write_scaffold

    workload, space, test = write_scaffold(Path(options.directory))
    print(f"{workload}    what is trained; put your own in its place")
    print(f"{space}    what is searched: tune-lr check {space}")
    print(f"{test}    does it train at all: pytest {test}")
    return 0


def _config(options: argparse.Namespace) -> "Config":
    """The YAML with everything from the command line laid over it."""
    from tune_lr.config.load import load_config

    return load_config(options.space, _overrides(options))


def _overrides(options: argparse.Namespace) -> list[str]:
    """What `--set` and the other options lay over the YAML."""
    return [*options.set, *_flags(options)]


def _flags(options: argparse.Namespace) -> list[str]:
    """The options that stand for fields of the YAML, as `--set` would name them."""
    fields = {
        "num_trials": "num_trials",
        "max_steps": "max_steps",
        "seed": "seed",
        "workers_per_trial": "scaling.workers_per_trial",
        "gpus_per_worker": "scaling.gpus_per_worker",
        "max_concurrent": "scaling.max_concurrent",
    }
    given = {key: getattr(options, name, None) for name, key in fields.items()}
    if getattr(options, "budget", None) is not None:
        # A bare number of seconds would be read as one.
        given = {"budget": f"'{options.budget}'", **given}
        if given["num_trials"] is None:
            given["num_trials"] = "null"  # the YAML's own number might end the search before
    return [f"{key}={value}" for key, value in given.items() if value is not None]


def _console() -> "Console":
    from rich.console import Console

    return Console(file=sys.stdout)  # this one, whatever is put in its place later


if __name__ == "__main__":
    sys.exit(main())
