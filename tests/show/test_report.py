"""The report of a synthetic study: what it says, what it must not fetch, and what it does where pieces are missing."""

import json
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sample_study import CODE, CONFIG, CONFIRM, FIXED, SEARCH, write_sample_study
from simulated import SMALL, execute
from tune_lr.cli.main import main
from tune_lr.config.load import parse_config
from tune_lr.lr.schedules import SCHEDULES as LR_SCHEDULES
from tune_lr.records.looks import SCHEDULES, schedule_color, schedule_style, told_apart
from tune_lr.records.row import TrialRow
from tune_lr.session import create
from tune_lr.show.charts.model import Axis, thin
from tune_lr.show.charts.png import log_ticks
from tune_lr.show.report import write_report
from tune_lr.show.report.importance import importances
from tune_lr.show.report.write import write_page
from tune_lr.show.text import number_text
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.study import Study


class Page(HTMLParser):
    """What a browser would see of report.html: elements, text, and the data of its charts."""

    def __init__(self, study: StudyDir) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.source = study.report_html.read_text()
        self.text = ""
        self._inside = ""
        self.scripts: list[str] = []
        self.feed(self.source)
        self.text = " ".join(unescape(self.text).split())
        kinds = [
            (attributes.get("id"), attributes.get("type")) for name, attributes in self.elements if name == "script"
        ]
        assert kinds == [("charts", "application/json"), ("curves", "application/json"), (None, None)]
        self.charts: dict[str, Any] = json.loads(self.scripts[0])
        self.curves: dict[str, Any] = json.loads(self.scripts[1])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text += f" {data}"

    def trials(self) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == "tr" and "data-phase" in attributes]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    study = write_sample_study(tmp_path_factory.mktemp("studies") / "sample", fixed=True)
    write_report(study)
    return study


@pytest.fixture(scope="module")
def page(study: StudyDir) -> Page:
    return Page(study)


def _png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", header[16:24])
    return width, height


def test_the_answer_comes_first(page: Page) -> None:
    _, body, _ = page.text.split("How it was found")  # in the navigation, and as a heading
    for said in ("onecycle, lr 0.31", "is better than cosine", "95 % interval", "2 seeds", "0.9725", "Runner-up",
                 "{name: sgd, momentum: 0.9}"):  # fmt: skip
        assert said in body
    assert " ".join(CODE.split()) in body


def test_every_trial_has_a_row_and_every_trained_one_its_curve(page: Page) -> None:
    trained = len(SEARCH) + len(CONFIRM) + len(FIXED)
    assert len(page.trials()) == 3 + trained
    assert {row["data-state"] for row in page.trials()} == {"complete", "pruned", "diverged", "failed"}
    assert set(page.curves) == {str(number) for number in range(3, 3 + trained)}


def test_sections_in_order(page: Page) -> None:
    ids = [attributes["id"] for name, attributes in page.elements if name == "section"]
    assert ids == ["answer", "found", "compared", "configurations", "leaderboard", "reproduce"]
    links = [str(attributes["href"]) for name, attributes in page.elements if name == "a"]
    assert links == [f"#{one}" for one in ids[1:]]
    assert "tune-lr search space.yaml --seed 0" in page.text
    assert "colossalai 0.5.0" in page.text


def test_nothing_is_fetched(page: Page) -> None:
    for name, attributes in page.elements:
        assert name not in ("link", "img", "iframe", "object", "embed", "base"), name
        for attribute in ("src", "href", "srcset", "action"):
            assert str(attributes.get(attribute, "#")).startswith("#"), (name, attributes)
    policy = next(attributes for _, attributes in page.elements if "http-equiv" in attributes)
    assert "default-src 'none'" in str(policy["content"])
    assert "script-src 'sha256-" in str(policy["content"])
    style = page.source.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_the_ledger_counts_states_and_steps(page: Page) -> None:
    assert "search 3,847 17 11 3 2 1 589 555" in page.text
    assert "confirm 1,240 4 4 0 0 0 0 0" in page.text
    assert "range test 798 3 3 0 0 0 0 102" in page.text
    assert "Every trial to its end would have taken 7,131 steps; 1,246 of them, 17 %, were not taken." in page.text


