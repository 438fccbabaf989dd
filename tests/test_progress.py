"""The progress of a fit: a bar on a terminal, a line for each stage elsewhere."""

import io
import re

from rich.console import Console

from carpk.progress import Stages


def shown(terminal, calls, fail=False):
    text = io.StringIO()
    try:
        with Stages(Console(file=text, force_terminal=terminal, width=100)) as progress:
            for call in calls:
                progress(*call)
            if fail:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    return text.getvalue()


CALLS = [("start", 0, 1), ("start", 1, 1), ("compile", 0, 1), ("sample", 20, 200),
         ("sample", 200, 200), ("predict", 0, 1)]


def test_without_a_terminal_every_stage_is_a_line_with_its_time():
    lines = shown(False, CALLS).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["start", "compile", "sample", "predict"]
    assert all(re.fullmatch(r"\w+: \d+\.\d s", line) for line in lines)


def test_on_a_terminal_every_stage_has_a_bar_and_sampling_its_iterations():
    text = shown(True, CALLS)
    assert all(stage in text for stage in ("start", "compile", "sample", "predict"))
    assert "200/200" in text


def test_a_stage_that_turns_out_longer_goes_on_and_is_one_line():
    calls = [("sample", 200, 200), ("sample", 220, 400), ("sample", 400, 400), ("report", 1, 1)]
    assert [line.partition(":")[0] for line in shown(False, calls).splitlines()] \
        == ["sample", "report"]
    assert "400/400" in shown(True, calls)


def test_the_time_left_is_estimated_from_the_steps_so_far():
    stages = Stages(Console(file=io.StringIO()))
    stages("sample", 1, 100)
    stages._began -= 60.0
    assert stages._left(50, 100) in ("about 1:00 left", "about 0:59 left", "about 1:01 left")
    assert stages._left(100, 100) == ""


def test_the_time_left_of_a_fit_that_goes_on_is_by_what_is_done_since():
    stages = Stages(Console(file=io.StringIO()))
    stages("sample", 900, 1000)
    stages._began -= 60.0
    assert stages._left(950, 1000) in ("about 1:00 left", "about 0:59 left", "about 1:01 left")


def test_a_sampler_says_how_many_of_its_chains_are_warmed_up():
    calls = [("sample: 1/4 warmed up", 20, 200), ("sample: 2/4 warmed up", 100, 200),
             ("sample", 200, 200)]
    assert [line.partition(":")[0] for line in shown(False, calls).splitlines()] == ["sample"]
    assert "2/4 warmed up" in shown(True, calls[:2], fail=True)


def test_a_stage_that_was_interrupted_is_not_called_done():
    assert "predict" not in shown(False, CALLS, fail=True)
