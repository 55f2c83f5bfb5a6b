"""A study directory -> report.html, range_test/range_test.png and plots/*.png.

Reads files of the study directory only, whatever of them is there; so a report can be made again at any time, also
of a study that is unfinished or that found nothing. The page fetches nothing: its own script draws the charts. Every
text passes `escape` on its way into the page, and `_json` on its way into the script's data; and no script but the
page's own may run in it, which its content security policy knows by its hash.
"""

import base64
import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tune_lr.errors import ResourceError
from tune_lr.records.looks import DASHES, Style, schedule_color, schedule_style, told_apart
from tune_lr.records.parameters import BATCH_SIZE, OPTIMIZER, setting, short_name
from tune_lr.records.phases import STATES
from tune_lr.records.row import RAMP, TrialRow
from tune_lr.records.steps import equal_steps, steps_covered, steps_weight
from tune_lr.show import charts as plots
from tune_lr.show.charts import Chart, Columns, Shown, final, number_text
from tune_lr.store.study_dir import StudyDir

PHASES = ("range_test", "search", "confirm")
POINTS = 200  # of one curve among all trials'
FEWEST = 8  # trials from which a parameter's importance can be told
BEST = 3  # how many of the best are overlaid


def write_report(study: StudyDir) -> None:
    """Writes the report and its pictures from what the study directory holds."""
    found = _read(study)
    of = "of the best trial of each LR schedule"
    ramps = {name: plots.range_test_chart(one.ramps, one.bounds) for name, one in found.range_tests.items()}
    alone = {
        "timeline": plots.timeline_chart(found.rows),
        "lr_curves": plots.lr_chart(found.best_of_each, of),
        "train_loss": plots.train_loss_chart(found.best_of_each, of),
        "val_loss": plots.val_loss_chart(found.best_of_each, of),
        "loss_over_lr": plots.loss_over_lr_chart(found.rows, found.metric, found.goal),
    }
    study.plots.mkdir(exist_ok=True)
    study.range_test.mkdir(exist_ok=True)
    for name, chart in ramps.items():
        _replace(study.range_test / f"{name}.png", plots.png(chart))
    for name, chart in alone.items():
        _replace(study.plots / f"{name}.png", plots.png(chart))
    overlays = [*found.fixed, *([found.best_overlay] if found.best_overlay else [])]
    for overlay in overlays:
        _replace(study.plots / f"{overlay.file_name}.png", plots.png(*overlay.charts, title=overlay.title))
    charts = {name: plots.drawing(chart) for name, chart in {**ramps, **alone}.items()}
    for overlay in overlays:
        charts |= {f"{overlay.name}-{i}": plots.drawing(chart) for i, chart in enumerate(overlay.charts)}
    template = files("tune_lr.show.report").joinpath("templates/report.html").read_text(encoding="utf-8")
    page = {
        "policy": _policy(template),
        "title": escape(f"{found.name}: LR study"),
        "nav": _navigation(found),
        "answer": _answer(found),
        "found": _how_found(found),
        "compared": _compared(found),
        "configurations": _configurations(found),
        "leaderboard": _leaderboard(found),
        "reproduce": _reproduce(found),
        "charts": _json(charts),
        "curves": _json(_curves_of_trials(found)),
    }
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: page[match[1]], template)  # one pass: a value is never a template
    _replace(study.report_html, text.encode())


