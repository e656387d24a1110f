import jax
import numpy as np
import pytest

from isnas_jax.networks import SPACES, genotypes, read_genotypes
from isnas_jax.networks.genotypes import Genotype

BITS = "0000011001001001100111101"


@pytest.mark.parametrize(
    "text", [f"172:{BITS}", f"172,{BITS}", f"0_172_iteration_4000_sigma_25_skip_{BITS}"]
)
def test_parses_every_published_spelling(text):
    genotype = Genotype.parse(text)
    assert genotype == Genotype(172, BITS)
    assert Genotype.parse(str(genotype)) == genotype
    assert hash(genotype) == hash(Genotype(172, BITS))


@pytest.mark.parametrize(
    "text", ["", "172", f"172:{BITS[1:]}", f"172:{BITS}0", f"324:{BITS}", f"x:{BITS}", "172:abc"]
)
def test_refuses_malformed_text(text):
    with pytest.raises(ValueError, match=r"genotype|bits|cells"):
        Genotype.parse(text)


def test_skip_matrix_rows_are_decoder_levels():
    genotype = Genotype(0, "10000" + "00100" + "0" * 15)
    levels, sources = range(1, 6), range(5)
    present = {(i, j) for i in levels for j in sources if genotype.has_skip(i, j)}
    assert present == {(1, 0), (2, 2)}


def test_impossible_cells_at_128_channels_are_the_published_ones():
    # The published code fails to build exactly these.
    assert set(range(324)) - set(genotypes.valid_cells(128)) == {
        *range(237, 252),
        *range(300, 312),
    }


def test_decodes_known_cells():
    assert genotypes.decode_cell(172) == ("nearest", "separable", 7, "relu", False)
    assert genotypes.decode_cell(60) == ("bilinear", "identity", 1, "none", False)
    assert genotypes.decode_cell(283) == ("pixel_shuffle", "split_stack_sum", 5, "relu", True)
    assert genotypes.decode_cell(323) == ("transposed", "transposed", 7, "leaky_relu", False)


def test_every_cell_decodes_differently():
    cells = [genotypes.decode_cell(index) for index in range(324)]
    # Pixel-shuffle identities do not exist in the convolution-first block.
    assert len(set(cells)) == 324


def test_sampling_is_repeatable_valid_and_extends():
    key = jax.random.key(3)
    many = SPACES["free"].sample(key, 400, 128)
    assert SPACES["free"].sample(key, 50, 128) == many[:50]
    assert {g.cell for g in many} <= set(genotypes.valid_cells(128))
    bits = np.array([[int(b) for b in g.skips] for g in many])
    # 400 fair coins: five standard deviations around the mean.
    assert np.all(np.abs(bits.mean(axis=0) - 0.5) < 5 * 0.5 / 20)
    assert SPACES["free"].sample(jax.random.key(4), 50, 128) != many[:50]


def test_toeplitz_space_is_constant_along_diagonals():
    for genotype in SPACES["toeplitz"].sample(jax.random.key(0), 50, 128):
        matrix = np.array([int(b) for b in genotype.skips]).reshape(5, 5)
        assert all(len(set(np.diag(matrix, k))) == 1 for k in range(-4, 5))


def test_reads_lists_and_names_line_and_reason(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(f"172,{BITS}\n\n# note\n240:{BITS}\n3:{BITS[1:]}\n5:{BITS}\n")
    with pytest.raises(ValueError, match=r"line 4: .*impossible at 128 channels: a depthwise"):
        read_genotypes(path)
    found, skipped = read_genotypes(path, skip_invalid=True)
    assert [g.cell for g in found] == [172, 5]
    assert len(skipped) == 2
    assert "line 5" in skipped[1]


def test_refuses_an_empty_list(tmp_path):
    path = tmp_path / "empty.txt"
    path.write_text("\n")
    with pytest.raises(ValueError, match="no usable genotype"):
        read_genotypes(path)


def test_a_binary_list_names_file_and_line(tmp_path):
    path = tmp_path / "binary.txt"
    path.write_bytes(f"172:{BITS}\n".encode() + b"\x89PNG\xff\xfe\n")
    with pytest.raises(ValueError, match=r"binary\.txt, line 2: this is not text"):
        read_genotypes(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_of_all_editors(encoding, end, tmp_path):
    mark = "\ufeff" if encoding.endswith("e") else ""
    text = end.join([f"{mark}# best", f"172:{BITS} \t", "", f"5,{BITS}\u00a0", f"7:{BITS[1:]}"])
    (tmp_path / "list.txt").write_bytes(text.encode(encoding))
    found, skipped = read_genotypes(tmp_path / "list.txt", skip_invalid=True)
    assert found == [Genotype(172, BITS), Genotype(5, BITS)]
    assert len(skipped) == 1
    assert "line 5" in skipped[0]


def test_repeated_genotypes_are_named_with_both_lines(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(f"172:{BITS}\n\n5:{BITS}\n172,{BITS}\n")
    with pytest.raises(ValueError, match=rf"line 4: genotype 172:{BITS} is already in line 1"):
        read_genotypes(path)
    found, skipped = read_genotypes(path, skip_invalid=True)
    assert found == [Genotype(172, BITS), Genotype(5, BITS)]
    assert len(skipped) == 1
