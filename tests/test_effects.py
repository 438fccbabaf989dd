"""Covariates as they are asked for, and what a cohort's columns make of them."""

import re

import numpy as np
import pytest
from models_for_tests import DECAY, cohort, decaying

from carpk import tables
from carpk.cohort import design
from carpk.effects import asked_effects
from carpk.population_model import population
from carpk.preparation import resolve, with_effects
from carpk.problems import DataError, Problem, RequestError
from carpk.structure import Output, Parameter, Source, StructuralModel, sd

ROWS = [(str(i), t, 9.0) for i in range(1, 8) for t in (1.0, 5.0)]


def seen(**columns):
    return design(cohort(ROWS, **columns), DECAY)


def test_a_formula_is_read_term_by_term():
    effects, found = asked_effects(DECAY, ["C0 ~ log(DOSE) + SEX + AGE:WT + I(AGE**2)"])
    assert not found
    assert [(e.column, e.form) for e in effects] == [
        ("DOSE", "power"), ("SEX", "auto"), ("I(AGE ** 2)", "formula"), ("AGE:WT", "formula")]


def test_c_in_a_formula_is_a_category():
    whole, _ = with_effects(population(DECAY, covariates=["C0 ~ C(SITE) + C(SEX)"]),
                            seen(SITE=[1, 1, 1, 1, 2, 2, 2], SEX=list("MFFMFFM")))
    assert [(e.key, e.form, e.reference, e.points) for e in whole.effects] == [
        ("C0 ~ SITE", "category", "1", ("2",)), ("C0 ~ SEX", "category", "F", ("M",))]


@pytest.mark.parametrize(("formula", "said"), [
    ("WT ~ AGE", "a formula has one ~"), ("1", "no covariate on the right"),
    ("WT - WT", "no covariate on the right"), ("WT**2", r"write I\(WT\*\*2\)"),
    ("AGE + WT ** 2", r"write I\(WT \*\* 2\)"), ("foo(WT)", r"does not take foo\(\)"),
    ("center(WT)", r"does not take center\(\)"), ("WT.mean()", "does not take WT.mean"),
    ("C(SEX):WT", r"C\(X\) stands alone"), ("C(SEX, 'M')", r"C\(X\) stands alone"),
    ("(WT", "not a formula: Could not find"), ("WT SEX", "not a formula: Missing operator"),
    (".", r"not a formula: The `\.` operator requires")])
def test_a_wrong_right_hand_side_is_refused_in_one_plain_sentence(formula, said):
    _, [problem] = asked_effects(DECAY, [f"C0 ~ {formula}"])
    assert re.search(said, f"{problem.wrong}; {problem.remedy}")
    assert (problem.column, problem.found) == ("covariates", f"C0 ~ {formula}")
    assert problem.wrong.isprintable()


@pytest.mark.parametrize("formula", ["(AGE + WT)**2", "I((WT - 3)**2 + AGE**2)", "np.sqrt(WT):AGE"])
def test_powers_of_numbers_and_products_of_sums_are_formulas(formula):
    effects, found = asked_effects(DECAY, [f"C0 ~ {formula}"])
    assert not found
    assert effects


@pytest.mark.parametrize("asked", [
    ["C0 ~ SEX:WT"], ["C0 ~ I(SEX)"], {"C0 ~ SEX": "power"}, {"C0 ~ SEX": "spline"}])
def test_a_column_of_words_where_numbers_go_is_one_error(asked):
    with pytest.raises(DataError) as refused:
        with_effects(population(DECAY, covariates=asked),
                     seen(SEX=list("MFFMFFM"), WT=np.arange(50.0, 120, 10)))
    [problem] = refused.value.problems
    assert (problem.column, problem.found) == ("SEX", "M")
    assert "takes numbers" in problem.wrong


def test_a_form_may_give_its_reference_levels_and_knots_and_is_written_back():
    asked = {"C0 ~ WT": "power(70)", "C0 ~ SEX": "category(F, M, U)",
             "k ~ AGE": "spline(40, 20, 40, 60)", "k ~ WT": "exponential"}
    effects, found = asked_effects(DECAY, asked)
    assert not found
    assert effects[0].reference == 70.0
    assert (effects[1].reference, effects[1].points) == ("F", ("M", "U"))
    assert effects[2].points == (20.0, 40.0, 60.0)
    again, _ = asked_effects(DECAY, {e.key: e.written for e in effects})
    assert again == effects


