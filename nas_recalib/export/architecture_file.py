"""The winner of a study as one plain file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas_recalib.architecture import Architecture
from nas_recalib.errors import EXISTS, InputError
from nas_recalib.files import require_writable, write_atomically
from nas_recalib.study.config import SearchConfig
from nas_recalib.study.summary import Summary, TrialRow


def _latency(row: TrialRow, config: SearchConfig) -> dict[str, Any]:
    if row.latency_ms is None or config.latencies is None:
        return {}
    conditions = {key: config.latencies["conditions"][key] for key in ("device", "batch", "dtype")}
    return {"latency": {"predicted_ms": row.latency_ms, "measured_ms": row.measured_ms, **conditions}}


def _confirmation(row: TrialRow) -> dict[str, Any]:
    found = row.confirmation
    if found is None:
        return {}
    return {"confirmed": {**asdict(found), "diverged": list(found.diverged)}}


def export_architecture(
    summary: Summary, path: Path, number: int | None = None, *, overwrite: bool = True
) -> TrialRow:
    """Writes a trial's architecture, with where it came from.

    Args:
        summary: Of the study.
        path: Where to.
        number: Which trial (default: the best).
        overwrite: Whether a file with other content may be replaced.

    Returns:
        The trial.

    Raises:
        InputError: If there is no such trained trial, or the file cannot be written or may not be replaced.
    """
    row = (
        summary.best if number is None else next((row for row in summary.rows if row.number == number), None)
    )
    if row is None:
        numbers = ", ".join(str(row.number) for row in summary.rows)
        raise InputError(f"trial: {number} is not a trained trial of {summary.study}; there are {numbers}")
    config = summary.config
    origin = {
        "study": summary.study,
        "trial": row.number,
        "proxy": {
            **config.fidelity.as_dict(),
            "data": config.data,
            "epochs_trained": row.epochs,
            "seed": config.seed,
        },
        "accuracy": round(row.accuracy, 6),
        **_confirmation(row),
        **_latency(row, config),
        **({"plugins": config.plugins} if config.plugins else {}),
    }
    text = Architecture.parse(row.architecture).to_yaml(origin)
    require_writable(path)
    if not overwrite and path.exists() and path.read_bytes() != text.encode():
        raise InputError(f"{path}: {EXISTS}")
    write_atomically(path, text)
    return row
