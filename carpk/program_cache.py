"""Compiled programs kept between runs: the second fit of the same shape starts sooner."""

from __future__ import annotations

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache
from platformdirs import user_cache_dir

from carpk.problems import Problem

_FOLDER = "jax_compilation_cache_dir"


def folder() -> Path:
    """Where compiled programs are kept; deleting it costs no more than a slower next fit."""
    return Path(user_cache_dir("carpk", appauthor=False)) / "jax"


def keep_programs() -> tuple[Problem, ...]:
    """Switches JAX's cache of compiled programs on; a warning where that cannot be.

    CARPK_CACHE=off leaves it off, and a cache folder that JAX was already told of is left alone.
    """
    off = os.environ.get("CARPK_CACHE", "").lower() in ("off", "0", "no", "false")
    if off or getattr(jax.config, _FOLDER) is not None:
        return ()
    place = folder()
    try:
        place.mkdir(parents=True, exist_ok=True)
        probe = place / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as failure:
        return (Problem("warning", "compiled programs cannot be kept here "
                        f"({failure.strerror}): every fit compiles anew",
                        "make it writable, or silence this by CARPK_CACHE=off", str(place)),)
    jax.config.update(_FOLDER, str(place))
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compilation_cache.reset_cache()  # JAX decides once, at its first compilation
    return ()