@pytest.mark.parametrize(("asked", "said"), [
    ({"Q ~ WT": "power"}, "no such parameter: Q"), ({"C0": "power"}, "not PARAMETER ~ COLUMN"),
    ({"C0 ~ WT": "pwoer"}, "no such covariate form"), ({"C0 ~ WT": "power(heavy)"}, "a number"),
    ({"C0 ~ WT": "power(70, 80)"}, "nothing else"), (["C0 ~ WT +* 3"], "not a formula"),
    ({"C0 ~ WT": "spline(70, 50, 60)"}, "three knots"), (["C0 ~ WT", "C0 ~ WT"], ""),
    ({"C0 ~ WT": "power", "C0 ~  WT": "linear"}, "stated twice")])
def test_what_is_not_understood_is_refused_with_a_sentence(asked, said):
    if not said:  # the same text is the same request
        assert len(population(DECAY, covariates=asked).effects) == 1
        return
    with pytest.raises(RequestError, match=said):
        population(DECAY, covariates=asked)


def test_a_cohort_gives_references_levels_names_and_priors():
    model = population(DECAY, covariates=["C0 ~ SEX + log(WT)"])
    whole, _ = resolve(model, seen(SEX=list("MFFMFFM"), WT=np.arange(50.0, 120, 10)), {})
    assert [e.reference for e in whole.effects] == ["F", 80.0]
    assert whole.names[2:4] == ("beta_C0_SEX_M", "beta_C0_WT")
    assert str(whole.priors["beta_C0_SEX_M"]) == "normal(0, 1)"
    assert whole.priors["beta_C0_WT"].numbers[1] == pytest.approx(
        1 / np.log(np.arange(50, 120, 10)).std(), rel=0.02)


def test_everything_wrong_with_the_columns_is_said_at_once_with_the_patient():
    columns = {"WT": [70.0, 0, 80, 90, 60, 50, 40], "AGE": [1.0, np.nan, 3, 4, 5, 6, 7],
               "SEX": ["M"] * 7, "DAY": ["x", 1, 2, 3, 4, 5, 6]}
    model = population(DECAY, covariates={
        "C0 ~ WT": "power", "C0 ~ AGE": "linear", "k ~ SEX": "category", "k ~ DAY": "exponential",
        "k ~ NONE": "power", "k ~ AGE": "power"})
    with pytest.raises(DataError) as refused:
        with_effects(model, seen(**columns))
    wrong = [(p.patient, p.column) for p in refused.value.problems]
    assert wrong == [("2", "WT"), ("2", "AGE"), (None, "k ~ SEX"), ("1", "DAY"), (None, "NONE"),
                     ("2", "AGE")]


def test_a_column_that_varies_within_a_patient_is_refused_where_it_changes():
    from dataclasses import replace
    there = Problem("error", "not one value per patient", line=5, patient="1", column="WT")
    varying = replace(seen(), varying={"WT": (there,)})
    with pytest.raises(DataError, match="not one value per patient"):
        with_effects(population(DECAY, covariates=["C0 ~ WT"]), varying)


LINKS = StructuralModel(
    title="a share and a shift", source=Source("textbook"), time_unit="day",
    parameters=(Parameter("f", 0.3, "-", "share", link="logit"),
                Parameter("m", 5.0, "mg/L", "shift", link="identity", omega=sd(1.0))),
    outputs=(Output("y", "mg/L", "level", error="additive"),),
    solution=lambda t, p: {"y": p.f * 10 + p.m + 0.0 * t}, file=__file__)


def test_a_coefficient_is_said_on_the_scale_of_its_parameter(near_typical):
    many = [(str(i), t, 9.0 + i % 3) for i in range(12) for t in (1.0, 5.0)]
    fit = near_typical(population(LINKS, covariates={
        "f ~ SEX": "category(F)", "f ~ WT": "power(70)", "m ~ SEX": "category(F)",
        "m ~ WT": "exponential(70)"}), cohort(many, SEX=list("MF") * 6, WT=np.arange(50.0, 110, 5)))
    table = tables.parameters(fit).set_index("parameter")
    assert {n: (r["meaning"], r["unit"]) for n, r in table.iterrows() if "beta" in n} == {
        "beta_f_SEX_M": ("logit f of SEX M against F", "-"),
        "beta_f_WT": ("slope in ln(WT / 70), on logit f", "-"),
        "beta_m_SEX_M": ("m of SEX M against F", "mg/L"),
        "beta_m_WT": ("slope in WT, 0 at 70, on m", "mg/L per WT")}
    assert fit.model.reasons["beta_m_SEX_M"] == "default: 5 mg/L for the level"


