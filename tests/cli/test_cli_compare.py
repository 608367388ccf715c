"""alc compare: the decision, the page that stands alone, and the same as text."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest
from evaluation_cases import make_dataset, make_scored
from test_cli_errors import fails, write_run

from alc_kernels.cli import main
from alc_kernels.trainer.data import load_dataset, save_dataset
from alc_kernels.trainer.report.summary import per_cent, score

VOID = ("meta", "img", "br", "hr", "input", "link")


class Tables(HTMLParser):
    """The cells of every table, and whether tags nest."""

    def __init__(self):
        super().__init__()
        self.open, self.tables, self.small = [], [], False

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self.small = tag == "span" and ("class", "range") in attrs

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"
        self.small = False

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th", "span") and self.tables and not self.small:
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Data, and runs of two losses on them, one with two seeds."""
    folder = tmp_path_factory.mktemp("compare")
    save_dataset(make_dataset(), folder / "data")
    dataset = load_dataset(folder / "data")
    for name, noise, config in (
        ("base0", 1.2, {"epochs": 5}),
        ("base1", 1.0, {"epochs": 5, "seed": 1}),
        ("alc0", 0.5, {"loss": "alc", "epochs": 5}),
    ):
        write_run(folder / name, make_scored(name, noise, dataset, **config))
    return folder


def compare(runs, *words, names=("base0", "base1", "alc0")):
    return main(["compare", *(str(runs / name) for name in names), *map(str, words)])


def test_the_decision_comes_first_in_text(runs, capsys):
    assert compare(runs) == 0
    shown = capsys.readouterr().out
    metrics = json.loads((runs / "alc0" / "metrics.json").read_text())["metrics"]["open"]
    threshold = score(metrics["certified_90_threshold"]["value"])
    assert shown.startswith(f"Ship ALC at 90 %: accept from {threshold}, ")
    told = " ".join(shown.split())
    assert f"{per_cent(metrics['certified_90_coverage']['value'])} % (interval" in told
    for heading in ("Coverage", "Ranking", "Differences", "Certificates", "Settings that differ"):
        assert f"\n{heading}\n" in shown
    assert "PSP@5" in shown and "accepted, wrong" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_the_page_stands_alone_and_says_what_metrics_json_says(runs, tmp_path):
    page = tmp_path / "page.html"
    assert compare(runs, "--output", page, names=("alc0",)) == 0
    text = page.read_text(encoding="utf-8")
    parser = Tables()
    parser.feed(text)
    assert not parser.open
    assert not re.search(r"(?:src|href)=\"(?!data:)", text) and "@import" not in text
    assert "http" not in re.sub(r"data:image/[^\"]*", "", text) and "<script" not in text

    metrics = json.loads((runs / "alc0" / "metrics.json").read_text())["metrics"]
    opened = {}  # heading of a column -> figure of the open catalogue
    for table in parser.tables:
        if table[0][0] == "" and len(table) > 2 and table[1][0].startswith("Open catalogue"):
            opened |= dict(zip(table[0][1:], table[2][1:], strict=True))
    keys = {
        "P@1": "p1", "P@1 ans.": "p1_answerable", "P@3": "p3", "P@5": "p5", "nDCG@3": "ndcg3",
        "nDCG@5": "ndcg5", "PSP@1": "psp1", "PSP@3": "psp3", "PSP@5": "psp5", "R@5": "recall5",
        "R@10": "recall10", "C@.9": "coverage_90", "C@.95": "coverage_95",
        "certified .9": "certified_90_coverage", "right": "certified_90_precision",
    }  # fmt: skip
    for heading, key in keys.items():
        assert opened[heading] == per_cent(metrics["open"][key]["value"]), heading


def test_the_page_is_written_though_nobody_reads_the_text(runs, tmp_path, monkeypatch):
    def print_to_closed_pipe(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", print_to_closed_pipe)
    monkeypatch.setattr("os.dup2", lambda *_: None)  # our own output stays open
    page = tmp_path / "page.html"
    assert main(["compare", str(runs / "base0"), str(runs / "alc0"), "--output", str(page)]) != 0
    assert page.read_text(encoding="utf-8").endswith("</html>\n")


def test_examples_need_the_data_and_find_them_where_they_were(tmp_path, capsys):
    data, moved, page = (tmp_path / name for name in ("data", "moved", "page.html"))
    save_dataset(make_dataset(), data)
    write_run(tmp_path / "run", make_scored("run", 0.5, load_dataset(data)))

    def page_after(*words):
        assert compare(tmp_path, "--output", page, *words, names=("run",)) == 0
        return page.read_text(encoding="utf-8")

    assert "accepted, right" in page_after()  # the recorded folder is still there
    data.rename(moved)
    text = page_after()
    assert "accepted, right" not in text and "--data DIR names it" in text
    assert "--data DIR names it" in " ".join(capsys.readouterr().out.split())
    assert "accepted, right" in page_after("--data", moved)
    save_dataset(make_dataset(seed=3), data)  # other data in its place
    assert "has changed since the run" in page_after()
    capsys.readouterr()
    words = ["compare", tmp_path / "run", "--data", data]
    fails(capsys, words, "is not the data that run was scored on")


def test_runs_of_the_closed_catalogue_alone(tmp_path, capsys):
    dataset = make_dataset(held_out=False)
    for name, noise in (("base", 1.2), ("alc", 0.4)):
        write_run(tmp_path / name, make_scored(name, noise, dataset, loss=name))
    page = tmp_path / "page.html"
    assert compare(tmp_path, "--output", page, names=("base", "alc")) == 0
    shown, text = capsys.readouterr().out, page.read_text(encoding="utf-8")
    assert "Ship ALC" in shown and "Open catalogue" not in shown
    assert "Closed catalogue" in shown and "closed catalogue only" in text
    assert "products missing" not in shown
    assert main(["evaluate", str(tmp_path / "alc"), "--precision", "0.8"]) == 0
    assert "Open catalogue" not in capsys.readouterr().out


def test_many_groups_are_compared_and_some_drawn(tmp_path, capsys):
    dataset = make_dataset()
    names = []
    for place in range(9):
        run = make_scored(f"r{place}", 0.4 + place / 8, dataset, margin=place / 10)
        write_run(tmp_path / run.name, dataclasses.replace(run, history=[]))
        names.append(run.name)
    page = tmp_path / "page.html"
    assert compare(tmp_path, "--output", page, names=names) == 0
    shown, text = capsys.readouterr().out, page.read_text(encoding="utf-8")
    assert text.count("data:image/svg+xml") == 2 + 6
    assert "Drawn are the first group and the 5 best on validation" in text
    assert "base, margin=0.8" in shown
    tables = shown.split("\nWritten: ")[0]
    assert max(map(len, tables.splitlines())) <= 100
