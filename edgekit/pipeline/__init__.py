"""The one place where stages are composed: a model in, a measured deployment out."""

from edgekit.pipeline.answers import MAX_BOARD_ROWS
from edgekit.pipeline.bundles import flash_bundle, profile_bundle, run_bundle
from edgekit.pipeline.deployment import analyze, compile_bundle, deploy, emit_sources, tune
from edgekit.pipeline.documents import tool_versions
from edgekit.pipeline.results import (
    DOCUMENT_FILE,
    REPORT_FILE,
    Analysis,
    Compiled,
    Deployment,
    Emitted,
    bundle_directory,
)
from edgekit.pipeline.session import BoardSession, connect

__all__ = [
    "DOCUMENT_FILE",
    "MAX_BOARD_ROWS",
    "REPORT_FILE",
    "Analysis",
    "BoardSession",
    "Compiled",
    "Deployment",
    "Emitted",
    "analyze",
    "bundle_directory",
    "compile_bundle",
    "connect",
    "deploy",
    "emit_sources",
    "flash_bundle",
    "profile_bundle",
    "run_bundle",
    "tool_versions",
    "tune",
]
