"""One cohort's predictions: closed forms directly, ODEs step by step on a frozen mesh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from carpk.cohort import Design
from carpk.coordinates import Coordinates, added, from_levels, slopes, to_levels
from carpk.diffrax_steps import step_of
from carpk.dosing import (
    ADD_STEADY,
    TO_START,
    Moments,
    administered,
    eventful,
    graded,
    moments,
    placed,
    schedule,
    steady_states,
)
from carpk.epochs import Epochs, at_time, begun, held, timeline
from carpk.integrators import STEP
from carpk.structure import StructuralModel, named
from carpk.thresholds import past_thresholds

Arrays = dict[str, Any]

# by which share of a step times are kept off its ends, where a switch may lie: no stage may fall
# on the far side of it
_INSIDE = 1e-9


def arrays(design: Design, structure: StructuralModel, steps: int, room: int = 0,
           epochs: Epochs | None = None, changing: Sequence[str] = (), least: int = 0,
           finer: tuple[int, Sequence[str]] = (0, ())) -> Arrays:
    """What a compiled program reads of a design: observations, inputs and, for an ODE, its mesh.

    steps : graded mesh nodes per patient, to which observation and dose times are added.
    room : nodes of the arrays where more than the steps, so that meshes share one program; the
        spare ones lie at the end and last no time.
    epochs : of the parameters `changing` in a patient
    least : moments there is room for, so that parts of a design share a program
    finer : steps of the mesh of some patients, and who they are
    """
    data: Arrays = {
        "time": jnp.asarray(design.time), "lower": jnp.asarray(design.lower),
        "upper": jnp.asarray(design.upper), "output": jnp.asarray(design.output),
        "observed": jnp.asarray(design.observed),
        "inputs": {k: jnp.asarray(v) for k, v in design.inputs.items()},
    }
    if structure.states:
        seen, who = moments(design, least), np.isin(design.ids, list(finer[1]))

        def mesh(steps: int, room: int = 0) -> Any:
            return jax.tree.map(jnp.asarray, schedule(
                design, structure, seen, steps, room, epochs, changing)
                if eventful(design, structure) else _mesh(design, structure, seen, steps, room))

        data["mesh"] = mesh(steps, room)
        if who.any():
            data["finer"] = {"who": jnp.asarray(who), "mesh": mesh(finer[0])}
    if epochs is not None:
        data["epochs"] = jax.tree.map(jnp.asarray, timeline(
            epochs, design, structure.solution is not None))
    return data


def predict(structure: StructuralModel, data: Arrays, values: dict[str, Any],
            over_time: Callable[[Arrays], Arrays] = lambda values: values) -> jax.Array:
    """Every patient's prediction at every observation time.

    values : each parameter as (P,), natural scale
    over_time : of values, which may then be of other things, the parameters: (P,) and, where they
        change in a patient, (P, E), or (P, E, 2) where they go straight from the begin of an
        epoch to its end; `data` then holds its `epochs`
    returns : (P, N), unit of each row's output; NaN or inf where a solve failed.
    """
    solve = _closed_form if structure.solution else _integrate

    def rows(v: Arrays) -> jax.Array:
        p = {**over_time(v), **data["inputs"]}
        found = _rows(structure, data, solve(structure, data, p))
        return _finer(structure, data, p, found) if "finer" in data else found

    if structure.solution:
        return rows(values)
    return _with_jacobian(rows, {n: jnp.asarray(v, float) for n, v in values.items()})


def _finer(structure: StructuralModel, data: Arrays, p: Arrays, found: jax.Array) -> jax.Array:
    """The rows found, with those of the few patients who need it on a finer mesh of their own,
    one by one: what they cost does not depend on how many the others are."""
    finer = data["finer"]
    reads: Arrays = {n: data[n] for n in ("time", "output", "epochs") if n in data}

    def one(patient: tuple[Any, ...]) -> jax.Array:
        who, p, row, own = patient

        def again() -> jax.Array:
            alone: Arrays = jax.tree.map(lambda x: x[None], {"data": own, "p": p})
            return _rows(structure, alone["data"], _integrate(structure, **alone))[0]

        return jax.lax.cond(who, again, lambda: row)

    reads["mesh"] = finer["mesh"]
    return jax.lax.map(one, (finer["who"], p, found, reads))


def _rows(structure: StructuralModel, data: Arrays, outputs: dict[str, jax.Array]) -> jax.Array:
    """(P, N): of each row the output it belongs to."""
    rows = outputs[structure.outputs[0].name]
    for k, output in enumerate(structure.outputs[1:], 1):
        rows = jnp.where(data["output"] == k, outputs[output.name], rows)
    return rows


def _with_jacobian(solve: Callable[[Arrays], jax.Array], values: Arrays) -> jax.Array:
    """solve(values), whose derivative in any direction is a product with each patient's Jacobian.

    The Jacobian comes from one forward sweep with a tangent per parameter that is differentiated
    (constants are told by their symbolic zeros). Reverse mode then transposes a product instead
    of walking the solver backwards: less memory, a smaller program, and for the few parameters
    of a patient less time.
    """
    wrapped = jax.custom_jvp(solve)

    def rule(primals: tuple[Arrays], tangents: tuple[Arrays]) -> tuple[jax.Array, jax.Array]:
        (at,), (along,) = primals, tangents
        active = [n for n, t in along.items() if not isinstance(t, SymbolicZero)]
        if not active:
            value = solve(at)
            return value, jnp.zeros_like(value)

        def moved(x: jax.Array) -> jax.Array:
            return solve({**at, **{n: x[:, k] for k, n in enumerate(active)}})

        x = jnp.stack([at[n] for n in active], axis=1)
        directions = jnp.broadcast_to(jnp.eye(len(active))[:, None, :], (len(active), *x.shape))
        value, jacobian = jax.vmap(lambda d: jax.jvp(moved, (x,), (d,)), out_axes=(None, -1))(
            directions)
        return value, jnp.einsum("pnk,pk->pn", jacobian,
                                 jnp.stack([along[n] for n in active], axis=1))

    wrapped.defjvp(rule, symbolic_zeros=True)
    return wrapped(values)


def _closed_form(structure: StructuralModel, data: Arrays, p: Arrays) -> dict[str, jax.Array]:
    assert structure.solution is not None
    solution = structure.solution

    def at(t: Any, row: Arrays) -> dict[str, Any]:
        return dict(solution(t, named(row)))

    if "epochs" not in data:
        return jax.vmap(jax.vmap(at, in_axes=(0, None)))(data["time"], p)

    def patient(p: Arrays, epochs: Arrays, times: Any) -> dict[str, Any]:
        return jax.vmap(lambda t, k, since: at(t - since, at_time(p, held(p, epochs, k), t)))(
            times, epochs["seen"], epochs["since"])

    return jax.vmap(patient)(p, data["epochs"], data["time"])


def _integrate(structure: StructuralModel, data: Arrays, p: Arrays) -> dict[str, jax.Array]:
    initial, observe, states = structure.initial, structure.observe, structure.states
    assert initial is not None
    assert observe is not None
    early = _first(structure)

    # The carry is one scalar per state, so that vmap lays it out state first, patients last.
    def patient(p: Arrays, mesh: Arrays, times: Any) -> dict[str, Any]:
        epochs = mesh.get("epochs")
        switches = jnp.zeros(0)  # a node where the rates jump
        if epochs is not None:
            switches = jnp.concatenate([*(jnp.ravel(p[n]) for n in structure.switches),
                                        jnp.maximum(epochs["start"], 0.0)])
        elif structure.switches:
            switches = jnp.stack([p[n] for n in structure.switches])
        if len(switches) and "doses" not in mesh:
            mesh = _switched(mesh, switches)

        def own(t: Any, k: Any) -> Arrays:
            """The parameters at a time of an epoch."""
            return p if epochs is None else at_time(p, held(p, epochs, k), t)

        def starting(t: Any, k: Any) -> Coordinates:
            """Where the model starts, with the parameters of an epoch."""
            return from_levels(states, initial(named(own(t, k))))

        start = starting(0.0, None if epochs is None else begun(epochs, 0.0))
        step = _stepper(structure, p, start)

        def walked(u: Coordinates, nodes: Arrays) -> tuple[Any, Any]:
            if epochs is not None:
                nodes = {**nodes, "own": jax.vmap(lambda k: held(p, epochs, k))(nodes["epoch"])}
            return jax.lax.scan(step, u, nodes)

        def settled(mesh: Arrays, given: Arrays, first: Coordinates) -> Coordinates:
            """Where each reset puts the states."""
            if "resets" not in mesh:
                return ()
            act = mesh["resets"]["act"]
            if "cycle" not in mesh:
                return tuple(jnp.broadcast_to(x, act.shape) for x in first)
            steady = steady_states(walked, first, tuple(s.scale == "log" for s in states),
                                   mesh, given, early)
            return tuple(jnp.where(act == TO_START, x, to)
                         for x, to in zip(first, steady, strict=True))

        if "doses" in mesh:
            doses, first = mesh["doses"], start
            if epochs is not None and "resets" in mesh:
                first = jax.vmap(starting)(mesh["resets"]["time"], mesh["resets"]["epoch"])
            given = administered(structure, doses, p if epochs is None else jax.vmap(own)(
                doses["time"], doses["epoch"]))
            mesh = placed(mesh, given, settled(mesh, given, first), switches, early,
                          first if epochs is not None else ())
        nodes = {k: v for k, v in mesh.items() if k not in ("seen", "sound", "epochs")}
        if epochs is not None:
            nodes["epoch"] = begun(epochs, nodes["t"])
        _, path = walked(start, nodes)
        seen = tuple(x[mesh["seen"]] for x in path)
        if "sound" in mesh:
            seen = tuple(jnp.where(mesh["sound"], x, jnp.nan) for x in seen)

        def read(t: Any, u: Coordinates, k: Any) -> dict[str, Any]:
            return dict(observe(t, named(to_levels(states, u)), named(own(t, k))))

        return jax.vmap(read, in_axes=(0, 0, None if epochs is None else 0))(
            times, seen, None if epochs is None else epochs["seen"])

    mesh = {**data["mesh"], "epochs": data["epochs"]} if "epochs" in data else data["mesh"]
    return jax.vmap(patient)(p, mesh, data["time"])


def _stepper(structure: StructuralModel, p: Arrays, start: Coordinates) \
        -> Callable[[Coordinates, Arrays], tuple[Any, Any]]:
    """step(u, node) -> (u after the step, u before it) of one patient.

    p : the parameters, which a node's `own` may change; start : where the model starts
    """
    rates, states = structure.rates, structure.states
    assert rates is not None
    solver = "tsit5" if structure.solver == "auto" else structure.solver
    advance = STEP[solver] if solver in STEP else step_of(solver)

    def moving(t: Any, u: Coordinates, node: Arrays, above: Arrays) -> Coordinates:
        def rising(y: Arrays) -> Arrays:
            dy = dict(rates(t, named(y), named({**at_time(p, node.get("own"), t), **above})))
            for name, rate in node["inflow"].items():
                dy[name] = dy[name] + rate
            return dy

        return slopes(states, u, rising)

    def reset(u: Coordinates, node: Arrays) -> Coordinates:
        """The states after a reset; where it adds, what steady state has above the start."""
        act, first = node["act"], node.get("first", start)
        there = tuple(jnp.where(act == 0, base, to)
                      for base, to in zip(first, node["there"], strict=True))
        base = to_levels(states, first)
        both = added(states, u, {n: y - base[n] for n, y in to_levels(states, there).items()})
        return tuple(jnp.where(act == ADD_STEADY, more, jnp.where(act == 0, x, to))
                     for x, more, to in zip(u, both, there, strict=True))

    def step(u: Coordinates, node: Arrays) -> tuple[Any, Any]:
        t, h = node["t"], node["h"]
        begin = reset(u, node) if "act" in node else u
        begin = added(states, begin, node["amount"])

        def within(at: Any) -> Any:
            return jnp.clip(at, t + _INSIDE * h, t + (1.0 - _INSIDE) * h) \
                if structure.switches else at

        def moved(u: Coordinates, after: Any, length: Any, above: Arrays) -> Coordinates:
            return advance(lambda t, u: moving(within(t), u, node, above), t + after, length, u)

        def heights(u: Coordinates, after: Any) -> Arrays:
            y, own = named(to_levels(states, u)), named(at_time(p, node.get("own"), t + after))
            return {n: f(t + after, y, own) for n, f in structure.thresholds.items()}

        def rising(u: Coordinates, after: Any, above: Arrays) -> tuple[Arrays, Arrays]:
            along = moving(t + after, u, node, above)
            return jax.jvp(heights, (u, after), (along, jnp.ones(())))

        if not structure.thresholds:
            return moved(begin, 0.0, h, {}), u
        return past_thresholds(moved, heights, rising, begin, h), u

    return step


def _switched(mesh: Arrays, at: jax.Array) -> Arrays:
    """A patient's mesh with a node at each time in `at`, whose place carries its derivative."""
    t = mesh["t"]
    new = jnp.clip(at, 0.0, t[-1])  # beyond the end a node lasts no time
    time = jnp.concatenate([t, new])
    order = jnp.argsort(time, stable=True)
    split = (t[None, :] <= new[:, None]).sum(axis=1) - 1  # the step that each falls into
    moved = time[order]
    return {
        "t": moved, "h": jnp.diff(moved, append=moved[-1:]),
        "seen": jnp.argsort(order)[mesh["seen"]],
        "amount": {s: jnp.concatenate([v, jnp.zeros_like(new)])[order]
                   for s, v in mesh["amount"].items()},
        "inflow": {s: jnp.concatenate([v, v[split]])[order] for s, v in mesh["inflow"].items()},
    }


