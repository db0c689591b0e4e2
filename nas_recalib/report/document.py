"""The frame of a page that opens anywhere, offline."""

import html
from collections.abc import Iterable

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
  padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: left }
td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums } .muted { color: #666 }
"""


def document(title: str, parts: Iterable[str], style: str = "") -> str:
    """One HTML page.

    Args:
        title: Not yet escaped.
        parts: Of its body, as HTML.
        style: CSS beyond that of all pages.
    """
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}{style}</style></head><body>"
    )
    return "\n".join((head, *parts, "</body></html>\n"))
