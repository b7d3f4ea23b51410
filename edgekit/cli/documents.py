"""The documents of the smaller commands: the parts of a deployment's document that they have to tell."""

from __future__ import annotations

from pydantic import JsonValue

from edgekit.report.document import DeployDocument, to_values

__all__ = ["part"]


def part(schema: str, document: DeployDocument) -> JsonValue:
    """`document` under another schema name, without the sections that its command does not fill."""
    values = to_values(document)
    assert isinstance(values, dict)
    return {**{key: value for key, value in values.items() if value is not None}, "schema": schema}
