"""Markov chains side by side on the cores: begun, run to their end, kept on the way and judged."""

from __future__ import annotations

import abc
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk import posterior
from carpk.checkpoints import Checkpoints, Progress, as_before, flat
from carpk.conditional import Patients
from carpk.empirical_bayes import Start, start_shape
from carpk.geometry import Parametrisation, frozen, population_spread, to_phi, to_z
from carpk.likelihood import to_theta
from carpk.padding import filled_start, filled_up
from carpk.population_model import PopulationModel
from carpk.problems import Problem, RequestError
from carpk.solve import Arrays
from carpk.starting_values import began, refused_inits, start_from, start_kept
from carpk.uninformed import hardly_informed

CHUNK = 20  # iterations per call of the compiled sampler: what the progress bar moves by
_ROUND, _MOST = 500, 5000  # without `draws`: per chain between two looks, and the end of patience
_SAVED = 10.0  # seconds between two checkpoints of a chain: what a kill can cost
Program = Callable[..., Any]


class Kernel(NamedTuple):
    """What a sampler does: `begin` (u, z, spread, key, data, frame) gives a state, `move` (state,
    data, frame) the next, `record` (state) what is kept of it: u, z, lp, diverging, n_steps, ...

    Of a state are read: i, iterations done; potential_energy.
    spread : (Q,), rough posterior SDs of u
    """

    begin: Program
    move: Program
    record: Program


class Seat(NamedTuple):
    """A device, the program that moves a chain on there, and its copy of what that reads."""

    device: Any
    move: Program
    data: Arrays
    frame: Arrays


class Drawn(NamedTuple):
    """What chains drew, as `carpk.estimators.Estimate` holds it, and how it was judged.

    theta : free population values by name, (chain, draw), natural scale
    phi : (chain, draw, patient, parameter), link scale; stats : by name, (chain, draw)
    """

    theta: Mapping[str, np.ndarray]
    phi: np.ndarray
    stats: Mapping[str, np.ndarray]
    reasons: tuple[str, ...]
    remarks: tuple[str, ...]
    measures: Mapping[str, float]
    seconds: Mapping[str, float]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class MarkovChains(abc.ABC):
    """Chains in likelihood-informed coordinates, started from a quick Laplace fit: what samplers
    have in common. One of them says by `kernel` what an iteration does.

    The same seed and settings give the same draws on the same machine, whatever its load.

    draws : per chain; 0 draws on by 500 until R-hat and ESS can be used, at most 5000, and no
        further while 5 % of the transitions diverge, which more draws do not mend
    inits : where it begins, see `carpk.starting_values.start_from`
    """

    resumable: ClassVar[bool] = True
    trusted: ClassVar[float] = 0.2  # see `carpk.geometry.frozen`
    chains: int = 4
    draws: int = 0
    warmup: int = 400
    target_accept: float = 0.85
    parametrisation: Parametrisation = "informed"
    inits: str = ""

    def refused(self, *counts: str) -> list[Problem]:
        """What is wrong with the settings; `counts` are whole numbers above 0."""
        wrong = [n for n in ("chains", "warmup", *counts)
                 if not (isinstance(getattr(self, n), int) and getattr(self, n) > 0)]
        found = refused_inits(self.inits)
        found += [Problem("error", "must be a whole number above 0", column=n,
                          found=str(getattr(self, n))) for n in wrong]
        if not 0.5 <= self.target_accept < 1.0:
            found.append(Problem("error", "must lie between 0.5 and 1", column="target_accept",
                                 found=str(self.target_accept)))
        if self.parametrisation not in (known := get_args(Parametrisation)):
            found.append(Problem("error", f"must be one of {', '.join(known)}",
                                 column="parametrisation", found=str(self.parametrisation)))
        if not (isinstance(self.draws, int) and (self.draws == 0 or self.draws >= 4)):
            found.append(Problem("error", "must be at least 4, or 0 for as many as it takes",
                                 column="draws", found=str(self.draws)))
        return found

    @abc.abstractmethod
    def kernel(self, model: PopulationModel) -> Kernel:
        """What an iteration does."""

    def noticed(self, stats: Mapping[str, np.ndarray]) -> list[str]:
        """Remarks on the statistics of the draws."""
        return []

    def drawn(self, model: PopulationModel, data: Arrays, ids: tuple[str, ...], seed: int,
              progress: Progress, kept: Checkpoints | None = None) -> Drawn:
        """Starts, warms up, samples and judges."""
        clock = time.perf_counter()
        progress("start", 0, 1)
        # not shared out: chains side by side that wait for parts of a sum might never end
        patients, full = len(ids), filled_up(data)
        with ThreadPoolExecutor(1) as pool:  # compiles on another core meanwhile
            programs = pool.submit(_programs, self, model, full)
            looked = Patients(model, data)
            start = start_kept(kept, lambda: start_from(model, data, seed, self.inits, looked))
            for said in (warned := hardly_informed(model, start, looked)):
                logging.getLogger("carpk").warning(said)
            filled = filled_start(start)
            frame = frozen(model, filled, self.trusted)
            progress("start", 1, 1)
            begun = time.perf_counter()
            progress("compile", 0, 1)
            begin, moves = programs.result()
        states = _states(self, begin, full, filled, frame, seed)
        seats = [Seat(d, move, *jax.device_put((full, frame), d)) for d, move in moves.items()]
        compiled = time.perf_counter()
        runs = _run(self, states, seats, progress, kept)
        sampled = time.perf_counter()
        u, z = (np.stack([r[n] for r in runs]) for n in "uz")
        stats = {n: np.stack([r[n] for r in runs]) for n in runs[0] if n not in "uz"}
        stats["lp"] = stats["lp"] + 0.5 * (z[:, :, patients:] ** 2).sum(axis=(2, 3))
        theta, phi = _natural(model, full, frame, u, z, self.parametrisation)
        return Drawn(
            theta, phi[:, :, :patients], stats, *_judged(self, theta, stats, start, ids, warned),
            {"start": begun - clock, "compile": compiled - begun, "sample": sampled - compiled},
            {"inits": began(model, start)})


