"""Extension that replaces DIP and NAS-DIP by tiny networks.

A script that takes it by --extensions=tiny_baselines runs its defaults within seconds.
"""

import dataclasses

import tiny

from isnas_jax import registries
from isnas_jax.searching import presets
from isnas_jax.study import comparison

DIP = dataclasses.replace(tiny.TINY, name="dip")
NAS_DIP = dataclasses.replace(tiny.TINY_SKIP, name="nas-dip")
registries.BASELINES |= {"dip": DIP, "nas-dip": NAS_DIP}
for module in (presets, comparison):  # for presets and methods
    module.dip, module.nas_dip = DIP, NAS_DIP
