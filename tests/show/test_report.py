"""The report of a synthetic study: what it says, what it must not fetch, and what it does where pieces are missing."""

import json
import re
import struct
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sample_study import CODE, CONFIG, CONFIRM, FIXED, SEARCH, write_sample_study
from simulated import SMALL, execute
from tune_lr.cli.main import main
from tune_lr.config.load import parse_config
from tune_lr.records.looks import schedule_color
from tune_lr.session import create
from tune_lr.show.report import write_report
from tune_lr.show.report.write import write_page
from tune_lr.show.text import number_text
from tune_lr.store.curves import read_curve
from tune_lr.store.files import read_yaml, write_json, write_yaml
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
    for text in ("onecycle, lr 0.31", "is better than cosine", "95 % interval", "2 seeds", "0.9725", "Runner-up",
                 "{name: sgd, momentum: 0.9}"):  # fmt: skip
        assert text in body
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
    assert links == [f"#{section}" for section in ids[1:]]
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
            lines = [series for series in page.charts[f"fixed_{name}-{i}"]["series"] if not series.get("silent")]
            assert [series["name"] for series in lines] == own
            looks = {(series["color"], tuple(series["dash"])) for series in lines}
            assert len(looks) == len({color for color, _ in looks}) == len(own)
        peaks = [max(series["y"]) for series in page.charts[f"fixed_{name}-0"]["series"]]
        assert peaks == pytest.approx([0.2] * 3 if name == "step" else [0.1, 0.4], rel=0.01)


def test_the_best_three_of_all_are_overlaid(page: Page) -> None:
    for i in range(3):
        lines = [series for series in page.charts[f"best_three-{i}"]["series"] if not series.get("silent")]
        assert [series["name"] for series in lines] == ["peak 0.4", "onecycle, lr 0.31 (trial 3)", "gamma 0.8"]


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
    assert next(series["name"] for series in page.charts["best_three-0"]["series"]) == "onecycle, lr 0.31 (trial 3)"


def test_the_timeline_has_every_trial_on_its_slot(study: StudyDir, page: Page) -> None:
    drawn = sorted(
        (series["y"][0], series["x"][0]) for series in page.charts["timeline"]["series"] if "width" in series
    )
    expected = sorted((row.slot, row.started_s) for row in study.read_rows())
    assert drawn == [pytest.approx(start, abs=0.01) for start in expected]
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
    write_yaml(
        study.study_yaml,
        {**described, "name": evil, "packages": {evil: evil}, "hardware": {evil: evil},
         "config": {**described["config"], "workload": evil, "{{answer}}": "{{data}}"}},
    )  # fmt: skip
    bounds = study.read_json(study.bounds_json)
    write_json(study.bounds_json, {**bounds, "reason": f"{evil} $x_{{$"})
    best = read_yaml(study.best_yaml)
    best |= {"lr_schedule": evil, "verdict": evil, "code": evil, "optimizer": {"name": evil}, "test": {evil: 0.5}}
    best["runner_up"]["lr_schedule"] = best["finalists"][0]["lr_schedule"] = evil
    write_yaml(study.best_yaml, best)

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
    write_json(study.bounds_json, {**nothing, "status": status, "reason": "because of this", "replicates": 3})
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
    best = read_yaml(partly.best_yaml)
    alone = {**best["finalists"][0], "interval": None, "seeds": [1]}
    write_yaml(partly.best_yaml, {**best, **alone, "test": None, "runner_up": None, "finalists": [alone]})
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
    write_yaml(study.study_yaml, {**described, "config": {**described["config"], "metric": metric}})
    write_page(study)
    page = Page(study)
    assert re.search(r"onecycle at lr 0\.31 leads the search with val_accuracy 0\.9\d+", page.text)
    chart = page.charts["loss_over_lr"]
    crosses = [series["y"] for series in chart["series"] if series["marker"] == "cross"]
    assert crosses
    assert all(y[0] == pytest.approx(chart["y"]["low"], rel=1e-4) for y in crosses)


def test_the_size_stays_bounded(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study")
    (curve,) = [read_curve(study.curve(3))]
    lines = [f"{step},{0.1 / (step + 1)},{curve['train_loss'][step % 310]},,\n" for step in range(3000)]
    study.curve(3).write_text("step,lr,train_loss,val_loss,val_accuracy\n" + "".join(lines))
    write_page(study)
    losses, lr = Page(study).curves["3"]
    assert all(100 < len(series["x"]) <= 200 for series in [losses["series"][0], lr["series"][0]])


def test_winner_and_runner_up_that_cannot_be_told_apart(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study")
    best = read_yaml(study.best_yaml)
    best["finalists"][1] |= {"distinguishable": False, "difference_interval": [-0.02, 0.03]}
    write_yaml(study.best_yaml, best)
    write_page(study)
    text = Page(study).text
    assert (
        "cosine at lr 0.12 cannot be told apart: the interval of their difference, [-0.0300, 0.0200], contains" in text
    )


def test_a_widened_range_and_a_budget_are_said(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study")
    described = study.read_study()
    write_yaml(study.study_yaml, {**described, "config": {**described["config"], "budget": "30m"}})
    write_json(study.widened_json, {"low": 0.011, "high": 3.79, "after": 6, "lr": 1.1, "from": [0.011, 1.2]})
    write_page(study)
    text = Page(study).text
    assert "After 6 trials the best one, at lr 1.1, lay at the edge of these bounds: the search went on from" in text
    assert "0.011 to 3.79." in text
    assert "Budget: 30m. Every trial to its end" in text


def test_each_schedule_stands_with_its_confirmed_figure(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study")
    write_page(study)
    by_schedule = Page(study).text.split("By LR schedule")[1].split("Each LR schedule at the LR")[0]
    for finalist in read_yaml(study.best_yaml)["finalists"]:
        lr = number_text(finalist["lr"])
        assert re.search(rf" {lr} {finalist['mean']:#.4g} \[[^]]*\] {lr} ", by_schedule)
    assert by_schedule.count("[") == 2


def test_a_schedule_stands_with_the_best_of_its_finalists_which_need_not_be_its_best_trial(tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study")
    best = read_yaml(study.best_yaml)
    winner = best["finalists"][0]
    winner |= {"lr": 0.25, "trial": winner["trial"] + 6, "mean": 0.05}
    behind = {"difference": -0.01, "difference_interval": None, "distinguishable": False}
    best["finalists"].append(winner | behind | {"lr": 0.4, "trial": winner["trial"] + 7, "mean": 0.06})
    write_yaml(study.best_yaml, best)
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
