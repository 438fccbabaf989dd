"""Every error model with every tail by every rule for censored levels: value, slope, 40 SDs away.

One program for each error model with its tails, all rows and methods side by side.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from carpk import registry
from carpk.error_models import error_model
from carpk.likelihood import row_log_likelihood
from carpk.tails import TAILS

NAMES = [f"{n} {t}" for n in registry.names("error_models") if n != "bernoulli" for t in TAILS]
SIGMA = {"log": 0.6, "add": 3.0, "prop": 0.25, "power": 0.7}
SHAPES = {"normal": stats.norm(), "student_t": stats.t(4), "cauchy": stats.cauchy()}
INF, LIMIT = np.inf, 10.0
# of each rule: the ends of the row and whether levels are known to be above 0
RULES = {"M1, measured": (23.0, 23.0, False), "M3": (-INF, LIMIT, False), "M4": (0.0, LIMIT, True),
         "M4, measured": (23.0, 23.0, True), "M6": (LIMIT / 2, LIMIT / 2, False),
         "M7": (0.0, 0.0, False), "right": (30.0, INF, False),
         "LOD to LLOQ": (2.0, LIMIT, False)}


def rules(name):
    """M7 sets a level to 0, which has no logarithm."""
    return {r: v for r, v in RULES.items() if r != "M7" or not error_model(name).log_scale}


def program(name):
    """ln of the likelihood of rows, and its slope in each prediction, as a fit computes them."""
    error = error_model(name)
    sigma = SimpleNamespace(**{s: SIGMA[s] for s in error.sigmas})

    def of(lower, upper, positive, pred):
        rows = {}
        for method in ("M3", "M4"):
            model = SimpleNamespace(error_pairs=(), censoring=method, sigma=lambda *_: sigma,
                                    error_models=lambda: {"C": error})
            data = {"observed": jnp.ones_like(pred, bool), "output": jnp.zeros_like(pred, int),
                    "lower": lower, "upper": upper}
            rows[method] = row_log_likelihood(model, data, {}, pred)
        return jnp.where(positive, rows["M4"], rows["M3"])

    def both(*ends):
        value, back = jax.vjp(lambda pred: of(*ends[:3], pred), ends[3])
        return value, back(jnp.ones_like(value))[0]

    return jax.jit(both)


def rows_of(name, preds):
    """(rules, predictions) each: lower, upper, above 0, prediction."""
    ends = np.array([v for v in rules(name).values()], dtype=float)
    shape = (len(ends), len(preds))
    lower, upper, positive = (np.broadcast_to(c[:, None], shape) for c in ends.T)
    return lower, upper, positive > 0, np.broadcast_to(preds, shape)


def by_scipy(name, lower, upper, positive, pred):
    """One row's, from the distribution function of its tails."""
    plain, tails = name.split()
    sd = {"additive": 3.0, "proportional": 0.25 * pred, "power": 0.25 * pred**0.7,
          "combined": np.hypot(3.0, 0.25 * pred), "combined_sum": 3.0 + 0.25 * pred,
          "lognormal": 0.6}[plain]
    shape, log = SHAPES[tails], plain == "lognormal"

    def z(y):
        with np.errstate(divide="ignore"):
            return ((np.log(max(y, 0.0)) - np.log(pred)) if log else y - pred) / sd

    if lower == upper:
        found = shape.logpdf(z(upper)) - np.log(sd) - (np.log(upper) if log else 0.0)
    elif upper == INF:
        found = shape.logsf(z(lower))
    elif lower == -INF:
        found = shape.logcdf(z(upper))
    elif z(lower) > 0:
        found = np.log(shape.sf(z(lower)) - shape.sf(z(upper)))
    else:
        found = np.log(shape.cdf(z(upper)) - shape.cdf(z(lower)))
    return found - (shape.logsf(z(0.0)) if positive and not log else 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_values_are_scipys_slopes_are_central_differences_and_both_are_finite_40_sds_away(name):
    run, near = program(name), np.array([4.0, 9.0, 22.0, 40.0])
    rows = rows_of(name, near)
    value, slope = (np.asarray(x) for x in run(*rows))
    expected = np.vectorize(lambda *row: by_scipy(name, *row))(*rows)
    assert value == pytest.approx(expected, rel=1e-8, abs=1e-12)
    step = 1e-5 * near
    up, down = (np.asarray(run(*rows[:3], rows[3] + side * step)[0]) for side in (1, -1))
    assert slope == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-8)

    error = error_model(name)
    sigma = SimpleNamespace(**{s: SIGMA[s] for s in error.sigmas})
    sd = float(error.sd(jnp.asarray(LIMIT), sigma))
    away = np.array([-40.0, -8.0, 8.0, 40.0]) * sd
    far = LIMIT * np.exp(away) if error.log_scale else LIMIT + away
    value, slope = (np.asarray(x) for x in run(*rows_of(name, far)))
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()
