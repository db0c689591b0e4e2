"""How a discovered architecture leaves the study."""

from nas_recalib.export.architecture_file import export_architecture

__all__ = ["export_architecture"]
