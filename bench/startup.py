#!/usr/bin/env python3
"""How long a run takes to start, depending on the number of shards.

    bench/startup.py [--shards 3000] [--megabytes 1] [--rodimus build/train/rodimus] [--mpirun mpirun]

Makes shards in a temporary folder (copies of one that `rodimus tokenize` writes, each with its NAME.json), then starts
runs of one step on 1 and 2 ranks: a first start, which reads everything, and a restart, which reads only the structure.
Subtracts the time of the same run on a single shard: MPI, model, one step, one checkpoint. The files are in the page
cache because they have just been written.
"""
import argparse
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--shards", type=int, default=3000)
parser.add_argument("--megabytes", type=float, default=1, help="of each shard")
parser.add_argument("--rodimus", default="build/train/rodimus")
parser.add_argument("--mpirun", default="mpirun")
arguments = parser.parse_args()

CONFIG = ["model.block=rodimus", "model.d_model=32", "model.n_layers=1", "model.mem_size=8", "data.seq_len=64",
          "run.global_batch=2", "run.threads=1", "run.peak_gflops=1", "run.device=cpu", "run.compute=f32"]


def start(ranks, data, output, steps):
    words = [arguments.mpirun, "-n", str(ranks), arguments.rodimus, "train", folder / "empty.toml"]
    for setting in [*CONFIG, f"data.train={data}", f"run.output={output}", f"run.steps={steps}"]:
        words += ["--set", setting]
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                       OMPI_MCA_rmaps_base_oversubscribe="1", OMP_NUM_THREADS="1")
    begin = time.monotonic()
    result = subprocess.run(words, env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(result.stdout + result.stderr)
    return time.monotonic() - begin


with tempfile.TemporaryDirectory(prefix="rodimus-startup-") as name:
    folder = pathlib.Path(name)
    (folder / "empty.toml").write_text("")
    text = folder / "text.txt"
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(3000)]
    with open(text, "w") as out:
        for _ in range(200):
            count = int(arguments.megabytes * 1e6 / 200 / 9)
            out.write(" ".join(draw.choice(words) for _ in range(count)) + "\n\n")
    subprocess.run([arguments.rodimus, "tokenize", "--input", text, "--separator", "\\n\\n", "--vocab-size", "300",
                    "--val-fraction", "0", "--out", folder / "one", "--no-progress"], check=True, capture_output=True)
    (folder / "one" / "tokenizer.model").unlink()
    many = folder / "many"
    many.mkdir()
    for i in range(arguments.shards):
        for end in ("bin", "idx", "json"):
            shutil.copyfile(folder / "one" / f"train.{end}", many / f"shard{i:05d}.{end}")
    size = (folder / "one" / "train.bin").stat().st_size
    print(f"{arguments.shards} shards of {size * 1e-6:.2f} MB", flush=True)
    for ranks in (1, 2):
        for kind, steps in (("first start", 1), ("restart", 2)):
            one = start(ranks, folder / "one", folder / f"run-one-{ranks}", steps)
            seconds = start(ranks, many, folder / f"run-many-{ranks}", steps)
            print(f"{ranks} ranks, {kind}: {seconds - one:.2f} s more than with one shard ({one:.2f} s)", flush=True)
