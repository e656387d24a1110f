"""Test damaged files: written by this library, they are detected; other files give an error.

Files that this library writes hold a digest, so that any damage is detected. Images and
lists of genotypes are either read or refused with a one-line error.
"""

import logging
import pathlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import isnas_jax as isnas
from isnas_jax.io import Checkpoint, cache, images
from isnas_jax.study import compaction, store

# A byte is changed, the end is cut off, or a byte is inserted: (kind, position, value).
DAMAGES = st.one_of(
    st.tuples(st.just("change"), st.integers(0, 2**30), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.integers(0, 2**30), st.just(0)),
    st.tuples(st.just("insert"), st.integers(0, 2**30), st.integers(0, 255)),
)


def apply_damage(content, damage):
    kind, position, value = damage
    position %= len(content)
    if kind == "cut":
        return content[:position]
    if kind == "insert":
        return content[:position] + bytes([value]) + content[position:]
    return content[:position] + bytes([content[position] ^ value]) + content[position + 1 :]


def try_read(read, *arguments):
    """Return the result and "", or None and the message of a ValueError."""
    try:
        return read(*arguments), ""
    except ValueError as error:
        return None, str(error)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.fixture(autouse=True)
def log_errors_only(caplog):
    caplog.set_level(logging.ERROR)


@given(damage=DAMAGES)
def test_damaged_cached_arrays_are_computed_again(folder, damage):
    arrays = {"a": np.arange(60, dtype=np.float32).reshape(3, 20), "b": np.array(7)}
    path, inputs = folder / "arrays.npz", {"seed": 3}
    path.unlink(missing_ok=True)
    cache.cached(path, inputs, lambda: arrays)
    path.write_bytes(apply_damage(path.read_bytes(), damage))
    for _ in range(2):  # the second call reads the file that the first one wrote
        restored = cache.cached(path, inputs, lambda: arrays)
        assert restored.keys() == arrays.keys()
        for name, value in arrays.items():
            np.testing.assert_array_equal(restored[name], value)
    cache.read_arrays(path)


@given(damage=DAMAGES)
def test_a_damaged_checkpoint_is_ignored(folder, damage):
    state = {"mean": np.linspace(0, 1, 50, dtype=np.float32), "iteration": np.array(9)}
    blank = {"mean": np.zeros(50, np.float32), "iteration": np.array(0)}
    checkpoint = Checkpoint(folder / "fit.checkpoint")
    with checkpoint.open({"seed": 3}):
        checkpoint.save(state)
        assert checkpoint.restore(blank)["iteration"] == 9
        checkpoint.path.write_bytes(apply_damage(checkpoint.path.read_bytes(), damage))
        assert checkpoint.restore(blank) is blank


@given(damage=DAMAGES)
def test_a_damaged_table_of_a_unit_counts_as_missing(folder, damage):
    path = folder / "unit.parquet"
    schema = pa.schema([("name", pa.string()), ("loss", pa.list_(pa.float32()))])
    table = store.table([("a", np.linspace(0, 1, 200))], schema)
    store.write(path, table, "study")
    assert store.holds(path, "study")
    path.write_bytes(apply_damage(path.read_bytes(), damage))
    is_stored, message = try_read(store.holds, path, "study")
    assert not message or "belongs to other inputs" in message
    if is_stored:
        assert store.read(path).equals(table)


@given(damage=DAMAGES, suffix=st.sampled_from([".png", ".jpg", ".tif", ".bmp", ".webp", ".gif"]))
def test_a_damaged_image_is_read_or_refused(folder, damage, suffix):
    check_damaged_image(folder / f"image{suffix}", damage, 8)


@given(damage=DAMAGES)
def test_a_damaged_16_bit_image_is_read_or_refused(folder, damage):
    check_damaged_image(folder / "deep.png", damage, 16)


def check_damaged_image(path, damage, bits):
    images.save(path, np.random.default_rng(0).random((20, 24, 3)), bits=bits)
    path.write_bytes(apply_damage(path.read_bytes(), damage))
    image, message = try_read(images.load, path)
    assert not message or str(path) in message
    if not message:
        assert image.dtype == np.float32
        assert image.ndim == 3
        assert image.shape[2] in (1, 3)
        assert 0 <= image.min() <= image.max() <= 1


@given(damage=DAMAGES)
def test_a_damaged_list_of_genotypes_is_read_or_refused(folder, damage):
    path = folder / "list.txt"
    path.write_bytes(
        apply_damage(
            b"# best\n172:0000011001001001100111101\n5,1101111101110011000011110\n", damage
        )
    )
    result, message = try_read(isnas.read_genotypes, path)
    assert not message or str(path) in message
    if not message:
        assert 1 <= len(result[0]) <= 3


def test_damaged_files_are_reported(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    path = tmp_path / "arrays.npz"
    path.write_bytes(b"nothing")
    cache.cached(path, {}, lambda: {"a": np.zeros(1)})
    assert f"{str(path)!r} is damaged" in caplog.text
    assert "computed again" in caplog.text
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json' is damaged"):
        cache.claim_folder(tmp_path, {"seed": 0})


def test_damaged_tables_are_skipped_in_reading_and_compaction(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    schema = pa.schema([("name", pa.string()), ("value", pa.int32())])
    (tmp_path / "study.json").write_text("{}")
    for name in "abc":
        path = tmp_path / "fits" / f"{name}.parquet"
        store.write(path, store.table([(name, 1)], schema), "study")
    path.write_bytes(path.read_bytes()[:-20])
    assert store.read_all(tmp_path / "fits").column("name").to_pylist() == ["a", "b"]
    assert "c.parquet' is damaged" in caplog.text
    assert compaction.compact(tmp_path) == 2
    assert not store.holds(path, "study")
    (folded,) = (tmp_path / "fits" / "folded").glob("*.parquet")
    assert store.read_all(tmp_path / "fits").column("name").to_pylist() == ["a", "b"]
    folded.write_bytes(folded.read_bytes()[:-20])
    folded_units = compaction.Folded(tmp_path, "study")
    caplog.clear()
    for _ in range(3):
        assert pathlib.PurePosixPath("fits/a.parquet") not in folded_units
    assert len(caplog.records) == 1
