"""The report of a synthetic study: what it says, what it must not fetch, and what it does where pieces are missing."""

import json
import re
import struct
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sample_study import CODE, CONFIG, CONFIRM, SEARCH, write_sample_study
from tune_lr import plots, report
from tune_lr.plots import SCHEDULES, number_text, schedule_color, schedule_style, thin
from tune_lr.report import write_report
from tune_lr.study_dir import StudyDir


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
        data = next(attributes for name, attributes in self.elements if attributes.get("id") == "data")
        assert data["type"] == "application/json"
        self.data: dict[str, Any] = json.loads(next(text for text in self.scripts if text.startswith('{"charts"')))

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
    study = write_sample_study(tmp_path_factory.mktemp("studies") / "sample")
    write_report(study)
    return study


@pytest.fixture(scope="module")
def page(study: StudyDir) -> Page:
    return Page(study)


@pytest.fixture
def words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the PNGs and plotly.js, which take nearly all of a report's time."""
    monkeypatch.setattr(plots, "png", lambda chart: b"")
    monkeypatch.setattr(report, "get_plotlyjs", lambda: "")


def _png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", header[16:24])
    return width, height


def test_the_answer_comes_first(page: Page) -> None:
    body = page.text.split("How it was found")[0]
    for said in ("onecycle, lr 0.31", "is better than cosine", "95 % interval", "2 seeds", "0.9725", "Runner-up",
                 "{name: sgd, momentum: 0.9}"):  # fmt: skip
        assert said in body
    assert " ".join(CODE.split()) in body


def test_every_trial_has_a_row_and_every_trained_one_its_curve(page: Page) -> None:
    assert len(page.trials()) == 3 + len(SEARCH) + len(CONFIRM)
    assert {row["data-state"] for row in page.trials()} == {"complete", "pruned", "diverged", "failed"}
    assert set(page.data["curves"]) == {str(number) for number in range(3, 3 + len(SEARCH) + len(CONFIRM))}


def test_sections_in_order(page: Page) -> None:
    ids = [attributes["id"] for name, attributes in page.elements if name == "section"]
    assert ids == ["answer", "found", "compared", "leaderboard", "reproduce"]
    assert "tune-lr search space.yaml --seed 0" in page.text
    assert "colossalai 0.5.0" in page.text


def test_nothing_is_fetched(page: Page) -> None:
    for name, attributes in page.elements:
        assert name not in ("link", "img", "iframe", "object", "embed", "base"), name
        for attribute in ("src", "href", "srcset", "action"):
            assert attribute not in attributes, (name, attributes)
    policy = next(attributes for _, attributes in page.elements if "http-equiv" in attributes)
    assert "default-src 'none'" in str(policy["content"])
    style = page.source.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_the_ledger_counts_states_and_steps(page: Page) -> None:
    assert "search 2,297 12 6 3 2 1" in page.text
    assert "confirm 1,240 4 4 0 0 0" in page.text


def test_one_colour_per_schedule_and_stairs_for_steps(page: Page) -> None:
    for name, figure in page.data["charts"].items():
        if name == "range_test":
            continue
        for trace in figure["data"]:
            shown = trace.get("line", trace.get("marker"))
            assert shown["color"] == schedule_color(trace["meta"]), name
    shapes = {trace["meta"]: trace["line"]["shape"] for trace in page.data["charts"]["lr_curves"]["data"]}
    assert shapes["step"] == "hv" and shapes["cosine"] == "linear"
    assert set(shapes) == {"constant", "step", "exponential", "cosine", "onecycle", "cyclic"}


def test_the_best_of_a_schedule_is_complete_else_the_one_that_got_furthest(page: Page) -> None:
    names = {trace["meta"]: trace["name"] for trace in page.data["charts"]["val_loss"]["data"]}
    assert names["onecycle"] == "onecycle, lr 0.31"
    assert names["constant"] == "constant, lr 0.05"
    assert names["cyclic"] == "cyclic, lr 0.26"  # none is complete


def test_states_are_told_apart_over_lr(page: Page) -> None:
    figure = page.data["charts"]["loss_over_lr"]
    symbols = [trace["marker"]["symbol"] for trace in figure["data"] for _ in trace["x"]]
    assert sum(symbol.endswith("-open") for symbol in symbols) == 3
    assert symbols.count("x-thin") == 2
    assert len(symbols) == 11  # a failed trial has no place


def test_pictures(study: StudyDir) -> None:
    pictures = [study.range_test_png, *sorted(study.plots.iterdir())]
    assert [path.stem for path in pictures] == ["range_test", "loss_over_lr", "lr_curves", "train_loss", "val_loss"]
    for path in pictures:
        width, height = _png_size(path)
        assert width >= 1000 and height >= 600
        assert path.stat().st_size > 15_000


def test_made_again_it_is_the_same(study: StudyDir) -> None:
    before = study.report_html.read_bytes()
    write_report(study)
    assert study.report_html.read_bytes() == before


@pytest.mark.usefixtures("words_only")
def test_texts_of_users_are_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    study = write_sample_study(tmp_path / "study")
    rows = study.read_rows()
    study.write_rows(
        [replace(row, lr_schedule=evil, reason=evil, parameters={f"x.{evil}": evil}) if row.number in (3, 6) else row
         for row in rows]
    )  # fmt: skip
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

    write_report(study)

    page = Page(study)
    assert "<script>alert" not in page.source
    assert sum(name == "script" for name, _ in page.elements) == 3
    assert page.text.count(evil) >= 8
    assert "{{data}}" in page.text
    names = [trace["name"] for figure in page.data["charts"].values() for trace in figure["data"]]
    assert not any("<" in name for name in names)  # plotly would read it as HTML