def _policy(template: str) -> str:
    """The content security policy: nothing is fetched, and the template's script alone runs."""
    script = template.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = ("default-src 'none'", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'", "base-uri 'none'")
    return "; ".join([*rules, "form-action 'none'"])


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _RangeTest:
    """The ramps of one combination of optimizer and batch size (`of` it, where there are several), and what was read
    off them."""

    of: str
    ramps: Sequence[Columns]
    bounds: Mapping[str, Any] | None


@dataclass(frozen=True)
class _Study:
    """What lies in a study directory."""

    name: str
    study: Mapping[str, Any]
    config: Mapping[str, Any]
    bounds: Mapping[str, Any] | None
    widened: Mapping[str, Any] | None
    best: Mapping[str, Any] | None
    ramps: Mapping[int, Columns]  # by the trial's number
    rows: Sequence[TrialRow]
    curves: Mapping[int, Columns]
    metric: str  # as files name it: val_loss, val_accuracy
    goal: str

    @cached_property
    def range_tests(self) -> dict[str, _RangeTest]:
        """By the names of their charts; the study's own first."""
        combinations: list[dict[str, Any]] = (self.bounds or {}).get("combinations") or []
        if not combinations:
            return {"range_test": _RangeTest("", list(self.ramps.values()), self.bounds)}
        own = {row.number: setting(row.parameters) for row in self.rows if row.phase == "range_test"}
        tests: dict[str, _RangeTest] = {}
        for bounds in combinations:
            of = own.get(bounds["ramps"][0], "")
            ramps = [ramp for number, ramp in self.ramps.items() if own.get(number) == of]
            tests[_file_name(f"range_test {of}" if tests else "range_test")] = _RangeTest(of, ramps, bounds)
        return tests

    def weight(self, row: TrialRow) -> float:
        """How many steps with the study's batch size one of the trial's counts."""
        return steps_weight(row.parameters.get(BATCH_SIZE), self.config.get("batch_size"))

    @cached_property
    def searched(self) -> list[TrialRow]:
        """The search phase's trials, without fixed ramps, which are no answer."""
        return [row for row in self.rows if row.phase == "search" and row.lr_schedule != RAMP]

    def leaders(self, phase: str) -> list[TrialRow]:
        """The complete trials of a phase, best first."""
        rows = self.searched if phase == "search" else [row for row in self.rows if row.phase == phase]
        rows = [row for row in rows if row.state == "complete" and math.isfinite(final(row, self.metric))]
        return sorted(rows, key=lambda row: final(row, self.metric), reverse=self.goal == "maximize")

    @cached_property
    def best_of_each(self) -> list[Shown]:
        """Of each LR schedule the search trial with the best final metric, else the one that got furthest."""
        best: dict[str, TrialRow] = {row.lr_schedule: row for row in reversed(self.leaders("search"))}
        for row in sorted(self.searched, key=lambda row: -row.steps):
            if row.number in self.curves:
                best.setdefault(row.lr_schedule, row)
        ordered = [best[name] for name in plots.in_order(best)]
        return [
            Shown(row, self.curves[row.number], _drawn(row), row.lr_schedule, schedule_style(row.lr_schedule),
                  row.parameters.get(BATCH_SIZE))
            for row in ordered if row.number in self.curves
        ]  # fmt: skip

    @cached_property
    def fixed(self) -> list["_Overlay"]:
        """The fixed configurations, those of one LR schedule together."""
        fixed = [row for row in self.rows if row.phase == "search" and row.label and row.number in self.curves]
        overlays = []
        for name in plots.in_order({row.lr_schedule for row in fixed}):
            own = [row for row in fixed if row.lr_schedule == name]
            overlays.append(_Overlay(f"fixed_{name}", f"Fixed configurations: {name}", self._told_apart(own)))
        return overlays

    @cached_property
    def best_overlay(self) -> "_Overlay | None":
        """The best of all search trials, each configuration once."""
        best: dict[tuple[Any, ...], TrialRow] = {}
        for row in self.leaders("search"):
            if row.number in self.curves:
                best.setdefault((row.lr_schedule, row.lr, *sorted(row.parameters.items())), row)
        first = list(best.values())[:BEST]
        title = f"The best {len(first)} search trials"
        return _Overlay("best_three", title, self._told_apart(first)) if len(first) > 1 else None

    def _told_apart(self, rows: Sequence[TrialRow]) -> list[Shown]:
        styles = told_apart([row.lr_schedule for row in rows])
        return [
            Shown(row, self.curves[row.number], _label(row), str(row.number), style, row.parameters.get(BATCH_SIZE))
            for row, style in zip(rows, styles, strict=True)
        ]


@dataclass(frozen=True)
class _Overlay:
    """Trials whose LR, training loss and validation loss are shown side by side, their curves overlaid."""

    name: str
    title: str
    shown: Sequence[Shown]

    @property
    def file_name(self) -> str:
        return _file_name(self.name)

    @cached_property
    def charts(self) -> list[Chart]:
        return [plots.lr_chart(self.shown, ""), plots.train_loss_chart(self.shown, ""),
                plots.val_loss_chart(self.shown, "")]  # fmt: skip


def _label(row: TrialRow) -> str:
    """What a trial is called beside others: its label, or schedule, LR and number."""
    return row.label or f"{_drawn(row)} (trial {row.number})"


def _drawn(row: TrialRow) -> str:
    return ", ".join(filter(None, [row.lr_schedule, f"lr {number_text(row.lr)}", setting(row.parameters)]))


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:80]