def test_pruning_counts_trials_at_each_rung_without_the_fixed_ones(page: Page) -> None:
    assert "62 9 1 cyclic 1 93 8 1 step 1 186 7 1 cyclic 1" in page.text


def test_one_colour_per_schedule_and_stairs_for_steps(page: Page) -> None:
    for name in ("timeline", "lr_curves", "train_loss", "val_loss", "loss_over_lr"):
        for series in page.charts[name]["series"]:
            assert series["color"] == schedule_color(series["key"]), name
    stairs = {series["key"]: "stairs" in series for series in page.charts["lr_curves"]["series"]}
    assert stairs["step"]
    assert not stairs["cosine"]
    assert set(stairs) == {"constant", "step", "exponential", "cosine", "onecycle", "cyclic"}


def test_the_best_of_a_schedule_is_complete_else_the_one_that_got_furthest(page: Page) -> None:
    names = {series["key"]: series["name"] for series in page.charts["val_loss"]["series"]}
    assert names["onecycle"] == "onecycle, lr 0.4"  # a fixed configuration may be the best
    assert names["constant"] == "constant, lr 0.05"
    assert names["cyclic"] == "cyclic, lr 0.26"  # none is complete


def test_fixed_configurations_of_a_schedule_are_overlaid(page: Page) -> None:
    """Learning rate, training loss, validation loss: each configuration by its label, in a look of its own."""
    labels = {"step": ["gamma 0.3", "gamma 0.5", "gamma 0.8"], "onecycle": ["peak 0.1", "peak 0.4"]}
    for name, own in labels.items():
        for i in range(3):
            lines = [one for one in page.charts[f"fixed_{name}-{i}"]["series"] if not one.get("silent")]
            assert [one["name"] for one in lines] == own
            looks = {(one["color"], tuple(one["dash"])) for one in lines}
            assert len(looks) == len({color for color, _ in looks}) == len(own)
        peaks = [max(one["y"]) for one in page.charts[f"fixed_{name}-0"]["series"]]
        assert peaks == pytest.approx([0.2] * 3 if name == "step" else [0.1, 0.4], rel=0.01)


def test_the_best_three_of_all_are_overlaid(page: Page) -> None:
    for i in range(3):
        lines = [one for one in page.charts[f"best_three-{i}"]["series"] if not one.get("silent")]
        assert [one["name"] for one in lines] == ["peak 0.4", "onecycle, lr 0.31 (trial 3)", "gamma 0.8"]


