"""What results look like in a notebook."""

import base64
import io
from html import escape
from typing import Any

import numpy as np
from PIL import Image

_SMALLEST = 256


def image_uri(image: Any) -> str:
    """An image (H, W, C) in [0, 1], C 1 or 3, as the address of an 8-bit PNG."""
    levels = np.round(np.clip(np.asarray(image, np.float32), 0, 1) * 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels).save(content, "PNG")
    return png_uri(content.getvalue())


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
