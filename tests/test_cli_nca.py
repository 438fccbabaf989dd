"""`carpk nca`: its files, what it prints, and what it refuses."""

from pathlib import Path

import pandas as pd
import pytest


def test_it_writes_three_tables_and_prints_the_groups(carpk):
    done = carpk("nca", "example:tisacel_like", "--by", "RESPONSE", "--auc", "28:90",
                 "--terminal", 3)
    assert done.exit_code == 0, done.output
    files = done.stdout.splitlines()[-3:]
    assert files == ["tisacel_like_nca.csv", "tisacel_like_nca_summary.csv",
                     "tisacel_like_nca_rules.csv"]
    table, summary, rules = map(pd.read_csv, files)
    assert len(table) == 90
    assert {"AUC28_90", "half_life_points"} <= set(table)
    assert set(table["half_life_points"]) == {0, 3}
    assert set(summary["group"]) == {"CR", "NR"}
    assert len(rules) == 6 * 8
    for words in ("CR (N = 70)", "NR (N = 20)", "linear-up-log-down", "copies/ug*day",
                  "detectable_M3", "with --blq missing", "with linear trapezoids"):
        assert words in done.stdout
    assert "90 patients" in done.stderr


def test_a_file_that_is_there_is_replaced_only_on_request(carpk):
    Path("mine_summary.csv").write_text("keep me")
    refused = carpk("nca", "example:tisacel_like", "--out", "mine.csv")
    assert refused.exit_code == 1
    assert "mine_summary.csv: it is there already" in refused.stderr
    assert not Path("mine.csv").exists()
    done = carpk("nca", "example:tisacel_like", "--out", "mine.csv", "--overwrite")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(("options", "code", "words"), [
    (("--blq", "m3"), 1, "it needs a model"), (("--rule", "spline"), 1, "no such rule"),
    (("--by", "ARM"), 1, "no such column"), (("--auc", "28"), 2, "is not FROM:TO"),
    (("--terminal", "some"), 1, "not understood"), (("--dvid", "7"), 1, "DVID")])
def test_what_is_not_understood_is_refused_in_words_and_nothing_is_written(
        carpk, options, code, words):
    refused = carpk("nca", "example:tisacel_like", *options)
    assert refused.exit_code == code
    assert words in " ".join(refused.output.split())
    assert not list(Path().iterdir())
