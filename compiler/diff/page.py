"""A comparison as one self-contained page: facts in tables, texts side by side, unchanged stretches folded."""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from html import escape
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from .changes import Comparison, Row, Text, hunks

AROUND = 4
"""Unchanged rows left open around a changed one."""
WORD = re.compile(r"[\w.]+|\s+|.")

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ c.before }} and {{ c.after }}</title>
<style>
:root { color-scheme: light dark; --line: light-dark(#d8dee4, #30363d); --dim: light-dark(#59636e, #9198a1);
  --old: light-dark(#ffebe9, #3c1618); --new: light-dark(#dafbe1, #12361d);
  --old-word: light-dark(#ffb8b0, #8e2a2a); --new-word: light-dark(#9be9a8, #1f7a3a); }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 110rem; padding: 0 1.5rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; } h2 small { color: var(--dim); }
nav { display: flex; flex-wrap: wrap; gap: .4rem 1rem; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; border: 1px solid var(--line); }
td, th { padding: .15rem .6rem; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--dim); font-weight: 500; border-bottom: 1px solid var(--line); }
.text td { font: 12px/1.45 ui-monospace, monospace; white-space: pre-wrap; width: 50%; }
.text td + td { border-left: 1px solid var(--line); }
.facts td { border-top: 1px solid var(--line); }
.old { background: var(--old); } .new { background: var(--new); }
.old b { background: var(--old-word); font-weight: inherit; border-radius: 2px; }
.new b { background: var(--new-word); font-weight: inherit; border-radius: 2px; }
summary { cursor: pointer; color: var(--dim); font-size: 12px; padding: .2rem .6rem; }
</style>
</head>
<body>
<h1>{{ c.before }} <span aria-label="compared with">&rarr;</span> {{ c.after }}</h1>
{% if c.equal %}<p>Nothing differs.</p>{% endif %}
<nav>
{% for part in c.facts %}<a href="#f{{ loop.index }}">{{ part.title }} ({{ part.changes | length }})</a>
{% endfor %}{% for part in c.texts %}<a href="#t{{ loop.index }}">{{ part.title }} ({{ part.changed }})</a>
{% endfor %}</nav>
{% for part in c.facts %}
<h2 id="f{{ loop.index }}">{{ part.title }}</h2>
<table class="facts"><tr><th></th><th>before</th><th>after</th></tr>
{% for change in part.changes %}<tr><td>{{ change.what }}</td>
<td{% if change.before is not none %} class="old"{% endif %}>{{ change.before or "" }}</td>
<td{% if change.after is not none %} class="new"{% endif %}>{{ change.after or "" }}</td></tr>
{% endfor %}</table>
{% endfor %}
{% for part in c.texts %}
<h2 id="t{{ loop.index }}">{{ part.title }} <small>{{ part.changed }} of {{ part.rows | length }} lines</small></h2>
{% for stretch in stretches(part) %}
{% if stretch.folded %}<details><summary>{{ stretch.rows | length }} unchanged lines</summary>{% endif %}
<table class="text">
{% for old, new, same in stretch.rows %}<tr><td{% if not same and old %} class="old"{% endif %}>{{ old }}</td>\
<td{% if not same and new %} class="new"{% endif %}>{{ new }}</td></tr>
{% endfor %}</table>
{% if stretch.folded %}</details>{% endif %}
{% endfor %}
{% endfor %}
</body>
</html>
"""


class Stretch(NamedTuple):
    """Rows shown together; cells are HTML."""

    folded: bool
    rows: list[tuple[str, str, bool]]


def page(comparison: Comparison) -> str:
    """The HTML of a comparison; it loads nothing."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(PAGE)
    return template.render(c=comparison, stretches=lambda text: list(stretches(text)))


def stretches(text: Text) -> Iterator[Stretch]:
    """The rows of a text in order: changed ones with what is around them, and the unchanged rest, folded."""
    done = 0
    for first, last in hunks(text.rows, AROUND):
        if first > done:
            yield Stretch(True, cells(text.rows[done:first]))
        yield Stretch(False, cells(text.rows[first:last]))
        done = last
    if done < len(text.rows):
        yield Stretch(True, cells(text.rows[done:]))


def cells(rows: Sequence[Row]) -> list[tuple[str, str, bool]]:
    return [(Markup(old), Markup(new), row.same) for row in rows for old, new in [_marked(row)]]


def _marked(row: Row) -> tuple[str, str]:
    """Both cells as HTML, with the words that differ in ``<b>``."""
    if row.same or row.before is None or row.after is None:
        return escape(row.before or ""), escape(row.after or "")
    old, new = WORD.findall(row.before), WORD.findall(row.after)
    out: tuple[list[str], list[str]] = ([], [])
    for tag, i, i_end, j, j_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for side, words in enumerate((old[i:i_end], new[j:j_end])):
            text = escape("".join(words))
            out[side].append(text if tag == "equal" or not text else f"<b>{text}</b>")
    return "".join(out[0]), "".join(out[1])
