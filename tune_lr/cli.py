"""The command line: subcommands, exit codes, all printing. Nothing heavy is imported before the input is checked."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tune_lr.errors import InputError, Interrupted, NoAnswerError, ResourceError, TuneLRError

if TYPE_CHECKING:
    from rich.console import Console

    from tune_lr.cluster import Hardware
    from tune_lr.config import Config
    from tune_lr.lr_range_test import LRBounds
    from tune_lr.study import Study
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
    _cluster_options(resume)
    resume.set_defaults(run=_resume)

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


def _study_name(options: argparse.Namespace) -> str:
    return options.name or f"{Path(options.space).stem}-{datetime.now():%Y%m%d-%H%M%S}"


# --- subcommands --------------------------------------------------------------------------------------------


def _search(options: argparse.Namespace) -> int:
    from tune_lr.config import find_space
    from tune_lr.study_dir import StudyDir, check_study_name

    source, config = find_space(options.space), _config(options)
    directory = StudyDir(Path(options.out) / check_study_name(_study_name(options)))
    mode = _announce(config, directory, options)

    from tune_lr import search

    search.create(config, directory, source, options.phases)
    try:
        return _run(config, directory, options, mode)
    except TuneLRError as error:
        if not isinstance(error, Interrupted) and not directory.has_points():
            directory.remove()  # nothing ran: the name stays free
        raise


def _range_test(options: argparse.Namespace) -> int:
    if options.curves:
        return _read_curves(options)
    options.name = _study_name(options)
    code, abstained = 0, None
    try:
        with redirect_stdout(sys.stderr) if options.json else nullcontext():
            code = _search(options)
    except NoAnswerError as error:  # --strict: what was read is on disk all the same
        abstained = error
    from tune_lr.lr_range_test import LRBounds
    from tune_lr.study_dir import StudyDir

    directory = StudyDir(Path(options.out) / options.name)
    if directory.bounds_json.exists():
        bounds = LRBounds.from_dict(directory.read_json(directory.bounds_json))
        if options.json:
            print(json.dumps(bounds.to_dict(), indent=2, allow_nan=False))
        elif bounds.status == "ok":
            print(_line_to_paste(bounds))
    if abstained is not None:
        raise abstained
    return code


def _read_curves(options: argparse.Namespace) -> int:
    """The bounds of curves that were measured elsewhere; trains nothing."""
    from tune_lr.lr_range_test import find_lr_bounds, read_curve

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
    return f"for a search space, under parameters:\n  lr: {{min: {bounds.low:.3g}, max: {bounds.high:.3g}}}"


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
    from tune_lr.tracking import WandbProcess

    console = _console()
    progress = Progress(console, config, plan(config, options.phases))
    tracker = WandbProcess(config, directory, directory.read_resumable()["id"], mode) if mode != "disabled" else None

    def on_study(study: "Study") -> None:
        if tracker is not None:
            tracker.stop_trial = study.stop_trial

    def on_cluster(slots: int, hardware: "Hardware") -> None:
        progress.slots(slots)
        where = f"{hardware.nodes} node(s) with {hardware.cpus:g} CPUs and {hardware.gpus:g} GPUs"
        console.print(f"{slots} slot(s) on {where}", highlight=False)
        if not slots:
            progress.notice("no node has room for a trial now; the study waits for one")
        if hardware.gpus and not config.scaling.gpus_per_worker:
            progress.notice("the cluster has GPUs and none is used; see --gpus-per-worker")

    try:
        with progress:
            outcome = search.run(
                directory,
                address=options.address,
                observers=[progress, tracker] if tracker else [progress],
                strict=options.strict,
                on_study=on_study,
                on_cluster=on_cluster,
            )
        if tracker is not None:
            tracker.study_ended(outcome.study.rows())
    finally:
        if tracker is not None:
            tracker.close()
    show_outcome(console, outcome)
    if tracker is not None and tracker.trouble:
        progress.notice(f"W&B: {tracker.trouble}")
    if tracker is not None and (tracker.mode == "offline" or tracker.trouble):
        other = "" if tracker.trouble else f"   (or wandb sync {directory.wandb}/offline-run-*)"
        console.print(f"W&B          {tracker.sync_command}{other}", highlight=False, soft_wrap=True)
    answerable = config.num_trials or any(fixed.ramp is None for fixed in config.fixed)
    if outcome.no_answer and answerable and "search" in options.phases:
        raise NoAnswerError(outcome.no_answer)
    if outcome.failed:
        progress.notice(f"{outcome.failed} trial(s) failed for good: see the column reason in {directory.trials_csv}")
        return SOME_FAILED
    return 0


def _report(options: argparse.Namespace) -> int:
    from tune_lr import search
    from tune_lr.study_dir import StudyDir

    outcome = search.report(StudyDir(options.study))
    if options.terminal:
        from tune_lr.terminal import show_report

        show_report(_console(), outcome)
    else:
        print(outcome.directory.report_html)
    return 0


def _status(options: argparse.Namespace) -> int:
    from tune_lr.status import read_status
    from tune_lr.study_dir import StudyDir

    status = read_status(StudyDir(options.study))
    if options.json:
        print(json.dumps(status.to_dict(), indent=2))
    else:
        from tune_lr.terminal import show_status

        show_status(_console(), status)
    return 0


def _stop(options: argparse.Namespace) -> int:
    from tune_lr.status import stop
    from tune_lr.study_dir import StudyDir

    directory = StudyDir(options.study)
    driver = stop(directory)
    if driver is None:
        print(f"nothing runs in {directory.root}")
    else:
        print(f"stopped ({driver}); go on with: tune-lr resume {directory.root}")
    return 0


def _sync(options: argparse.Namespace) -> int:
    from tune_lr.study_dir import StudyDir
    from tune_lr.tracking import sync

    config, directory, record = _recorded(StudyDir(options.study))
    with directory.lock():
        from tune_lr.study import Study  # the journal knows of every trial, also before the study has ended

        rows = Study(config, directory, phases=record["phases"], resume=False).rows()
        arrived = sync(config, directory, record["id"], rows, told=lambda name: print(name, flush=True))
    print(f"{arrived} runs brought to W&B, {len(rows) - arrived} were there")
    return 0


def _dashboard(options: argparse.Namespace) -> int:
    from tune_lr.dashboard import save_dashboard
    from tune_lr.study_dir import StudyDir

    config, directory, record = _recorded(StudyDir(options.study))
    print(save_dashboard(config, directory, record["id"]))
    return 0


def _recorded(directory: "StudyDir") -> "tuple[Config, StudyDir, dict[str, Any]]":
    """A study's configuration and the rest of its study.yaml."""
    from tune_lr.config import parse_config

    record = directory.read_resumable()
    return parse_config(record["config"], source=str(directory.study_yaml)), directory, record


