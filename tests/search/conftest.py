"""Several workers on one study."""

import optuna
import pytest
from stand_in import (
    Silent,
    StandIn,
    make_search,
)

from nas_recalib.search.heartbeat import StorageHeartbeat


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(tmp_path, clock):
    """Makes workers on one study; none sends a heartbeat unless a test calls `beat`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=url, study_name="s", direction="maximize")

    def worker(target=6, **given):
        study = optuna.load_study(study_name="s", storage=url)
        heartbeat = StorageHeartbeat(study._storage, tmp_path, clock=clock)
        search = make_search(
            study, tmp_path, given.pop("proxy", StandIn()), shared=True, heartbeat=heartbeat, **given
        )
        search.begin(target, Silent())
        return search

    return worker