def _read(study: StudyDir) -> _Study:
    described = study.read_study()
    config = described.get("config") or {}
    metric = config.get("metric") or {}
    name = str(metric.get("name", "val_loss"))
    rows = study.read_rows() if study.trials_csv.exists() else []
    ramps = {int(path.stem.split("-")[1]): _curve(study, path) for path in study.range_curves()}
    curves = {row.number: _curve(study, study.curve(row.number)) for row in rows if row.phase != "range_test"}
    return _Study(
        name=str(described.get("name") or study.name),
        study=described,
        config=config,
        bounds=study.read_json(study.bounds_json) if study.bounds_json.exists() else None,
        widened=study.read_json(study.widened_json) if study.widened_json.exists() else None,
        best=study.read_yaml(study.best_yaml) if study.best_yaml.exists() else None,
        ramps={number: ramp for number, ramp in ramps.items() if ramp},
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


def _curves_of_trials(found: _Study) -> dict[int, list[dict[str, Any]]]:
    """The charts that open under a trial: its losses, and its LR."""
    charts = {}
    for row in found.rows:
        if row.number in found.curves:
            shown = Shown(row, found.curves[row.number], "", "", Style(schedule_color(row.lr_schedule)))
            both = (plots.loss_chart(shown, POINTS), plots.lr_chart([shown], "", POINTS))
            charts[row.number] = [plots.drawing(chart) for chart in both]
    return charts


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
            _how_sure(best),
            f'<div class="tiles">{"".join(_tile(*tile) for tile in tiles if tile)}</div>',
            f"<h3>The code</h3>{_code(best['code'])}" if best.get("code") else "",
            f"<h3>The winner exactly</h3>{_definitions(exact)}",
            _finalists(best, metric, found.goal),
        ]
    )


def _navigation(found: _Study) -> str:
    places = [("found", "How it was found"), ("compared", "LR schedules"), ("configurations", "Configurations"),
              ("leaderboard", "Every trial"), ("reproduce", "Reproduce")]  # fmt: skip
    links = (f'<a href="#{place}">{words}</a>' for place, words in places if place != "configurations" or found.fixed)
    return f"<nav>{''.join(links)}</nav>"


