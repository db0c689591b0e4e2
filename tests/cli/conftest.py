"""Where the commands are tried."""

import pytest
from commands import SPACE


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current directory, which holds a tiny space."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    return tmp_path
