"""Test how many compiled programs a process keeps in memory and on disk."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import isnas_jax as isnas
from isnas_jax import _programs


def measure(*arguments):
    """Run many_programs.py and return its output, rows of (mappings, resident MB)."""
    script = pathlib.Path(__file__).parent / "many_programs.py"
    command = [sys.executable, script, *arguments]
    environment = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return np.array([list(map(int, line.split())) for line in process.stdout.splitlines()])


@pytest.mark.thorough
def test_memory_of_thirty_fits_stays_bounded():
    """The programs of each network would otherwise add about 210 mappings and 9 MB.

    The memory depends on the size of the latest networks, so the test compares
    medians over ten networks each.
    """
    mappings, resident = measure("fits").T
    assert len(mappings) == 30
    assert mappings.max() < 2_500
    assert np.median(resident[20:]) < 1.05 * np.median(resident[10:20])


@pytest.mark.thorough
def test_batched_scoring_keeps_programs_of_the_latest_cells_only():
    mappings, _ = measure("cells").T
    assert len(mappings) == 5
    assert mappings[-1] < 1.2 * mappings[1:3].max()


@pytest.mark.thorough
def test_scoring_many_cells_keeps_few_programs():
    """All programs together would take 4,400 mappings."""
    ((mappings, _),) = measure("scores", "80")
    assert mappings < 3_500


def test_program_cache_evicts_the_least_recently_used():
    programs, made_keys = _programs.ProgramCache(2), []

    def get(key):
        def make():
            made_keys.append(key)
            return jax.jit(lambda x: x + key)

        return programs.get(key, make)

    for key in (1, 2, 1, 3, 1, 2):
        assert get(key)(jnp.zeros(())) == key
    assert made_keys == [1, 2, 3, 2]
    assert len(programs) == 2


def test_program_cache_keeps_a_program_in_use():
    programs, made = _programs.ProgramCache(1), []

    def make():
        made.append(jax.jit(lambda x: x + 1))
        return made[-1]

    with programs.use("in use", make) as program:
        for other in range(3):
            programs.get(other, lambda: jax.jit(lambda x: x))
        assert programs.get("in use", make) is program
    programs.get("another", lambda: jax.jit(lambda x: x))
    assert len(programs) == 1
    programs.get("in use", make)
    assert len(made) == 2


def test_compilation_cache_deletes_the_oldest_programs_over_its_limit(tmp_path):
    for age, name in enumerate(("new-cache", "old-cache", "older-cache", "foreign")):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    previous_folder = jax.config.jax_compilation_cache_dir
    isnas.use_compilation_cache(str(tmp_path), max_bytes=250)
    isnas.use_compilation_cache(previous_folder)
    assert {path.name for path in tmp_path.iterdir()} == {"new-cache", "old-cache", "foreign"}


def test_shapes_distinguish_structure_shape_and_dtype():
    floats, integers = jnp.zeros(3), jnp.zeros(3, jnp.int32)
    assert _programs.shapes(floats) == _programs.shapes(jnp.ones(3))
    different = [(floats,), (integers,), (floats, None), (floats, integers)]
    different += [((floats,),), (jnp.zeros(4),)]
    assert len({_programs.shapes(*trees) for trees in different}) == len(different)


def test_equal_partials_share_a_program():
    programs = _programs.ProgramCache(2)
    first, second = (functools.partial(round, ndigits=2) for _ in range(2))
    made = [
        programs.get(("metric", part), lambda: jax.jit(lambda x: x)) for part in (first, second)
    ]
    assert made[0] is made[1]
    other = programs.get(("metric", functools.partial(round, ndigits=3)), lambda: jax.jit(abs))
    assert other is not made[0]


def test_compiler_options_have_an_off_switch(monkeypatch):
    options = _programs.compiler_options.__wrapped__
    assert "xla_backend_optimization_level" in options()
    monkeypatch.setenv("ISNAS_COMPILER_OPTIONS", "off")
    assert options() is None
