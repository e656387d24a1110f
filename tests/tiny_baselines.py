"""Extension that gives the names dip and nas-dip to tiny networks.

A script that takes it by --extensions=tiny_baselines runs its defaults within seconds.
"""

import tiny  # noqa: F401

import isnas_jax as isnas

isnas.BASELINES["dip"] = isnas.BASELINES["tiny"]
isnas.BASELINES["nas-dip"] = isnas.BASELINES["tiny-skip"]
