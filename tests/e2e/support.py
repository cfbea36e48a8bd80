"""Shared by the end-to-end tests: running the program, writing small data independently of it, reading its results."""
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest

RODIMUS = os.environ["RODIMUS"]
MPIRUN = os.environ.get("MPIRUN", "mpirun")

VOCAB = 61
MODEL = f"""
[model]
block = "{{block}}"
vocab_size = {VOCAB}
d_model = 32
n_layers = 2
n_heads = 2
mem_size = 16
window = 9
tied = true
[data]
train = ["{{data}}/train"]
val = ["{{data}}/val"]
seq_len = 32
[optimizer]
lr = 3e-3
min_lr = 3e-4
warmup_steps = 5
[run]
output = "{{output}}"
steps = 20
global_batch = 6
seed = 3
threads = 1
compute = "f32"
peak_gflops = 1
[checkpoint]
every = 4
keep_last = 3
"""


def environment():
    env = dict(os.environ)
    # Containers run tests as root, with fewer cores than ranks.
    env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1",
               OMPI_MCA_hwloc_base_binding_policy="none",
               PRTE_MCA_rmaps_default_mapping_policy=":oversubscribe")
    return env


def command(ranks, *arguments):
    launcher = [MPIRUN, "-n", str(ranks)] if ranks > 0 else []
    return [*launcher, RODIMUS, *map(str, arguments)]


def run(ranks, *arguments, timeout=120, check=True, **kwargs):
    """Runs the program to its end. ranks = 0: without a launcher."""
    result = subprocess.run(command(ranks, *arguments), env=environment(), capture_output=True, text=True,
                            timeout=timeout, **kwargs)
    if check and result.returncode != 0:
        raise AssertionError(f"exit code {result.returncode}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}")
    return result


def start(ranks, *arguments):
    return subprocess.Popen(command(ranks, *arguments), env=environment(), stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True)


def pids_of(output):
    """Process ids of the ranks that train into `output`: rodimus processes whose command line names it."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"rodimus") and any(str(output).encode() in word for word in words):
            found.append(int(entry.name))
    return sorted(found)


def write_shard(prefix, documents, dtype="H"):
    """A Megatron-LM indexed dataset, written from its description: independent of the program's own writer."""
    prefix = pathlib.Path(prefix)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    size = struct.calcsize(dtype)
    with open(f"{prefix}.bin", "wb") as out:
        for document in documents:
            out.write(struct.pack(f"<{len(document)}{dtype}", *document))
    with open(f"{prefix}.idx", "wb") as out:
        out.write(b"MMIDIDX\0\0" + struct.pack("<QB", 1, {"H": 8, "i": 4}[dtype]))
        out.write(struct.pack("<QQ", len(documents), len(documents) + 1))
        out.write(struct.pack(f"<{len(documents)}i", *map(len, documents)))
        offset, pointers = 0, []
        for document in documents:
            pointers.append(offset)
            offset += size * len(document)
        out.write(struct.pack(f"<{len(pointers)}q", *pointers))
        out.write(struct.pack(f"<{len(documents) + 1}q", *range(len(documents) + 1)))


def tokens(count, seed):
    """A sequence with structure to learn (linear congruential): each token depends on the last two, with some noise."""
    state, sequence = seed * 2654435761 % 2**32, [seed % VOCAB, 1]
    while len(sequence) < count:
        state = (1664525 * state + 1013904223) % 2**32
        noise = (state >> 16) % 4
        sequence.append((3 * sequence[-1] + 5 * sequence[-2] + noise) % VOCAB)
    return sequence[:count]


def write_data(folder, train_tokens=33 * 32, val_tokens=700):
    """Documents of uneven length; about 32 training windows of 32 tokens, so that an epoch ends within a short run."""
    def documents(count, seed):
        parts, length = [], 0
        while length < count:
            size = min(count - length, 37 + 29 * (len(parts) % 5))
            parts.append(tokens(size, seed + len(parts)))
            length += size
        return parts
    write_shard(pathlib.Path(folder) / "train", documents(train_tokens, 10))
    write_shard(pathlib.Path(folder) / "val", documents(val_tokens, 900))


class Case(unittest.TestCase):
    """A scratch folder (with a space in its name) that holds data and a configuration."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rodimus test "))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        write_data(self.folder / "data")

    def config(self, name, block="rodimus_plus", **settings):
        """Writes a configuration with output folder `name`; settings as section__key=value. Returns its path."""
        output = self.folder / name
        text = MODEL.format(block=block, data=self.folder / "data", output=output)
        path = self.folder / f"{name}.toml"
        path.write_text(text)
        self.overrides = [word for key, value in settings.items()
                          for word in ("--set", f"{key.replace('__', '.')}={value}")]
        return path

    def train(self, name, ranks=2, options=(), timeout=120, **settings):
        path = self.config(name, **settings)
        run(ranks, "train", path, *self.overrides, *options, timeout=timeout)
        return self.folder / name


def metrics(output, kind="train"):
    path = pathlib.Path(output)
    path = path if path.suffix == ".jsonl" else path / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def trajectory(output):
    """What must be bitwise the same: numbers as printed in JSON, which is exact."""
    return [(line["step"], line["loss"], line["grad_norm"], line["lr"]) for line in metrics(output)]


def parameters(output, step, group="params"):
    import h5py
    with h5py.File(pathlib.Path(output) / f"step_{step:08d}" / "checkpoint.h5") as file:
        return {name: file[group][name][()] for name in file[group]}


def wait_until(condition, timeout=60, pause=0.01):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(pause)
    return False


def end_after_kill(process, path, timeout=20):
    """Waits until every rank that trains `path` is gone, which the program must ensure, and then for the launcher.

    Open MPI 4.1's mpirun can wait forever, without any rank, if a rank is killed in the milliseconds of
    MPI_Init (about 1 of 80 kills in the first 0.1 s). Only in that case, before a rank has printed anything, this
    function kills it.
    """
    if not wait_until(lambda: not pids_of(path), timeout):
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"a rank survived its sibling by {timeout} s:\n{process.communicate()[0][-3000:]}")
    try:
        return process.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out = process.communicate()[0]
        if "Rodimus" in out or "step" in out:
            raise AssertionError(f"mpirun did not end within {timeout} s:\n{out[-3000:]}")
        return out


def end(process, timeout=60):
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        raise AssertionError(f"still running after {timeout} s:\n{out[-3000:]}")
    return out
