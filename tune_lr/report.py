"""A study directory -> report.html, range_test/range_test.png and plots/*.png.

Reads files of the study directory only, whatever of them is there; so a report can be made again at any time, also
of a study that is unfinished or that found nothing. The page fetches nothing: plotly.js lies inside it. Every text
passes `escape` on its way into the page, and `_json` on its way into the script's data.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from plotly.offline import get_plotlyjs

from tune_lr import plots
from tune_lr.errors import ResourceError
from tune_lr.plots import Columns, final, number_text
from tune_lr.study_dir import StudyDir, TrialRow

PHASES = ("range_test", "search", "confirm")
STATES = ("complete", "pruned", "diverged", "failed")
POINTS = 200  # of one curve among all trials'


def write_report(study: StudyDir) -> None:
    """Writes the report and its pictures from what the study directory holds."""
    found = _read(study)
    best = _best_of_each(found)
    charts = {
        "range_test": plots.range_test_chart(found.ramps, found.bounds),
        "lr_curves": plots.lr_chart(best),
        "train_loss": plots.train_loss_chart(best),
        "val_loss": plots.val_loss_chart(best),
        "loss_over_lr": plots.loss_over_lr_chart(found.rows, found.metric, found.goal),
    }
    study.plots.mkdir(exist_ok=True)
    study.range_test.mkdir(exist_ok=True)
    for name, chart in charts.items():
        path = study.range_test_png if name == "range_test" else study.plots / f"{name}.png"
        _replace(path, plots.png(chart))
    data = {
        "charts": {name: plots.plotly(chart, legend=name == "range_test") for name, chart in charts.items()},
        "curves": {number: _thinned(found.row(number), curve) for number, curve in found.curves.items()},
        "detail": _detail_layouts(),
    }
    page = {
        "title": escape(f"{found.name}: LR study"),
        "answer": _answer(found),
        "found": _how_found(found),
        "compared": _compared(found, best),
        "leaderboard": _leaderboard(found),
        "reproduce": _reproduce(found),
        "plotlyjs": get_plotlyjs(),
        "data": _json(data),
    }
    template = files("tune_lr").joinpath("report_template.html").read_text(encoding="utf-8")
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: page[match[1]], template)  # one pass: a value is never a template
    _replace(study.report_html, text.encode())


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Study:
    """What lies in a study directory."""

    name: str
    study: Mapping[str, Any]
    config: Mapping[str, Any]
    bounds: Mapping[str, Any] | None
    best: Mapping[str, Any] | None
    ramps: Sequence[Columns]
    rows: Sequence[TrialRow]
    curves: Mapping[int, Columns]
    metric: str  # as files name it: val_loss, val_accuracy
    goal: str

    def row(self, number: int) -> TrialRow:
        return next(row for row in self.rows if row.number == number)

    def leaders(self, phase: str) -> list[TrialRow]:
        """The complete trials of a phase, best first."""
        rows = [row for row in self.rows if row.phase == phase and row.state == "complete"]
        rows = [row for row in rows if math.isfinite(final(row, self.metric))]
        return sorted(rows, key=lambda row: final(row, self.metric), reverse=self.goal == "maximize")


def _read(study: StudyDir) -> _Study:
    described = study.read_study()
    config = described.get("config") or {}
    metric = config.get("metric") or {}
    name = str(metric.get("name", "val_loss"))
    rows = study.read_rows() if study.trials_csv.exists() else []
    ramps = (_curve(study, path) for path in study.range_curves())
    curves = {row.number: _curve(study, study.curve(row.number)) for row in rows if row.phase != "range_test"}
    return _Study(
        name=str(described.get("name") or study.name),
        study=described,
        config=config,
        bounds=study.read_json(study.bounds_json) if study.bounds_json.exists() else None,
        best=study.read_yaml(study.best_yaml) if study.best_yaml.exists() else None,
        ramps=[ramp for ramp in ramps if ramp],
        rows=rows,
        curves={number: curve for number, curve in curves.items() if curve},
        metric=name if name.startswith("val_") else f"val_{name}",
        goal=str(metric.get("goal", "minimize")),
    )


def _curve(study: StudyDir, path: Path) -> Columns:
    """A curve's columns; empty where the trial has written none."""
    try:
        columns = study.read_curve(path)
    except (FileNotFoundError, ResourceError):
        return {}
    return {name: np.array(values, dtype=float) for name, values in columns.items()} if columns["step"] else {}


