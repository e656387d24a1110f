"""Files that a disk or a copy damaged: what we wrote is noticed, what others did is one line."""

import logging
import pathlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import isnas_jax as isnas
from isnas_jax.io import Checkpoint, images, records
from isnas_jax.study import compaction, store

# What is done to the content of a file: a byte changed, an end cut off, something put in.
DAMAGES = st.one_of(
    st.tuples(st.just("change"), st.integers(0, 2**30), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.integers(0, 2**30), st.just(0)),
    st.tuples(st.just("insert"), st.integers(0, 2**30), st.integers(0, 255)),
)


def damaged(content, damage):
    what, place, value = damage
    at = place % len(content)
    if what == "cut":
        return content[:at]
    if what == "insert":
        return content[:at] + bytes([value]) + content[at:]
    return content[:at] + bytes([content[at] ^ value]) + content[at + 1 :]


def tried(read, *arguments):
    """What is read, or in what words it is refused."""
    try:
        return read(*arguments), ""
    except ValueError as error:
        return None, str(error)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR)


@given(damage=DAMAGES)
def test_arrays_are_computed_again(folder, damage):
    arrays = {"a": np.arange(60, dtype=np.float32).reshape(3, 20), "b": np.array(7)}
    path, of = folder / "arrays.npz", {"seed": 3}
    path.unlink(missing_ok=True)
    records.cached(path, of, lambda: arrays)
    path.write_bytes(damaged(path.read_bytes(), damage))
    for _ in range(2):  # and what was computed again is kept
        found = records.cached(path, of, lambda: arrays)
        assert found.keys() == arrays.keys()
        for name, value in arrays.items():
            np.testing.assert_array_equal(found[name], value)
    records.read_arrays(path)


@given(damage=DAMAGES)
def test_a_checkpoint_is_left_aside(folder, damage):
    state = {"mean": np.linspace(0, 1, 50, dtype=np.float32), "iteration": np.array(9)}
    blank = {"mean": np.zeros(50, np.float32), "iteration": np.array(0)}
    checkpoint = Checkpoint(folder / "fit.checkpoint")
    with checkpoint.opened({"seed": 3}):
        checkpoint.save(state)
        assert checkpoint.restore(blank)["iteration"] == 9
        checkpoint.path.write_bytes(damaged(checkpoint.path.read_bytes(), damage))
        assert checkpoint.restore(blank) is blank


@given(damage=DAMAGES)
def test_a_units_table_is_whole_or_not_there(folder, damage):
    path = folder / "unit.parquet"
    schema = pa.schema([("name", pa.string()), ("loss", pa.list_(pa.float32()))])
    table = store.table([("a", np.linspace(0, 1, 200))], schema)
    store.write(path, table, "study")
    assert store.holds(path, "study")
    path.write_bytes(damaged(path.read_bytes(), damage))
    there, refusal = tried(store.holds, path, "study")
    assert not refusal or "belongs to something else" in refusal
    if there:
        assert store.read(path).equals(table)


@given(damage=DAMAGES, suffix=st.sampled_from([".png", ".jpg", ".tif", ".bmp", ".webp", ".gif"]))
def test_an_image_is_read_or_refused(folder, damage, suffix):
    look_at_damaged_image(folder / f"image{suffix}", damage, 8)


@given(damage=DAMAGES)
def test_sixteen_bits_are_read_or_refused(folder, damage):
    look_at_damaged_image(folder / "deep.png", damage, 16)


def look_at_damaged_image(path, damage, bits):
    images.save(path, np.random.default_rng(0).random((20, 24, 3)), bits=bits)
    path.write_bytes(damaged(path.read_bytes(), damage))
    found, refusal = tried(images.load, path)
    assert not refusal or str(path) in refusal
    if not refusal:
        assert found.dtype == np.float32
        assert found.ndim == 3
        assert found.shape[2] in (1, 3)
        assert 0 <= found.min() <= found.max() <= 1


@given(damage=DAMAGES)
def test_a_list_of_genotypes_is_read_or_refused(folder, damage):
    path = folder / "list.txt"
    path.write_bytes(
        damaged(b"# best\n172:0000011001001001100111101\n5,1101111101110011000011110\n", damage)
    )
    found, refusal = tried(isnas.read_genotypes, path)
    assert not refusal or str(path) in refusal
    if not refusal:
        assert 1 <= len(found[0]) <= 3


def test_what_is_damaged_is_said(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    path = tmp_path / "arrays.npz"
    path.write_bytes(b"nothing")
    records.cached(path, {}, lambda: {"a": np.zeros(1)})
    assert f"{str(path)!r} is damaged" in caplog.text
    assert "computed again" in caplog.text
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json' is damaged"):
        records.claim_folder(tmp_path, {"seed": 0})


def test_a_damaged_table_is_left_out_and_compaction_goes_on(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    schema = pa.schema([("name", pa.string()), ("value", pa.int32())])
    (tmp_path / "study.json").write_text("{}")
    for kind in ("fits", "timings/fits"):
        for name in "abc":
            path = tmp_path / kind / f"{name}.parquet"
            store.write(path, store.table([(name, 1)], schema), "study")
        path.write_bytes(path.read_bytes()[:-20])
    assert store.read_all(tmp_path / "fits").column("name").to_pylist() == ["a", "b"]
    assert "c.parquet' is damaged" in caplog.text
    assert compaction.compact(tmp_path) == 2
    assert not store.holds(path, "study")
    (folded,) = (tmp_path / "fits" / "folded").glob("*.parquet")
    assert store.read_all(tmp_path / "fits").column("name").to_pylist() == ["a", "b"]
    folded.write_bytes(folded.read_bytes()[:-20])
    there = compaction.Folded(tmp_path, "study")
    caplog.clear()
    for _ in range(3):
        assert pathlib.PurePosixPath("fits/a.parquet") not in there
    assert len(caplog.records) == 1