def test_a_level_with_few_patients_is_a_warning_that_counts_them():
    _, warnings = with_effects(population(DECAY, covariates={"C0 ~ SEX": "category(F)"}),
                               seen(SEX=list("MFFFFFF")))
    assert [(w.found, "only 1 of 7" in w.wrong) for w in warnings] == [("M", True)]


@pytest.mark.parametrize(("form", "silent"), [
    ("hockey_stick(30)", ["below"]), ("hockey_stick(130)", ["above"]),
    ("spline(80, 200, 220, 240)", ["2"])])
def test_a_coefficient_that_acts_on_no_patient_is_refused_by_name(form, silent):
    model = population(DECAY, covariates={"C0 ~ WT": form})
    columns = seen(WT=np.arange(50, 120, 10.0))
    with pytest.raises(DataError) as refused:
        resolve(model, columns, {})
    assert [p.column for p in refused.value.problems] == ["C0 ~ WT"]
    assert all(f"beta_C0_WT_{s} acts" in p.wrong and "50 to 110" in p.wrong
               for s, p in zip(silent, refused.value.problems, strict=True))
    assert with_effects(model, columns, planned=True)[0].effects  # in a simulation it may stand


def test_numbers_are_levels_where_a_category_is_asked_for():
    whole, _ = with_effects(population(DECAY, covariates={"C0 ~ SITE": "category(1)"}),
                            seen(SITE=[1, 1, 1, 2, 2, 2, 2]))
    assert whole.effects[0].points == ("2",)


def test_coefficients_can_be_fixed_and_given_priors_and_wrong_names_are_told_with_the_right_ones():
    asked = {"covariates": {"C0 ~ SEX": "category(F)", "C0 ~ WT": "power(70)"}}
    columns = {"SEX": list("MFFMFFM"), "WT": np.arange(50.0, 120, 10)}
    model, _ = resolve(population(DECAY, **asked, fixed={"beta_C0_WT": 0.75},
                                  priors={"beta_C0_SEX_M": "normal(0, 0.2)"}), seen(**columns), {})
    assert model.fixed["beta_C0_WT"] == 0.75
    assert str(model.priors["beta_C0_SEX_M"]) == "normal(0, 0.2)"
    with pytest.raises(RequestError, match="beta_C0_SEX_M"):
        resolve(population(DECAY, **asked, fixed={"beta_C0_SEX_Male": 0}), seen(**columns), {})
    with pytest.raises(RequestError, match="beta_C0_WT"):
        resolve(population(DECAY, **asked, fixed={"beta_C0_WTT": 0.75}), seen(**columns), {})


@pytest.mark.parametrize(("correlated", "said"), [
    ("all", "full"), ([["C0", "Q"]], "varying parameter"), ([["C0"]], "two parameters"),
    ([["C0", "k"], ["k", "C0"]], "two blocks")])
def test_a_block_that_cannot_be_is_refused(correlated, said):
    with pytest.raises(RequestError, match=said):
        population(DECAY, correlated=correlated)


def test_a_block_keeps_the_order_of_the_spread_and_loses_what_does_not_vary():
    assert population(DECAY, correlated=[["k", "C0"]]).names[4] == "corr_C0_k"
    assert population(DECAY, correlated="full", fixed={"omega_k": 0}).blocks == ()
    held = population(DECAY, correlated="full", fixed={"corr_C0_k": -0.3})
    assert held.fixed["corr_C0_k"] == -0.3
    with pytest.raises(RequestError, match="positive definite"):
        population("stein_2019", correlated=[["Tmax", "Cmax", "alpha"]], fixed={
            "corr_Tmax_Cmax": 0.9, "corr_Tmax_alpha": 0.9, "corr_Cmax_alpha": -0.9})


def test_the_columns_a_model_reads_are_not_listed_as_unused():
    from carpk.cohort import ignored_columns
    model = population(DECAY, covariates=["C0 ~ log(WT)"])
    assert ignored_columns(decaying(), DECAY, model.covariates) == ["SEX"]
