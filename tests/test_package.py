"""Public names of `import nas_recalib`, loaded on first use."""

import subprocess
import sys

import pytest

import nas_recalib as nr

LAZILY = """
import sys
import nas_recalib
assert set(nas_recalib.__all__) <= set(dir(nas_recalib))
assert not {"torch", "optuna", "ray", "pydantic", "yaml"} & sys.modules.keys()
"""


def test_dir_lists_the_public_names_and_no_others():
    assert [name for name in dir(nr) if not name.startswith("_")] == nr.__all__ == sorted(nr.__all__)
    assert "__version__" in dir(nr)


def test_every_public_name_can_be_imported():
    names = {}
    exec("from nas_recalib import *", names)
    assert set(nr.__all__) == names.keys() - {"__builtins__"}
    assert all(getattr(nr, name) is names[name] for name in nr.__all__)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'nas_recalib' has no attribute 'import_modul'"):
        _ = nr.import_modul


def test_importing_and_listing_load_nothing():
    subprocess.run([sys.executable, "-c", LAZILY], check=True, timeout=60)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nr.BlockChoice.parse(3), "3 is not an operator choice; write it like"),
        (
            lambda: nr.BlockChoice("ab"),
            r"convolution: 'ab' is not a Part; use BlockChoice\.parse to read text",
        ),
        (lambda: nr.Architecture.parse(3), "3 is not an architecture; expected backbone@size/classes"),
        (lambda: nr.register(3, "convolution")(object), "an operator cannot be named 3"),
        (lambda: nr.check_operator(None), "choice: None is not an operator"),
    ],
)
def test_what_is_no_text_is_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