def test_without_fixed_configurations_there_is_no_section_of_them(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study")
    write_page(study)
    page = Page(study)
    assert "Configurations compared" not in page.text
    assert not any(attributes.get("href") == "#configurations" for _, attributes in page.elements)
    assert not any(name.startswith("fixed") for name in page.charts)
    assert "The best 3 search trials" in page.text
    assert "label" not in page.text.partition("Every trial")[2]


def test_a_fixed_ramp_is_shown_and_is_no_answer(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study", best=False, fixed=True)
    study.write_rows(
        [replace(row, lr_schedule="ramp") if row.label == "peak 0.4" else row for row in study.read_rows()]
    )
    write_page(study)
    page = Page(study)
    assert "fixed_ramp-0" in page.charts
    assert "onecycle at lr 0.31 leads the search" in page.text
    assert "ramp" not in {series["key"] for series in page.charts["loss_over_lr"]["series"]}
    assert next(one["name"] for one in page.charts["best_three-0"]["series"]) == "onecycle, lr 0.31 (trial 3)"


def test_the_timeline_has_every_trial_on_its_slot(study: StudyDir, page: Page) -> None:
    drawn = sorted((one["y"][0], one["x"][0]) for one in page.charts["timeline"]["series"] if "width" in one)
    expected = sorted((row.slot, row.started_s) for row in study.read_rows())
    assert drawn == [pytest.approx(one, abs=0.01) for one in expected]
    assert [mark["label"] for mark in page.charts["timeline"]["marks"]] == ["search", "confirm"]


def test_states_are_told_apart_over_lr(page: Page) -> None:
    markers = [series["marker"] for series in page.charts["loss_over_lr"]["series"] for _ in series["x"]]
    assert markers.count("hollow") == 3
    assert markers.count("cross") == 2
    assert len(markers) == 11 + len(FIXED)  # a failed trial has no place


def test_pictures(study: StudyDir) -> None:
    pictures = [study.range_test_png, *sorted(study.plots.iterdir())]
    assert [path.stem for path in pictures] == [
        "range_test", "best_three", "fixed_onecycle", "fixed_step", "loss_over_lr", "lr_curves", "timeline",
        "train_loss", "val_loss",
    ]  # fmt: skip
    for path in pictures:
        width, height = _png_size(path)
        assert width >= 1000
        assert height >= 600
        assert path.stat().st_size > 15_000


def test_made_again_it_is_the_same(study: StudyDir) -> None:
    before = study.report_html.read_bytes()
    write_page(study)
    assert study.report_html.read_bytes() == before


def test_texts_of_users_are_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    study = write_sample_study(tmp_path / "study")
    hostile: dict[str, Any] = {"lr_schedule": evil, "reason": evil, "parameters": {f"x.{evil}": evil}, "label": evil}
    study.write_rows([replace(row, **hostile) if row.number in (3, 6) else row for row in study.read_rows()])
    described = study.read_study()
    study.write_yaml(
        study.study_yaml,
        {**described, "name": evil, "packages": {evil: evil}, "hardware": {evil: evil},
         "config": {**described["config"], "workload": evil, "{{answer}}": "{{data}}"}},
    )  # fmt: skip
    bounds = study.read_json(study.bounds_json)
    study.write_json(study.bounds_json, {**bounds, "reason": f"{evil} $x_{{$"})
    best = study.read_yaml(study.best_yaml)
    best |= {"lr_schedule": evil, "verdict": evil, "code": evil, "optimizer": {"name": evil}, "test": {evil: 0.5}}
    best["runner_up"]["lr_schedule"] = best["finalists"][0]["lr_schedule"] = evil
    study.write_yaml(study.best_yaml, best)

    write_page(study)

    page = Page(study)
    assert "<script>alert" not in page.source
    assert page.text.count(evil) >= 8
    assert "{{data}}" in page.text
    assert all(path.parent == study.plots for path in study.root.rglob("fixed_*"))


def test_an_unfinished_study_says_who_leads(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study", best=False)
    write_page(study)
    text = Page(study).text
    assert "No winner yet" in text
    assert "onecycle at lr 0.31 leads the search" in text


def test_a_study_without_complete_trials_has_no_winner(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study", best=False)
    study.write_rows([row for row in study.read_rows() if row.phase == "search" and row.state != "complete"])
    write_page(study)
    assert "None of 6 search trials completed" in Page(study).text


@pytest.mark.parametrize("status", ["no_descent", "no_divergence", "diverged_at_start"])
def test_a_range_test_without_bounds_says_why(tmp_path: Path, status: str) -> None:
    study = write_sample_study(tmp_path / "study")
    nothing = {"low": None, "high": None, "suggestion": None}
    study.write_json(study.bounds_json, {**nothing, "status": status, "reason": "because of this", "replicates": 3})
    write_page(study)
    page = Page(study)
    assert f"found no bounds ({status}): because of this" in page.text
    assert not {"band", "marks"} & page.charts["range_test"].keys()


def test_pieces_that_are_missing(tmp_path: Path) -> None:
    study = StudyDir(tmp_path / "bare")
    study.create({"name": "bare", "config": CONFIG})
    write_report(study)
    text = Page(study).text
    assert "No search trial has ended yet" in text
    assert "No LR range test was run" in text


def test_more_pieces_that_are_missing(tmp_path: Path) -> None:
    partly = write_sample_study(tmp_path / "partly", bounds=False)
    partly.curve(3).unlink()
    partly.curve(4).write_text("")
    best = partly.read_yaml(partly.best_yaml)
    partly.write_yaml(
        partly.best_yaml, {**best, "interval": None, "seeds": [1], "test": None, "runner_up": None, "finalists": []}
    )
    write_page(partly)
    page = Page(partly)
    assert "The LR range test has no result yet" in page.text
    assert "one seed, so no interval" in page.text
    assert "Runner-up" not in page.text
    assert not {"3", "4"} & set(page.curves)
    assert len(page.trials()) == 3 + len(SEARCH) + len(CONFIRM)


def test_losses_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study")
    for path in (study.curve(10), study.range_curve(0)):
        lines = path.read_text().splitlines()
        cells = lines[-1].split(",")
        cells[2] = "inf"
        path.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    study.write_rows([replace(row, metrics={"val_loss": float("nan")}) for row in study.read_rows()])
    write_page(study)
    assert not any("NaN" in script for script in Page(study).scripts[:2])


def test_a_metric_that_grows(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study", best=False)
    described = study.read_study()
    metric = {"name": "accuracy", "goal": "maximize"}
    study.write_yaml(study.study_yaml, {**described, "config": {**described["config"], "metric": metric}})
    write_page(study)
    page = Page(study)
    assert re.search(r"onecycle at lr 0\.31 leads the search with val_accuracy 0\.9\d+", page.text)
    chart = page.charts["loss_over_lr"]
    crosses = [series["y"] for series in chart["series"] if series["marker"] == "cross"]
    assert crosses
    assert all(y[0] == pytest.approx(chart["y"]["low"], rel=1e-4) for y in crosses)


@pytest.mark.parametrize("limit", [4, 50, 200])
def test_thinning_keeps_the_extremes_and_the_ends(limit: int) -> None:
    random = np.random.default_rng(limit)
    steps, losses = np.arange(5000.0), random.normal(size=5000)
    losses[1234], losses[3333], losses[77] = 90.0, -80.0, np.nan
    x, y = thin(steps, losses, limit)
    assert len(x) == len(y) <= limit
    assert y.max() == 90.0
    assert y.min() == -80.0
    assert x[0] == 0
    assert x[-1] == 4999
    assert (np.diff(x) > 0).all()
    np.testing.assert_array_equal(losses[x.astype(int)], y)  # its own points, no means


def test_a_short_curve_is_not_thinned() -> None:
    x, y = thin([0, 1, 2, 3], [1.0, np.nan, np.inf, 2.0], 200)
    assert x.tolist() == [0, 3]
    assert y.tolist() == [1.0, 2.0]


def test_every_schedule_has_a_colour() -> None:
    assert set(SCHEDULES) == set(LR_SCHEDULES)
    assert len({schedule_color(name) for name in SCHEDULES}) == len(SCHEDULES)


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB; and Ottosson's OKLab 2020.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
TO_CONES = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip


def linear(color: str) -> np.ndarray:
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(linear(color) @ (0.2126, 0.7152, 0.0722)) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("sight", SIGHT)
def test_no_two_schedules_look_alike(sight: str) -> None:
    """A difference of 0.02 in OKLab is just seen; lines and small markers need several times as much."""
    seen = {
        name: TO_LAB @ np.cbrt(TO_CONES @ np.clip(SIGHT[sight] @ linear(schedule_color(name)), 0, 1))
        for name in SCHEDULES
    }
    near = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in combinations(SCHEDULES, 2)}
    assert min(near.values()) > (0.1 if sight == "normal" else 0.06), min(near, key=lambda pair: near[pair])


def test_schedules_have_markers_of_their_own_among_those_with_the_same_dash() -> None:
    looks = {(schedule_style(name).dash, schedule_style(name).symbol) for name in SCHEDULES}
    assert len(looks) == len(SCHEDULES)
    assert schedule_style("somebody's own") == schedule_style("somebody's own")
    assert schedule_style("somebody's own").dash == "dot"


@pytest.mark.parametrize("page", ["#ffffff", "#14171b"])
def test_colours_and_shades_show_on_light_and_on_dark(page: str) -> None:
    shades = [style.color for name in SCHEDULES for style in told_apart([name] * 5)]
    assert min(contrast(color, page) for color in [*shades, *map(schedule_color, SCHEDULES)]) > 2


def test_curves_of_one_schedule_get_looks_of_their_own_and_others_keep_theirs() -> None:
    styles = told_apart(["step", "cosine", "step", "step", "step", "step"])
    assert styles[1] == schedule_style("cosine")
    assert len({style.color for style in styles}) == 6
    assert [style.dash for style in styles[2:5]] == ["dash", "dot", "dashdot"]


def explained(rows: list[TrialRow], goal: str = "minimize") -> dict[tuple[str, str], float]:
    return {(found.parameter, found.schedule): found.share for found in importances(rows, "val_loss", goal)}


def drawn_trials(count: int, loss: Callable[[str, float, float], float], seed: int = 0) -> list[TrialRow]:
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        name, lr, gamma = str(random.choice(["step", "cosine"])), float(10 ** random.uniform(-3, 0)), random.uniform()
        parameters = {"step.gamma": float(gamma)} if name == "step" else {}
        value = loss(name, lr, gamma) + random.normal(0, 0.01)
        rows.append(TrialRow(number, "search", "complete", name, lr, parameters, 0, 10, {"val_loss": float(value)}))
    return rows


def test_importance_finds_what_made_the_difference() -> None:
    by_lr = explained(drawn_trials(80, lambda name, lr, gamma: np.log10(lr / 0.03) ** 2))  # no straight line finds this
    assert by_lr["lr", ""] > 0.8
    assert by_lr["lr_schedule", ""] < 0.15
    assert by_lr["gamma", "step"] < 0.3
    by_name = explained(drawn_trials(80, lambda name, lr, gamma: float(name == "step")))
    assert by_name["lr_schedule", ""] > 0.7
    assert by_name["lr", ""] < 0.15
    by_gamma = explained(drawn_trials(80, lambda name, lr, gamma: gamma))
    assert by_gamma["gamma", "step"] > 0.8
    assert by_gamma["lr", "step"] < 0.3


def test_importance_of_nothing_is_nothing() -> None:
    shares = [explained(drawn_trials(40, lambda *_: 0.0, seed))["lr", ""] for seed in range(20)]
    assert np.mean(shares) < 0.1
    assert importances(drawn_trials(7, lambda name, lr, gamma: lr), "val_loss", "minimize") == []


def test_importance_counts_what_diverged_as_last_and_what_was_pruned_before_it() -> None:
    rows = [
        TrialRow(number, "search", state, "cosine", lr, {}, 0, 10, {} if state == "diverged" else {"val_loss": 0.5})
        for number, (state, lr) in enumerate([("complete", 0.01), ("pruned", 0.1), ("diverged", 1.0)] * 4)
    ]
    assert explained(rows)["lr", ""] == pytest.approx(1.0)
    assert explained(rows, "maximize")["lr", ""] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.31, "0.31"), (1e-5, "1e-5"), (0.00012345, "0.000123"), (12400, "12400"), (1.5e9, "1.5e9"), (1.0, "1"),
     (0.0, "0"), (float("nan"), "–"), (2.5e-10, "2.5e-10")],
)  # fmt: skip
def test_numbers_read_well(value: float, text: str) -> None:
    assert number_text(value) == text


def test_the_size_stays_bounded(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study")
    (curve,) = [study.read_curve(study.curve(3))]
    lines = [f"{step},{0.1 / (step + 1)},{curve['train_loss'][step % 310]},,\n" for step in range(3000)]
    study.curve(3).write_text("step,lr,train_loss,val_loss,val_accuracy\n" + "".join(lines))
    write_page(study)
    losses, lr = Page(study).curves["3"]
    assert all(100 < len(series["x"]) <= 200 for series in [losses["series"][0], lr["series"][0]])


def test_winner_and_runner_up_that_cannot_be_told_apart(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study")
    best = study.read_yaml(study.best_yaml)
    best["finalists"][1] |= {"distinguishable": False, "difference_interval": [-0.02, 0.03]}
    study.write_yaml(study.best_yaml, best)
    write_page(study)
    text = Page(study).text
    assert (
        "cosine at lr 0.12 cannot be told apart: the interval of their difference, [-0.0300, 0.0200], contains" in text
    )


def test_a_widened_range_and_a_budget_are_said(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study")
    described = study.read_study()
    study.write_yaml(study.study_yaml, {**described, "config": {**described["config"], "budget": "30m"}})
    study.write_json(study.widened_json, {"low": 0.011, "high": 3.79, "after": 6, "lr": 1.1, "from": [0.011, 1.2]})
    write_page(study)
    text = Page(study).text
    assert "After 6 trials the best one, at lr 1.1, lay at the edge of these bounds: the search went on from" in text
    assert "0.011 to 3.79." in text
    assert "Budget: 30m. Every trial to its end" in text


def test_each_schedule_stands_with_its_confirmed_figure(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study")
    write_page(study)
    by_schedule = Page(study).text.split("By LR schedule")[1].split("Each LR schedule at the LR")[0]
    for finalist in study.read_yaml(study.best_yaml)["finalists"]:
        lr = number_text(finalist["lr"])
        assert re.search(rf" {lr} {finalist['mean']:#.4g} \[[^]]*\] {lr} ", by_schedule)
    assert by_schedule.count("[") == 2


def test_a_schedule_stands_with_the_best_of_its_finalists_which_need_not_be_its_best_trial(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study")
    best = study.read_yaml(study.best_yaml)
    winner = best["finalists"][0]
    winner |= {"lr": 0.25, "trial": winner["trial"] + 6, "mean": 0.05}
    best["finalists"].append(winner | {"lr": 0.4, "trial": winner["trial"] + 7, "mean": 0.06})
    study.write_yaml(study.best_yaml, best)
    write_page(study)
    by_schedule = Page(study).text.split("By LR schedule")[1].split("Each LR schedule at the LR")[0]
    assert re.search(r" 0.31 0.05000 \[[^]]*\] 0.25 ", by_schedule)
    assert by_schedule.count("[") == 2
    assert "0.06000" not in by_schedule


def test_report_in_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = StudyDir(tmp_path / "study")
    create(parse_config(SMALL), directory, [])
    execute(Study(parse_config(SMALL), directory))
    assert main(["report", str(directory.root), "--terminal"]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if "lr_schedule" not in line and "cosine" in line)
    assert re.match(r" *#\d+ +cosine +[\d.e-]+ +0\.\d+ +[▁▂▃▄▅▆▇█]{3,}", row), row
    assert any(re.match(r"LR bounds +0\.\d+ to \d", line) for line in lines)
    assert any("seeds" in line and "reaches val_loss" in line for line in lines)
    assert str(directory.report_html) in "".join(lines)


def test_report_in_the_terminal_without_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = StudyDir(tmp_path / "study")
    create(parse_config(SMALL), directory, [])
    assert main(["report", str(directory.root), "--terminal"]) == 0
    assert "no trial of the search was completed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("low", "high"), [(0.11, 0.13), (0.107, 0.19), (0.95, 1.06), (0.1, 0.23), (0.04, 0.18), (1e-5, 10.0), (1e-12, 1.0)]
)
def test_an_axis_has_a_few_ticks_whatever_it_spans(low: float, high: float) -> None:
    ticks = log_ticks(Axis("val_loss", low, high, log=True))
    assert 3 <= len(ticks) <= 10
    assert low <= ticks[0]
    assert ticks[-1] <= high
