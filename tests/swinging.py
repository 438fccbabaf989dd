"""A decline that swings as fast as a column says: some patients need more steps than others."""

import jax.numpy as jnp

from carpk.structure import Input, Output, Parameter, Source, State, StructuralModel, sd

MODEL = StructuralModel(
    title="a decline that swings", source=Source("textbook"), time_unit="day",
    parameters=(Parameter("A0", 100.0, "mg/L", "start", omega=sd(0.5)),
                Parameter("k", 0.05, "1/day", "decay", omega=sd(0.3))),
    inputs=(Input("SPEED", "1/day", "of the swings"),),
    states=(State("A", "mg/L", "level", scale="log"),),
    outputs=(Output("C", "mg/L", "level"),),
    rates=lambda t, y, p: {"A": y.A * (p.SPEED * jnp.cos(p.SPEED * t) - p.k)},
    initial=lambda p: {"A": p.A0}, observe=lambda t, y, p: {"C": y.A}, file=__file__)