def _best_of_each(found: _Study) -> list[tuple[TrialRow, Columns]]:
    """Of each LR schedule the search trial with the best final metric, else the one that got furthest."""
    best: dict[str, TrialRow] = {row.lr_schedule: row for row in reversed(found.leaders("search"))}
    for row in sorted((row for row in found.rows if row.phase == "search"), key=lambda row: -row.steps):
        if row.number in found.curves:
            best.setdefault(row.lr_schedule, row)
    ordered = (best[name] for name in plots.in_order(best))
    return [(row, found.curves[row.number]) for row in ordered if row.number in found.curves]


def _thinned(row: TrialRow, curve: Columns) -> dict[str, Any]:
    def pair(name: str) -> list[list[float | int | None]]:
        x, y = plots.thin(curve["step"], curve[name], POINTS)
        return [[plots.rounded(value) for value in x], [plots.rounded(value) for value in y]]

    return {
        "train": pair("train_loss"),
        "val": pair("val_loss"),
        "lr": pair("lr"),
        "color": plots.schedule_color(row.lr_schedule),
        "shape": "hv" if row.lr_schedule in plots.STAIRS else "linear",
    }


def _detail_layouts() -> dict[str, Any]:
    """Of the charts that open under a trial: their ranges are left to plotly."""
    layouts = {}
    for name, title, log in (("loss", "loss", True), ("lr", "learning rate", False)):
        empty = plots.Chart("", plots.axis("step", []), plots.axis(title, []), [])
        layout = plots.plotly(empty, legend=name == "loss")["layout"]
        for which in ("xaxis", "yaxis"):
            del layout[which]["range"]
        if log:
            values = [digit * 10.0**exponent for exponent in range(-9, 9) for digit in (1, 2, 5)]
            layout["yaxis"] |= {"type": "log", "tickvals": values, "ticktext": [number_text(value) for value in values]}
        else:
            layout["yaxis"] |= {"rangemode": "tozero", "exponentformat": "e"}
        layouts[name] = layout
    return layouts


# --- the sections -------------------------------------------------------------------------------------------------


def _answer(found: _Study) -> str:
    above = [found.name, str(found.config.get("workload", "")), str(found.study.get("created", ""))[:10]]
    head = f'<p class="eyebrow">{" · ".join(escape(text) for text in above if text)}</p>'
    best = found.best
    if best is None:
        return head + _no_answer(found)
    metric = _metric_name(best.get("metric"), found.metric)
    test = best.get("test") or {}
    tiles = [
        (metric, _figure(best.get("mean")), _interval_text(best.get("interval"), len(best.get("seeds") or ()))),
        *((f"test {name}", _figure(value), "of the winner, looked at once") for name, value in test.items()),
        _runner_up_tile(best.get("runner_up"), metric),
        _cost_tile(found),
    ]
    optimizer = yaml.safe_dump(best.get("optimizer"), default_flow_style=True, sort_keys=False, width=1000).strip()
    exact = {
        "LR schedule": best.get("lr_schedule"),
        "lr": best.get("lr"),
        **(best.get("parameters") or {}),
        "optimizer": optimizer,
        "global batch": best.get("batch_size"),
        "max_steps": best.get("max_steps"),
        "search trial": best.get("trial"),
        "confirm trials": ", ".join(str(number) for number in best.get("confirm_trials") or ()),
    }
    return "".join(
        [
            head,
            f"<h1>{escape(str(best.get('lr_schedule')))}, lr {_number(best.get('lr'))}</h1>",
            f'<p class="verdict">{escape(str(best.get("verdict", "")))}</p>',
            f'<div class="tiles">{"".join(_tile(*tile) for tile in tiles if tile)}</div>',
            f"<h3>The code</h3>{_code(best['code'])}" if best.get("code") else "",
            f"<h3>The winner exactly</h3>{_definitions(exact)}",
            _finalists(best, metric, found.goal),
        ]
    )


