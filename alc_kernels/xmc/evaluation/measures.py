"""The figures of a run: what each is called and what it means."""

from __future__ import annotations

from dataclasses import dataclass

PRECISIONS = (0.9, 0.95)


def percent(precision: float) -> str:
    """``0.9`` -> ``"90"``, ``0.975`` -> ``"97.5"``: precision as it stands in names."""
    return f"{precision * 100:.10g}"


@dataclass(frozen=True)
class Measure:
    """One figure.

    Attributes:
        key: its name in ``metrics.json``.
        title: its heading in a table.
        meaning: one line for the reader.
        higher_is_better: True, False, or None for a figure that is neither.
    """

    key: str
    title: str
    meaning: str
    higher_is_better: bool | None = True


def coverage_measures(precision: float) -> list[Measure]:
    """Coverage at ``precision``, and what its validation threshold gives on test."""
    name, short = percent(precision), f"{precision:g}".removeprefix("0")
    wanted = f"precision {precision:g}"
    return [
        Measure(
            f"coverage_{name}",
            f"C@{short}",
            f"largest share of queries that can be accepted at {wanted}, threshold read on test",
        ),
        Measure(
            f"validation_coverage_{name}",
            f"validation C@{short}",
            "the same on validation: what a choice between runs may look at",
        ),
        Measure(
            f"transferred_{name}_threshold",
            f"threshold {short}",
            f"lowest score that attains {wanted} on validation: the one to ship",
            None,
        ),
        Measure(
            f"transferred_{name}_coverage",
            f"accepted {short}",
            "share of test queries accepted at the validation threshold",
        ),
        Measure(
            f"transferred_{name}_precision",
            f"precision of accepted {short}",
            "precision among them",
            None,
        ),
    ]


MEASURES: tuple[Measure, ...] = (
    Measure("p1", "P@1", "share of all queries whose best label is right"),
    Measure("p1_answerable", "P@1 answerable", "the same over queries that have a right label"),
    Measure("p3", "P@3", "right labels among the first three, over three, answerable queries"),
    Measure("p5", "P@5", "right labels among the first five, over five, answerable queries"),
    Measure("ndcg3", "nDCG@3", "discounted gain of the first three over the best attainable"),
    Measure("ndcg5", "nDCG@5", "discounted gain of the first five over the best attainable"),
    Measure("psp1", "PSP@1", "P@1 with rare labels counting for more, over the best attainable"),
    Measure("psp3", "PSP@3", "P@3 with rare labels counting for more, over the best attainable"),
    Measure("psp5", "PSP@5", "P@5 with rare labels counting for more, over the best attainable"),
    Measure("recall5", "R@5", "share of a query's right labels among the first five"),
    Measure("recall10", "R@10", "share of a query's right labels among the first ten"),
    *(measure for precision in PRECISIONS for measure in coverage_measures(precision)),
    Measure("aurc", "AURC", "area under the risk-coverage curve", False),
    Measure("opis", "OPIS", "how much one threshold's utility differs between labels", False),
)
BY_KEY = {measure.key: measure for measure in MEASURES}
