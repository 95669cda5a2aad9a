"""The self-contained page of all pictures."""

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
<figure><img src="data:image/png;base64,{{ picture.files[0]|embedded }}" alt="{{ picture.caption }}">
<figcaption>{{ picture.caption }} Files: {{ picture.files|map(attribute="name")|join(", ") }}.</figcaption></figure>
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
    A picture of the page.

    Args:
        files: files of the picture, a PNG first.
        caption: content of the picture and how it was measured.
    """

    files: Sequence[Path]
    caption: str


@dataclass
class Section:
    """
    A section of the page.

    Args:
        title, text: heading and text above the pictures.
        pictures: its pictures.
        tables: rows of cells, the first a header.
    """

    title: str
    text: str
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Sequence[Sequence[Any]]] = field(default_factory=list)


def figures_page(title: str, conditions: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """
    Render the page as HTML with embedded pictures.

    Args:
        title: title of the page.
        conditions: data set, split, model and other facts shared by all pictures.
        sections: its sections.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    environment.filters["embedded"] = lambda file: base64.b64encode(file.read_bytes()).decode()
    return environment.from_string(TEMPLATE).render(title=title, conditions=conditions, sections=sections)