def _no_answer(found: _Study) -> str:
    leaders = found.leaders("search")
    if leaders:
        leader = leaders[0]
        return (
            "<h1>No winner yet</h1>"
            f'<p class="verdict">The study is not finished. {escape(leader.lr_schedule)} at lr {_number(leader.lr)} '
            f"leads the search with {escape(found.metric)} {_figure(final(leader, found.metric))} "
            f"(trial {leader.number}, one seed, not confirmed).</p>"
        )
    searched = sum(row.phase == "search" for row in found.rows)
    text = f"None of {searched} search trials completed." if searched else "No search trial has ended yet."
    return f'<h1>No winner</h1><p class="verdict">{text}</p>'


def _runner_up_tile(runner_up: Mapping[str, Any] | None, metric: str) -> tuple[str, str, str] | None:
    if not runner_up:
        return None
    name = f"{escape(str(runner_up.get('lr_schedule')))}, lr&nbsp;{_number(runner_up.get('lr'))}"
    note = f"{escape(metric)} {_figure(runner_up.get('mean'))}"
    if runner_up.get("difference") is not None:
        note += f"; difference {_figure(runner_up['difference'], 2)}{_brackets(runner_up.get('difference_interval'))}"
    if not runner_up.get("distinguishable", True):
        note += "; cannot be told apart from the winner"
    return "Runner-up", name, note


def _cost_tile(found: _Study) -> tuple[str, str, str] | None:
    steps = _steps_by_phase(found)
    if not any(steps.values()):
        return None
    full = ((found.best or {}).get("steps") or {}).get("full_trainings")
    if full is None and found.config.get("max_steps"):
        full = sum(steps.values()) / found.config["max_steps"]
    note = f"as many as {_number(full)} full trainings" if full is not None else ""
    return "Steps spent", f"{sum(steps.values()):,}", note


def _finalists(best: Mapping[str, Any], metric: str, goal: str) -> str:
    finalists = best.get("finalists") or []
    if len(finalists) < 2:
        return ""
    ends = [value for one in finalists for value in [*(one.get("interval") or []), *(one.get("values") or [])]]
    ends = [float(value) for value in ends if math.isfinite(value)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)

    def at(value: float) -> str:
        return f"{3 + 94 * (value - low) / ((high - low) or 1):.1f}%"

    lines = []
    for one in finalists:
        name = str(one.get("lr_schedule"))
        color = plots.schedule_color(name)
        strip = [f'<s style="left:{at(value)};background:{color}"></s>' for value in one.get("values") or []]
        if one.get("interval"):
            left, right = one["interval"]
            width = 94 * (right - left) / ((high - low) or 1)
            strip.append(f'<i style="left:{at(left)};width:{width:.1f}%;background:{color}"></i>')
        if one.get("mean") is not None:
            strip.append(f'<b style="left:{at(one["mean"])};background:{color}"></b>')
        lines.append(
            f"<tr><td>{_swatch(name)}{escape(name)}</td><td class=n>{_number(one.get('lr'))}</td>"
            f"<td class=wrap>{_parameters(one.get('parameters') or {})}</td><td class=n>{_figure(one.get('mean'))}</td>"
            f"<td class=n>{_brackets(one.get('interval'))}</td>"
            f'<td><div class="interval">{"".join(strip)}</div></td></tr>'
        )
    direction = "lower is better" if goal == "minimize" else "higher is better"
    return (
        '<h3>Finalists</h3><div class="scroll"><table><thead><tr><th>LR schedule</th><th class=n>lr</th>'
        f"<th>parameters</th><th class=n>{escape(metric)}</th><th class=n>95 % interval</th><th>over seeds</th></tr>"
        f"</thead><tbody>{''.join(lines)}</tbody></table></div>"
        f'<p class="soft">Dot: mean. Line: 95 % interval. Ticks: single seeds. {direction.capitalize()}.</p>'
    )


