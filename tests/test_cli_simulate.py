"""The command simulate: files, options, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from carpk import registry
from carpk.nonmem import read_csv

FEW = ("--patients", 4, "--times", "1,7,28")


def made(carpk, *arguments):
    done = carpk("simulate", *arguments)
    assert done.exit_code == 0, done.output
    return Path(done.stdout.strip()).read_text("utf-8")


def test_a_simulated_cohort_is_checked_and_read_back_with_what_was_asked_for(carpk):
    done = carpk("simulate", "stein_2019", *FEW, "--seed", 3, "--lloq", 50)
    assert done.exit_code == 0, done.output
    assert done.stdout == "stein_2019_simulated.csv\n"
    assert "residual error 0.3 of C (lognormal)" in done.stderr
    assert "plot: stein_2019_simulated.svg" in done.stderr
    assert "<svg" in Path("stein_2019_simulated.svg").read_text("utf-8")
    checked = carpk("check", "stein_2019_simulated.csv", "--model", "stein_2019")
    assert checked.exit_code == 0, checked.output
    assert "4 patients, 12 observations" in checked.stdout
    cohort = read_csv("stein_2019_simulated.csv", structure=registry.load("models", "stein_2019"))
    assert cohort.observations["TIME"].unique().tolist() == [1, 7, 28]
    assert (cohort.observations["DV"] >= 50).all()
    assert cohort.warnings == ()


def test_inputs_are_columns_and_a_set_gives_its_own(carpk):
    made(carpk, "liu_l_2022", *FEW, "--set", "set 3", "--dvid", 1)
    table = pd.read_csv("liu_l_2022_simulated.csv")
    assert (table["NB0"] == 1874.144179).all()
    assert (table["DVID"] == 1).all()
    assert carpk("check", "liu_l_2022_simulated.csv", "--model", "liu_l_2022").exit_code == 0


def test_the_same_seed_gives_the_same_file_and_another_seed_another(carpk):
    first = made(carpk, "stein_2019", *FEW, "--seed", 1, "--out", "a.csv")
    assert made(carpk, "stein_2019", *FEW, "--seed", 1, "--out", "b.csv") == first
    assert made(carpk, "stein_2019", *FEW, "--seed", 2, "--out", "c.csv") != first
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()


def test_sigma_is_the_residual_error_and_0_is_none(carpk):
    made(carpk, "stein_2019", "--patients", 200, "--times", "5,14", "--sigma", 0, "--out", "0.csv")
    made(carpk, "stein_2019", "--patients", 200, "--times", "5,14", "--sigma", "C=0.5", "--out",
         "5.csv")
    residual = np.log(pd.read_csv("5.csv")["DV"] / pd.read_csv("0.csv")["DV"])
    assert residual.std() == pytest.approx(0.5, rel=0.15)


def test_a_design_gives_samples_inputs_and_doses(carpk, tmp_path):
    (tmp_path / "my.csv").write_text("ID,TIME,AMT,CMT,WT\na,0,100,1,70\na,2,.,.,70\nb,3,.,.,60\n"
                                     "b,0.5,50,2,60\n".replace("b,3,.,.,60\nb,0.5,50,2,60",
                                                               "b,0.5,50,2,60\nb,3,.,.,60"))
    text = made(carpk, "one_compartment_oral", "--design", "my.csv")
    cohort = read_csv("one_compartment_oral_simulated.csv")
    assert cohort.ids == ("a", "b")
    assert cohort.doses["AMT"].tolist() == [100, 50]
    assert cohort.observations["TIME"].tolist() == [2, 3]
    assert cohort.covariates["WT"].tolist() == [70, 60]
    assert text.startswith("ID,TIME,DV")


def test_a_design_may_repeat_and_reset(carpk, tmp_path):
    (tmp_path / "my.csv").write_text("ID,TIME,EVID,AMT,CMT,ADDL,II,SS\n1,0,1,100,1,1,12,0\n"
                                     "1,2,0,,,,,\n1,20,3,,,,,\n1,30,0,,,,,\n")
    made(carpk, "one_compartment_oral", "--design", "my.csv", "--sigma", 0)
    again = read_csv("one_compartment_oral_simulated.csv")
    assert again.doses[["TIME", "EVID"]].to_numpy().tolist() == [[0, 1], [12, 1], [20, 3]]
    assert again.observations["DV"].tolist()[1:] == [0.0]

def test_covariates_of_a_design_move_what_they_are_said_to_move(carpk, tmp_path):
    (tmp_path / "my.csv").write_text("ID,WT\n1,35\n2,140\n3,70\n")
    done = carpk("simulate", "stein_2019", "--times", 5, "--design", "my.csv", "--sigma", 0,
                 "--covariate", "Cmax ~ WT=power(70)", "--value", "beta_Cmax_WT=0.75",
                 *(f"--value=omega_{n}=0" for n
                   in ("Cmax", "Tmax", "foldx", "alpha", "FB", "beta")))
    assert done.exit_code == 0, done.output
    assert "Cmax ~ WT: power(70.0)" in done.stderr
    table = pd.read_csv("stein_2019_simulated.csv")
    level = table["DV"].to_numpy()
    # before the peak a curve is (Cmax / foldx) exp(t ln foldx / Tmax): in proportion to Cmax
    assert level / level[2] == pytest.approx([0.5**0.75, 2**0.75, 1.0], rel=1e-3)
    assert table["WT"].tolist() == [35, 140, 70]
    asks = carpk("simulate", "stein_2019", "--design", "my.csv", "--times", 5, "--covariate",
                 "Cmax ~ WT=power", "--value", "gamma_Cmax=1")
    assert "no such population parameter" in asks.stderr, asks.output
    asks = carpk("simulate", "stein_2019", "--design", "my.csv", "--times", 5, "--covariate",
                 "Cmax ~ WT=power", "--out", "b.csv")
    assert "--value beta_Cmax_WT=..." in asks.stderr, asks.output


def test_covariates_are_drawn_from_the_rows_of_other_patients(carpk, tmp_path):
    rows = [(f"p{k}", 40 + k, "FM"[k % 2], "" if k == 3 else k) for k in range(6)]
    (tmp_path / "they.csv").write_text("ID,WT,SEX,AGE\n" + "".join(
        f"{','.join(map(str, row))}\n" for row in rows))
    done = carpk("simulate", "stein_2019", "--patients", 60, "--times", 5, "--sigma", 0,
                 "--covariates-from", "they.csv", "--covariate", "Cmax ~ SEX=category(F)",
                 "--value", "beta_Cmax_SEX_M=-9")
    assert done.exit_code == 0, done.output
    assert "columns not used: WT, AGE\n" in done.stderr
    table = pd.read_csv("stein_2019_simulated.csv")
    pairs = {(w, s) for _, w, s, _ in rows}
    assert set(zip(table["WT"], table["SEX"], strict=True)) == pairs
    assert (pd.to_numeric(table["AGE"], errors="coerce").isna() == (table["WT"] == 43)).all()
    assert (table["DV"][table["SEX"] == "M"].median()
            < 1e-2 * table["DV"][table["SEX"] == "F"].median())
    # one patient of one level: references and levels are those of the file's patients
    made(carpk, "stein_2019", "--patients", 1, "--times", 5, "--covariates-from", "they.csv",
         "--covariate", "Cmax ~ SEX=category", "--value", "beta_Cmax_SEX_M=-9", "--out", "1.csv")


def test_occasions_of_a_design_differ_by_gamma(carpk, tmp_path):
    (tmp_path / "my.csv").write_text("ID,TIME,EVID,AMT,CMT,OCC\n" + "".join(
        f"{k},0,1,100,1,1\n{k},2,0,,,1\n{k},100,4,100,1,2\n{k},102,0,,,2\n" for k in range(80)))
    done = carpk("simulate", "one_compartment_oral", "--design", "my.csv", "--sigma", 0,
                 "--occasions", "V", "--value", "gamma_V=0.3", "--value", "omega_V=0",
                 "--value", "omega_CL=0", "--value", "omega_Ka=0")
    assert done.exit_code == 0, done.output
    cohort = read_csv("one_compartment_oral_simulated.csv")
    level = np.log(cohort.observations["DV"].to_numpy()).reshape(80, 2)
    assert abs(np.corrcoef(level.T)[0, 1]) < 0.3
    assert (np.abs(level[:, 0] - level[:, 1]) > 1e-3).all()
    # C of ka, CL / V and V at two hours: ln C falls by about ln V
    assert level.std() == pytest.approx(0.3, rel=0.25)
    check = carpk("check", "one_compartment_oral_simulated.csv", "--model", "one_compartment_oral")
    assert check.exit_code == 0, check.output


def test_a_dose_is_given_to_everyone_the_usual_one_where_nobody_says_otherwise(carpk):
    made(carpk, "one_compartment_oral", *FEW)
    doses = read_csv("one_compartment_oral_simulated.csv").doses
    assert doses[["TIME", "AMT", "CMT"]].to_numpy().tolist() == [[0, 100, 1]] * 4
    made(carpk, "one_compartment_oral", *FEW, "--dose", "10", "--dose", "50:central@2",
         "--overwrite")
    doses = read_csv("one_compartment_oral_simulated.csv").doses
    assert doses[["TIME", "AMT", "CMT"]].to_numpy().tolist() == [[0, 10, 1], [2, 50, 2]] * 4


def test_a_dose_in_another_unit_is_refused(carpk, tmp_path):
    (tmp_path / "my.csv").write_text("ID,TIME,AMT,CMT\na,0,100,1\na,2,.,.\n")
    for option in (("--dose", "0.1 g"), ("--design", "my.csv", "--unit", "AMT=g")):
        refused = carpk("simulate", "one_compartment_oral", "--times", "1,2", *option)
        assert refused.exit_code == 1
        assert "a dose into depot of one_compartment_oral is in mg" in refused.stderr
    made(carpk, "one_compartment_oral", *FEW, "--dose", "100 mg:depot@0")


def test_a_model_at_rest_asks_for_a_dose(carpk):
    own = Path(registry.find_model("one_compartment_oral").file).read_text(encoding="utf-8")
    Path("mine.py").write_text(own.replace('    doses=(Dose("depot", 100.0),),\n', ""))
    refused = carpk("simulate", "./mine.py", *FEW)
    assert refused.exit_code == 1
    assert "stays at rest" in refused.stderr
    assert [f.name for f in Path().iterdir() if f.suffix] == ["mine.py"]


def test_nothing_is_overwritten_unless_asked(carpk, tmp_path):
    first = made(carpk, "stein_2019", *FEW)
    again = carpk("simulate", "stein_2019", *FEW, "--seed", 9)
    assert again.exit_code == 1
    assert again.stderr.count("is not overwritten") == 2
    assert (tmp_path / "stein_2019_simulated.csv").read_text() == first
    assert made(carpk, "stein_2019", *FEW, "--seed", 9, "--overwrite") != first


def test_everything_wrong_with_a_request_is_said_at_once(carpk, tmp_path):
    (tmp_path / "bad.csv").write_text("ID,TIME\n1,x\n")
    done = carpk("simulate", "liu_l_2022", "--patients", 0, "--times", "1,-2,x", "--seed", "-1",
                 "--set", "set 9", "--sigma", "Q=0.3", "--lloq", 0, "--dvid", 7, "--dose", "1:Q",
                 "--design", "bad.csv", "--out", "x.txt")
    assert done.exit_code == 1
    for words in ("bad.csv:2", "found -2", "--times = x", "--seed = -1", "set = set 9",
                  "known: set 1, set 3", "no such output", "--lloq = 0", "--dvid = 7",
                  "no state Q", "--patients = 0", "ends in .csv"):
        assert words in done.stderr.replace("--times = -2", "found -2"), words
    assert sorted(f.name for f in tmp_path.iterdir()) == ["bad.csv"]


@pytest.mark.parametrize(("arguments", "said"), [
    (["stein_2018"], "did you mean stein_2019"),
    (["stein_2019", "--design", "none.csv"], "no such file"),
    (["one_compartment_oral"], "when are samples taken?"),
    (["stein_2019", "--set", "set 1"], "it has only typical values"),
    (["liu_l_2022", "--solver", "euler"], "none of auto, tsit5, rodas4, diffrax_tsit5")])
def test_a_refused_request_is_a_message_and_exit_1(carpk, arguments, said):
    done = carpk("simulate", *arguments)
    assert done.exit_code == 1
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_the_help_says_the_default_residual_error(carpk):
    said = " ".join(carpk("simulate", "--help").stdout.replace("│", " ").split())
    assert "default: 0.3, assumed" in said


# --prior


def test_prior_draws_virtual_cohorts_beside_the_data_of_a_request(carpk, tmp_path):
    (tmp_path / "run.csv").write_text("ID,TIME,DV\n1,1,900\n1,9,20000\n2,9,9000\n2,40,70\n")
    (tmp_path / "run.toml").write_text(
        'model = "stein_2019"\n[priors]\nCmax = "lognormal(24000, 0.1)"\n'
        '[data]\nfile = "run.csv"\n')
    done = carpk("simulate", "run.toml", "--prior", "--cohorts", 30, "--lloq", 10)
    assert done.exit_code == 0, done.output
    assert done.stdout == "stein_2019_prior.csv\n"
    assert "observed peaks 9000 to 20000, " in done.stderr
    table = read_csv("stein_2019_prior.csv")
    assert table.covariates["COHORT"].nunique() == 30
    assert len(table.ids) == 60
    picture = Path("stein_2019_prior.svg").read_text("utf-8")
    assert "prior prediction, 30 virtual cohorts of 2 patients" in picture
    assert "measured level" in picture
    again = carpk("simulate", "stein_2019", "--prior", "--cohorts", 30, "--design", "run.csv",
                  "--out", "b.csv")
    assert "observed peaks 9000 to 20000" in again.stderr, again.output


@pytest.mark.parametrize(("arguments", "words"), [
    (("stein_2019", "--prior", "--sigma", 0.3), "drawn from the priors"),
    (("stein_2019", "--prior", "--set", "CR 1", "--cohorts", 0), "must be 1 or more"),
    (("run.toml", "--prior", "--dose", "3"), "a request states its data itself"),
    (("stein_2019", "--cohorts", 5), "belongs to --prior")])
def test_what_prior_does_not_take_is_refused(carpk, arguments, words):
    done = carpk("simulate", *arguments)
    assert done.exit_code in (1, 2)
    assert words in done.stderr
