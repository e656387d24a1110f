"""Tests of genotypes, search spaces and files of genotypes."""

import jax
import numpy as np
import pytest

from isnas_jax.networks import free_space, genotypes, read_genotypes, toeplitz_space
from isnas_jax.networks.genotypes import Genotype

BITS = "0000011001001001100111101"


@pytest.mark.parametrize(
    "text", [f"172:{BITS}", f"172,{BITS}", f"0_172_iteration_4000_sigma_25_skip_{BITS}"]
)
def test_parse_reads_all_published_notations(text):
    genotype = Genotype.parse(text)
    assert genotype == Genotype(172, BITS)
    assert Genotype.parse(str(genotype)) == genotype
    assert hash(genotype) == hash(Genotype(172, BITS))


@pytest.mark.parametrize(
    "text", ["", "172", f"172:{BITS[1:]}", f"172:{BITS}0", f"324:{BITS}", f"x:{BITS}", "172:abc"]
)
def test_parse_rejects_malformed_text(text):
    with pytest.raises(ValueError, match=r"genotype|bits|cells"):
        Genotype.parse(text)


def test_rows_of_the_skip_matrix_are_decoder_levels():
    genotype = Genotype(0, "10000" + "00100" + "0" * 15)
    levels, sources = range(1, 6), range(5)
    skips = {(i, j) for i in levels for j in sources if genotype.has_skip(i, j)}
    assert skips == {(1, 0), (2, 2)}


def test_impossible_cells_at_128_channels():
    # The published code fails to build these cells, and no others.
    assert set(range(324)) - set(genotypes.valid_cells(128)) == {
        *range(237, 252),
        *range(300, 312),
    }


def test_decode_cell_of_known_cells():
    assert genotypes.decode_cell(172) == ("nearest", "separable", 7, "relu", False)
    assert genotypes.decode_cell(60) == ("bilinear", "identity", 1, "none", False)
    assert genotypes.decode_cell(283) == ("pixel_shuffle", "split_stack_sum", 5, "relu", True)
    assert genotypes.decode_cell(323) == ("transposed", "transposed", 7, "leaky_relu", False)


def test_all_cells_are_different():
    cells = [genotypes.decode_cell(index) for index in range(324)]
    assert len(set(cells)) == 324


def test_samples_are_reproducible_valid_and_extensible():
    key = jax.random.key(3)
    genotypes_400 = free_space.sample(key, 400, 128)
    assert free_space.sample(key, 50, 128) == genotypes_400[:50]
    assert {g.cell for g in genotypes_400} <= set(genotypes.valid_cells(128))
    bits = np.array([[int(b) for b in g.skips] for g in genotypes_400])
    # The mean of 400 fair coins is within five standard deviations of 0.5.
    assert np.all(np.abs(bits.mean(axis=0) - 0.5) < 5 * 0.5 / 20)
    assert free_space.sample(jax.random.key(4), 50, 128) != genotypes_400[:50]


def test_toeplitz_skip_matrices_are_constant_along_diagonals():
    for genotype in toeplitz_space.sample(jax.random.key(0), 50, 128):
        matrix = np.array([int(b) for b in genotype.skips]).reshape(5, 5)
        assert all(len(set(np.diag(matrix, k))) == 1 for k in range(-4, 5))


def test_read_genotypes_reports_line_and_reason(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(f"172,{BITS}\n\n# note\n240:{BITS}\n3:{BITS[1:]}\n5:{BITS}\n")
    with pytest.raises(ValueError, match=r"line 4: .*impossible at 128 channels: a depthwise"):
        read_genotypes(path)
    parsed, skipped = read_genotypes(path, skip_invalid=True)
    assert [g.cell for g in parsed] == [172, 5]
    assert len(skipped) == 2
    assert "line 5" in skipped[1]


def test_read_genotypes_rejects_an_empty_file(tmp_path):
    path = tmp_path / "empty.txt"
    path.write_text("\n")
    with pytest.raises(ValueError, match="no usable genotype"):
        read_genotypes(path)


def test_read_genotypes_of_a_binary_file_reports_file_and_line(tmp_path):
    path = tmp_path / "binary.txt"
    path.write_bytes(f"172:{BITS}\n".encode() + b"\x89PNG\xff\xfe\n")
    with pytest.raises(ValueError, match=r"binary\.txt, line 2: this is not text"):
        read_genotypes(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_read_genotypes_accepts_common_encodings_and_line_endings(encoding, end, tmp_path):
    mark = "\ufeff" if encoding.endswith("e") else ""
    text = end.join([f"{mark}# best", f"172:{BITS} \t", "", f"5,{BITS}\u00a0", f"7:{BITS[1:]}"])
    (tmp_path / "list.txt").write_bytes(text.encode(encoding))
    parsed, skipped = read_genotypes(tmp_path / "list.txt", skip_invalid=True)
    assert parsed == [Genotype(172, BITS), Genotype(5, BITS)]
    assert len(skipped) == 1
    assert "line 5" in skipped[0]


def test_read_genotypes_reports_both_lines_of_a_duplicate(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(f"172:{BITS}\n\n5:{BITS}\n172,{BITS}\n")
    with pytest.raises(ValueError, match=rf"line 4: genotype 172:{BITS} is already in line 1"):
        read_genotypes(path)
    parsed, skipped = read_genotypes(path, skip_invalid=True)
    assert parsed == [Genotype(172, BITS), Genotype(5, BITS)]
    assert len(skipped) == 1
