"""The words a model file is written in: parameters and their spread, states, inputs, outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Link = Literal["log", "logit", "identity"]
Solver = Literal["auto", "tsit5", "rodas4", "diffrax_tsit5", "diffrax_kvaerno5"]
Function = Callable[..., Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model was published."""

    citation: str
    doi: str = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """Between-patient spread: `omega` is always the SD of eta on the link scale.

    `fixed` says why it stays at its value unless a request frees it.
    """

    omega: float
    printed: str
    published: bool = True
    fixed: str = ""


def sd(value: float) -> Spread:
    """A spread printed as a standard deviation of eta.

    >>> sd(0.65).omega
    0.65
    """
    return Spread(float(value), f"SD {value:g}")


def variance(value: float) -> Spread:
    """A spread printed as a variance of eta (NONMEM's OMEGA).

    >>> variance(0.25).omega
    0.5
    """
    return Spread(math.sqrt(max(value, 0.0)), f"variance {value:g}")  # 0 is refused with its model


def cv(percent: float) -> Spread:
    """A spread printed as the CV % of a log-normal parameter: omega^2 = ln(1 + CV^2).

    >>> round(cv(72.5).omega, 3)
    0.65
    """
    return Spread(math.sqrt(math.log1p((max(percent, 0.0) / 100.0) ** 2)), f"CV {percent:g} %")


def assumed(value: float, fixed: str = "") -> Spread:
    """A spread no paper gives, its size a guess; its default prior is a half-normal of twice that.

    >>> assumed(0.3, fixed="too few samples before the peak").omega
    0.3
    """
    return Spread(float(value), f"SD {value:g}, assumed", published=False, fixed=fixed)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its typical value on the natural scale and how patients spread around it.

    `fixed` says why the parameter stays at its value unless a request frees it. `requires` names an
    input without which the data hold nothing about the parameter (a drug nobody was given).
    """

    name: str
    typical: float
    unit: str
    meaning: str
    where: str = ""
    omega: Spread | None = None
    link: Link = "log"
    fixed: str = ""
    requires: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "typical", _as_float(self.typical))

    @property
    def size(self) -> float:
        """A large deviation on the link scale: a factor of e, or on the identity link what the
        model file's own values say of the parameter's unit."""
        return 1.0 if self.link != "identity" else max(abs(self.typical), 1.0)


@dataclass(frozen=True, slots=True)
class State:
    """One state of an ODE model. A `log` state is integrated as its logarithm: it must start
    above zero and stays positive down to 1e-260. What grows or is killed in proportion to itself is
    `log`, what others feed `linear`.

    `ratio_to` names the linear or log state, always above zero, to which this one is integrated as
    its ratio; equations are of levels all the same. That is the better coordinate where the other
    one feeds this one, over decades, and this one is lost faster than the other one falls: the
    ratio settles. It is the worse one where this one outlives the other, as memory does effectors:
    the ratio grows as fast as the other one falls.
    """

    name: str
    unit: str
    meaning: str
    scale: Literal["linear", "log"] = "linear"
    ratio_to: str = ""


@dataclass(frozen=True, slots=True)
class Input:
    """A CSV column the equations need, one value per patient, read as `p.<name>`.

    A patient without a value takes `default`; with no default the column is required.
    `equals` names an output whose value at time 0 this is: such rows are not fitted.
    """

    name: str
    unit: str
    meaning: str
    default: float | None = None
    equals: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "default", _as_float(self.default))


@dataclass(frozen=True, slots=True)
class Output:
    """Something observed, picked by DVID; `error` is the default residual error model."""

    name: str
    unit: str
    meaning: str
    dvid: int = 1
    error: str = "lognormal"

    @property
    def positive(self) -> bool:
        """Whether it is fitted on the log scale."""
        return self.error.partition(" ")[0] == "lognormal"

    @property
    def binary(self) -> bool:
        """Whether it is 0 or 1, and its prediction a probability."""
        return self.error == "bernoulli"


@dataclass(frozen=True, slots=True)
class Derived:
    """A quantity computed from a patient's parameters by `derive(p)`: a half-life, a rate."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Dose:
    """What a patient usually gets: `amount` (unit of the state) into `state` at the time `at`,
    within `over` (0: at once). Simulations and plots take it where nobody says otherwise; data
    state their own doses."""

    state: str
    amount: float
    at: float = 0.0
    over: float = 0.0


@dataclass(frozen=True, slots=True)
class Classes:
    """Latent classes of patients, numbered in rising order of the first parameter's values.

    values : of each parameter that differs, its typical value in each class; shares : of the
    patients, in sum 1; names : what the authors call them
    """

    values: Mapping[str, tuple[float, ...]]
    shares: tuple[float, ...]
    names: tuple[str, ...] = ()


def _as_float(value: Any) -> Any:
    """24_000 would reach JAX as int64, which forward differentiation refuses."""
    try:
        return value if isinstance(value, str) else float(value)
    except (TypeError, ValueError):  # refused with its model, in a sentence
        return value
