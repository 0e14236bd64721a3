"""A bar chart as SVG, by hand: no library is worth it for so little."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench.rows import Spread

WIDTH, LABEL, BAR, ROW, HEAD, GAP = 860, 230, 470, 26, 44, 18
INK, FAINT, OURS, OTHERS, PAPER = "#1f2933", "#7b8794", "#0b7285", "#adb5bd", "#ffffff"
TITLE = "cancel-worker"

Bars = Sequence[tuple[str, Spread | None]]


def chart(panels: Sequence[tuple[str, Bars]]) -> str:
    """Panels one below the other, each with its own scale; whiskers show the range of the runs."""
    height = GAP + sum(HEAD + ROW * len(bars) + GAP for _, bars in panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        "<style>text { font: 13px system-ui, sans-serif } .head { font-size: 15px; font-weight: 600 } ",
        ".ours { font-weight: 600 }</style>",
        f"<title>{TITLE} beside its peers</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{PAPER}"/>',
    ]
    y = GAP
    for title, bars in panels:
        parts.append(f'<text x="{GAP}" y="{y + 22}" class="head" fill="{INK}">{escape(title)}</text>')
        highest = max((spread.high for _, spread in bars if spread), default=1.0) or 1.0
        y += HEAD
        for label, spread in bars:
            parts += _bar(y, label, spread, BAR / highest)
            y += ROW
        y += GAP
    return "\n".join([*parts, "</svg>", ""])


def _bar(y: int, label: str, spread: Spread | None, scale: float) -> list[str]:
    ours = label == TITLE
    kind = "ours" if ours else "other"
    parts = [
        f'<text x="{LABEL - 10}" y="{y + 13}" text-anchor="end" class="{kind}" fill="{INK}">{escape(label)}</text>',
    ]
    if spread is None:
        return parts
    width, low, high = (LABEL + spread.median * scale, LABEL + spread.low * scale, LABEL + spread.high * scale)
    parts.append(
        f'<rect x="{LABEL}" y="{y}" width="{max(1.0, width - LABEL):.1f}" height="18" rx="2" '
        f'fill="{OURS if ours else OTHERS}"/>'
    )
    if spread.runs > 1:
        parts.append(
            f'<path d="M{low:.1f} {y + 9}H{high:.1f}M{low:.1f} {y + 5}v8M{high:.1f} {y + 5}v8" stroke="{INK}"/>'
        )
    shown = f"{spread.median:,.0f}" if spread.median >= 100 else f"{spread.median:.3g}"
    parts.append(f'<text x="{max(width, high) + 8:.1f}" y="{y + 13}" fill="{FAINT}">{shown}</text>')
    return parts
