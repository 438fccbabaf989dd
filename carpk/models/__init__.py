"""Published models: the top-level models/ folder in a checkout, this folder in a wheel."""

from pathlib import Path

_checkout = Path(__file__).parents[2]
if (_checkout / "pyproject.toml").is_file() and (_checkout / "models").is_dir():
    __path__.append(str(_checkout / "models"))