def _programs(settings: MarkovChains, model: PopulationModel, data: Arrays) \
        -> tuple[Program, dict[Any, Program]]:
    """The compiled programs that begin a chain and, by device, move it on; of a start they need
    the shape."""
    kernel = settings.kernel(model)
    patients, k = data["time"].shape[0], len(model.sds)

    @jax.jit
    def begin(key: jax.Array, size: jax.Array, start: Start, data: Arrays, frame: Arrays) -> Any:
        """A state drawn around the start, `size` posterior SDs wide; at size 0 the start itself."""
        spread = population_spread(model, start, data)
        near, noise, rng = jax.random.split(key, 3)
        u = start.u + size * spread * jax.random.normal(near, start.u.shape)
        z = size * jax.random.normal(noise, (patients, k))
        mode = to_z(model, data, to_theta(model, start.u), start.phi, frame,
                    settings.parametrisation)
        z = 0.1 * z + mode if settings.parametrisation == "noncentred" else \
            z + (1.0 - size) * mode
        return kernel.begin(u, z, spread, rng, data, frame)

    @jax.jit
    def move(state: Any, count: jax.Array, data: Arrays, frame: Arrays) -> Any:
        """`count` iterations, at most CHUNK, and what they drew."""
        def one(i: Any, carry: Any) -> Any:
            state, kept = carry
            state = kernel.move(state, data, frame)
            return state, jax.tree.map(lambda a, v: a.at[i].set(v), kept, kernel.record(state))

        kept = jax.tree.map(lambda v: jnp.zeros((CHUNK, *jnp.shape(v)), jnp.result_type(v)),
                            kernel.record(state))
        return jax.lax.fori_loop(0, count, one, (state, kept))

    shape = start_shape(model, data)
    about = jax.eval_shape(lambda start: frozen(model, start), shape)
    first = (jax.random.key(0), jnp.asarray(1.0), shape, data, about)
    state = jax.eval_shape(begin, *first)
    return begin.lower(*first).compile(), {
        device: move.lower(state, np.asarray(0), jax.device_put(data, device), about).compile()
        for device in jax.devices()[:settings.chains]}


