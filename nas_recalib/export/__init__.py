"""Export of the best architecture of a study to a file."""

from nas_recalib.export.architecture_file import export_architecture, write_architecture

__all__ = ["export_architecture", "write_architecture"]
