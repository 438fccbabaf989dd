"""What is wrong and what to do: Problem, and the errors that carry problems to the user."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where it is, and the remedy.

    An `error` refuses the input; a `warning` is kept, printed and recorded with the fit.

    >>> print(Problem("error", "a level cannot be negative", "below the limit? set CENS=1",
    ...               file="run7.csv", line=214, patient="31", column="DV", found="-0.4"))
    run7.csv:214, patient 31, DV = -0.4: a level cannot be negative
        below the limit? set CENS=1
    """

    severity: Literal["error", "warning"]
    wrong: str
    remedy: str = ""
    file: str = ""
    line: int | None = None
    patient: str | None = None
    column: str | None = None
    found: str | None = None

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line is not None else "")
        parts = [place] if place else []
        if self.patient is not None:
            parts.append(f"patient {self.patient}")
        if self.column is not None:
            parts.append(self.column + (f" = {self.found}" if self.found is not None else ""))
        elif self.found is not None:
            parts.append(f"found {self.found}")
        text = ", ".join(parts) + (": " if parts else "") + self.wrong
        return text + (f"\n    {self.remedy}" if self.remedy else "")


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """Only those that refuse the input."""
    return [p for p in problems if p.severity == "error"]


class CarpkError(Exception):
    """Input that carpk refuses. `problems` holds every reason found, not only the first.

    CarpkError
      DataError      the CSV, its columns or its values
      ModelError     a model file, its declaration or its functions
      RequestError   what was asked for: a name, a setting, a prior, a run.toml
    """

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))

    def __reduce__(self) -> tuple[type[CarpkError], tuple[tuple[Problem, ...]]]:
        """From a worker's process it comes back with its problems."""
        return type(self), (self.problems,)


class DataError(CarpkError):
    """The data cannot be used as they are."""


class ModelError(CarpkError):
    """A model file is misdeclared."""


class RequestError(CarpkError):
    """Something was asked for that does not exist or cannot be done."""


def unknown(kind: str, name: str, known: Iterable[str]) -> Problem:
    """An error for a name that is not there."""
    return Problem("error", f"no such {kind}", f"known: {', '.join(sorted(known))}", found=name)