def _states(settings: MarkovChains, begin: Program, data: Arrays, start: Start,
            frame: Arrays, seed: int) -> list[Any]:
    """The first state of every chain."""
    states = []
    for key in jax.random.split(jax.random.key(seed), settings.chains):
        for size in (1.0, 0.5, 0.2, 0.0):  # closer to the start until every solve succeeds
            state = begin(key, jnp.asarray(size), start, data, frame)
            if np.isfinite(state.potential_energy):
                break
        else:
            failed = [i for i, v in enumerate(np.asarray(start.log_likelihood))
                      if not np.isfinite(v)]
            raise RequestError(Problem(
                "error", "the model cannot be solved at the starting values for patients number "
                f"{', '.join(str(i + 1) for i in failed) or 'unknown'}",
                "check the model's typical values and the cohort's inputs"))
        states.append(state)
    return states


def _run(settings: MarkovChains, states: list[Any], seats: list[Seat], progress: Progress,
         kept: Checkpoints | None = None) -> list[dict[str, Any]]:
    """Every chain to its end, on the seats in turn. Threads suffice: the compiled program holds no
    Python lock, and chains queue for the cores, so four chains on two cores keep both busy."""
    parts: list[list[Arrays]] = [[] for _ in states]
    if kept:
        for k, state in enumerate(states):
            states[k], parts[k] = _resumed(kept, k, state)
    at = [seats[k % len(seats)] for k in range(len(states))]
    states = [jax.device_put(state, seat.device) for state, seat in zip(states, at, strict=True)]
    done = [int(state.i) for state in states]
    lock, stop = threading.Lock(), threading.Event()
    size = settings.draws or _ROUND
    # the round that was being drawn: one more only follows when all chains have ended one
    planned = settings.warmup + size * max(1, -((settings.warmup - max(done)) // size))

    def keep(k: int) -> None:
        if kept:
            kept.save(f"chain-{k}", {**flat(states[k]), **_joined(parts[k])})

    def chain(k: int) -> None:
        saved = time.perf_counter()
        while done[k] < planned:
            if stop.is_set():
                break
            left = (settings.warmup if done[k] < settings.warmup else planned) - done[k]
            states[k], drawn = at[k].move(states[k], np.asarray(min(CHUNK, left)), at[k].data,
                                          at[k].frame)
            if done[k] >= settings.warmup:
                parts[k].append({n: np.asarray(v)[:left] for n, v in drawn.items()})
            done[k] = int(states[k].i)
            if time.perf_counter() - saved > _SAVED:
                keep(k)
                saved = time.perf_counter()
            with lock:
                warm = sum(d >= settings.warmup for d in done)
                beside = f": {warm}/{len(done)} warmed up" if warm < len(done) else ""
                progress(f"sample{beside}", sum(done), planned * len(states))

    with ThreadPoolExecutor(min(len(states), max(len(seats), os.cpu_count() or 1))) as pool:
        while True:
            waiting = [pool.submit(chain, k) for k in range(len(states))]
            try:
                for w in waiting:
                    w.result()
            except BaseException:
                stop.set()
                wait(waiting)
                for k in range(len(states)):
                    keep(k)
                raise
            runs = [_joined(drawn) for drawn in parts]
            if settings.draws or planned - settings.warmup >= _MOST or not _more_would_help(runs):
                break
            planned += size
    return runs


def _resumed(kept: Checkpoints, chain: int, state: Any) -> tuple[Any, list[Arrays]]:
    """A chain's state and draws as kept, or as they are at its beginning."""
    known = kept.load(f"chain-{chain}")
    if known is None:
        return state, []
    drawn = {n: v for n, v in known.items() if not n.startswith("leaf ")}
    return as_before(state, known), [drawn] if drawn else []


def _joined(drawn: list[Arrays]) -> dict[str, Any]:
    return {n: np.concatenate([d[n] for d in drawn]) for n in drawn[0]} if drawn else {}


def _more_would_help(runs: list[dict[str, Any]]) -> bool:
    """Whether only the number of draws stands in the way. R-hat and ESS go by ranks, so those
    of the real line are those of the natural scale."""
    if np.mean([run["diverging"] for run in runs]) >= 0.05:
        return False
    u = np.stack([run["u"] for run in runs])
    return bool(_short(posterior.summary({str(k): u[..., k] for k in range(u.shape[-1])})))


def _natural(model: PopulationModel, data: Arrays, frame: Arrays, u: np.ndarray, z: np.ndarray,
             parametrisation: Parametrisation) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Population values by name (chain, draw) and phi (chain, draw, patient, parameter)."""
    @jax.jit
    def convert(u: jax.Array, z: jax.Array, data: Arrays, frame: Arrays) -> Any:
        def one(pair: Any) -> Any:
            theta = to_theta(model, pair[0])
            return {n: theta[n] for n in model.free}, \
                to_phi(model, data, theta, pair[1], frame, parametrisation)[0]
        return jax.lax.map(one, (u, z))

    shape = u.shape[:2]
    theta, phi = convert(_flat(u), _flat(z), data, frame)
    return ({n: np.asarray(v).reshape(shape) for n, v in theta.items()},
            np.asarray(phi).reshape(*shape, *phi.shape[1:]))


def _flat(draws: np.ndarray) -> np.ndarray:
    """Chains end to end; the size is spelled out because a model may have no varying parameter."""
    return draws.reshape(draws.shape[0] * draws.shape[1], *draws.shape[2:])


def _judged(settings: MarkovChains, theta: Mapping[str, np.ndarray],
            stats: Mapping[str, np.ndarray], start: Start, ids: tuple[str, ...],
            warned: list[str]) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, float]]:
    """Reasons, remarks and measures: R-hat <= 1.01, bulk and tail ESS >= 400, under 1 %
    divergences and, where energies are told, E-BFMI >= 0.3."""
    table = posterior.summary(theta)
    reasons, remarks = _short(table), [*warned]
    diverging = int(stats["diverging"].sum())
    share = diverging / stats["diverging"].size
    if share >= 0.01:
        reasons.append(f"{diverging} divergent transitions, {100 * share:.1f} % of the draws "
                       "(want under 1 %): raise target_accept, or simplify the model")
    elif diverging:
        remarks.append(f"{diverging} divergent transition{'s' * (diverging > 1)} "
                       f"({100 * share:.2f} % of the draws)")
    measures = {
        "rhat_max": float(table["rhat"].max()), "ess_bulk_min": float(table["ess_bulk"].min()),
        "ess_tail_min": float(table["ess_tail"].min()), "divergences": float(diverging)}
    if "energy" in stats:
        energy = stats["energy"]
        bfmi = np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1)
        measures["ebfmi_min"] = float(bfmi.min())
        if not bfmi.min() >= 0.3:
            reasons.append(f"E-BFMI is {bfmi.min():.2f} in the worst chain (want at least 0.3): "
                           "the spreads are hardly informed; tighten their priors or fix one")
    remarks += settings.noticed(stats)
    failed = [i for i, v in zip(ids, np.asarray(start.log_likelihood), strict=True)
              if not np.isfinite(v)]
    if failed:
        remarks.append(f"no solution at the start for patients {', '.join(failed)}")
    gradients = float(stats["n_steps"].sum())
    measures |= {
        "gradients": gradients,
        "gradients_per_effective_sample": gradients / measures["ess_bulk_min"],
        "start_sweeps": float(start.sweeps), "failed_at_start": float(len(failed))}
    return tuple(reasons), tuple(remarks), measures


def _short(table: pd.DataFrame) -> list[str]:
    """A sentence for each of R-hat, bulk and tail ESS that some row of a summary falls short of."""
    reasons = []
    for column, label, limit, fine in (
            ("rhat", "R-hat", "at most 1.01", lambda v: v <= 1.01),
            ("ess_bulk", "bulk ESS", "at least 400", lambda v: v >= 400),
            ("ess_tail", "tail ESS", "at least 400", lambda v: v >= 400)):
        bad = table.loc[~fine(table[column]), column]  # also what is NaN
        if len(bad):
            worst = bad.sort_values(ascending=column != "rhat")
            listed = ", ".join(f"{n} {v:.4g}" for n, v in worst.head(4).items())
            more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
            reasons.append(f"{label} of {listed}{more} (want {limit}): draw more, or fix or "
                           "give a prior to what the data do not inform")
    return reasons
