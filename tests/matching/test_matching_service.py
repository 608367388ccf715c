"""The FastAPI example, and product codes from the command line."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from alc_kernels.cli import main
from alc_kernels.matching import Matcher

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_fastapi.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    pytest.importorskip("fastapi", reason="the example needs fastapi: pip install '.[dev]'")
    pytest.importorskip("httpx", reason="FastAPI's test client needs httpx: pip install '.[dev]'")
    spec = importlib.util.spec_from_file_location("serve_fastapi", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_service(
    example: ModuleType, made: Path, matcher: Matcher, titles: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from fastapi.testclient import TestClient

    own = [str(text) for text in matcher.catalogue.texts]
    named = matcher.with_catalogue(own, [f"p{n}" for n in range(150)])
    client = TestClient(example.make_app(named))
    assert client.get("/").json()["labels"] == 150
    found = client.post("/match", json={"titles": titles[:3], "k": 2}).json()
    expected = named.match(titles[:3], k=2)
    assert [one["labels"][0]["id"] for one in found["matches"]] == list(expected.best().label_id)
    assert [one["decision"] for one in found["matches"]] == list(expected.best().decision)
    assert found["matches"][0]["labels"][1]["probability"] == expected.probability[1]
    assert client.post("/match", json={"titles": [], "k": 2}).status_code == 422
    assert client.post("/match", json={"titles": [" "]}).json()["matches"][0]["labels"] == []
    line = client.get("/explain", params={"title": titles[0], "label": "p3"}).json()["because"]
    assert line == named.explain(titles[0], "p3")
    new = {"texts": ["Quite New Kettle 9L"], "ids": ["new"]}
    assert client.post("/labels", json=new).json() == {"labels": 151}
    assert client.post("/labels", json=new).status_code == 400
    found = client.post("/match", json={"titles": ["quite new kettle 9l"]}).json()
    assert found["matches"][0]["labels"][0]["id"] == "new"
    assert client.post("/labels/remove", json={"ids": ["new"]}).json() == {"labels": 150}
    answer = client.post("/labels/remove", json={"ids": ["new"]})
    assert answer.status_code == 400 and "which no label has" in answer.json()["detail"]
    monkeypatch.setenv("MATCHER", str(made / "run"))
    assert TestClient(example.app).get("/").json()["labels"] == 150


def test_codes_and_one_to_one_from_the_command_line(made: Path, tmp_path: Path) -> None:
    names = (made / "data" / "labels.txt").read_text(encoding="utf-8").splitlines()
    catalogue, titles, out = (tmp_path / f"{n}.csv" for n in ("catalogue", "titles", "out"))
    codes = ["4006381333931", *[""] * (len(names) - 1)]
    with catalogue.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "EAN", "sku"])
        writer.writerows([name, code, n] for n, (name, code) in enumerate(zip(names, codes)))  # noqa: B905
    titles.write_text(f"query,ean\nsomething,04006381333931\n{names[5]},\n{names[5]} x,\n")
    words = ["predict", str(made / "run"), str(titles), "--catalogue", str(catalogue),
             "--catalogue-column", "label", "--catalogue-id-column", "sku", "--threshold", "0.01",
             "--output", str(out)]  # fmt: skip
    assert main([*words, "--code-columns", "ean"]) == 0
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["label_id"], rows[0]["score"], rows[0]["decision"]) == (
        "0",
        "1.000000",
        "accept",
    )
    assert [row["label_id"] for row in rows[1:]] == ["5", "5"]
    assert main([*words, "--code-columns", "ean", "--one-to-one"]) == 0
    with out.open(newline="", encoding="utf-8") as file:
        apart = [row["label_id"] for row in csv.DictReader(file)]
    assert len(set(apart)) == 3 and apart[0] == "0" and "5" in apart
