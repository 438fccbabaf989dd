"""carpk: population PK/PD models of CAR T-cell therapy."""
