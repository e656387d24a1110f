"""Networks drawn as SVG text, in the color of the surrounding text.

A skip connects a source e_0 (the network's input) to e_4 of the encoder with a
decoder level d_1 (full size) to d_5.
"""

from collections.abc import Sequence
from html import escape

import numpy as np

from isnas_jax.figures.style import BLUE, ORANGE

# Sizes in pixels: row height, left edges of encoder and decoder boxes, box size.
_ROW, _LEFT, _RIGHT, _WIDTH, _HEIGHT = 44, 16, 300, 104, 26


def skip_matrix(skips: Sequence[Sequence[bool]]) -> str:
    """Return a skip matrix as SVG: one filled square per skip.

    Args:
      skips: (L, L) booleans; row l - 1 is decoder level l, column j is source e_j.
    """
    side = 8  # of a square, in pixels
    size = len(skips) * side
    squares = "".join(
        f"M{column * side + 1} {row * side + 1}h{side - 2}v{side - 2}h{2 - side}z"
        for row, column in np.argwhere(skips)
    )
    label = "; ".join(
        f"level {row} from " + " ".join(f"e{column}" for column in np.flatnonzero(sources))
        for row, sources in enumerate(skips, start=1)
        if any(sources)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" '
        f'viewBox="0 0 {size} {size}" role="img" aria-label="Skips: {label or "none"}">'
        f'<rect width="{size}" height="{size}" fill="none" stroke="currentColor" '
        f'stroke-opacity="0.4"/><path d="{squares}" fill="currentColor"/></svg>'
    )


def _line(start: tuple[int, int], end: tuple[int, int], style: str) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" {style}/>'


def _box(x: int, y: int, text: str) -> str:
    """Return a box with a text; (x, y) is the middle of its left side."""
    return (
        f'<rect x="{x}" y="{y - _HEIGHT // 2}" width="{_WIDTH}" height="{_HEIGHT}" rx="4" '
        f'fill="none" stroke="currentColor"/><text x="{x + _WIDTH // 2}" y="{y + 4}" '
        f'text-anchor="middle">{text}</text>'
    )


def diagram(skips: Sequence[Sequence[bool]], title: str) -> str:
    """Return an encoder-decoder as SVG: encoder left, decoder right, full size on top.

    Blue arrows are the main path, orange lines the skips.

    Args:
      skips: (L, L) booleans, as for `skip_matrix`.
      title: Text alternative for screen readers.
    """
    levels = len(skips)
    width, height = _RIGHT + _WIDTH + 16, (levels + 1) * _ROW + 8
    arrow = f'stroke="{BLUE}" stroke-width="2" marker-end="url(#arrow)"'
    skip = f'stroke="{ORANGE}" stroke-width="1.2" stroke-opacity="0.85"'
    half, encoder, decoder = _HEIGHT // 2, _LEFT + _WIDTH // 2, _RIGHT + _WIDTH // 2
    middles = [8 + half + row * _ROW for row in range(levels + 1)]
    sizes = ["full size", *(f"1/{2**row}" for row in range(1, levels + 1))]
    parts = [
        _line((_LEFT + _WIDTH, middles[column]), (_RIGHT, middles[row]), skip)
        for row, column in np.argwhere(skips)
    ]
    for row, (middle, size) in enumerate(zip(middles, sizes, strict=True)):
        above, below = middle - _ROW + half, middle - half  # the gap to the row above
        parts.append(_box(_LEFT, middle, f"e{row}  {size if row else 'input'}"))
        if row:
            parts.append(_line((encoder, above), (encoder, below - 2), arrow))
        if row < levels:
            parts.append(_box(_RIGHT, middle, f"d{row + 1}  {size}"))
        if 0 < row < levels:
            parts.append(_line((decoder, below), (decoder, above + 2), arrow))
    last = (_LEFT + _WIDTH, middles[-1]), (decoder, middles[-2] + half + 2)
    parts.append(_line(*last, arrow))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" role="img" aria-label="{escape(title)}" font-family="sans-serif" '
        f'font-size="12" fill="currentColor" style="max-width:100%;height:auto">'
        f'<defs><marker id="arrow" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="5" '
        f'markerHeight="5" orient="auto"><path d="M0 0L6 3L0 6z" fill="{BLUE}"/></marker></defs>'
        f"{''.join(parts)}</svg>"
    )
