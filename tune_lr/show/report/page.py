"""Render the report's page from the templates.

The page fetches nothing: its style, its script and the data of its charts stand in it. Every text is escaped by Jinja2
on its way into the page, and by `json_in_html` on its way into the script's data. No script but the page's own may run
in it: its content security policy knows that script by its hash.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from tune_lr.config.lengths import length_text
from tune_lr.records.looks import DASHES, Style, length_styles, schedule_color, schedule_style
from tune_lr.records.parameters import short_name
from tune_lr.records.phases import PHASES, STATES
from tune_lr.show.charts.model import sort_schedules
from tune_lr.show.charts.trials import last_value
from tune_lr.show.report.comparison import schedule_lines
from tune_lr.show.report.finalists import difference_text, facts_of, finalist_lines, tiles_of
from tune_lr.show.report.importance import FEWEST_TRIALS, importances
from tune_lr.show.report.leaderboard import leaderboard_of
from tune_lr.show.report.ledger import ledger_of, rungs_of
from tune_lr.show.report.overlays import Overlays
from tune_lr.show.report.pictures import Charts
from tune_lr.show.report.study import ReportedStudy
from tune_lr.show.text import MISSING, figure_text, interval_text, number_text


def render_page(study: ReportedStudy, overlays: Overlays, charts: Charts) -> str:
    """Return the page of a study."""
    environment = _environment()
    script = _file(environment, "report.js")
    answer = study.answer
    finalists = finalist_lines(answer) if answer else []
    return environment.get_template("report.html").render(
        policy=content_security_policy(script),
        css=_file(environment, "report.css"),
        script=script,
        charts_json=json_in_html(charts.drawings()),
        curves_json=json_in_html(charts.trial_drawings()),
        study=study,
        settings=study.settings,
        answer=answer,
        finalists=finalists,
        tiles=tiles_of(study, answer, finalists) if answer else [],
        facts=facts_of(answer) if answer else {},
        rungs=rungs_of(study),
        ledger=ledger_of(study),
        overlays=overlays,
        schedules=schedule_lines(study),
        importances=importances(study.searched, study.settings.metric, study.settings.goal),
        leaderboard=leaderboard_of(study),
        space=_space_yaml(study),
        view=study.ladder,
        lengths=_lengths(study),
    )


def content_security_policy(script: str) -> str:
    """Return the policy under which nothing is fetched, and this script alone runs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return "; ".join(
        [
            "default-src 'none'",
            "style-src 'unsafe-inline'",
            f"script-src 'sha256-{digest}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def json_in_html(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tune_lr.show.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "figure": figure_text,
        "interval": interval_text,
        "difference": difference_text,
        "parameters": _parameters,
        "style": schedule_style,
        "color": schedule_color,
        "dashes": _dashes,
        "sort_key": _sort_key,
        "sort_schedules": sort_schedules,
        "words": _words,
        "thousands": "{:,}".format,
    }
    environment.globals |= {
        "PHASES": PHASES,
        "STATES": STATES,
        "FEWEST_TRIALS": FEWEST_TRIALS,
        "last_value": last_value,
    }
    return environment


def _file(environment: Environment, name: str) -> str:
    """Return a file of `templates/` as it is."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _number(value: Any, digits: int = 3) -> str:
    """Return a value as text; a number without padding."""
    if isinstance(value, float):
        return number_text(value, digits)
    return MISSING if value is None else str(value)


def _parameters(parameters: Mapping[str, Any]) -> str:
    """Return "gamma 0.3, step_size 0.25"."""
    return ", ".join(f"{short_name(name)} {_number(value, 4)}" for name, value in parameters.items())


def _dashes(style: Style) -> str:
    """Return the dashes of a line three units wide, as SVG writes them."""
    return " ".join(str(3 * length) for length in DASHES[style.dash])


def _sort_key(value: Any) -> str:
    """Return the value by which the page's script sorts a cell; "" stands for a missing one."""
    return "" if isinstance(value, float) and not math.isfinite(value) else str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _lengths(study: ReportedStudy) -> list[tuple[str, Style]]:
    """Return the lengths of a ladder with their looks, for the switches of its charts."""
    valleys = study.ladder.schedules[0].valleys if study.ladder else ()
    styles = length_styles(len(valleys)) if valleys else []
    return [(length_text(valley.length), style) for valley, style in zip(valleys, styles, strict=True)]


def _space_yaml(study: ReportedStudy) -> str:
    """Return the search space as a user would save it."""
    return yaml.safe_dump(dict(study.settings.space), sort_keys=False, allow_unicode=True, width=100)
