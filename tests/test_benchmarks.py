import jax
import numpy as np
import pytest

import isnas_jax as isnas
from experiments.benchmarks import machine, ops

KEY_REUSE = True  # operations are compared on equal kernels


def test_forward_flops_match_the_published_networks():
    """The expected GFLOP of a forward pass at 64 px were counted in the published code."""
    expected = [4.69, 4.20, 11.25, 4.28, 9.80, 5.41]
    genotypes = map(isnas.Genotype.parse, machine.GENOTYPES)
    gflops = [machine.forward_flops(genotype, 64) / 1e9 for genotype in genotypes]
    np.testing.assert_allclose(gflops, expected, atol=5e-3)


@pytest.mark.thorough
def test_implementations_of_an_operation_agree():
    for case in ops.cases(16, 32):
        outputs = [function(*case.arguments) for function in case.implementations.values()]
        for output in outputs[1:]:
            np.testing.assert_allclose(outputs[0], output, atol=1e-3, err_msg=case.name)


# One cell of each kind.
CELLS = (5, 53, 86, 100, 150, 172, 200, 260, 316)


@pytest.mark.parametrize("cell", CELLS)
def test_pytorch_network_has_the_same_output(cell):
    pytest.importorskip("torch")
    from experiments.benchmarks import pytorch

    genotype = isnas.Genotype(cell, "0000011001001001100111101")
    net = isnas.build_network(genotype, out_channels=3, channels=16)
    z = 0.1 * jax.random.uniform(jax.random.key(0), (1, 64, 64, 3))
    output, variables = net.init_with_output(jax.random.key(1), z)
    _, pytorch_output = next(
        pytorch.time_steps(net, variables["params"], z, np.zeros((64, 64, 3)), 1)
    )
    np.testing.assert_allclose(pytorch_output, output[0], atol=1e-4)
