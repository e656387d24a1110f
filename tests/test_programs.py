"""What a process keeps of the programs it compiles."""

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


def measured(*what):
    script = pathlib.Path(__file__).parent / "many_programs.py"
    command = [sys.executable, script, *what]
    environment = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.array([list(map(int, line.split())) for line in done.stdout.splitlines()])


@pytest.mark.thorough
def test_thirty_networks_leave_no_more_than_four():
    """Kept, the programs of each would add some 210 mappings and 9 MB.

    A large network shows for as long as it is among the last few, so that the
    memory of ten is compared with that of ten others by their medians.
    """
    mappings, resident = measured("fits").T
    assert len(mappings) == 30
    assert mappings.max() < 2_500
    assert np.median(resident[20:]) < 1.05 * np.median(resident[10:20])


@pytest.mark.thorough
def test_scores_by_cells_keep_the_last_cells_only():
    mappings, _ = measured("cells").T
    assert len(mappings) == 5
    assert mappings[-1] < 1.2 * mappings[1:3].max()


@pytest.mark.thorough
def test_scores_of_many_cells_keep_few_programs():
    """All of them together would make 4,400 mappings."""
    ((mappings, _),) = measured("scores", "80")
    assert mappings < 3_500


def test_only_the_latest_programs_are_kept():
    programs, made = _programs.Programs(2), []

    def get(key):
        def make():
            made.append(key)
            return jax.jit(lambda x: x + key)

        return programs.get(key, make)

    for key in (1, 2, 1, 3, 1, 2):
        assert get(key)(jnp.zeros(())) == key
    assert made == [1, 2, 3, 2]
    assert len(programs) == 2


def test_a_program_in_use_is_kept_whatever_others_ask_for():
    programs, made = _programs.Programs(1), []

    def make():
        made.append(jax.jit(lambda x: x + 1))
        return made[-1]

    with programs.use("mine", make) as mine:
        for other in range(3):
            programs.get(other, lambda: jax.jit(lambda x: x))
        assert programs.get("mine", make) is mine
    programs.get("another", lambda: jax.jit(lambda x: x))
    assert len(programs) == 1
    programs.get("mine", make)
    assert len(made) == 2


def test_compiled_programs_on_disk_take_no_more_than_they_may(tmp_path):
    for age, name in enumerate(("new-cache", "old-cache", "older-cache", "foreign")):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    before = jax.config.jax_compilation_cache_dir
    isnas.use_compilation_cache(str(tmp_path), most=250)
    isnas.use_compilation_cache(before)
    assert {path.name for path in tmp_path.iterdir()} == {"new-cache", "old-cache", "foreign"}


def test_shapes_tell_structure_and_types_apart():
    one, two = jnp.zeros(3), jnp.zeros(3, jnp.int32)
    assert _programs.shapes(one) == _programs.shapes(jnp.ones(3))
    different = [(one,), (two,), (one, None), (one, two), ((one,),), (jnp.zeros(4),)]
    assert len({_programs.shapes(*trees) for trees in different}) == len(different)
