"""CSV files as they are met: written by carpk, of any bytes, published, very large."""

import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carpk import registry
from carpk.nonmem import read_csv, to_csv
from carpk.problems import DataError

INF = math.inf


# --- the way back ---------------------------------------------------------------------------

def assert_same(one, two):
    assert one.ids == two.ids
    for name in ("observations", "doses", "excluded"):
        pd.testing.assert_frame_equal(
            getattr(one, name).drop(columns="line"), getattr(two, name).drop(columns="line"),
            check_exact=name != "doses")  # AMT / (AMT / DURATION) may round
    pd.testing.assert_frame_equal(one.covariates, two.covariates)


def test_a_written_cohort_comes_back_the_same(read, tmp_path):
    cohort = read("ID,TIME,DV,DVID,EVID,MDV,AMT,RATE,CMT,CENS,LLOQ,LIMIT,AGE,SEX,EMPTY\n"
                  "b,-2,1,1,0,0,.,.,.,0,.,.,61.25,F,.\nb,0,.,.,1,1,100,33,2,.,.,.,61.25,F,.\n"
                  "b,0,7,2,0,0,0,0,1,0,5,.,61.25,F,.\nb,0.1,0,1,0,0,0,0,1,1,5,1,61.25,F,.\n"
                  "b,3,0,1,0,1,0,0,1,1,5,1,61.25,F,.\nb,4,.,1,0,0,0,0,1,0,5,.,61.25,F,.\n"
                  'a,1,1e9,1,0,0,0,0,1,-1,.,.,.,"x, ""y""",.\na,2,3,2,0,0,0,0,1,0,.,.,.,.,.\n')
    to_csv(cohort, tmp_path / "again.csv")
    assert_same(cohort, read_csv(tmp_path / "again.csv"))


def test_rows_left_out_for_their_dvid_stay_left_out_when_written(read, tmp_path):
    cohort = read("ID,TIME,DV,DVID\n1,1,2,1\n1,2,3,2\n", dvid=[1])
    to_csv(cohort, tmp_path / "again.csv")
    again = read_csv(tmp_path / "again.csv")
    assert again.excluded["reason"].tolist() == ["MDV = 1"]
    pd.testing.assert_frame_equal(cohort.observations, again.observations)


@st.composite
def cohort_text(draw):
    """A valid CSV with doses, censoring, two outputs and covariates."""
    number = st.floats(0.001, 1e6)
    lines = ["ID,TIME,DV,DVID,MDV,AMT,RATE,CENS,LLOQ,LIMIT,WT,GROUP"]
    for patient in range(1, draw(st.integers(1, 4)) + 1):
        tail = f"{draw(number)},{draw(st.sampled_from(['A', 'B;b', '.']))}"
        lines.append(f"{patient},0,5,1,0,,,0,,,{tail}")
        times = sorted(draw(st.lists(st.floats(0.01, 400), max_size=5, unique=True)))
        for t in times:
            if draw(st.booleans()):
                lines.append(f"{patient},{t!r},.,1,1,{draw(number)},{draw(number)},0,,,{tail}")
                continue
            cens, dv = draw(st.sampled_from((-1, 0, 0, 1))), draw(number)
            limit = draw(st.sampled_from(["", dv * (2 if cens < 0 else 0.5)]))
            lines.append(f"{patient},{t!r},{dv!r},{draw(st.integers(1, 2))},"
                         f"{draw(st.integers(0, 1))},,,{cens},,{limit},{tail}")
    return "\n".join(lines) + "\n"


IN_A_FOLDER = settings(deadline=None, max_examples=60,
                       suppress_health_check=[HealthCheck.function_scoped_fixture])


@IN_A_FOLDER
@given(text=cohort_text())
def test_any_cohort_comes_back_from_its_file(tmp_path, text):
    path = tmp_path / "run.csv"
    path.write_text(text)
    cohort = read_csv(path)
    to_csv(cohort, path)
    again = read_csv(path)
    assert_same(cohort, again)
    to_csv(again, tmp_path / "twice.csv")
    assert (tmp_path / "twice.csv").read_bytes() == path.read_bytes()


# --- any bytes at all -----------------------------------------------------------------------

SEED = (b"ID,TIME,DV,DVID,EVID,MDV,AMT,RATE,CMT,CENS,LLOQ,LIMIT,ADDL,II,SS,NB0,SEX\n"
        b"1,0,.,1,1,1,100,50,1,0,50,.,2,3,1,774,F\n1,0.5,60.5,1,0,0,0,0,1,0,50,.,0,0,0,774,F\n"
        b"1,4,.,1,3,1,0,0,1,0,.,.,0,0,0,774,F\n1,7,50,2,0,0,0,0,1,1,50,10,0,0,0,774,F\n"
        b"2,-1,3,1,0,0,.,.,.,0,50,.,0,.,.,12.5,M\n2,14,.,1,0,0,.,.,.,1,50,.,0,.,.,.,M\n"
        b"2,28,9,1,0,1,.,.,.,-1,50,20,0,.,.,12.5,M\n")
CELLS = st.sampled_from([b"", b".", b"NA", b"0", b"1", b"-1", b"2", b"1e308", b"-1e308", b"1e-320",
                         b"inf", b"nan", b"3,5", b"<50", b"BLQ", b'"', b'"a\nb"', b"1.0", b"1;2",
                         b"C", b"#", b"ID", b"DV", b"TIME", "é".encode(), b"\xff", b"\0", b"\r",
                         b"9" * 400]) | st.binary(max_size=6)


