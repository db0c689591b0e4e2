"""HTML building blocks of the reports: a page that opens offline, tables and interactive Plotly figures."""

import html
from collections.abc import Iterable, Sequence

import plotly.graph_objects as go
from plotly.io import to_html
from plotly.offline import get_plotlyjs

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
  padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: left }
td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums } .muted { color: #666 }
tr.best { font-weight: 600 }
"""


def html_page(title: str, parts: Iterable[str], style: str = "") -> str:
    """Return an HTML page that contains everything it needs, Plotly's JavaScript included.

    Args:
        title: Title of the page, which is escaped here.
        parts: HTML of the body.
        style: CSS of this page besides that of all pages.
    """
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}{style}</style>\n"
        f"<script>{get_plotlyjs()}</script></head><body>"
    )
    return "\n".join((head, f"<h1>{html.escape(title)}</h1>", *parts, "</body></html>\n"))


def html_figure(figure: go.Figure, height: str = "450px") -> str:
    """Return the HTML of a figure inside an `html_page`; Plotly shows `&lt;` as `<` in its texts."""
    return str(to_html(figure, full_html=False, include_plotlyjs=False, default_height=height))


def html_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], layout: str, best: int | None = None
) -> str:
    """Return the HTML of a table, whose texts are escaped here.

    Args:
        headings: Heading of each column.
        rows: Cells of each row.
        layout: One letter for each column: "r" for numbers, aligned on the right, and "l" for text.
        best: Index of the row in bold letters, if there is one.
    """
    lines = ["<tr>" + "".join(f"<th scope=col>{html.escape(name)}</th>" for name in headings) + "</tr>"]
    for index, row in enumerate(rows):
        cells = (
            f"<td{' class=n' if column == 'r' else ''}>{html.escape(cell)}</td>"
            for column, cell in zip(layout, row, strict=True)
        )
        lines.append(f"<tr{' class=best' if index == best else ''}>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"
