"""Networks as drawings: SVG text, in the color of the text around it.

Levels are counted from the full size; a skip goes from an encoder's output e_0
(the network's input) to e_4 to a decoder's level d_1 to d_5.
"""

from collections.abc import Sequence
from html import escape

import numpy as np

from isnas_jax.figures.style import BLUE, ORANGE

_ROW, _LEFT, _RIGHT, _WIDTH, _HEIGHT = 44, 16, 300, 104, 26


def skip_matrix(skips: Sequence[Sequence[bool]], *, side: int = 8) -> str:
    """A skip matrix as squares: a row a decoder level, a column a source.

    Args:
      skips: (L, L), row l the level, column j the source.
      side: Of a square in pixels.
    """
    number = len(skips)
    size = number * side
    filled = "".join(
        f"M{column * side + 1} {row * side + 1}h{side - 2}v{side - 2}h{2 - side}z"
        for row, sources in enumerate(skips)
        for column, there in enumerate(sources)
        if there
    )
    rows = "; ".join(
        f"level {row} from " + " ".join(f"e{column}" for column in np.flatnonzero(sources))
        for row, sources in enumerate(skips, start=1)
        if any(sources)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" '
        f'viewBox="0 0 {size} {size}" role="img" aria-label="Skips: {rows or "none"}">'
        f'<rect width="{size}" height="{size}" fill="none" stroke="currentColor" '
        f'stroke-opacity="0.4"/><path d="{filled}" fill="currentColor"/></svg>'
    )


def diagram(skips: Sequence[Sequence[bool]], title: str) -> str:
    """An encoder-decoder with its skips, the encoder on the left, full size on top.

    Args:
      skips: As for `skip_matrix`.
      title: For those who do not see it.
    """
    levels = len(skips)
    width, height = _RIGHT + _WIDTH + 16, (levels + 1) * _ROW + 8

    def middle(row: int) -> int:
        return 8 + _HEIGHT // 2 + row * _ROW

    def box(x: int, row: int, text: str) -> str:
        return (
            f'<rect x="{x}" y="{middle(row) - _HEIGHT // 2}" width="{_WIDTH}" height="{_HEIGHT}" '
            f'rx="4" fill="none" stroke="currentColor"/><text x="{x + _WIDTH // 2}" '
            f'y="{middle(row) + 4}" text-anchor="middle">{text}</text>'
        )

    def line(start: tuple[int, int], end: tuple[int, int], style: str) -> str:
        (x1, y1), (x2, y2) = start, end
        return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" {style}/>'

    def size(row: int) -> str:
        return f"1/{2**row}" if row else "full size"

    flow = f'stroke="{BLUE}" stroke-width="2" marker-end="url(#arrow)"'
    skip = f'stroke="{ORANGE}" stroke-width="1.2" stroke-opacity="0.85"'
    half, center = _HEIGHT // 2, (_LEFT + _WIDTH // 2, _RIGHT + _WIDTH // 2)
    parts = []
    for row, sources in enumerate(skips):
        ends = [(_LEFT + _WIDTH, middle(column)) for column, there in enumerate(sources) if there]
        parts += [line(end, (_RIGHT, middle(row)), skip) for end in ends]
    for row in range(levels):
        below, above = middle(row + 1) - half, middle(row) + half
        parts.append(line((center[0], above), (center[0], below - 2), flow))
        if row < levels - 1:
            parts.append(line((center[1], below), (center[1], above + 2), flow))
        parts.append(box(_LEFT, row, f"e{row}  {'input' if not row else size(row)}"))
        parts.append(box(_RIGHT, row, f"d{row + 1}  {size(row)}"))
    deepest = (_LEFT + _WIDTH, middle(levels)), (center[1], middle(levels - 1) + half + 2)
    parts.append(line(*deepest, flow))
    parts.append(box(_LEFT, levels, f"e{levels}  {size(levels)}"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" role="img" aria-label="{escape(title)}" font-family="sans-serif" '
        f'font-size="12" fill="currentColor" style="max-width:100%;height:auto">'
        f'<defs><marker id="arrow" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="5" '
        f'markerHeight="5" orient="auto"><path d="M0 0L6 3L0 6z" fill="{BLUE}"/></marker></defs>'
        f"{''.join(parts)}</svg>"
    )
