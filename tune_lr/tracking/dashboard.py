"""A Weights & Biases workspace that opens arranged for one study, saved by program. It needs a server.

The workspace shows the runs of the study's group, wherever they came from: online, or `tune-lr sync` afterwards.
"""

from typing import Any

from tune_lr.config.model import Config
from tune_lr.errors import ResourceError, one_line
from tune_lr.records.looks import schedule_color
from tune_lr.records.parameters import BATCH_SIZE, OPTIMIZER, optimizer_prefix
from tune_lr.store.files import write_json
from tune_lr.store.study_dir import StudyDir
from tune_lr.tracking.key import check_server, default_entity, server_url
from tune_lr.tracking.rows import x_axis
from tune_lr.tracking.runs import run_id

SAVED = "dashboard.json"  # in the study's wandb/: where the workspace is, so that it is saved again and not twice
BEST = 3
TABLES = ("best_of_family", "leaderboard")  # of the run that sums the study up


def save_dashboard(config: Config, directory: StudyDir, study_id: str) -> str:
    """Save the study's workspace, or save it again; return its address.

    Raises InputError where there is no key or a wrong one, ResourceError where the server or the extra is missing.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise ResourceError(
            "dashboard: needs wandb-workspaces, which is not installed; pip install 'tune-lr[dashboard]'"
        ) from None
    check_server("dashboard", "and run this line again")
    directory.wandb.mkdir(exist_ok=True)
    try:
        entity = config.wandb.entity or default_entity()
        workspace = _reopened(ws, directory, entity, config.wandb.project)
        workspace.name = f"tune-lr {directory.name}"
        workspace.sections = _sections(ws, panels, config)
        workspace.settings = ws.WorkspaceSettings(x_axis=x_axis(config), max_runs=100)
        workspace.runset_settings = _runset(ws, config, directory, study_id)
        workspace.save()
    except Exception as error:  # wandb has many
        what = f"{type(error).__name__}: {one_line(error)}"
        raise ResourceError(f"dashboard: {server_url()} did not save it ({what}); run this line again") from None
    write_json(directory.wandb / SAVED, {"server": server_url(), "url": _address(workspace)})
    return _address(workspace)


def _address(workspace: Any) -> str:
    """Return the address of a saved workspace.

    wandb-workspaces 0.4.13 takes every "nw-" and "-v" out of the name of the view, wherever they stand, although they
    are only its beginning and its end. About one random name in 1,300 ends in "nw" and loses it.
    """
    view = str(workspace._internal_name)
    name = view.removeprefix("nw-").removesuffix("-v") if view.startswith("nw-") else view
    return f"{str(workspace.url).partition('?')[0]}?nw={name}"


def _reopened(ws: Any, directory: StudyDir, entity: str, project: str) -> Any:
    """The workspace that was saved before, where this server still has it; else a new one."""
    try:
        saved = directory.read_json(directory.wandb / SAVED)
        if saved["server"] == server_url():
            return ws.Workspace.from_url(saved["url"])
    except (ResourceError, KeyError, ValueError, TypeError):  # there is none, or it was deleted
        pass
    return ws.Workspace(entity=entity, project=project)


def _runset(ws: Any, config: Config, directory: StudyDir, study_id: str) -> Any:
    """The study's runs, best first, each in the colour of its LR schedule."""
    rows = directory.read_rows() if directory.trials_csv.exists() else []
    metric = ws.Summary(config.metric.name)
    return ws.RunsetSettings(
        filters=ws.And(ws.Metric("Group") == directory.name),
        order=[ws.Ordering(metric, ascending=config.metric.goal == "minimize")],
        run_settings={
            run_id(study_id, row.number): ws.RunSettings(color=schedule_color(row.lr_schedule)) for row in rows
        },
        pinned_columns=[
            "run:displayName", "config:phase.value", "summary:state", "config:lr_schedule.value", "config:lr.value",
            f"summary:{config.metric.name}", "summary:steps",
        ],
    )  # fmt: skip


def _sections(ws: Any, wr: Any, config: Config) -> list[Any]:
    """The sections, from the answer to its reasons. The order of the runs makes the first three of them the best."""
    return [
        _section(ws, "Best three", _best_three(wr, config), columns=3),
        _section(ws, "LR range test", _range_test(wr), columns=2),
        _section(ws, "LR schedules compared", _schedules(wr, config), columns=3),
        _section(ws, "Parameters", [_parameters(wr, config)], columns=1),
        _section(
            ws, "Tables", [wr.WeavePanelSummaryTable(table_name=name) for name in TABLES], columns=2, is_open=False
        ),
    ]


def _section(ws: Any, name: str, panels: list[Any], columns: int, is_open: bool = True) -> Any:
    layout = ws.SectionLayoutSettings(columns=columns, rows=1)
    return ws.Section(name=name, is_open=is_open, layout_settings=layout, panels=panels)


def _best_three(wr: Any, config: Config) -> list[Any]:
    step, best = x_axis(config), {"max_runs_to_show": BEST, "smoothing_type": "none"}
    title = f"{config.metric.name} of the best three"
    return [
        wr.LinePlot(title=title, x=step, y=[_validated(config)], log_y=_log(config), **best),
        wr.LinePlot(title="Training loss of the best three", x=step, y=["train/loss"], log_y=True, **best),
        wr.LinePlot(title="Learning rate of the best three", x=step, y=["train/lr"], **best),
    ]


def _range_test(wr: Any) -> list[Any]:
    return [
        wr.LinePlot(title="Loss over the ramped LR", x="range/lr", y=["range/loss"], log_x=True),
        wr.MediaBrowser(title="What was concluded", media_keys=["range_test"]),
    ]


def _schedules(wr: Any, config: Config) -> list[Any]:
    metric, step, log_y = config.metric.name, x_axis(config), _log(config)
    return [
        wr.LinePlot(
            title=f"{metric} by LR schedule",
            x=step,
            y=[_validated(config)],
            log_y=log_y,
            groupby=wr.Config("lr_schedule"),
            groupby_aggfunc="median",
            groupby_rangefunc="minmax",
        ),
        wr.LinePlot(title="Learning rate", x=step, y=["train/lr"]),
        wr.ScatterPlot(
            title=f"{metric} over the learning rate",
            x=wr.Config("lr"),
            y=wr.SummaryMetric(metric),
            log_x=True,
            log_y=log_y,
        ),
    ]


def _parameters(wr: Any, config: Config) -> Any:
    """Parallel coordinates: the LR schedule, the LR, every parameter that is searched, and the metric."""
    schedules, optimizers = config.parameters.lr_schedule, config.parameters.optimizer
    names = [f"{name}.{parameter}" for name, searched in schedules.items() for parameter in searched]
    if config.parameters.batch_size:
        names.append(BATCH_SIZE)
    if len(optimizers) > 1:
        names.append(f"{OPTIMIZER}name")
    names += [f"{optimizer_prefix(name)}{argument}" for name, searched in optimizers.items() for argument in searched]
    column = wr.ParallelCoordinatesPlotColumn
    columns = [column(wr.Config("lr_schedule")), column(wr.Config("lr"), log=True)]
    columns += [column(wr.Config(name)) for name in names]
    columns.append(column(wr.SummaryMetric(config.metric.name)))
    return wr.ParallelCoordinatesPlot(title=f"Parameters and {config.metric.name}", columns=columns)


def _validated(config: Config) -> str:
    """Under which name a run has the metric's curve."""
    return f"val/{config.metric.name.removeprefix('val_')}"


def _log(config: Config) -> bool:
    """A loss is shown on a logarithmic axis, an accuracy is not."""
    return config.metric.goal == "minimize"
