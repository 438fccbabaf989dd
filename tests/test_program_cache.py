"""Compiled programs are kept between processes, and nowhere they should not be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPILE = """
import carpk, jax, jax.numpy as jnp
jax.jit(lambda x: x + 1)(1.0)  # JAX has compiled before the cache is asked for
from carpk import program_cache
for problem in program_cache.keep_programs():
    print(problem)
jax.jit(lambda x: jnp.linalg.inv(x) @ x)(jnp.eye(3)).block_until_ready()
"""


def run(home, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX", "CARPK"))}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**clean, "XDG_CACHE_HOME": str(home), "HOME": str(home), **environment})
    return done.stdout


def programs(folder):
    return [f for f in folder.rglob("*") if f.is_file()]


@pytest.mark.skipif(sys.platform != "linux", reason="the cache folder is set by XDG_CACHE_HOME")
def test_programs_are_kept_in_the_users_cache_folder(tmp_path):
    assert run(tmp_path) == ""
    kept = programs(tmp_path / "carpk" / "jax")
    assert kept
    run(tmp_path)
    assert {f.name for f in programs(tmp_path / "carpk" / "jax")} >= {f.name for f in kept}


def test_the_switch_leaves_the_cache_off(tmp_path):
    assert run(tmp_path, CARPK_CACHE="off") == ""
    assert not programs(tmp_path)


def test_a_folder_that_jax_was_told_of_wins(tmp_path):
    run(tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    assert not (tmp_path / "carpk").exists()


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "carpk").write_text("a file where the folder would be")
    said = run(tmp_path)
    assert "compiled programs cannot be kept here" in said
    assert "CARPK_CACHE=off" in said
