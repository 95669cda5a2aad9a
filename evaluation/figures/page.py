"""The pictures on one page that needs no other file."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-top: 1px solid #ddd; padding-top: 1rem; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figcaption { color: #555; font-size: .9rem; margin-top: .4rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; margin: 1rem 0; }
.wide { overflow-x: auto; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem; color: #555; }
dd { margin: 0; overflow-wrap: anywhere; }
nav a { margin-right: 1rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<dl>
{% for name, value in conditions.items() %}<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}</dl>
<nav>{% for section in sections %}<a href="#s{{ loop.index }}">{{ section.title }}</a>{% endfor %}</nav>
{% for section in sections %}
<h2 id="s{{ loop.index }}">{{ section.title }}</h2>
<p>{{ section.text }}</p>
{% for picture in section.pictures %}
<figure><img src="data:image/png;base64,{{ picture.data }}" alt="{{ picture.caption }}">
<figcaption>{{ picture.caption }} Files: {{ picture.files }}.</figcaption></figure>
{% endfor %}
{% for table in section.tables %}
<div class="wide"><table>
<thead><tr>{% for cell in table[0] %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table[1:] %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endfor %}
{% endfor %}
</body>
</html>
"""


@dataclass(frozen=True)
class Picture:
    """
    Args:
        files: of the same picture, a PNG first. caption: what it shows, of what, measured how.
    """

    files: Sequence[Path]
    caption: str


@dataclass
class Section:
    """
    Args:
        title, text: above the pictures. tables: rows of cells, the first a header.
    """

    title: str
    text: str
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Sequence[Sequence[Any]]] = field(default_factory=list)


def figures_page(title: str, conditions: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """
    The page as HTML, pictures inside.

    Args:
        title: of the page. conditions: data set, split, model and whatever else all pictures share.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    shown = [
        {
            "title": section.title,
            "text": section.text,
            "tables": section.tables,
            "pictures": [
                {
                    "caption": picture.caption,
                    "files": ", ".join(file.name for file in picture.files),
                    "data": base64.b64encode(picture.files[0].read_bytes()).decode(),
                }
                for picture in section.pictures
            ],
        }
        for section in sections
    ]
    return environment.from_string(TEMPLATE).render(title=title, conditions=conditions, sections=shown)
