"""A report as one HTML file: nothing is fetched, nothing is executed, everything is escaped."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from finetune.report.blocks import Document


def render(document: Document) -> str:
    """The page. Escaping is on, and the drawings are Markup that `svg.py` has escaped."""
    environment = Environment(
        loader=PackageLoader("finetune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(document=document)