def _first(structure: StructuralModel) -> float:
    """The shortest step: what is stiff has its fastest hours, or seconds, just after a dose."""
    return 1e-5 if structure.solver == "rodas4" else 0.2


def _mesh(design: Design, structure: StructuralModel, seen: Moments, steps: int, room: int) \
        -> dict[str, Any]:
    """Nodes of every patient: graded ones, every moment seen, every dose and infusion end.

    t, h (P, M): start and length of each step; seen (P, N): the step at whose start an
    observation is read; amount, inflow {state: (P, M)}: what a dose adds at the start of a step,
    and its rate while it runs. Zero-length steps are harmless, so each time keeps its own node.
    """
    n = seen.time.shape[1]
    given = design.dose_amount > 0
    ends = np.where(given, design.dose_time + design.dose_duration, 0.0)
    doses = np.where(given, design.dose_time, 0.0)
    horizon = np.maximum(design.time.max(axis=1), 1e-6)
    restarts = [np.unique(d[g & (d > 0) & (d < end)])
                for d, g, end in zip(doses, given, horizon, strict=True)]
    way = np.stack([graded(end, r, lambda whole: np.linspace(0.0, whole, steps), _first(structure))
                    for end, r in zip(horizon, restarts, strict=True)])
    way = np.pad(way, ((0, 0), (0, max(room - steps, 0))), mode="edge")
    time = np.concatenate([way, seen.time, doses, ends], axis=1)
    # at one time: rows written above the dose are read first, then it is given, then the rest
    late = (seen.time[:, :, None] == doses[:, None, :]) & given[:, None, :] \
        & (seen.line[:, :, None] > design.dose_line[:, None, :])
    rank = np.concatenate([np.zeros_like(way), 2.0 * late.any(axis=2),
                           np.ones_like(doses), np.ones_like(ends)], axis=1)
    order = np.lexsort((rank, time), axis=1)
    t = np.take_along_axis(time, order, axis=1)
    h = np.diff(t, axis=1, append=t[:, -1:])
    place = np.argsort(order, axis=1)
    nodes = way.shape[1]
    read = np.take_along_axis(place[:, nodes:nodes + n], seen.of, axis=1)
    into = {k: structure.states[k].name for k in np.unique(design.dose_state[given])}
    amount, inflow = ({into[k]: np.zeros_like(t) for k in np.unique(design.dose_state[which])}
                      for which in (given & (design.dose_duration == 0),
                                    given & (design.dose_duration > 0)))
    at = place[:, nodes + n:nodes + n + doses.shape[1]]
    for i, j in zip(*np.nonzero(given), strict=True):
        state, length = into[design.dose_state[i, j]], design.dose_duration[i, j]
        if length == 0:
            amount[state][i, at[i, j]] += design.dose_amount[i, j]
        else:
            running = (t[i] >= doses[i, j]) & (t[i] < ends[i, j])
            inflow[state][i, running] += design.dose_amount[i, j] / length
    return {"t": t, "h": h, "seen": read, "amount": amount, "inflow": inflow}
