"""A selection's grid: a page with boxes to tick, and one picture of all."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from lib_merge.autombw.selection_store import SelectionResult, TrialPicture

_CELL_PX = 256
_CAPTION_PX = 22
_GAP_PX = 8
_MOST_COLUMNS = 6
_PAPER, _INK = (255, 255, 255), (31, 41, 55)

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px system-ui, sans-serif; margin: 1.5rem; background: #fff;
  color: #1f2937; }}
main {{ display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); }}
label {{ border: 2px solid #d1d5db; border-radius: 8px; padding: 6px; display: block; }}
label:has(:checked) {{ border-color: #2563eb; background: #eff6ff; }}
img {{ width: 100%; image-rendering: auto; border-radius: 4px; }}
p.fault {{ color: #b91c1c; }}
textarea {{ width: 100%; height: 8rem; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #111827; color: #e5e7eb; }}
  label:has(:checked) {{ background: #1e3a8a; }} }}
</style></head><body>
<h1>{title}</h1>
<p>{words}</p>
<main>
{cells}
</main>
<h2>Kept</h2>
<p>Tick what is to be kept; this list is a pool file for the next merge
(<code>--pool-from</code>).</p>
<textarea id="kept" readonly aria-label="kept models"></textarea>
<script>
const boxes = [...document.querySelectorAll("input[type=checkbox]")];
const list = () => document.getElementById("kept").value =
  boxes.filter(box => box.checked).map(box => box.value).join("\\n");
boxes.forEach(box => box.addEventListener("change", list));
list();
</script>
</body></html>
"""


def sheet_html(result: SelectionResult) -> str:
    """The grid as a page that needs no other file than the pictures beside it."""
    settings = result.settings
    words = (
        f"{len(settings.models)} models; the {settings.part} of each in the average "
        f"of all. Prompt: {settings.payload.prompt}"
    )
    return _PAGE.format(
        title=html.escape(f"Selection {settings.name}"),
        words=html.escape(words),
        cells="\n".join(_html_cells(result)),
    )


def _html_cells(result: SelectionResult) -> Iterator[str]:
    for cell in result.pictures:
        name = html.escape(_caption(cell))
        if cell.picture is not None:
            shown = f'<img src="{html.escape(cell.picture)}" alt="{name}" loading=lazy>'
        else:
            reason = html.escape(cell.fault or "not rendered yet")
            shown = f'<p class="fault">{reason}</p>'
        if cell.number == 0:
            yield f"<div>{shown}<br>{name}</div>"
            continue
        value = html.escape(result.settings.models[cell.number - 1], quote=True)
        box = f'<input type="checkbox" value="{value}">'
        yield f"<label>{shown}<br>{box} {name}</label>"


def _caption(cell: TrialPicture) -> str:
    return cell.name if cell.number == 0 else f"{cell.number}  {cell.name}"


def sheet_png(result: SelectionResult) -> bytes | None:
    """The grid as a PNG, or None while there is no picture at all."""
    import PIL.Image
    import PIL.ImageDraw

    cells = result.pictures
    if not any(cell.picture for cell in cells):
        return None
    n_columns = min(_MOST_COLUMNS, math.ceil(math.sqrt(len(cells))))
    n_rows = math.ceil(len(cells) / n_columns)
    width, height = _CELL_PX + _GAP_PX, _CELL_PX + _CAPTION_PX + _GAP_PX
    size = (n_columns * width + _GAP_PX, n_rows * height + _GAP_PX)
    sheet = PIL.Image.new("RGB", size, _PAPER)
    pen = PIL.ImageDraw.Draw(sheet)
    for index, cell in enumerate(cells):
        left = _GAP_PX + index % n_columns * width
        top = _GAP_PX + index // n_columns * height
        if cell.picture is not None:
            image = _thumbnail(result.folder / cell.picture)
            shift = (_CELL_PX - image.width) // 2, (_CELL_PX - image.height) // 2
            sheet.paste(image, (left + shift[0], top + shift[1]))
        else:
            reason = cell.fault or "not rendered yet"
            pen.rectangle([left, top, left + _CELL_PX, top + _CELL_PX], outline=_INK)
            pen.text((left + 8, top + 8), _wrapped(reason), fill=_INK)
        caption = _caption(cell)[:40]
        pen.text((left, top + _CELL_PX + 4), caption, fill=_INK)
    content = io.BytesIO()
    sheet.save(content, "PNG")
    return content.getvalue()


def _thumbnail(path: Path) -> Image:
    import PIL.Image

    with PIL.Image.open(path) as image:
        found = image.convert("RGB")
    scale = _CELL_PX / max(found.size)
    kind = PIL.Image.Resampling.NEAREST if scale > 2 else PIL.Image.Resampling.LANCZOS
    sides = (max(1, round(found.width * scale)), max(1, round(found.height * scale)))
    return found.resize(sides, kind)


def _wrapped(text: str, width: int = 38) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)[:12])
