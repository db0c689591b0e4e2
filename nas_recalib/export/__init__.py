"""Export of the best architecture of a study to a file."""

from nas_recalib.export.architecture_file import export_architecture, export_predicted

__all__ = ["export_architecture", "export_predicted"]
