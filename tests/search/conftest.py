import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch):
    """Checkpoints by the hundred are written by these searches, whose trainings take no time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
