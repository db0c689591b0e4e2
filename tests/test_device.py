"""Devices: default choice, refusal of absent ones, native bfloat16, freed memory."""

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch

import nas_recalib.device as module
from nas_recalib.device import (
    default_threads,
    device_name,
    fast_dtype,
    keep_freed_memory,
    pick_device,
    versions,
)
from nas_recalib.errors import InputError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("available", "expected"), [(True, CUDA), (False, CPU)])
def test_the_first_gpu_is_the_default_where_there_is_one(monkeypatch, available, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: available)
    assert pick_device(None) == expected


def test_the_cpu_can_be_asked_for(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["", "gpu", "tpu", "CPU", "cuda:99", "cuda:x", "cuda:-1", "meta", "hpu"])
def test_a_device_that_cannot_be_used_is_refused_by_name(name):
    with pytest.raises(InputError) as caught:
        pick_device(name)
    assert str(caught.value).startswith(f"device: {name!r} does not exist here; allowed: cpu")


def test_a_gpu_without_a_driver_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=r"'cuda:0' does not exist here; allowed: cpu$"):
        pick_device("cuda:0")


def test_only_the_gpus_there_are_can_be_asked_for(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match=r"allowed: cpu, cuda, cuda:0, cuda:1$"):
        pick_device("cuda:2")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_a_cpu_computes_in_bfloat16_only_where_it_has_instructions_for_it(
    monkeypatch, capabilities, expected
):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    assert fast_dtype(CPU) == expected


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_computes_in_bfloat16_only_where_it_need_not_emulate_it(monkeypatch, native, expected):
    monkeypatch.setattr(
        "torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation or native
    )
    assert fast_dtype(CUDA) == expected


def test_devices_have_names(monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"a {device.type}")
    assert device_name(CUDA) == "a cuda"
    assert re.fullmatch(rf"\S.* \({torch.get_num_threads()} of {os.cpu_count()} threads\)", device_name(CPU))


def test_a_processor_that_tells_nothing_of_itself_still_has_a_name(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(module, "open", missing, raising=False)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "z80")
    assert device_name(CPU).startswith("z80 (")


@pytest.mark.parametrize(("cores", "threads"), [(None, 1), (1, 1), (2, 1), (3, 1), (8, 4)])
def test_half_of_the_cores_are_used(monkeypatch, cores, threads):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert default_threads() == threads


def test_versions_are_those_installed():
    found = versions()
    assert list(found) == ["nas-recalib", "torch", "torchvision", "optuna"]
    assert found["torch"] == version("torch")


FAULTS = """
import resource, torch
from nas_recalib.device import keep_freed_memory
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for keep in (False, True):
    if keep:
        assert keep_freed_memory() and keep_freed_memory()
    torch.ones(1 << 24)
    before = faults()
    for _ in range(30):
        torch.ones(1 << 24)
    print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_kept_memory_is_not_mapped_again():
    given_back, kept = map(int, subprocess.check_output([sys.executable, "-c", FAULTS]).split())
    assert kept * 3 < given_back


def test_other_allocators_are_left_alone(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_freed_memory()