def _how_sure(best: Mapping[str, Any]) -> str:
    """A warning where the winner is no more than the first of several."""
    tied = [one for one in (best.get("finalists") or ())[1:] if not one.get("distinguishable", True)]
    if not tied:
        return ""
    names = ", ".join(f"{escape(str(one.get('lr_schedule')))} at lr {_number(one.get('lr'))}" for one in tied)
    interval = _negated(tied[0].get("difference_interval"))
    why = (
        f"the interval of {'their difference' if len(tied) == 1 else 'the differences'}, "
        f"{_brackets(interval).strip()}{'' if len(tied) == 1 else ' for the first'}, contains zero"
        if interval
        else "there is one seed of each, and so no interval"
    )
    return (
        f'<div class="note-box"><p><strong>The winner and {names} cannot be told apart:</strong> {why}. '
        "Any of them will do; more seeds (<code>confirm.max_seeds</code>) might tell them apart.</p></div>"
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
    searched = len(found.searched)
    text = f"None of {searched} search trials completed." if searched else "No search trial has ended yet."
    return f'<h1>No winner</h1><p class="verdict">{text}</p>'


def _runner_up_tile(runner_up: Mapping[str, Any] | None, metric: str) -> tuple[str, str, str] | None:
    if not runner_up:
        return None
    name = f"{escape(str(runner_up.get('lr_schedule')))}, lr&nbsp;{_number(runner_up.get('lr'))}"
    note = f"{escape(metric)} {_figure(runner_up.get('mean'))}"
    if runner_up.get("difference") is not None:
        note += f"; minus the winner {_minus_the_winner(runner_up)}"
    if not runner_up.get("distinguishable", True):
        note += "; cannot be told apart from the winner"
    return "Runner-up", name, note


def _minus_the_winner(one: Mapping[str, Any]) -> str:
    """Of a finalist; best.yaml has it the other way about."""
    return f"{_figure(-one['difference'], 2)}{_brackets(_negated(one.get('difference_interval')))}"


def _cost_tile(found: _Study) -> tuple[str, str, str] | None:
    steps = _steps_by_phase(found)
    if not any(steps.values()):
        return None
    full = ((found.best or {}).get("steps") or {}).get("full_trainings")
    if full is None and found.config.get("max_steps"):
        full = sum(row.steps * found.weight(row) for row in found.rows) / found.config["max_steps"]
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
        color = schedule_color(name)
        difference = "–"
        if one.get("difference") is not None:
            alike = "" if one.get("distinguishable", True) else '<br><span class="soft">cannot be told apart</span>'
            difference = f"{_minus_the_winner(one)}{alike}"
        strip = [f'<s style="left:{at(value)};background:{color}"></s>' for value in one.get("values") or []]
        if one.get("interval"):
            left, right = one["interval"]
            width = 94 * (right - left) / ((high - low) or 1)
            strip.append(f'<i style="left:{at(left)};width:{width:.1f}%;background:{color}"></i>')
        if one.get("mean") is not None:
            strip.append(f'<b style="left:{at(one["mean"])};background:{color}"></b>')
        lines.append(
            f"<tr><td>{_swatch(schedule_style(name))}{escape(name)}</td><td class=n>{_number(one.get('lr'))}</td>"
            f"<td class=wrap>{_parameters(one.get('parameters') or {})}</td><td class=n>{_figure(one.get('mean'))}</td>"
            f"<td class=n>{_brackets(one.get('interval'))}</td><td class=n>{difference}</td>"
            f'<td><div class="interval">{"".join(strip)}</div></td></tr>'
        )
    direction = "lower is better" if goal == "minimize" else "higher is better"
    return (
        '<h3>Finalists</h3><div class="scroll"><table><thead><tr><th>LR schedule</th><th class=n>lr</th>'
        f"<th>parameters</th><th class=n>{escape(metric)}</th><th class=n>95 % interval</th>"
        "<th class=n>minus the winner</th><th>over seeds</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        f'<p class="soft">Dot: mean. Line: 95 % interval. Ticks: single seeds. {direction.capitalize()}. '
        "Minus the winner: paired by seed; the interval takes its noise from all finalists, and is wide enough to hold "
        "for all of them at once. Who is a finalist is judged with the neighbours of each trial in view: the lowest "
        "figure of one seed is often luck.</p>"
    )


def _how_found(found: _Study) -> str:
    parts = ["<h2>How it was found</h2>"]
    if found.bounds is None:
        text = "The LR range test has no result yet." if found.ramps else "No LR range test was run."
        parts.append(f"<p>{text}</p>")
    else:
        parts += [_read_off(one) for one in found.range_tests.values()]
    if found.widened:
        low, high, lr = (_number(found.widened.get(name)) for name in ("low", "high", "lr"))
        text = (
            f"After {found.widened.get('after')} trials the best one, at lr {lr}, lay at the edge of these bounds: the "
        )
        parts.append(f'<div class="note-box"><p>{text}search went on from {low} to {high}.</p></div>')
    for name, one in found.range_tests.items():
        if one.ramps:
            of = f" of {one.of}" if one.of else ""
            parts.append(
                _chart(name, f"LR range test{of}: loss over the ramped LR", height=390, heading=bool(one.of),
                       caption="Grey: the loss of each ramp. Blue: smoothed. Green: the bounds, dashed the suggestion.")
            )  # fmt: skip
    if found.rows:
        phases = "Faint: pruned. Cross: diverged or failed. Green lines: where a phase began."
        names = plots.in_order({row.lr_schedule for row in found.rows})
        switches = [(name, name, schedule_style(name)) for name in names]
        parts.append(f'<h3>Trials over slots</h3><div class="group">{_legend(switches)}')
        height = min(420, 90 + 34 * len({row.slot for row in found.rows}))
        parts.append(f"{_chart('timeline', 'Trials over slots', caption=phases, height=height)}</div>")
    parts += [_rungs(found), _ledger(found)]
    return "".join(parts)


def _read_off(one: _RangeTest) -> str:
    """The bounds, or why there are none."""
    bounds, of = one.bounds or {}, f" of {escape(one.of)}" if one.of else ""
    status, reason = str(bounds.get("status", "")), escape(str(bounds.get("reason") or ""))
    if status != "ok":
        text = f"The LR range test{of} found no bounds ({escape(status)}): {reason}"
        return f'<div class="note-box"><p>{text}</p></div>'
    low, high, suggested = (_number(bounds.get(name)) for name in ("low", "high", "suggestion"))
    text = f"LR range test{of}: the peak LR was searched between {low} and {high}; suggestion {suggested}."
    return f"<p>{text}</p>" + (f'<p class="soft">{reason}</p>' if reason else "")


def _rungs(found: _Study) -> str:
    """Where trials were pruned."""
    compared = [row for row in found.searched if not row.label]
    pruned = [row for row in compared if row.state == "pruned"]
    if not pruned:
        return ""
    lines = []
    at = {row.number: _rung(found, row) for row in compared}
    for step in sorted({at[row.number] for row in pruned}):
        there = sum(at[row.number] >= step for row in compared)
        own = Counter(row.lr_schedule for row in pruned if at[row.number] == step)
        names = ", ".join(f"{escape(name)} {own[name]}" for name in plots.in_order(own))
        cells = f"<td class=n>{step:,}</td><td class=n>{there}</td><td class=n>{own.total()}</td>"
        lines.append(f"<tr>{cells}<td class=wrap>{names}</td></tr>")
    return (
        '<h3>Pruning</h3><div class="scroll"><table class="narrow"><thead>'
        "<tr><th class=n>at step</th><th class=n>trials there</th>"
        "<th class=n>pruned there</th><th>of the LR schedules</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _rung(found: _Study, row: TrialRow) -> int:
    """The step at which a trial ended; where batch sizes are searched, of the study's own, and at the last report."""
    every, base = found.config.get("report_every"), found.config.get("batch_size")
    size = row.parameters.get(BATCH_SIZE)
    return steps_covered(row.steps, base, size) // every * every if every and base and size else row.steps


def _ledger(found: _Study) -> str:
    if not found.rows:
        return "<h3>Ledger</h3><p>No trial has ended yet.</p>"
    saved = _saved(found)
    columns: dict[str, Mapping[str, int]] = {
        "steps": _steps_by_phase(found),
        "trials": Counter(row.phase for row in found.rows),
        **{state: Counter(row.phase for row in found.rows if row.state == state) for state in STATES},
        "steps saved by pruning": {phase: saved[phase, "pruned"] for phase in PHASES},
        "steps saved by ending what diverged": {phase: saved[phase, "diverged"] for phase in PHASES},
    }
    shown = {name: column for name, column in columns.items() if any(column.values())}

    def line(label: str, phases: Sequence[str]) -> str:
        cells = [f"{sum(column.get(phase, 0) for phase in phases):,}" for column in shown.values()]
        return f"<tr><td>{label}</td>{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>"

    body = "".join(line(phase.replace("_", " "), [phase]) for phase in PHASES)
    heads = "".join(f"<th class=n>{head}</th>" for head in shown)
    spent, spared = sum(columns["steps"].values()), saved.total()
    budget = found.config.get("budget")
    sentence = (
        f"Every trial to its end would have taken {spent + spared:,} steps; {spared:,} of them, "
        f"{100 * spared / (spent + spared):.0f} %, were not taken."
        if spared
        else "Every trial was trained to its end."
    )
    sentence = f"Budget: {escape(str(budget))}. {sentence}" if budget else sentence
    return (
        f'<h3>Ledger</h3><div class="scroll"><table class="narrow"><thead><tr><th>phase</th>{heads}</tr></thead>'
        f'<tbody>{body}</tbody><tfoot>{line("all", PHASES)}</tfoot></table></div><p class="soft">{sentence}</p>'
    )


def _saved(found: _Study) -> Counter[tuple[str, str]]:
    """Steps that a trial did not take, by phase and by what ended it: "pruned" or "diverged"."""
    ramp, most = found.config.get("range_test") or {}, int(found.config.get("max_steps") or 0)
    saved: Counter[tuple[str, str]] = Counter()
    for row in found.rows:
        base, size = found.config.get("batch_size"), row.parameters.get(BATCH_SIZE)
        planned = equal_steps(most, base, size) if base and size else most
        ended = "diverged" if row.lr_schedule == RAMP else row.state
        if row.phase == "range_test":  # of a ramp that was extended the plan is not on disk
            planned = int(ramp.get("steps") or 0) if row.lr == ramp.get("high") else 0
        if ended in ("pruned", "diverged"):
            saved[row.phase, ended] += max(0, planned - row.steps)
    return saved


def _compared(found: _Study) -> str:
    best = found.best_of_each
    if not best:
        return "<h2>LR schedules compared</h2><p>No search trial has a curve yet.</p>"
    of = {one.row.lr_schedule: one.label for one in best}
    names = plots.in_order({row.lr_schedule for row in found.searched})
    switches = [(name, of.get(name, name), schedule_style(name)) for name in names]
    how = "lowest" if found.goal == "minimize" else "highest"
    return "".join(
        [
            "<h2>LR schedules compared</h2>",
            f"<p>The best search trial of each LR schedule: the {how} {escape(found.metric)} among the complete "
            "ones, else the one that got furthest. A click on a name hides its curves.</p>",
            f'<div class="group">{_legend(switches)}<div class="two">',
            _chart("lr_curves", "Learning rate", heading=True),
            _chart("val_loss", "Validation loss", heading=True),
            _chart(
                "train_loss", "Training loss", heading=True,
                caption="A running mean over a thirtieth of the steps; the raw loss is faint.",
            ),
            _chart(
                "loss_over_lr", f"Final {found.metric} over the learning rate", heading=True,
                caption="Every search trial. Filled: complete. Hollow: pruned, at its last validation. "
                "Cross at the edge: diverged.",
            ),
            "</div></div>",
            _by_schedule(found),
            _importance(found),
            "" if found.fixed else _best_overlaid(found),
        ]
    )  # fmt: skip


def _by_schedule(found: _Study) -> str:
    names = plots.in_order({row.lr_schedule for row in found.searched})
    best = {row.lr_schedule: row for row in reversed(found.leaders("search"))}
    place = {row.lr_schedule: i for i, row in reversed(list(enumerate(found.leaders("search"))))}
    finalists = [one for one in (found.best or {}).get("finalists") or () if one.get("confirm_trials")]
    confirmed = {one.get("lr_schedule"): one for one in reversed(finalists)}  # the best of each
    lines = []
    for name in sorted(names, key=lambda name: place.get(name, math.inf)):
        own = [row for row in found.searched if row.lr_schedule == name]
        figures = [_figure(final(best[name], found.metric)), _number(best[name].lr)] if name in best else ["–", "–"]
        one = confirmed.get(name, {})
        figures += [f"{_figure(one.get('mean'))}{_brackets(one.get('interval'))}", _number(one.get("lr"))]
        states = [sum(row.state == state for row in own) for state in STATES]
        cells = [*figures, len(own), *states, f"{sum(row.steps for row in own):,}"]
        swatch = _swatch(schedule_style(name))
        lines.append(f"<tr><td>{swatch}{escape(name)}</td>{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>")
    heads = (f"best {found.metric}", "at lr", "confirmed", "at lr", "trials", *STATES, "steps")
    return (
        '<h3>By LR schedule</h3><div class="scroll"><table class="narrow"><thead><tr><th>LR schedule</th>'
        f"{''.join(f'<th class=n>{escape(head)}</th>' for head in heads)}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        '<p class="soft">Each LR schedule at the LR that was best for it. Best: one seed, the luckiest of the trials; '
        "confirmed: the best of its finalists, which may be another trial: the mean and its 95 % interval over fresh "
        "seeds.</p>"
    )


def _importance(found: _Study) -> str:
    """What explains the differences between trials, strongest first: over all trials, then within each LR schedule."""
    everything = importances(found.searched, found.metric, found.goal)
    if not everything:
        return ""
    lines = []
    for one in everything:
        swatch = _swatch(schedule_style(one.among)) if one.among else ""
        percent = f"{100 * one.share:.0f}"
        lines.append(
            f"<tr><td>{escape(one.parameter)}</td><td>{swatch}{escape(one.among) or 'all'}</td>"
            f"<td class=n>{one.trials}</td><td class=n>{percent} %</td>"
            f'<td><span class="bar"><i style="width:{percent}%"></i></span></td></tr>'
        )
    return (
        '<h3>What mattered</h3><div class="scroll"><table class="narrow"><thead>'
        "<tr><th>parameter</th><th>among the trials of</th>"
        "<th class=n>trials</th><th class=n>explains</th><th></th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        '<p class="soft">The share of the differences in rank that a parameter explains by itself, less what chance '
        "would explain (ε² over bins of equal size). Pruned trials rank behind the complete ones, and "
        f"diverged ones last. From {FEWEST} trials on; with few, read it as a hint.</p>"
    )


def _configurations(found: _Study) -> str:
    if not found.fixed:
        return ""
    return (
        '<section id="configurations"><h2>Configurations compared</h2><p>The configurations that were given, not '
        "searched: those of one LR schedule overlaid. None was pruned.</p>"
        f"{''.join(_overlaid(overlay) for overlay in found.fixed)}{_best_overlaid(found)}</section>"
    )


def _best_overlaid(found: _Study) -> str:
    return _overlaid(found.best_overlay) if found.best_overlay else ""


def _overlaid(overlay: _Overlay) -> str:
    switches = [(one.key, one.label, one.style) for one in overlay.shown]
    names = ("Learning rate", "Training loss", "Validation loss")
    charts = (_chart(f"{overlay.name}-{i}", name, heading=True) for i, name in enumerate(names))
    return (
        f'<h3>{escape(overlay.title)}</h3><div class="group">{_legend(switches)}'
        f'<div class="three">{"".join(charts)}</div></div>'
    )


def _leaderboard(found: _Study) -> str:
    if not found.rows:
        return "<h2>Every trial</h2><p>No trial has ended yet.</p>"
    labels = any(row.label for row in found.rows)
    named = {name for row in found.rows for name in row.metrics}
    metrics = sorted(named, key=lambda name: (name != found.metric, name))
    heads = [
        ("trial", True), *[("label", False)] * labels, ("phase", False), ("state", False), ("LR schedule", False),
        ("lr", True), ("parameters", False), *((name, True) for name in metrics), ("steps", True), ("seconds", True),
        ("seed", True),
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
    body = "".join(
        _trial_line(row, metrics, row.number in found.curves, row.number in winners, labels) for row in ordered
    )
    schedules = plots.in_order({row.lr_schedule for row in found.rows})
    return (
        "<h2>Every trial</h2><p>A click on a heading sorts, a click on a trial's number shows its curves. "
        "The winner's trials are bold.</p>"
        '<div class="filters">'
        '<input id="filter-text" type="search" placeholder="Filter by text" aria-label="Filter by text">'
        f"{_select('phase', PHASES)}{_select('state', STATES)}{_select('schedule', schedules)}"
        '<span class="soft" id="filter-count" aria-live="polite"></span></div>'
        f'<div class="scroll"><table id="trials"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _trial_line(row: TrialRow, metrics: Sequence[str], has_curve: bool, winner: bool, labels: bool) -> str:
    def cell(value: str | float, shown: str, numeric: bool = True, classes: str = "") -> str:
        key = "" if isinstance(value, float) and not math.isfinite(value) else escape(str(value))
        return f'<td class="{"n" if numeric else classes}" data-v="{key}">{shown}</td>'

    button = f'<button type="button" data-trial="{row.number}" aria-expanded="false">{row.number}</button>'
    reason = f'<br><span class="soft">{escape(row.reason)}</span>' if row.reason else ""
    phase, state = escape(row.phase), escape(row.state)
    swatch = _swatch(schedule_style(row.lr_schedule))
    cells = [
        cell(row.number, button if has_curve else str(row.number)),
        *[cell(row.label, escape(row.label), False, "wrap" if len(row.label) > 16 else "")] * labels,
        cell(row.phase, phase.replace("_", " "), False),
        cell(row.state, f'<span class="state-{state}">{state}</span>{reason}', False, "wrap" if reason else ""),
        cell(row.lr_schedule, swatch + escape(row.lr_schedule), False),
        cell(row.lr, _number(row.lr)),
        cell(" ".join(map(str, row.parameters.values())), _parameters(row.parameters), False),
        *(cell(final(row, name), _figure(final(row, name))) for name in metrics),
        cell(row.steps, f"{row.steps:,}"),
        cell(row.duration_s, _number(row.duration_s)),
        cell(row.seed, str(row.seed)),
    ]
    best = " best" if winner else ""
    schedule = escape(row.lr_schedule)
    marked = f'data-phase="{phase}" data-state="{state}" data-schedule="{schedule}"'
    return f'<tr class="trial{best}" {marked}>{"".join(cells)}</tr>'


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


# --- what mattered -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Importance:
    """How much of the differences between trials one parameter explains by itself: `share`, from 0 to 1."""

    parameter: str
    among: str  # the LR schedule whose trials were looked at; empty: all
    trials: int
    share: float


def importances(rows: Sequence[TrialRow], metric: str, goal: str) -> list[Importance]:
    """Of the LR schedule and the LR over all trials, of the LR and a schedule's own parameters within each schedule.

    The correlation ratio of ranks, adjusted for chance (Kelley's epsilon squared, 1935): trials are put into groups, by
    the value itself where it is a word or takes few values, else by quantiles; the share is how much less ranks vary
    within groups than over all. Ranks need no rule for losses without bounds: trials that completed are ranked by
    their metric, behind them the pruned ones and then the diverged ones, each by the steps they took.
    """
    sign = -1.0 if goal == "maximize" else 1.0
    ends = ("complete", "pruned", "diverged")
    rows = [row for row in rows if row.state == "diverged" or math.isfinite(final(row, metric))]
    rows = [row for row in rows if row.state in ends]

    def quality(row: TrialRow) -> tuple[float, ...]:
        steps = 0 if row.state == "complete" else -row.steps
        return ends.index(row.state), steps, sign * final(row, metric) if row.state != "diverged" else 0.0

    def share(own: Sequence[TrialRow], values: Sequence[Any]) -> float | None:
        ordered = sorted({quality(row) for row in own})
        return _explained(values, [ordered.index(quality(row)) for row in own])

    found = []
    everything: list[tuple[str, str, Sequence[TrialRow], Sequence[Any]]] = [
        ("lr_schedule", "", rows, [row.lr_schedule for row in rows]),
        ("lr", "", rows, [math.log(row.lr) for row in rows]),
    ]
    for name in (f"{OPTIMIZER}name", BATCH_SIZE):  # which belong to no LR schedule
        having = [row for row in rows if name in row.parameters]
        everything.append((short_name(name), "", having, [row.parameters[name] for row in having]))
    for name in plots.in_order({row.lr_schedule for row in rows}):
        own = [row for row in rows if row.lr_schedule == name]
        everything.append(("lr", name, own, [math.log(row.lr) for row in own]))
        for parameter in sorted({key for row in own for key in row.parameters}):
            having = [row for row in own if parameter in row.parameters]
            values = [row.parameters[parameter] for row in having]
            everything.append((short_name(parameter), name, having, values))
    for parameter, among, trials, taken in everything:
        explained = share(trials, taken)
        if explained is not None:
            found.append(Importance(parameter, among, len(trials), explained))
    return sorted(found, key=lambda one: (bool(one.among), -one.share))


def _explained(values: Sequence[Any], ranks: Sequence[float]) -> float | None:
    """Epsilon squared of the ranks over the groups of values; None where there is too little to tell."""
    if len(values) < FEWEST or len(set(map(str, values))) < 2:
        return None
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numbers and len(set(values)) > 5:
        bins = min(6, len(values) // 4)
        edges = np.quantile(np.array(values, dtype=float), np.linspace(0, 1, bins + 1)[1:-1])
        groups = np.searchsorted(edges, np.array(values, dtype=float), side="right")
    else:
        groups = np.unique([str(value) for value in values], return_inverse=True)[1]
    y = np.asarray(ranks, dtype=float)
    kinds = np.unique(groups)
    total = float(((y - y.mean()) ** 2).sum()) / (len(y) - 1)
    if len(kinds) < 2 or len(kinds) >= len(y) or not total:
        return None
    inside = sum(float(((y[groups == kind] - y[groups == kind].mean()) ** 2).sum()) for kind in kinds)
    return max(0.0, 1.0 - inside / (len(y) - len(kinds)) / total)


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


def _chart(name: str, label: str, caption: str = "", heading: bool = False, height: int | None = None) -> str:
    style = f' style="height:{height}px"' if height else ""
    return "".join(
        [
            "<figure>",
            f"<h3>{escape(label)}</h3>" if heading else "",
            f'<div class="chart" data-chart="{escape(name)}" role="img" aria-label="{escape(label)}"{style}></div>',
            f"<figcaption>{escape(caption)}</figcaption>" if caption else "",
            "</figure>",
        ]
    )


def _legend(switches: Sequence[tuple[str, str, Style]]) -> str:
    """Buttons that hide the curves of a key: (key, what it is called, its look)."""
    buttons = (
        f'<button type="button" aria-pressed="true" data-key="{escape(key)}">{_swatch(style)}{escape(label)}</button>'
        for key, label, style in switches
    )
    return f'<div class="legend">{"".join(buttons)}</div>'


def _select(name: str, choices: Sequence[str]) -> str:
    words = {choice: choice.replace("_", " ") if choice in PHASES else choice for choice in choices}
    options = "".join(f'<option value="{escape(choice)}">{escape(said)}</option>' for choice, said in words.items())
    return f'<select id="filter-{name}" aria-label="{name}"><option value="">every {name}</option>{options}</select>'


def _swatch(style: Style) -> str:
    dashes = " ".join(str(3 * length) for length in DASHES[style.dash])
    return (
        '<svg class="swatch" width="26" height="8" aria-hidden="true">'
        f'<path d="M0 4H26" stroke="{style.color}" stroke-width="3" stroke-dasharray="{dashes}"/></svg>'
    )


def _parameters(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{escape(short_name(name))} {_value(value)}" for name, value in parameters.items())


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


def _negated(interval: Sequence[float] | None) -> list[float] | None:
    return [-interval[1], -interval[0]] if interval else None


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
