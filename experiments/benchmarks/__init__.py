"""Benchmarks: scripts that time isnas_jax and print ratios measured within one run."""
