"""Published models. In a checkout they are the top-level models/ folder; in a wheel they sit here."""

from pathlib import Path

_checkout = Path(__file__).parents[2]
if (_checkout / "pyproject.toml").is_file() and (_checkout / "models").is_dir():
    __path__.append(str(_checkout / "models"))
