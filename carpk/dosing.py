"""Doses a model delays or scales, resets and doses in steady state: their place in a mesh.

The nodes of plain doses are known before a fit. Here the amounts, and the times at which a dose
comes and an infusion ends, follow from a patient's parameters, and so carry their derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from carpk.cohort import Design
from carpk.epochs import Epochs
from carpk.integrators import linear_solver
from carpk.round_sizes import room_for
from carpk.structure import StructuralModel, named

Arrays = dict[str, Any]

BOLUS, INFUSION, MODEL_RATE, MODEL_DURATION, CONSTANT, CONSTANT_OF_MODEL = range(6)
TO_START, TO_STEADY, ADD_STEADY = 1, 2, 3  # what a reset does to the states
_MODELLED_CYCLES = 4  # of steady state, whose infusions may still run where the model says how long
_NEWTON, _CONVERGED = 50, 1e-10


def eventful(design: Design, structure: StructuralModel) -> bool:
    """Whether doses need more than nodes fixed beforehand."""
    return structure.dosing is not None or bool(design.dose_events)


class Moments(NamedTuple):
    """When a patient is looked at: rows of one time between two doses are one moment.

    time, line : (P, M), of each moment and of a row of it, padded with the last
    of : (P, N), the moment of each observation
    """

    time: np.ndarray
    line: np.ndarray
    of: np.ndarray


def moments(design: Design, least: int = 0) -> Moments:
    """The moments of a design, M of them at `least`: a row of its own for each of 16 outputs would
    be 16 nodes of a mesh where one does."""
    last = design.line.max(axis=1, keepdims=True, initial=0)  # beside which padding is read
    line = np.where(design.observed, design.line, last)
    doses = (design.dose_line[:, None, :] < line[:, :, None]).sum(axis=2)
    order = np.lexsort((line, design.time), axis=1)
    time, line, doses = (np.take_along_axis(x, order, axis=1) for x in (design.time, line, doses))
    new = (np.diff(time, axis=1) > 0) | (np.diff(doses, axis=1) > 0)
    moment = np.concatenate([np.zeros((len(new), 1), int), new.cumsum(axis=1)], axis=1)
    of = np.empty_like(moment)
    np.put_along_axis(of, order, moment, axis=1)
    width = max(room_for(int(moment.max()) + 1), least)
    at, written = (np.repeat(x[:, -1:], width, axis=1) for x in (time, line))
    np.put_along_axis(at, moment, time, axis=1)
    np.put_along_axis(written, moment, line, axis=1)
    return Moments(at, written, of)


def schedule(design: Design, structure: StructuralModel, seen: Moments, steps: int, room: int,
             epochs: Epochs | None = None, changing: Sequence[str] = ()) -> Arrays:
    """What `placed` reads of a design, each (P, ...): samples, doses, resets, shares of the way.

    A dose in steady state follows others like it: of these, `before` its record, the ones that
    may not be over at its time are doses too, whose part before that time is left out. There is
    room for a lag of two intervals, more for an infusion; where lag and length exceed it, the
    patient's solve fails. Where parameters are `changing` in a patient, by `epochs`, each dose and
    reset has those of its record.
    """
    patients = range(len(design.ids))
    each = [_given(design, structure, i, epochs) for i in patients]
    own = {} if epochs is None else {"epoch": 0}
    doses = _stacked([d for d, _ in each], {
        "time": 0.0, "amount": 0.0, "kind": BOLUS, "duration": 1.0, "line": 0, "after": -math.inf,
        "until": math.inf, "room": math.inf, "state": -1, **own}, least=1)
    states, kinds = doses.pop("state"), doses["kind"]
    numbers = [k for k in range(len(structure.states)) if (states == k).any()]
    doses["into"] = {structure.states[k].name: states == k for k in numbers}
    doses["poured"] = {structure.states[k].name: states == k for k in numbers
                       if (kinds[states == k] != BOLUS).any()}
    resets = _stacked([r for _, r in each], {"time": 0.0, "line": 0, "act": 0, "dose": 0,
                                             "interval": 1.0, **own})
    shares = np.append(np.linspace(0.0, 1.0, steps), np.ones(max(room - steps, 0)))
    # at one time rows are met in the order they are written in; a reset comes before its dose
    width = 0 if epochs is None else epochs.start.shape[1]
    splits = width + sum(width if n in changing else 1 for n in structure.switches)
    other = [np.full((len(design.ids), n), -1) for n in (len(shares), splits)]
    line = doses.pop("line")
    lines = np.concatenate([resets.pop("line"), *other, seen.line, line, line], axis=1)
    mesh: Arrays = {
        "horizon": np.maximum(design.time.max(axis=1), 1e-6), "time": seen.time, "seen": seen.of,
        "share": np.tile(shares, (len(design.ids), 1)), "doses": doses,
        "written": np.argsort(lines, axis=1, kind="stable")}
    if resets["act"].size:
        mesh["resets"] = resets
    if (resets["act"] > TO_START).any():
        within = max(steps // 2, 2)
        shares = np.append(np.linspace(0.0, 1.0, within), np.ones(max(room // 2 - within, 0)))
        mesh["cycle"] = np.tile(shares, (len(design.ids), 1))
    return mesh


def _given(design: Design, structure: StructuralModel, i: int, epochs: Epochs | None) \
        -> tuple[list[Arrays], list[Arrays]]:
    """The doses of a patient, those before a steady state among them, and the resets."""
    events = design.dose_events
    doses: list[Arrays] = []
    resets: list[Arrays] = []
    within = None if epochs is None else epochs.at(design.dose_time, design.dose_line)[i]
    for j in range(design.dose_time.shape[1]):
        evid, ss, interval, rate = (events[n][i, j] if events else plain for n, plain in
                                    (("EVID", 1), ("SS", 0), ("II", 0.0), ("RATE", 0.0)))
        amount, length = design.dose_amount[i, j], design.dose_duration[i, j]
        at = {"time": design.dose_time[i, j], "line": design.dose_line[i, j],
              **({} if within is None else {"epoch": within[j]})}
        if not (amount > 0 or evid > 2 or ss):
            continue  # padding
        if amount > 0:
            kind = {-1.0: MODEL_RATE, -2.0: MODEL_DURATION}.get(
                rate, INFUSION if length > 0 else BOLUS)
        else:
            kind, amount = (CONSTANT_OF_MODEL, 0.0) if rate < 0 else (CONSTANT, rate)
        if evid > 2 or ss:
            act = TO_STEADY if ss == 1 or (ss and evid == 4) else ADD_STEADY if ss else TO_START
            resets.append({**at, "act": act, "dose": len(doses), "interval": interval or 1.0})
        if evid == 3:
            continue
        dose = {**at, "amount": amount, "kind": kind, "duration": length or 1.0,
                "state": design.dose_state[i, j]}
        doses.append(dose)
        if ss and interval > 0:
            cycles = {BOLUS: 1, INFUSION: 2 + math.ceil(1.5 * length / interval)}.get(
                kind, _MODELLED_CYCLES)
            dose["room"] = (cycles + 1) * interval
            doses += [{**dose, "time": dose["time"] - n * interval, "after": dose["time"]}
                      for n in range(1, cycles + 1)]
    for dose in doses:
        dose["until"] = min((r["time"] for r in resets
                             if r["line"] > dose["line"] and r["act"] != ADD_STEADY),
                            default=math.inf)
    return doses, resets


def _stacked(each: list[list[Arrays]], columns: dict[str, float], least: int = 0) \
        -> dict[str, Any]:
    """Rows of every patient as {column: (P, longest)}, filled up with what does nothing."""
    width = max([least, *map(len, each)])
    return {n: np.array([[row.get(n, fill) for row in rows] + [fill] * (width - len(rows))
                         for rows in each], dtype=np.asarray(fill).dtype).reshape(len(each), width)
            for n, fill in columns.items()}


def administered(structure: StructuralModel, doses: Arrays, p: Arrays) -> Arrays:
    """One patient's doses as the parameters make them, each (G,); p : scalars, or (G,) each.

    lag; at : when each comes; begin, end : of what is seen of it after its own steady state and
    before the next reset; bolus, rate : the amount given at once, or per time; length : how long
    sound (scalar) : no lag, amount, rate or duration is negative, nor too long for its room
    """
    said = structure.dosing(named(p)) if structure.dosing else {}

    def of(word: str, plain: float) -> jax.Array:
        value = jnp.full_like(doses["time"], plain)
        for state, into in doses["into"].items():
            if word in said.get(state, {}):
                value = jnp.where(into, said[state][word], value)
        return value

    kind, full = doses["kind"], doses["amount"]
    lag, share = of("lag", 0.0), of("bioavailability", 1.0)
    rate, length = of("rate", 1.0), of("duration", 1.0)
    used = [jnp.where((kind == MODEL_RATE) | (kind == CONSTANT_OF_MODEL), rate, 1.0),
            jnp.where(kind == MODEL_DURATION, length, 1.0)]
    amount = share * full
    choices = [kind == INFUSION, kind == MODEL_RATE, kind == MODEL_DURATION, kind == CONSTANT,
               kind == CONSTANT_OF_MODEL]
    none = jnp.zeros_like(full)
    rate = jnp.select(choices, [full / doses["duration"], used[0], amount / used[1], full,
                                used[0]], none)
    length = jnp.select(choices[:3], [share * doses["duration"], amount / used[0], used[1]], none)
    sound = (lag >= 0.0) & (share >= 0.0) & (used[0] > 0.0) & (used[1] > 0.0) \
        & (lag + length <= doses["room"])
    at = doses["time"] + lag
    live = (at >= doses["after"]) & (at < doses["until"])
    return {
        "lag": lag, "at": at, "begin": jnp.maximum(at, doses["after"]),
        "end": jnp.minimum(at + length, doses["until"]), "length": length, "amount": amount,
        "bolus": jnp.where((kind == BOLUS) & live, amount, 0.0), "rate": rate,
        "running": (kind > BOLUS) & (kind < CONSTANT) & (at < doses["until"]),
        "live": live & (full > 0.0), "sound": sound.all()}


def placed(mesh: Arrays, given: Arrays, there: tuple[Any, ...], switches: jax.Array,
           first: float, starts: tuple[Any, ...] = ()) -> Arrays:
    """One patient's mesh, as a plain one, with what a reset does and the states it sets.

    given : of `administered`, whose `sound` the mesh repeats: predictions are NaN without it
    there : each state's coordinate after each reset, (R,)
    switches : times that also get a node; first : the shortest step's length
    starts : the same of where the model starts at each reset, if that changes in a patient
    """
    doses, horizon = mesh["doses"], mesh["horizon"]
    restarts = jnp.sort(jnp.clip(jnp.where(given["live"], given["begin"], horizon), 0.0, horizon))
    steps = graded(horizon, restarts, lambda whole: whole * mesh["share"], first, jnp)
    reset = mesh["resets"]["time"] if "resets" in mesh else jnp.zeros(0)
    times = [reset, steps, switches, mesh["time"], given["begin"], given["end"]]
    sizes = [len(t) for t in times]
    time = jnp.concatenate(times)
    order = mesh["written"][jnp.argsort(time[mesh["written"]], stable=True)]
    # beyond the end a node lasts no time, nor before the start: doses of a later steady state
    t = jnp.clip(time[order], 0.0, horizon)
    place = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    *_, seen, begin, end = jnp.split(place, np.cumsum(sizes)[:-1])

    def at_nodes(which: int, values: jax.Array) -> jax.Array:
        parts = [jnp.zeros(n, values.dtype) for n in sizes]
        parts[which] = values
        return jnp.concatenate(parts)[order]

    node = jnp.arange(len(t))

    def together(rates: jax.Array) -> jax.Array:
        """Added one by one: all nodes of all doses at once may be gigabytes."""
        def one(sum_: jax.Array, dose: Any) -> tuple[jax.Array, None]:
            rate, begin, end = dose
            return sum_ + jnp.where((begin <= node) & (node < end), rate, 0.0), None

        return jax.lax.scan(one, jnp.zeros(len(t)), (rates, begin, end))[0]

    out: Arrays = {
        "t": t, "h": jnp.diff(t, append=t[-1:]), "seen": seen[mesh["seen"]],
        "sound": given["sound"],
        "amount": {s: at_nodes(4, jnp.where(into, given["bolus"], 0.0))
                   for s, into in doses["into"].items()},
        "inflow": {s: together(jnp.where(into & given["running"], given["rate"], 0.0))
                   for s, into in doses["poured"].items()}}
    if "resets" in mesh:
        out |= {"act": at_nodes(0, mesh["resets"]["act"]),
                "there": tuple(at_nodes(0, x) for x in there)}
        if starts:
            out["first"] = tuple(at_nodes(0, x) for x in starts)
    return out


def steady_states(run: Callable[[Any, Arrays], tuple[Any, Any]], start: tuple[Any, ...],
                  logged: tuple[bool, ...], mesh: Arrays, given: Arrays, first: float) \
        -> tuple[Any, ...]:
    """Each state's coordinate in the steady state of each reset's dose, just before its record's
    time; (R,).

    run(u, nodes) -> (u after them, its path) : the solver's; start : the states without a dose,
    where the search begins, scalars or (R,). A state is steady where a cycle, from one dose to the
    next, ends as it began: Newton's method, whose matrix is the cycle's Jacobian, finds it in one
    step where the rates are linear. NaN where it does not converge. Rates that depend on time are
    read on the cycle that follows the record.
    """
    doses = mesh["doses"]
    one = jnp.eye(len(start))
    begin_at = jnp.stack([jnp.broadcast_to(x, mesh["resets"]["time"].shape) for x in start], axis=1)
    steady_scale = jnp.array([1.0 if log else 0.0 for log in logged])

    def record(reset: Arrays, start: jax.Array) -> jax.Array:
        own = {n: given[n][reset["dose"]] for n in ("lag", "length", "amount", "rate")}
        kind, period = doses["kind"][reset["dose"]], reset["interval"]
        begin = jnp.mod(own["lag"], period)  # doses come so long after the record
        whole = jnp.floor(own["length"] / period)
        end = begin + own["length"] - whole * period
        again = end - period  # above 0 where the infusion before this one still runs
        constant = kind >= CONSTANT
        steps = graded(period, begin[None], lambda way: way * mesh["cycle"], first, jnp)
        time = jnp.concatenate([steps, jnp.stack([begin, jnp.where(again >= 0.0, again, end)])])
        order = jnp.argsort(time, stable=True)
        s = time[order]
        on = jnp.where(constant, 1.0, whole + ((s >= begin) & (s < end)) + (s < again))
        dosed = jnp.where((order == len(steps)) & (kind == BOLUS), own["amount"], 0.0)
        into = {n: v[reset["dose"]] for n, v in doses["into"].items()}
        cycle = {"t": reset["time"] + s, "h": jnp.diff(s, append=s[-1:]),
                 "amount": {n: jnp.where(v, dosed, 0.0) for n, v in into.items()},
                 "inflow": {n: jnp.where(into[n], on * own["rate"], 0.0) for n in doses["poured"]}}

        if "epoch" in reset:
            cycle["epoch"] = jnp.broadcast_to(reset["epoch"], s.shape)

        def later(x: jax.Array, cycle: Arrays) -> tuple[jax.Array, jax.Array]:
            u, path = run(tuple(x), cycle)
            return jnp.stack(u), jnp.stack([jnp.abs(way).max() for way in path])

        fixed = jax.lax.stop_gradient(cycle)

        def newton(carry: Any) -> Any:
            k, x, _, _ = carry
            (to, size), slopes = jax.vmap(
                lambda d: jax.jvp(lambda x: later(x, fixed), (x,), (d,)),
                out_axes=((None, None), -1))(one)
            matrix = slopes[0] - one
            step = _solved(matrix, to - x)
            size = jnp.where(steady_scale > 0.0, steady_scale, size)
            return k + 1, x - step, (jnp.abs(step) <= _CONVERGED * size).all(), matrix

        def seeking(carry: Any) -> Any:
            k, x, done, _ = carry
            return (k < _NEWTON) & ~done & jnp.isfinite(x).all()

        _, x, done, matrix = jax.lax.while_loop(
            seeking, newton, (0, jax.lax.stop_gradient(start), False, -one))
        x = jnp.where(done, x, jnp.nan)
        # once more for the derivative, and again for the derivative of that
        return jax.lax.scan(lambda x, _: (x - _solved(matrix, later(x, cycle)[0] - x), None), x,
                            length=2)[0]

    return tuple(jax.vmap(record)(mesh["resets"], begin_at).T)


def _solved(matrix: jax.Array, b: jax.Array) -> jax.Array:
    """x of matrix x = b."""
    size = len(b)
    rows = [{j: matrix[i, j] for j in range(size)} for i in range(size)]
    return jnp.stack(linear_solver(rows)(list(b)))


def graded(horizon: Any, restarts: Any, share: Callable[[Any], Any], first: float = 0.2,
           xp: Any = np) -> Any:
    """Nodes from 0 to the horizon, dense after time 0 and after every dose.

    restarts : in order, from 0 to the horizon; share(whole) : how far along each node is
    Step lengths follow min(first + b s, c) with s the time since the last restart: fine where
    cells expand, growing in proportion, and capped where an explicit method would lose stability.

    >>> graded(10.0, np.array([4.0]), lambda whole: np.linspace(0.0, whole, 5)).round(1).tolist()
    [0.0, 1.6, 4.3, 6.2, 10.0]
    """
    b, c = 0.12, 3.0
    starts = xp.concatenate([xp.zeros(1), restarts])
    lengths = xp.diff(starts, append=horizon)
    turn, before_turn = (c - first) / b, np.log(c / first) / b  # where the cap is reached
    shares = xp.where(lengths < turn, xp.log1p(b * lengths / first) / b,
                      before_turn + (lengths - turn) / c)
    ends = xp.cumsum(shares)
    along = share(ends[-1])
    k = xp.minimum(xp.searchsorted(ends, along, side="right"), len(starts) - 1)
    within = along - (ends - shares)[k]
    early = first * xp.expm1(b * xp.minimum(within, before_turn)) / b
    since = xp.where(within < before_turn, early, turn + c * (within - before_turn))
    return xp.minimum(starts[k] + xp.clip(since, 0.0, lengths[k]), horizon)
