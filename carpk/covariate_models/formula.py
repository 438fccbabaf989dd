"""One term of a Wilkinson formula: P = P_pop exp(beta (term - its median)).

Written as `Cmax ~ np.sqrt(DOSE) + AGE:WT`; each term is evaluated by formulaic.
"""

import numpy as np
import pandas as pd

from carpk.covariate_models import CovariateEffect, CovariateModel


def needs(effect: CovariateEffect) -> tuple[str, ...]:
    """The columns of the file that the term reads.

    >>> needs(CovariateEffect("Cmax", "np.sqrt(DOSE):AGE", "formula"))
    ('AGE', 'DOSE')
    """
    from formulaic import Formula

    return tuple(sorted(str(v) for v in Formula(f"0 + {effect.column}").required_variables
                        if "value" in v.roles))


def read(table: pd.DataFrame, effect: CovariateEffect) -> np.ndarray:
    """(P,), the term of every patient."""
    from formulaic import model_matrix

    with np.errstate(all="ignore"):  # what is not finite is told, patient by patient
        made = model_matrix(f"0 + {effect.column}", table[list(needs(effect))], na_action="ignore")
    if made.shape[1] != 1:
        raise ValueError("a term must be one number per patient")
    return np.asarray(made, dtype=float)[:, 0]


COVARIATE_MODEL = CovariateModel(
    title="term of a formula", says="P = P_pop exp(beta (term - reference))",
    needs=needs, read=read, columns=lambda x, effect: (x - effect.reference)[:, None])
