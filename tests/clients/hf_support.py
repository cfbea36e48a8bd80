"""Shared by the tests of interop/hf: where the golden files are, and comparison that NaN cannot pass."""
import os
import pathlib
import sys

import h5py
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
CODE = ROOT / "interop" / "hf"
GOLDEN = ROOT / "tests" / "golden"
sys.path.insert(0, str(CODE))
sys.dont_write_bytecode = True
torch.set_num_threads(int(os.environ.get("RODIMUS_TEST_THREADS", "1")))


def hdf5(path):
    """Attributes and arrays (under their paths) of an HDF5 file as one dictionary; floating point becomes float64."""
    result = {}
    with h5py.File(path) as file:
        result.update(file.attrs)

        def add(name, item):
            if isinstance(item, h5py.Dataset):
                value = torch.as_tensor(item[()])
                result[name] = value.double() if value.is_floating_point() else value.long()

        file.visititems(add)
    return result


def relative_error(got, want):
    """rms(got - want) / rms(want), in float64."""
    if got.shape != want.shape:
        raise AssertionError(f"shape {tuple(got.shape)}, expected {tuple(want.shape)}")
    got, want = got.detach().double(), want.detach().double()
    return float((got - want).square().mean().sqrt() / want.square().mean().sqrt())


def check_close(got, want, tolerance, what):
    """Fails unless the relative error is at most the tolerance; NaN fails too."""
    error = relative_error(got, want)
    if not error <= tolerance:
        raise AssertionError(f"{what}: relative error {error:.3g}, at most {tolerance:.3g} expected")
