"""How long the bands of a visual predictive check take: 1,000 replicates of the 90-patient example.

    python benchmarks/vpc.py fits/<a fit of example:tisacel_like>

Replicates, and the percentiles of each kind of bins, timed once as they come and once more with
the programs the first time compiled (the second line is what a later command pays). Times are wall
seconds and, because other work on the machine does not move them, CPU seconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

BINS = ("adaptive", "none")


def timed(run, *arguments, **options) -> str:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    run(*arguments, **options)
    return f"{time.perf_counter() - wall:.1f} | {time.process_time() - cpu:.1f}"


def main(folder: str) -> None:
    """Prints the table of one fit."""
    import jax

    from carpk import predictive_check
    from carpk.fitting import load_fit
    from carpk.prediction import predictions

    with tempfile.TemporaryDirectory() as programs:
        jax.config.update("jax_compilation_cache_dir", programs)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        fit = load_fit(folder)
        rows = predictions(fit)
        print(f"{len(fit.design.ids)} patients, {len(rows)} observations, "
              f"{predictive_check.COUNT} replicates\n")
        print("| | replicates s | cpu s | " + " | ".join(f"{b} s | cpu s" for b in BINS) + " |")
        print("| --- " * (2 * len(BINS) + 3) + "|")
        for name in ("first", "again"):
            predictive_check.replicates.cache_clear()
            predictive_check._vpc.cache_clear()
            cells = [timed(predictive_check.replicates, fit)]
            output = rows["output"].iloc[0]
            cells += [timed(predictive_check.vpc, fit, output, bins=b) for b in BINS]
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
