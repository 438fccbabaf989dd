"""How well FOCEI recovers the truth of Schoemaker's simulated sets, from starts of the data.

    python benchmarks/recovery.py

Bias is against the 120 individuals' own values: their geometric mean, and the SD of their logs;
RSE is the estimate's own. NONMEM's are there for the one set it has printed. The table goes to
README.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

import references

from carpk.fitting import fit

DATA = HERE.parents[1] / "shared" / "data"
SETS = {"bolus_2cpt": "TWO", "oral_1cpt": "ORAL", "infusion_2cpt": "TWO_INFUSED",
        "bolus_1cptmm": "SATURABLE"}
# NONMEM 7.4.3, runODE032 of nonmem2rx: SE of the log of a typical value, and of a variance
NONMEM = {"CL": (0.029794, 0.0130114), "V1": (0.0295196, 0.0122984), "Q": (0.0547116, 0.0309682),
          "V2": (0.0348348, 0.0225874)}
BEGIN, END = "<!-- recovery -->", "<!-- end of recovery -->"
HEAD = ("set", "parameter", "truth", "estimate", "bias %", "RSE %", "NONMEM's estimate", "bias %",
        "RSE %")


def rows(name: str) -> list[list[str]]:
    """The rows of one set."""
    model, cohort, truth = references.schoemaker_set(DATA, name, SETS[name])
    found = fit(model, cohort, "focei", seed=1, inits="data", draws=51).manifest["estimates"]
    printed = references.schoemaker(DATA)[2] if name == "bolus_2cpt" else {}
    table = []
    for n in model.spread:
        logs = np.log(truth[n.upper()])
        # of an SD half the RSE of its variance
        ses = (NONMEM[n][0], NONMEM[n][1] / (2 * printed[f"omega_{n}"]**2)) if printed else ()
        for k, (of, true) in enumerate(((f"{n}_pop", np.exp(logs.mean())),
                                        (f"omega_{n}", logs.std()))):
            at = found[of]
            theirs = [f"{printed[of]:.4g}", f"{100 * (printed[of] / true - 1):+.1f}",
                      f"{100 * ses[k]:.1f}"] if printed else ["", "", ""]
            table.append([name, of, f"{true:.4g}", f"{at['estimate']:.4g}",
                          f"{100 * (at['estimate'] / true - 1):+.1f}",
                          f"{100 * at['se'] / at['estimate']:.1f}", *theirs])
    return table


def main() -> None:
    """Prints the table and writes it into README.md."""
    lines = [HEAD, ("---",) * len(HEAD), *(row for name in SETS for row in rows(name))]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    print(table)
    readme = HERE / "README.md"
    before, _, rest = readme.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
