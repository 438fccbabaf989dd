"""carpk: population PK/PD models of CAR T-cell therapy."""
import jax

jax.config.update("jax_enable_x64", True)
