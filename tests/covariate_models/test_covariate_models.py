"""Every covariate form: what any must satisfy, and its equation written out."""

import jax
import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import CubicSpline

from carpk import registry
from carpk.covariate_models import CovariateEffect, spline

NAMES = registry.names("covariate_models")
X = np.array([12.0, 40.0, 55.0, 70.0, 71.0, 90.0, 130.0])
TABLE = pd.DataFrame({"WT": X, "SEX": list("MFFMMUM")})


def effect_of(name):
    form = registry.load("covariate_models", name)
    column = {"category": "SEX", "formula": "I(WT**2)"}.get(name, "WT")
    asked = CovariateEffect("CL", column, name)
    return form, form.found(form.read(TABLE, asked), asked)


@pytest.mark.parametrize("name", NAMES)
def test_a_form_has_a_reference_where_the_parameter_is_not_moved_and_a_name_per_coefficient(name):
    form, effect = effect_of(name)
    x = form.read(TABLE, effect)
    columns = form.columns(x, effect)
    names = form.names(effect)
    assert columns.shape == (len(X), len(names))
    assert all(n.startswith("beta_CL_") for n in names)
    at_reference = form.columns(np.array([effect.reference], dtype=x.dtype), effect)
    beta = [0.3, -0.2, 0.1][:len(names)]
    assert float(form.shift(at_reference, beta)[0]) == pytest.approx(0.0, abs=1e-12)
    assert effect.reference in ("M", 70.0, 4900.0)
    assert form.title
    assert form.says.startswith("P = P_pop")


@pytest.mark.parametrize("name", NAMES)
def test_a_form_has_finite_slopes_in_its_coefficients(name):
    form, effect = effect_of(name)
    columns = form.columns(form.read(TABLE, effect), effect)
    for size in (0.0, 0.01, -0.05):
        slopes = jax.jacfwd(
            lambda b: form.shift(columns, [b, b, b][:len(form.names(effect))]))(size)
        assert np.isfinite(slopes).all()


@pytest.mark.parametrize(("name", "factor"), [
    ("power", lambda x, b: (x / 70) ** b), ("exponential", lambda x, b: np.exp(b * (x - 70))),
    ("linear", lambda x, b: 1 + b * (x - 70)),
    ("formula", lambda x, b: np.exp(b * (x**2 - 4900)))])
def test_a_form_is_its_equation(name, factor):
    form, effect = effect_of(name)
    columns = form.columns(form.read(TABLE, effect), effect)
    shift = form.shift(columns, [0.007])
    np.testing.assert_allclose(np.exp(shift), factor(X, 0.007), rtol=1e-12)


def test_a_hockey_stick_bends_at_its_reference():
    form, effect = effect_of("hockey_stick")
    shift = form.shift(form.columns(X, effect), [0.1, -0.02])
    np.testing.assert_allclose(shift, np.where(X < 70, 0.1, -0.02) * (X - 70))


def test_a_category_has_a_coefficient_for_each_level_but_the_most_frequent():
    form, effect = effect_of("category")
    assert (effect.reference, effect.points) == ("M", ("F", "U"))
    assert form.names(effect) == ("beta_CL_SEX_F", "beta_CL_SEX_U")
    shift = form.shift(form.columns(TABLE["SEX"].to_numpy(), effect), [0.5, 2.0])
    np.testing.assert_allclose(shift, [0, 0.5, 0.5, 0, 0, 2.0, 0])


def test_a_spline_is_the_natural_cubic_through_its_values_at_the_knots():
    knots = (20.0, 50.0, 70.0, 110.0)
    effect = CovariateEffect("CL", "WT", "spline", 60.0, knots)
    form = registry.load("covariate_models", "spline")
    beta = np.array([0.7, -2.0, 1.5])

    def ours(x):
        return np.asarray(form.shift(form.columns(np.asarray(x, dtype=float), effect), beta))

    natural = CubicSpline(knots, ours(knots), bc_type="natural")
    inside = np.linspace(20, 110, 91)
    np.testing.assert_allclose(ours(inside), natural(inside), atol=1e-10)
    outside = ours([0.0, 5.0, 10.0, 130.0, 140.0, 150.0])  # straight lines
    assert outside[0] - outside[1] == pytest.approx(outside[1] - outside[2])
    assert outside[5] - outside[4] == pytest.approx(outside[4] - outside[3])
    assert len(spline.found(X, CovariateEffect("CL", "WT", "spline")).points) == 4
