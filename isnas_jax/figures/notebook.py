"""What results look like in a notebook."""

import base64
from html import escape
from typing import Any

import numpy as np

from isnas_jax.io import images

_SMALLEST = 256


def image_uri(image: Any) -> str:
    """An image (H, W, C) in [0, 1], C 1 or 3, as the address of an 8-bit PNG."""
    return png_uri(images.encode(np.asarray(image, np.float32)))


def png_uri(content: bytes) -> str:
    """The content of a PNG file as an address."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def picture(image: Any, facts: str) -> str:
    """HTML: an image (H, W, C) in [0, 1], its pixels sharp and not too small, above a line."""
    wide = np.asarray(image).shape[1]
    return (
        f'<img src="{image_uri(image)}" alt="restored image" '
        f'width="{wide * max(1, -(-_SMALLEST // wide))}" style="image-rendering:pixelated">'
        f"<p>{escape(facts)}</p>"
    )
