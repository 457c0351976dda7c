"""Docstrings for the site: references as Sphinx spells them become code, which Markdown knows."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

REFERENCE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`(~?)\.*([\w.]+)`")


def plain(text: str) -> str:
    """``:func:`~a.b.c` `` -> ``c`` and ``:mod:`.c` `` -> ``c``, in backticks."""
    return REFERENCE.sub(lambda match: f"`{match[2].rpartition('.')[2] if match[1] else match[2]}`", text)


class Docstrings(Extension):
    """Changes every docstring as it is loaded."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)
