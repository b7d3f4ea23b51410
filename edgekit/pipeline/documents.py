"""What a deployment leaves in its folder for other programs and for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.artifacts import Measurement, ModelFormat
from edgekit.errors import ModelError
from edgekit.fsutil import atomic_write
from edgekit.pipeline.results import DOCUMENT_FILE, REPORT_FILE
from edgekit.progress import Progress, Step, step
from edgekit.report.document import DeployDocument, to_json
from edgekit.report.html import ReportDetails, render_html
from edgekit.text import printable

if TYPE_CHECKING:
    from edgekit.firmware import Bundle

__all__ = ["FORMATS", "BundleSource", "source_of", "tool_versions", "write_documents"]

FORMATS: Mapping[str, ModelFormat] = {"tflite": "tflite", "onnx": "onnx", "torch": "torch"}


@dataclass(frozen=True, slots=True)
class BundleSource:
    """A source model that is known by its bundle only."""

    name: str
    format: ModelFormat
    sha256: str


def source_of(bundle: Bundle) -> BundleSource:
    """The source model that a bundle was made of, as its manifest says.

    Raises:
        ModelError: The manifest doesn't say it.
    """
    facts = bundle.manifest.provenance
    kind = FORMATS.get(facts.get("model_format", ""))
    sha256 = facts.get("model_sha256")
    if kind is None or sha256 is None:
        raise ModelError(
            f"{printable(str(bundle.directory))}: the manifest doesn't say which model it was made of",
            hint="compile it again: edgekit compile MODEL --target TARGET -o DIR",
        )
    return BundleSource(bundle.compiled.name, kind, sha256)


def tool_versions(bundle: Bundle) -> Mapping[str, str]:
    """Tool or package to version, of all that went into a bundle."""
    packages = {
        key.removeprefix("package_"): text
        for key, text in bundle.manifest.provenance.items()
        if key.startswith("package_")
    }
    return {**bundle.manifest.tools, **packages, "edgekit": bundle.manifest.edgekit}


def write_documents(
    document: DeployDocument,
    bundle: Bundle,
    measurement: Measurement | None,
    data_source: str,
    progress: Progress,
) -> None:
    with step(progress, Step.REPORT, printable(str(bundle.directory))) as running:
        details = ReportDetails(
            versions=tool_versions(bundle),
            data_source=data_source,
            stack_high_water_bytes=None if measurement is None else measurement.stack_high_water_bytes,
            arena_high_water_bytes=None if measurement is None else measurement.arena_high_water_bytes,
        )
        page = bundle.directory / REPORT_FILE
        html = render_html(document, bundle.compiled, bundle.target, details)
        atomic_write(bundle.directory / DOCUMENT_FILE, to_json(document).encode("ascii"))
        atomic_write(page, html.encode("utf-8"))
        running.outcome = printable(str(page))
