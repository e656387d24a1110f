import numpy as np

import isnas_jax as isnas
from experiments.benchmarks import machine, ops


def test_operations_of_the_published_networks():
    """GFLOP of one forward pass at 64 px, counted from the published code."""
    counted = [4.69, 4.20, 11.25, 4.28, 9.80, 5.41]
    genotypes = map(isnas.Genotype.parse, machine.GENOTYPES)
    found = [machine.forward_flops(genotype, 64) / 1e9 for genotype in genotypes]
    np.testing.assert_allclose(found, counted, atol=5e-3)


def test_forms_of_an_operation_compute_the_same():
    for case in ops.cases(16, 32):
        first, *others = (form(*case.arguments) for form in case.forms.values())
        for other in others:
            np.testing.assert_allclose(first, other, atol=1e-3, err_msg=case.name)
