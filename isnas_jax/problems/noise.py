"""How strong noise is that nobody measured; from scikit-image, which needs PyWavelets for it.

Images are float32 (H, W, C) in [0, 1].
"""

from typing import Any

import numpy as np


def estimate_sigma(image: Any) -> float:
    """Standard deviation of normal noise in grey levels (0 to 255), by the finest wavelets.

    The median of their magnitudes (Donoho and Johnstone, 1994), averaged over
    channels: fine texture counts as noise, noise that is clipped or smoothed
    counts less.

    Args:
      image: (H, W, C).
    """
    from skimage.restoration import estimate_sigma as estimate

    return 255 * float(estimate(np.asarray(image), average_sigmas=True, channel_axis=-1))
