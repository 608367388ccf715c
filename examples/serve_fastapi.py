"""A matcher as a small service: match titles, explain a match, append and remove labels.

    pip install 'alc-kernels[trainer]' fastapi uvicorn
    MATCHER=runs/alc+tcm uvicorn serve_fastapi:app --app-dir examples

    curl localhost:8000/match -H 'content-type: application/json' \
        -d '{"titles": ["apple iphone 8 64gb gold"], "k": 3}'

A matcher never changes, so requests in many threads share one; a change of the catalogue makes a
new one and puts it in its place. Appended labels are gone when the service ends: save the matcher.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from alc_kernels.matching import Matcher
from alc_kernels.trainer.errors import XMCError


class Titles(BaseModel):
    titles: list[str] = Field(min_length=1, max_length=10_000)
    k: int = Field(1, ge=1, le=100)


class Labels(BaseModel):
    texts: list[str] = Field(min_length=1)
    ids: list[str]


class Ids(BaseModel):
    ids: list[str] = Field(min_length=1)


def make_app(matcher: Matcher) -> FastAPI:
    """The service around a matcher; FastAPI runs its plain functions in threads."""
    app, change = FastAPI(title="alc matcher"), threading.Lock()
    app.state.matcher = matcher

    @app.get("/")
    def about() -> dict[str, Any]:
        now: Matcher = app.state.matcher
        return {"labels": len(now.catalogue), "accepts": now.rule.told, "warnings": now.kind[0]}

    @app.post("/match")
    def match(asked: Titles) -> dict[str, Any]:
        found = app.state.matcher.match(asked.titles, asked.k)
        return {
            "matches": [
                {"title": title, "decision": rows[0].decision, "labels": [
                    {"id": one.label_id, "text": one.text, "cosine": one.cosine,
                     # without an acceptance model there is none, and JSON has no NaN
                     "probability": one.probability if one.probability >= 0 else None}
                    for one in rows if one.label >= 0
                ]}
                for title, rows in found
            ],
            "warnings": found.warnings,
        }  # fmt: skip

    @app.get("/explain")
    def explain(title: str, label: str | None = None) -> dict[str, str]:
        return {"because": _or_400(app.state.matcher.explain, title, label)}

    @app.post("/labels")
    def append(new: Labels) -> dict[str, int]:
        with change:  # of two changes at once none is lost
            app.state.matcher = _or_400(app.state.matcher.append, new.texts, new.ids)
        return {"labels": len(app.state.matcher.catalogue)}

    @app.post("/labels/remove")
    def remove(gone: Ids) -> dict[str, int]:
        with change:
            app.state.matcher = _or_400(app.state.matcher.remove, gone.ids)
        return {"labels": len(app.state.matcher.catalogue)}

    return app


def _or_400(call: Any, *arguments: Any) -> Any:
    """The call's result; what is wrong with its arguments is the client's to know."""
    try:
        return call(*arguments)
    except XMCError as error:
        raise HTTPException(400, str(error)) from None


def __getattr__(name: str) -> FastAPI:
    if name == "app":  # made when uvicorn asks for it
        return make_app(Matcher.load(os.environ["MATCHER"]))
    raise AttributeError(name)
