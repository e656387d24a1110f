import jax
import numpy as np
import pytest

import isnas_jax as isnas
from experiments.benchmarks import machine, ops


def test_operations_of_the_published_networks():
    """GFLOP of one forward pass at 64 px, counted from the published code."""
    counted = [4.69, 4.20, 11.25, 4.28, 9.80, 5.41]
    genotypes = map(isnas.Genotype.parse, machine.GENOTYPES)
    found = [machine.forward_flops(genotype, 64) / 1e9 for genotype in genotypes]
    np.testing.assert_allclose(found, counted, atol=5e-3)


@pytest.mark.thorough
def test_forms_of_an_operation_compute_the_same():
    for case in ops.cases(16, 32):
        first, *others = (form(*case.arguments) for form in case.forms.values())
        for other in others:
            np.testing.assert_allclose(first, other, atol=1e-3, err_msg=case.name)


CELLS = (5, 53, 86, 100, 150, 172, 200, 260, 316)


@pytest.mark.parametrize("cell", CELLS)
def test_pytorchs_network_computes_the_same(cell):
    """A cell of each kind; the skips are those of 172:0000011001001001100111101."""
    pytest.importorskip("torch")
    from experiments.benchmarks import pytorch

    genotype = isnas.Genotype(cell, "0000011001001001100111101")
    net = isnas.build_network(genotype, out_channels=3, channels=16)
    z = 0.1 * jax.random.uniform(jax.random.key(0), (1, 64, 64, 3))
    ours, variables = net.init_with_output(jax.random.key(1), z)
    _, theirs = next(pytorch.steps(net, variables["params"], z, np.zeros((64, 64, 3)), 1))
    np.testing.assert_allclose(theirs, ours[0], atol=1e-4)
