"""How far a fit is: a bar for each stage on a terminal, a line for each where there is none."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Stages:
    """Called with (stage, done, total), as `carpk.fit` calls its `progress`; writes to stderr.

    A stage begins when it is first named and ends when the next one is: a sampler that is done
    may find that it has to go on. The time left, of a sampler its warm-up and its draws, is
    estimated from the steps since the stage was first named.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description:<8}"), BarColumn(bar_width=20),
            TextColumn("{task.fields[steps]:>11}"), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), console=self._console,
            disable=not self._console.is_terminal)
        self._stage, self._began, self._first, self._ended = "", 0.0, 0, True

    def __call__(self, stage: str, done: int, total: int) -> None:
        """The stage has done so many of its steps; what is said after a colon stands beside them.
        """
        stage, _, beside = stage.partition(": ")
        if stage != self._stage:
            self._end()
            self._stage, self._began, self._ended = stage, time.perf_counter(), False
            self._first = done  # of a fit that was interrupted, most of all
            # a stage of one step has no share done: its bar moves to and fro
            self._task = self._bars.add_task(stage, total=total if total > 1 else None,
                                             steps="", left="")
        if total > 1:
            self._bars.update(self._task, completed=done, total=total,
                              steps=f"{done}/{total}",
                              left=", ".join(filter(None, (self._left(done, total), beside))))

    def __enter__(self) -> Stages:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None:
            self._end()
        self._bars.stop()

    def _left(self, done: int, total: int) -> str:
        if not self._first < done < total:
            return ""
        each = (time.perf_counter() - self._began) / (done - self._first)
        seconds = round(each * (total - done))
        return f"about {seconds // 60}:{seconds % 60:02d} left"

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._bars.update(self._task, total=1, completed=1, left="")
        self._bars.stop_task(self._task)
        if not self._console.is_terminal:
            seconds = time.perf_counter() - self._began
            self._console.print(f"{self._stage}: {seconds:.1f} s")