def _how_found(found: _Study) -> str:
    parts = ["<h2>How it was found</h2>"]
    if found.bounds is None:
        text = "The LR range test has no result yet." if found.ramps else "No LR range test was run."
        parts.append(f"<p>{text}</p>")
    else:
        status, reason = str(found.bounds.get("status", "")), str(found.bounds.get("reason") or "")
        if status == "ok":
            low, high, suggested = (_number(found.bounds.get(name)) for name in ("low", "high", "suggestion"))
            text = f"LR range test: the peak LR was searched between {low} and {high}; suggestion {suggested}."
            parts.append(f"<p>{text}</p>")
            parts.append(f'<p class="soft">{escape(reason)}</p>' if reason else "")
        else:
            text = f"The LR range test found no bounds ({status}): {reason}"
            parts.append(f'<div class="note-box"><p>{escape(text)}</p></div>')
    if found.ramps:
        parts.append(
            _chart("range_test", "LR range test: loss over the ramped LR", tall=True,
                   caption="Grey: the loss of each ramp. Blue: smoothed. Green: the bounds, dashed the suggestion.")
        )  # fmt: skip
    parts.append(_ledger(found))
    return "".join(parts)


def _ledger(found: _Study) -> str:
    if not found.rows:
        return "<h3>Ledger</h3><p>No trial has ended yet.</p>"
    steps = _steps_by_phase(found)
    counts = Counter((row.phase, row.state) for row in found.rows)

    def line(label: str, phases: Sequence[str]) -> str:
        own = [sum(counts[phase, state] for phase in phases) for state in STATES]
        cells = [f"{sum(steps[phase] for phase in phases):,}", sum(own), *own]
        return f"<tr><td>{label}</td>{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>"

    body = "".join(line(phase.replace("_", " "), [phase]) for phase in PHASES)
    heads = "".join(f"<th class=n>{head}</th>" for head in ("steps", "trials", *STATES))
    return (
        f'<h3>Ledger</h3><div class="scroll"><table><thead><tr><th>phase</th>{heads}</tr></thead>'
        f"<tbody>{body}</tbody><tfoot>{line('all', PHASES)}</tfoot></table></div>"
    )


def _compared(found: _Study, best: Sequence[tuple[TrialRow, Columns]]) -> str:
    if not best:
        return "<h2>LR schedules compared</h2><p>No search trial has a curve yet.</p>"
    tried = plots.in_order({row.lr_schedule for row in found.rows if row.phase == "search"})
    lr_of = {row.lr_schedule: f", lr {_number(row.lr)}" for row, _ in best}
    switches = "".join(
        f'<button type="button" aria-pressed="true" data-schedule="{escape(name)}">{_swatch(name)}'
        f"{escape(name)}{lr_of.get(name, '')}</button>"
        for name in tried
    )
    how = "lowest" if found.goal == "minimize" else "highest"
    return "".join(
        [
            "<h2>LR schedules compared</h2>",
            f"<p>The best search trial of each LR schedule: the {how} {escape(found.metric)} among the complete "
            "ones, else the one that got furthest.</p>",
            f'<div class="legend">{switches}</div><div class="two">',
            _chart("lr_curves", "Learning rate", heading=True),
            _chart("val_loss", "Validation loss", heading=True),
            _chart(
                "train_loss", "Training loss", heading=True,
                caption="Smoothed over a thirtieth of the steps; the raw loss is faint.",
            ),
            _chart(
                "loss_over_lr", f"Final {found.metric} over the learning rate", heading=True,
                caption="Every search trial. Filled: complete. Hollow: pruned, at its last validation. "
                "Cross at the edge: diverged.",
            ),
            "</div>",
        ]
    )  # fmt: skip


