"""Prior against posterior of each population parameter: what the data added."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator

from carpk.fitting import Fit
from carpk.plots import BLUE, GREY, Pages, dress, headed, log_axis, page
from carpk.priors import LOG, Prior
from carpk.tables import described, prior_dominated, prior_on_real_line

TITLE = "Prior and posterior"
CAPTION = (
    "Grey: the prior. Blue: the draws. The number is the contraction, 1 − (posterior SD / prior "
    "SD) squared on the scale the parameter is sampled on: near 1 the data decided, near 0 the "
    "prior did (in bold: an interval that is mostly the prior's). Densities are scaled to the same "
    "height.")

ROWS, COLUMNS = 7, 4


def draw(fit: Fit) -> Pages:
    """Pages of up to 28 parameters; none of maximum likelihood, which uses no prior."""
    if "estimates" in fit.manifest:
        return []
    # of a coefficient under a horseshoe the prior depends on the other parameters
    names = [n for n in fit.model.free if fit.model.priors[n].family != "horseshoe"]
    each = ROWS * COLUMNS
    weak = prior_dominated(fit)
    pages: Pages = []
    for number, first in enumerate(range(0, len(names), each), 1):
        shown = names[first:first + each]
        rows = -(-len(shown) // COLUMNS)
        height = 0.75 + 1.12 * rows
        figure = page(fit, 7.0, height, TITLE)
        grid = figure.add_gridspec(rows, COLUMNS, left=0.03, right=0.985, top=1 - 0.6 / height,
                                   bottom=0.26 / height, wspace=0.12, hspace=0.75)
        for k, name in enumerate(shown):
            ax = figure.add_subplot(grid[divmod(k, COLUMNS)])
            draws = fit.posterior["posterior"].dataset[name].values.ravel()
            unit = described(fit, name)["unit"]
            _panel(ax, name if unit == "-" else f"{name} ({unit})", draws,
                   fit.model.priors[name], name in weak)
        pages.append(("priors" if len(names) <= each else f"priors_{number}", figure))
    return pages


def _panel(ax: Any, label: str, draws: np.ndarray, prior: Prior, weak: bool) -> None:
    dress(ax)
    log = prior.scale is LOG
    wide = _range(prior)
    low, high = min(float(draws.min()), wide[0]), max(float(draws.max()), wide[1])
    edges = np.geomspace(low, high, 161) if log else np.linspace(low, high, 161)
    middle = np.sqrt(edges[1:] * edges[:-1]) if log else 0.5 * (edges[1:] + edges[:-1])
    density = np.exp(np.asarray(prior.log_density(jnp.asarray(middle)))) * (middle if log else 1)
    ax.fill_between(middle, density / density.max(), color=GREY, alpha=0.35, linewidth=0)
    x = np.log(draws) if log else draws
    across = np.log(middle) if log else middle
    # Silverman's width: a smooth outline of a few hundred draws
    width = 1.06 * min(x.std(), np.subtract(*np.quantile(x, [0.75, 0.25])) / 1.35) \
        * len(x) ** -0.2 or 1e-3 * np.ptp(across)
    width = max(width, 0.5 * (across[1] - across[0]))
    seen = np.exp(-0.5 * ((across[:, None] - x[None]) / width) ** 2).sum(axis=1)
    ax.fill_between(middle, seen / seen.max(), color=BLUE, alpha=0.55, linewidth=0)
    if log:
        log_axis(ax, "x", low, high)
    else:
        ax.set_xlim(low, high)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_ylim(0, 1.12)
    ax.yaxis.set_major_locator(NullLocator())
    ax.spines["left"].set_visible(False)
    _, sd = prior_on_real_line(prior)
    u = np.asarray(prior.scale.to_real(jnp.asarray(draws)))
    said = f"{label}: {max(0.0, 1 - (u.std() / sd) ** 2):.2f}"
    headed(ax, said, fontweight="bold" if weak else "normal")


def _range(prior: Prior) -> tuple[float, float]:
    """Where nearly all of a prior lies, natural scale."""
    centre, sd = prior_on_real_line(prior)
    ends = prior.scale.from_real(jnp.asarray([centre - 2.2 * sd, centre + 2.2 * sd]))
    return float(ends[0]), float(ends[1])