def _check(options: argparse.Namespace) -> int:
    from tune_lr.plan import check_address, check_slots, plan, slots_on
    from tune_lr.terminal import show_plan

    config = _config(options)
    console, planned = _console(), plan(config)
    if options.address is None:
        show_plan(console, options.space, config, planned)
        return 0
    check_address(options.address)
    from tune_lr import cluster
    from tune_lr.search import make_task
    from tune_lr.terminal import show_fit

    task = make_task(config)
    with cluster.connected(options.address):
        nodes, free = cluster.nodes(), cluster.free()
    slots = slots_on(nodes, task, config.scaling.max_concurrent)
    show_plan(console, options.space, config, planned, slots)
    show_fit(console, task, nodes, free, slots, planned)
    check_slots(nodes, task)
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
    if options.png is not None:
        return _draw_schedules(options.names or list(SCHEDULES), Path(options.png))
    console = _console()
    for name in options.names or SCHEDULES:
        show_schedule(console, SCHEDULES[name])
    return 0


def _draw_schedules(names: Sequence[str], path: Path) -> int:
    if path.suffix.lower() != ".png":
        raise InputError(f"--png: not the name of a PNG file (got {str(path)!r}); write NAME.png")
    from tune_lr.plots import schedules_png

    try:
        path.write_bytes(schedules_png(names))
    except OSError as error:
        raise ResourceError(f"--png: {path} cannot be written ({error.strerror}); name a file that can") from None
    print(path)
    return 0


def _init(options: argparse.Namespace) -> int:
    from tune_lr.scaffold import write_scaffold

    workload, space, test = write_scaffold(Path(options.directory))
    print(f"{workload}    what is trained; put your own in its place")
    print(f"{space}    what is searched: tune-lr check {space}")
    print(f"{test}    does it train at all: pytest {test}")
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
