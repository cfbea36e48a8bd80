"""Reads the checkpoints that save_mpi_test wrote on 3 ranks the way a user would, with h5py: every
tensor must be whole, in its shape, with the values of example.h. Usage: check_h5py.py RUN_FOLDER"""

import json
import pathlib
import sys

import h5py
import numpy as np


def example_values(group, tensor, shape):
    value = 2166136261
    for byte in f"{group}/{tensor}".encode():
        value = (value ^ byte) * 16777619 % 2**32
    index = np.arange(np.prod(shape), dtype=np.uint64)
    bits = (np.uint64(value) + index * np.uint64(2654435761)) % np.uint64(2**32)
    return ((bits >> np.uint64(8)).astype(np.float64) / 2**24 - 0.5).astype(np.float32).reshape(shape)


SHAPES = {
    "embedding.weight": (7, 5),
    "blocks.0.mixer.conv.weight": (48, 1, 4),
    "blocks.0.norm.weight": (3,),
    "blocks.0.mixer.residual_weight": (1,),
    "blocks.0.cube": (5, 6, 7),
    "head.weight": (13, 11),
}

folders = sorted(pathlib.Path(sys.argv[1]).glob("step_*"))
assert [folder.name for folder in folders] == [f"step_{step:08d}" for step in (1, 2, 3)], folders
for step, folder in enumerate(folders, start=1):
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in manifest["files"]:
        assert (folder / file["name"]).stat().st_size == file["size"], file
    with h5py.File(folder / "checkpoint.h5", "r") as checkpoint:
        assert checkpoint.attrs["step"] == step and checkpoint.attrs["world_size"] == 3
        assert checkpoint.attrs["id"].decode() == manifest["id"]
        assert checkpoint["config_toml"].asstr()[()].endswith('name = "example"\n')
        assert json.loads(checkpoint["state_json"].asstr()[()]) == {"seed": 17, "note": "µ"}
        assert json.loads(checkpoint["metadata"].asstr()[()])["sample"] == 0xFEDCBA9876543210
        for group in ("params", "adam_m", "adam_v"):
            assert set(checkpoint[group]) == set(SHAPES), list(checkpoint[group])
            for name, shape in SHAPES.items():
                data = checkpoint[group][name]
                assert data.dtype == np.float32 and data.shape == shape, (name, data)
                np.testing.assert_array_equal(data[...], example_values(group, name, shape), name)
    for rank in range(3):
        with h5py.File(folder / f"rank_{rank:04d}.h5", "r") as part:
            assert part.attrs["rank"] == rank and part.attrs["id"].decode() == manifest["id"]

# A missing rank file must not look like data.
hidden = folders[0] / "rank_0001.h5"
hidden.rename(hidden.with_suffix(".away"))
try:
    with h5py.File(folders[0] / "checkpoint.h5", "r") as checkpoint:
        values = np.concatenate([data[...].ravel() for data in checkpoint["params"].values()])
    assert np.isnan(values).any()
finally:
    hidden.with_suffix(".away").rename(hidden)
print("checked", *(folder.name for folder in folders))