def _leaderboard(found: _Study) -> str:
    if not found.rows:
        return "<h2>Every trial</h2><p>No trial has ended yet.</p>"
    named = {name for row in found.rows for name in row.metrics}
    metrics = sorted(named, key=lambda name: (name != found.metric, name))
    heads = [
        ("trial", True), ("phase", False), ("state", False), ("LR schedule", False), ("lr", True),
        ("parameters", False), *((name, True) for name in metrics), ("steps", True), ("seconds", True), ("seed", True),
    ]  # fmt: skip
    head = "".join(
        f'<th{" class=n" * numeric}><button type="button">{escape(name)}</button></th>' for name, numeric in heads
    )
    winners = {(found.best or {}).get("trial"), *((found.best or {}).get("confirm_trials") or ())}
    ordered = [*found.leaders("search"), *found.leaders("confirm")]
    seen = {row.number for row in ordered}
    rest = sorted((row for row in found.rows if row.number not in seen), key=lambda row: row.number)
    ordered += [row for row in rest if row.phase != "range_test"] + [row for row in rest if row.phase == "range_test"]
    ordered.sort(key=lambda row: ("search", "confirm", "range_test").index(row.phase))
    body = "".join(_trial_line(row, metrics, row.number in found.curves, row.number in winners) for row in ordered)
    return (
        "<h2>Every trial</h2><p>A click on a heading sorts, a click on a trial's number shows its curves. "
        "The winner's trials are bold.</p>"
        '<div class="filters">'
        '<input id="filter-text" type="search" placeholder="Filter by text" aria-label="Filter by text">'
        f"{_select('phase', PHASES)}{_select('state', STATES)}"
        '<span class="soft" id="filter-count" aria-live="polite"></span></div>'
        f'<div class="scroll"><table id="trials"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _trial_line(row: TrialRow, metrics: Sequence[str], has_curve: bool, winner: bool) -> str:
    def cell(value: str | float, shown: str, numeric: bool = True, classes: str = "") -> str:
        key = "" if isinstance(value, float) and not math.isfinite(value) else escape(str(value))
        return f'<td class="{"n" if numeric else classes}" data-v="{key}">{shown}</td>'

    button = f'<button type="button" data-trial="{row.number}" aria-expanded="false">{row.number}</button>'
    reason = f'<br><span class="soft">{escape(row.reason)}</span>' if row.reason else ""
    phase, state = escape(row.phase), escape(row.state)
    swatch = _swatch(row.lr_schedule) if row.phase != "range_test" else ""
    parameters = _parameters(row.parameters)
    cells = [
        cell(row.number, button if has_curve else str(row.number)),
        cell(row.phase, phase.replace("_", " "), False),
        cell(row.state, f'<span class="state-{state}">{state}</span>{reason}', False, "wrap" if reason else ""),
        cell(row.lr_schedule, swatch + escape(row.lr_schedule), False),
        cell(row.lr, _number(row.lr)),
        cell(re.sub(r"<.*?>", "", parameters), parameters, False),
        *(cell(final(row, name), _figure(final(row, name))) for name in metrics),
        cell(row.steps, f"{row.steps:,}"),
        cell(row.duration_s, _number(row.duration_s)),
        cell(row.seed, str(row.seed)),
    ]
    best = " best" if winner else ""
    return f'<tr class="trial{best}" data-phase="{phase}" data-state="{state}">{"".join(cells)}</tr>'


def _reproduce(found: _Study) -> str:
    seed, confirm = found.config.get("seed"), (found.best or {}).get("seeds")
    space = yaml.safe_dump(dict(found.config), sort_keys=False, allow_unicode=True, width=100)
    facts: dict[str, Any] = {"created": found.study.get("created"), "seed": seed}
    if confirm:
        facts["seeds of the confirm phase"] = ", ".join(str(one) for one in confirm)
    facts |= found.study.get("hardware") or {}
    packages = found.study.get("packages") or {}
    return "".join(
        [
            "<h2>How to reproduce</h2>",
            "<p>Save the search space below as <code>space.yaml</code>, beside the Python files that it names, "
            "and run:</p>",
            _code("tune-lr search space.yaml" + (f" --seed {seed}" if seed is not None else "")),
            '<p class="soft" style="margin-top:10px">A trial is reproducible bit for bit; a whole study only with '
            "one slot, since answers arrive in another order.</p>",
            _definitions(facts),
            f"<h3>Packages</h3>{_definitions(packages)}" if packages else "",
            f"<details><summary>The search space</summary>{_code(space)}</details>" if found.config else "",
        ]
    )


# --- small pieces -------------------------------------------------------------------------------------------------


def _steps_by_phase(found: _Study) -> dict[str, int]:
    """Of the ledger in best.yaml; counted from the trials while there is none."""
    ledger = (found.best or {}).get("steps") or {}
    return {
        phase: int(ledger.get(phase, sum(row.steps for row in found.rows if row.phase == phase))) for phase in PHASES
    }


def _tile(label: str, value: str, note: str) -> str:
    """`label` is text; `value` and `note` are HTML."""
    return (
        f'<div class="tile"><div class="label">{escape(label)}</div>'
        f'<div class="value">{value}</div><div class="note">{note}</div></div>'
    )


def _code(text: str) -> str:
    return f'<div class="code"><pre><code>{escape(text.strip())}</code></pre><button type="button">Copy</button></div>'


def _definitions(facts: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in facts.items() if value not in (None, "")}
    lines = (f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>" for name, value in shown.items())
    return f"<dl>{''.join(lines)}</dl>"


def _chart(name: str, label: str, caption: str = "", heading: bool = False, tall: bool = False) -> str:
    size = "chart tall" if tall else "chart"
    return "".join(
        [
            "<figure>",
            f"<h3>{escape(label)}</h3>" if heading else "",
            f'<div class="{size}" data-chart="{name}" role="img" aria-label="{escape(label)}"></div>',
            f"<figcaption>{escape(caption)}</figcaption>" if caption else "",
            "</figure>",
        ]
    )


def _select(name: str, choices: Sequence[str]) -> str:
    options = "".join(f'<option value="{choice}">{choice.replace("_", " ")}</option>' for choice in choices)
    return f'<select id="filter-{name}" aria-label="{name}"><option value="">every {name}</option>{options}</select>'


def _swatch(schedule: str) -> str:
    style = plots.schedule_style(schedule)
    dashes = {"solid": "", "dash": ' stroke-dasharray="6 3"', "dot": ' stroke-dasharray="2 3"'}[style.dash]
    return (
        '<svg class="swatch" width="20" height="8" aria-hidden="true">'
        f'<path d="M0 4H20" stroke="{style.color}" stroke-width="3"{dashes}/></svg>'
    )


def _parameters(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{escape(name.split('.')[-1])} {_value(value)}" for name, value in parameters.items())


def _value(value: Any) -> str:
    return _number(value, 4) if isinstance(value, float) else escape(str(value))


def _number(value: Any, digits: int = 3) -> str:
    """A number as HTML, without padding: 0.31, 1e-5."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value) if isinstance(value, int) else number_text(value, digits)
    return "–" if value is None else escape(str(value))


def _figure(value: Any, digits: int = 4) -> str:
    """A result as HTML: always the same number of significant digits."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return f"{value:#.{digits}g}".rstrip(".") if value == 0 or 1e-4 <= abs(value) < 1e6 else number_text(value, digits)


def _brackets(interval: Sequence[float] | None) -> str:
    return f" [{_figure(interval[0], 3)}, {_figure(interval[1], 3)}]" if interval else ""


def _interval_text(interval: Sequence[float] | None, seeds: int) -> str:
    if not interval:
        return "one seed, so no interval" if seeds == 1 else ""
    return f"95 % interval{_brackets(interval)}, {seeds} seeds"


def _metric_name(metric: Any, otherwise: str) -> str:
    return str(metric["name"]) if isinstance(metric, Mapping) and metric.get("name") else otherwise


def _json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _replace(path: Path, content: bytes) -> None:
    """A reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
