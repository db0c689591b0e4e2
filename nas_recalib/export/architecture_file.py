"""Export of a trial's architecture to a YAML file, with the study, trial and accuracy it comes from."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas_recalib.architecture import Architecture
from nas_recalib.errors import EXISTS, InputError
from nas_recalib.files import require_writable, write_atomically
from nas_recalib.study.predicted import PredictedBest
from nas_recalib.study.summary import Summary, TrialRow


def export_architecture(
    summary: Summary, path: Path, number: int | None = None, *, overwrite: bool = True
) -> TrialRow:
    """Write the architecture of a trial and its origin to a file.

    Args:
        summary: Summary of the study.
        path: Path of the file.
        number: Number of the trial (default: the best).
        overwrite: Whether a file with other content may be replaced.

    Returns:
        The exported trial.

    Raises:
        InputError: If no trained trial has that number, or the file cannot be written or may not be replaced.
    """
    rows = {row.number: row for row in summary.rows}
    row = summary.best if number is None else rows.get(number)
    if row is None:
        numbers = ", ".join(map(str, rows))
        raise InputError(f"trial: {number} is not a trained trial of {summary.study}; there are {numbers}")
    _write(Architecture.parse(row.architecture), path, _origin(summary, row), overwrite)
    return row


def export_predicted(summary: Summary, best: PredictedBest, path: Path, *, overwrite: bool = True) -> None:
    """Write the architecture that a study predicts to be the best, and its origin, to a file.

    Args:
        summary: Summary of the study.
        best: Predicted best architecture.
        path: Path of the file.
        overwrite: Whether a file with other content may be replaced.

    Raises:
        InputError: If the file cannot be written or may not be replaced.
    """
    plugins = {"plugins": summary.config.plugins} if summary.config.plugins else {}
    origin = {"study": summary.study, "predicted": best.expectation(), **plugins}
    _write(best.architecture, path, origin, overwrite)


def _write(architecture: Architecture, path: Path, origin: dict[str, Any], overwrite: bool) -> None:
    text = architecture.to_yaml(origin)
    require_writable(path)
    if not overwrite and path.exists() and path.read_bytes() != text.encode():
        raise InputError(f"{path}: {EXISTS}")
    write_atomically(path, text)


def _origin(summary: Summary, row: TrialRow) -> dict[str, Any]:
    config = summary.config
    origin: dict[str, Any] = {
        "study": summary.study,
        "trial": row.number,
        "proxy": {
            **config.fidelity.as_dict(),
            "data": config.data,
            "epochs_trained": row.epochs,
            "seed": config.seed,
        },
        "accuracy": round(row.accuracy, 6),
    }
    if row.confirmation:
        origin["confirmed"] = {**asdict(row.confirmation), "diverged": list(row.confirmation.diverged)}
    if row.latency_ms is not None and config.latencies is not None:
        conditions = {key: config.latencies["conditions"][key] for key in ("device", "batch", "dtype")}
        origin["latency"] = {"predicted_ms": row.latency_ms, "measured_ms": row.measured_ms, **conditions}
    if config.plugins:
        origin["plugins"] = config.plugins
    return origin
