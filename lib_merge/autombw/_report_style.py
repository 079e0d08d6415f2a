"""The report's page: style sheet for light and dark, and the frame around its parts."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#5b6470;--line:#d5dae0;
--panel:#f5f7f9;--best:#b8430b;--dot:#2563eb;--base:#6b7280;--band:#b8430b26;
--good:#15713a;--bad:#b42318}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e6e9ed;--soft:#a2abb6;
--line:#363d46;--panel:#1c2127;--best:#ff9d5c;--dot:#7aa7ff;--base:#98a2b3;
--band:#ff9d5c2e;--good:#5ec98a;--bad:#ff8a7a}}
*{box-sizing:border-box}
body{font:15px/1.55 system-ui,sans-serif;max-width:66rem;margin:0 auto;
padding:1.5rem 1rem 4rem;background:var(--paper);color:var(--ink)}
h1{font-size:1.6rem;margin:.2rem 0 .4rem}
h2{font-size:1.2rem;margin:2.4rem 0 .4rem;border-top:1px solid var(--line);
padding-top:1.2rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}
p{margin:.4rem 0}.soft{color:var(--soft);font-size:.9rem}
table{border-collapse:collapse;margin:.6rem 0;font-size:.92rem}
th,td{padding:.28rem .7rem;border-bottom:1px solid var(--line);text-align:right;
vertical-align:top}
th{font-weight:600;color:var(--soft)}
th:first-child,td:first-child,.words{text-align:left}
.num{font-variant-numeric:tabular-nums}.win td{font-weight:600}
.scroll{overflow-x:auto}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.5rem;
margin:.8rem 0}
.fact{background:var(--panel);border:1px solid var(--line);border-radius:.5rem;
padding:.5rem .7rem}
.fact b{display:block;font-size:1.25rem;font-variant-numeric:tabular-nums}
.fact span{color:var(--soft);font-size:.82rem}
.shots{display:flex;gap:.4rem;margin:.3rem 0 .8rem;overflow-x:auto}
figure{margin:0;flex:0 0 8.5rem;width:8.5rem}
figure img{width:100%;display:block;border-radius:.25rem;background:var(--panel)}
figcaption{font-size:.74rem;padding-top:.2rem;line-height:1.35;overflow-wrap:anywhere;color:var(--soft)}
.card{border:1px solid var(--line);border-radius:.5rem;padding:.7rem .9rem;
margin:.7rem 0}
.card h3{margin:0 0 .2rem;display:flex;gap:.8rem;align-items:baseline;flex-wrap:wrap}
.card svg{max-width:26rem}
details{margin:.6rem 0}summary{cursor:pointer}
code,pre{font:12.5px/1.5 ui-monospace,Consolas,monospace;overflow-wrap:anywhere}
pre{background:var(--panel);border:1px solid var(--line);border-radius:.4rem;
padding:.7rem;white-space:pre-wrap;margin:.4rem 0}
svg{width:100%;height:auto;display:block;overflow:visible}
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}
svg .small{font-size:11px}svg .tiny{font-size:9px}svg .bold{font-weight:700}
.grid{stroke:var(--line)}.base{stroke:var(--base);stroke-dasharray:5 4}
.best{fill:none;stroke:var(--best);stroke-width:2.4;stroke-linejoin:round}
.band{fill:var(--band)}.dot{fill:var(--dot)}.mark{fill:var(--best)}
.guess{fill:var(--paper);stroke:var(--dot);stroke-width:1.3}
.whisker{stroke:var(--soft);stroke-width:2}
.bar{fill:var(--dot)}.faint{opacity:.4}
.line{fill:none;stroke-width:1;stroke-opacity:.5}
.l0{stroke:#8b9199}.l1{stroke:#7f95b0}.l2{stroke:#6f9fcb}.l3{stroke:#4f9fc4}
.l4{stroke:#2fa08a}.l5{stroke:#d98a2b;stroke-opacity:.75}
.s0{fill:#1f5fbf}.s1{fill:#4278c4}.s2{fill:#6691ca}.s3{fill:#8babd0}.s4{fill:#a9bccf}
.s5{fill:#b9b9b9}.s6{fill:#cdb79c}.s7{fill:#d9a877}.s8{fill:#dd9250}.s9{fill:#d97a2c}
.s10{fill:#c95f0c}
@media print{.card,figure{break-inside:avoid}}
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole document that needs no other file."""
    name = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{STYLE}</style></head>"
        f"<body><h1>{name}</h1>{''.join(parts)}</body></html>\n"
    )


def section(anchor: str, title: str, *parts: str) -> str:
    """A headed part that the links on top lead to."""
    return f'<h2 id="{anchor}">{html.escape(title)}</h2>{"".join(parts)}'


def paragraph(words: str, kind: str = "") -> str:
    """Words as text."""
    mark = f' class="{kind}"' if kind else ""
    return f"<p{mark}>{html.escape(words)}</p>"


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    winner: int | None = None,
    n_words: int = 1,
) -> str:
    """A table of text.

    Args:
        heads: Headings.
        rows: Cells as text.
        winner: The row to stand out, or None.
        n_words: Columns from the left whose cells are words, not numbers.
    """
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = []
    for place, row in enumerate(rows):
        cells = "".join(
            f'<td class="words">{html.escape(cell)}</td>'
            if column < n_words
            else f"<td>{html.escape(cell)}</td>"
            for column, cell in enumerate(row)
        )
        mark = ' class="win"' if place == winner else ""
        body.append(f"<tr{mark}>{cells}</tr>")
    return (
        f'<div class="scroll"><table class="num"><tr>{head}</tr>{"".join(body)}'
        "</table></div>"
    )


def folded(title: str, *parts: str) -> str:
    """A part that opens on a click."""
    return f"<details><summary>{html.escape(title)}</summary>{''.join(parts)}</details>"


def facts(cells: Iterable[tuple[str, str, str]]) -> str:
    """(what, number, what it means) in boxes beside each other."""
    return (
        '<div class="facts">'
        + "".join(
            f'<div class="fact"><span>{html.escape(what)}</span>'
            f"<b>{html.escape(number)}</b><span>{html.escape(more)}</span></div>"
            for what, number, more in cells
        )
        + "</div>"
    )
