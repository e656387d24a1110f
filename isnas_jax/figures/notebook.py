"""Images as HTML, for notebooks and pages."""

import base64
from html import escape
from typing import Any

import numpy as np

from isnas_jax.io import images

# Narrower images are enlarged by an integer factor to at least this width, in pixels.
_MIN_WIDTH = 256


def image_uri(image: Any) -> str:
    """Return an image (H, W, C) in [0, 1] as the data URI of an 8-bit PNG."""
    return png_uri(images.encode(np.asarray(image, np.float32)))


def png_uri(content: bytes) -> str:
    """Return the bytes of a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def picture(image: Any, caption: str) -> str:
    """Return HTML that shows an image (H, W, C) in [0, 1] above a caption."""
    width = np.asarray(image).shape[1]
    return (
        f'<img src="{image_uri(image)}" alt="restored image" '
        f'width="{width * max(1, -(-_MIN_WIDTH // width))}" style="image-rendering:pixelated">'
        f"<p>{escape(caption)}</p>"
    )
