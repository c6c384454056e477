"""Figures of a run: each measured several times, told by median and spread."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of them are, the nearest of those that were seen."""
    found = sorted(values)
    return found[max(0, math.ceil(share * len(found)) - 1)]


@dataclass(slots=True)
class Series:
    """One figure, once for each round."""

    unit: str
    values: list[float] = field(default_factory=list)

    @property
    def middle(self) -> float:
        """Their median."""
        return median(self.values)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "unit": self.unit,
            "median": self.middle,
            "least": min(self.values),
            "most": max(self.values),
            "values": self.values,
        }


@dataclass(slots=True)
class Results:
    """All figures of a run, by name, in the order in which they came first."""

    series: dict[str, Series] = field(default_factory=dict)

    def add(self, name: str, value: float, unit: str) -> None:
        """One more value of a figure."""
        self.series.setdefault(name, Series(unit)).values.append(value)

    def median(self, name: str) -> float | None:
        """The median of a figure; None when it was not measured."""
        found = self.series.get(name)
        return found.middle if found else None

    def ratio(self, name: str, other: str) -> float | None:
        """One median by another."""
        above, below = self.median(name), self.median(other)
        return above / below if above is not None and below else None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {name: one.document() for name, one in self.series.items()}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> "Results":
        """Figures as `document` gave them."""
        return cls({name: Series(one["unit"], list(one["values"])) for name, one in document.items()})


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure, or a ratio of two, is to reach.

    Attributes:
        what: In a reader's words.
        figure: Its name in the results.
        beside: The name of the figure that it is divided by; empty for none.
        bound: The least or the most.
        at_most: Whether the bound is the most.
    """

    what: str
    figure: str
    beside: str
    bound: float
    at_most: bool = False

    def value(self, results: Results) -> float | None:
        """The figure or ratio; None when it was not measured."""
        return results.ratio(self.figure, self.beside) if self.beside else results.median(self.figure)

    def met(self, results: Results) -> bool | None:
        """Whether it is reached; None when it was not measured."""
        found = self.value(results)
        if found is None:
            return None
        return found <= self.bound if self.at_most else found >= self.bound


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The exponent of growth: the slope of the least-squares line through the logarithms of both."""
    xs, ys = [math.log(size) for size in sizes], [math.log(max(value, 1e-9)) for value in values]
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True))
    return above / sum((x - middle_x) ** 2 for x in xs)