@pytest.mark.usefixtures("words_only")
def test_an_unfinished_study_says_who_leads(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study", best=False)
    write_report(study)
    text = Page(study).text
    assert "No winner yet" in text
    assert "onecycle at lr 0.31 leads the search" in text


@pytest.mark.usefixtures("words_only")
def test_a_study_without_complete_trials_has_no_winner(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study", best=False)
    study.write_rows([row for row in study.read_rows() if row.phase == "search" and row.state != "complete"])
    write_report(study)
    assert "None of 6 search trials completed" in Page(study).text


@pytest.mark.usefixtures("words_only")
@pytest.mark.parametrize("status", ["no_descent", "no_divergence", "diverged_at_start"])
def test_a_range_test_without_bounds_says_why(tmp_path: Path, status: str) -> None:
    study = write_sample_study(tmp_path / "study")
    nothing = {"low": None, "high": None, "suggestion": None}
    study.write_json(study.bounds_json, {**nothing, "status": status, "reason": "because of this", "replicates": 3})
    write_report(study)
    page = Page(study)
    assert f"found no bounds ({status}): because of this" in page.text
    assert page.data["charts"]["range_test"]["layout"]["shapes"] == []


def test_pieces_that_are_missing(tmp_path: Path) -> None:
    study = StudyDir(tmp_path / "bare")
    study.create({"name": "bare", "config": CONFIG})
    write_report(study)
    text = Page(study).text
    assert "No search trial has ended yet" in text
    assert "No LR range test was run" in text

    partly = write_sample_study(tmp_path / "partly", bounds=False)
    partly.curve(3).unlink()
    partly.curve(4).write_text("")
    best = partly.read_yaml(partly.best_yaml)
    partly.write_yaml(
        partly.best_yaml, {**best, "interval": None, "seeds": [1], "test": None, "runner_up": None, "finalists": []}
    )
    write_report(partly)
    page = Page(partly)
    assert "The LR range test has no result yet" in page.text
    assert "one seed, so no interval" in page.text
    assert "Runner-up" not in page.text
    assert not {"3", "4"} & set(page.data["curves"])
    assert len(page.trials()) == 3 + len(SEARCH) + len(CONFIRM)


def test_losses_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study")
    for path in (study.curve(10), study.range_curve(0)):
        lines = path.read_text().splitlines()
        cells = lines[-1].split(",")
        cells[2] = "inf"
        path.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    study.write_rows([replace(row, metrics={"val_loss": float("nan")}) for row in study.read_rows()])
    write_report(study)
    assert "NaN" not in Page(study).scripts[-2]


@pytest.mark.usefixtures("words_only")
def test_a_metric_that_grows(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study", best=False)
    described = study.read_study()
    metric = {"name": "accuracy", "goal": "maximize"}
    study.write_yaml(study.study_yaml, {**described, "config": {**described["config"], "metric": metric}})
    write_report(study)
    page = Page(study)
    assert re.search(r"onecycle at lr 0\.31 leads the search with val_accuracy 0\.9\d+", page.text)
    figure = page.data["charts"]["loss_over_lr"]
    crosses = [trace["y"] for trace in figure["data"] if trace["marker"]["symbol"] == "x-thin"]
    assert all(y[0] == pytest.approx(figure["layout"]["yaxis"]["range"][0], rel=1e-4) for y in crosses)


@pytest.mark.parametrize("limit", [4, 50, 200])
def test_thinning_keeps_the_extremes_and_the_ends(limit: int) -> None:
    random = np.random.default_rng(limit)
    steps, losses = np.arange(5000.0), random.normal(size=5000)
    losses[1234], losses[3333], losses[77] = 90.0, -80.0, np.nan
    x, y = thin(steps, losses, limit)
    assert len(x) == len(y) <= limit
    assert y.max() == 90.0 and y.min() == -80.0
    assert x[0] == 0 and x[-1] == 4999
    assert (np.diff(x) > 0).all()
    np.testing.assert_array_equal(losses[x.astype(int)], y)  # its own points, no means


def test_a_short_curve_is_not_thinned() -> None:
    x, y = thin([0, 1, 2, 3], [1.0, np.nan, np.inf, 2.0], 200)
    assert x.tolist() == [0, 3] and y.tolist() == [1.0, 2.0]


def test_no_two_schedules_look_alike() -> None:
    looks = {(schedule_style(name).color, schedule_style(name).dash) for name in SCHEDULES}
    assert len(looks) == len(SCHEDULES)
    assert schedule_style("somebody's own") == schedule_style("somebody's own")
    assert schedule_style("somebody's own").dash == "dot"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.31, "0.31"), (1e-5, "1e-5"), (0.00012345, "0.000123"), (12400, "12400"), (1.5e9, "1.5e9"), (1.0, "1"),
     (0.0, "0"), (float("nan"), "–"), (2.5e-10, "2.5e-10")],
)  # fmt: skip
def test_numbers_read_well(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.usefixtures("words_only")
def test_the_size_stays_bounded(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study")
    (curve,) = [study.read_curve(study.curve(3))]
    lines = [f"{step},{0.1 / (step + 1)},{curve['train_loss'][step % 310]},,\n" for step in range(3000)]
    study.curve(3).write_text("step,lr,train_loss,val_loss,val_accuracy\n" + "".join(lines))
    write_report(study)
    kept = Page(study).data["curves"]["3"]
    assert all(len(kept[name][0]) <= 200 for name in ("train", "val", "lr"))
