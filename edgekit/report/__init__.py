"""A deployment as other programs read it (a versioned JSON document) and as people do (one HTML page)."""

from __future__ import annotations

from edgekit.report.document import (
    AccuracySection,
    DeployDocument,
    deploy_document,
    read_document,
    to_json,
    to_values,
)

__all__ = [
    "AccuracySection",
    "DeployDocument",
    "deploy_document",
    "read_document",
    "to_json",
    "to_values",
]