@st.composite
def spoilt(draw):
    """A valid file with some cells, lines or bytes replaced, moved or lost."""
    rows = [line.split(b",") for line in SEED.splitlines()]
    for _ in range(draw(st.integers(1, 5))):
        row = draw(st.integers(0, len(rows) - 1))
        cell = draw(st.integers(0, max(len(rows[row]) - 1, 0)))
        match draw(st.integers(0, 5)):
            case 0 | 1 | 2:
                rows[row][cell:cell + 1] = [draw(CELLS)]
            case 3:
                rows.insert(draw(st.integers(0, len(rows))), rows[row])
            case 4:
                del rows[row][cell:cell + 1]
            case 5 if len(rows) > 1:
                del rows[row]
    separator = draw(st.sampled_from([b",", b",", b";", b"\t"]))
    return draw(st.sampled_from([b"\n", b"\r\n"])).join(map(separator.join, rows))


@settings(IN_A_FOLDER, max_examples=500)
@given(content=spoilt() | st.binary(max_size=300) | st.text(max_size=200).map(str.encode),
       dvid=st.sampled_from([None, [1], [1, 2], [9]]),
       model=st.sampled_from([None, "stein_2019", "liu_l_2022", "one_compartment_oral"]))
def test_any_bytes_give_a_cohort_or_a_data_error(tmp_path, content, dvid, model):
    path = tmp_path / "run.csv"
    path.write_bytes(content)
    cohort, problems = None, ()
    try:
        cohort = read_csv(path, dvid=dvid, structure=model and registry.find_model(model))
    except DataError as refused:
        problems = refused.problems
    assert (cohort is None) == any(p.severity == "error" and p.wrong for p in problems)
    if cohort is not None:
        rows = cohort.observations
        assert (rows["LOWER"] <= rows["UPPER"]).all()
        assert np.isfinite(rows[["TIME", "DV"]].to_numpy()).all()
        assert np.isfinite(cohort.doses[["TIME", "AMT", "DURATION"]].to_numpy()).all()
        assert set(rows["ID"]) == set(cohort.ids)


def test_the_file_that_is_spoilt_above_is_a_good_one(tmp_path):
    (tmp_path / "run.csv").write_bytes(SEED)
    cohort = read_csv(tmp_path / "run.csv")
    assert (len(cohort.observations), len(cohort.doses), len(cohort.excluded)) == (3, 3, 2)


# --- real files, and large ones -------------------------------------------------------------

READ = {  # patients, observations, doses, excluded, warnings
    "cart_liu2022_ball/liu2022_ball": (21, 260, 0, 21, 12),
    "sim_stein90/stein90": (90, 1170, 0, 0, 0), "sim_pkpd40/pkpd40": (40, 1120, 0, 0, 0),
    "theophylline/theo_sd": (12, 132, 12, 0, 0), "theophylline/theopp_nonmem": (12, 132, 12, 0, 0),
    "warfarin/warfarin_pks": (32, 251, 32, 0, 1), "warfarin/warfarin_pkpd": (32, 479, 32, 0, 0),
    "phenobarbital/pheno": (59, 155, 589, 0, 0), "actg315_hiv/actg315": (46, 361, 0, 0, 0),
    "bauer501_covariates/bauer501": (60, 240, 60, 0, 0),
    "ad3tr4_blq/ad3tr4_blq": (100, 500, 100, 0, 0),
    "cart_carrgo_invitro/pbt1": (24, 4400, 0, 832, 1),
    "schoemaker2019_sim/oral_1cpt_sd": (120, 2273, 120, 7, 0)}


@pytest.mark.parametrize("name", READ)
def test_public_data_sets_are_read(shared_data, name):
    cohort = read_csv(shared_data / f"{name}.csv")
    assert READ[name] == tuple(map(len, (cohort.ids, cohort.observations, cohort.doses,
                                         cohort.excluded, cohort.warnings)))


@pytest.mark.parametrize(("name", "sentence"), [
    ("cart_singh2021_mouse_means/singh2021_fig2b_means", "sort the file by ID and TIME"),
    ("nlme_orange/orange", "TIME: there is no such column")])
def test_public_data_sets_that_carpk_cannot_use_are_refused_in_a_sentence(
        shared_data, name, sentence):
    with pytest.raises(DataError, match=sentence):
        read_csv(shared_data / f"{name}.csv")


@pytest.mark.slow  # passed on a quiet machine, the only place where a time means something
def test_a_hundred_thousand_rows_are_checked_in_three_seconds(tmp_path):
    patients, each = 8000, 13
    rng = np.random.default_rng(1)
    level = rng.lognormal(6, 2, patients * each)
    table = pd.DataFrame({
        "ID": np.repeat(np.arange(patients), each),
        "TIME": np.sort(rng.uniform(0.1, 300, (patients, each))).ravel(),
        "DV": np.maximum(level, 50), "DVID": 1, "CENS": (level < 50).astype(int), "LLOQ": 50,
        "AGE": np.repeat(rng.uniform(3, 80, patients), each), "LNDV": np.log(level)})
    table.to_csv(tmp_path / "run.csv", index=False)
    stein = registry.find_model("stein_2019")
    begin = time.process_time()
    cohort = read_csv(tmp_path / "run.csv", structure=stein)
    assert time.process_time() - begin < 3
    assert len(cohort.observations) == patients * each


def test_a_hundred_thousand_problems_are_all_held_and_printed(refused):
    rows = "".join(f"1,{k},BLQ\n" for k in range(100_000))
    problems = refused("ID,TIME,DV\n" + rows)
    assert len(problems) == 100_000
    assert problems[-1].line == 100_001
