"""Data sets: resident on a device for proxy training, streamed for full-size training."""

from nas_recalib.data.resident import Resident, load_resident
from nas_recalib.data.sources import Source, open_source

__all__ = ["Resident", "Source", "load_resident", "open_source"]
