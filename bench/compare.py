#!/usr/bin/python3
"""Training speed of rodimus compared with PyTorch (bench/torch_rodimus.py), measured alternately on this machine.

    bench/compare.py --preset small --rounds 3 [--torch PYTHON] [--threads 2]

--torch names a Python that has PyTorch (default: python3). First it checks that both compute the same: a model that
rodimus has trained for a few steps must give the same loss in both, to 1e-5, with PyTorch in f64. Then short runs of
PyTorch in f32 and bf16 show which of its types is faster here; ours is `auto`. Each round runs both programs, so that
a drift in the machine's speed affects both equally; every figure is a median over steps, the ratio a median over
rounds. Both read random tokens, which cost the same as text. Last comes the peak memory of each process. Needs h5py.
"""
import argparse
import json
import pathlib
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PRESETS = {"tiny": (4096, 256), "small": (8192, 512), "base": (16384, 1024), "125m": (32000, 2048)}  # vocabulary, T
# Relative difference between our loss in f32 and PyTorch's in f64: a sum over T tokens, each some thousand
# roundings away from the weights. PyTorch's own f32 is off by 6e-5 on 125m, where large steps make the model
# sensitive to rounding.
TOLERANCE = 1e-5


def write_tokens(prefix, tokens):
    with open(f"{prefix}.bin", "wb") as out:
        out.write(struct.pack(f"<{len(tokens)}H", *tokens))
    with open(f"{prefix}.idx", "wb") as out:
        out.write(b"MMIDIDX\0\0" + struct.pack("<QBQQiqqq", 1, 8, 1, 2, len(tokens), 0, 0, 1))


def output_of(command, timeout=None):
    """Standard output, or None if it takes longer than `timeout` seconds."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        sys.exit(f"compare.py: {command[0]} cannot be started: {error.strerror}; "
                 "build rodimus, name it with --rodimus, and the Python that has PyTorch with --torch")
    if result.returncode != 0:
        sys.exit(f"compare.py: {' '.join(map(str, command))} failed:\n{result.stderr[-2000:]}")
    return result.stdout


def last_json(text):
    return json.loads(text.splitlines()[-1])


def peak_mib(command):
    probe = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
             "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    return int(output_of([sys.executable, "-c", probe, *command])) / 1024


def ours(options, folder, steps, **settings):
    """A run folder that does not exist yet and the command that trains into it; a__b=1 sets a.b."""
    output = folder / f"run_{random.random()}"
    settings = {"data__train": f"{folder}/random", "run__output": output, "run__steps": steps, "checkpoint__every": 0,
                "run__threads": options.threads, "optimizer__schedule": "constant", **settings}
    command = [options.rodimus, "train", str(ROOT / "configs" / f"{options.preset}.toml")]
    for key, value in settings.items():
        command += ["--set", f"{key.replace('__', '.')}={value}"]
    return output, command


def torch(options, *arguments):
    return [options.torch, str(ROOT / "bench/torch_rodimus.py"), "--preset", options.preset,
            "--threads", str(options.threads), *map(str, arguments)]


def export(checkpoint, path):
    """The parameters of a checkpoint as a safetensors file."""
    import h5py  # Debian's python3-h5py
    header, data = {}, []
    with h5py.File(checkpoint / "checkpoint.h5") as file:
        offset = 0
        for name, tensor in file["params"].items():
            data.append(tensor[()].astype("<f4").tobytes())
            header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [offset, offset + len(data[-1])]}
            offset += len(data[-1])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data))


def check_same_loss(options, folder):
    """At initialisation the loss is log(vocabulary) whatever the blocks compute, so large steps on a rule that depends
    on earlier tokens first move every parameter. On random tokens, where the rule does not hold, the model is badly
    wrong, and its loss depends on every term."""
    vocab, T = PRESETS[options.preset]
    draw = random.Random(1)
    rule = [0]
    while len(rule) < 20_000:
        rule.append((5 * rule[-1] + 3 + draw.randrange(2)) % 64)
    write_tokens(folder / "rule", rule)
    write_tokens(folder / "window", [draw.randrange(64) for _ in range(T + 1)])
    output, command = ours(options, folder, 60, data__train=f"{folder}/rule", data__seq_len=128, run__global_batch=2,
                           run__micro_batch=2, optimizer__lr=0.01, optimizer__min_lr=0.01, optimizer__warmup_steps=0,
                           run__compute="f32")
    output_of(command)
    export(output / "step_00000060", folder / "weights.safetensors")
    mine = last_json(output_of([options.rodimus, "eval", "--json", "--checkpoint", output, "--data", folder / "window",
                                "--seq-len", str(T), "--compute", "f32"]))
    peer = last_json(output_of(torch(options, "--weights", folder / "weights.safetensors",
                                     "--tokens", folder / "window.bin")))
    error = abs(mine["nats_per_token"] / peer["loss"] - 1)
    print(f"loss of {mine['tokens']} tokens under the same weights: rodimus {mine['nats_per_token']:.7f}, "
          f"{peer['peer']} {peer['loss']:.7f}, relative difference {error:.1e}", flush=True)
    if not (mine["tokens"] == T and error <= TOLERANCE):
        sys.exit(f"compare.py: the two models differ, at most {TOLERANCE:.0e} was expected: no ratio means anything")


def better_type(options):
    """The type in which PyTorch is faster; bf16 gets at most three times as long as f32 took."""
    begin = time.monotonic()
    f32 = last_json(output_of(torch(options, "--dtype", "f32", "--steps", 1, "--warmup", 1)))
    text = output_of(torch(options, "--dtype", "bf16", "--steps", 1, "--warmup", 1),
                     timeout=3 * (time.monotonic() - begin))
    bf16_rate = 0 if text is None else last_json(text)["tokens_per_s"]
    print(f"PyTorch: f32 {f32['tokens_per_s']:.0f} tokens/s, bf16 "
          f"{'given up' if text is None else f'{bf16_rate:.0f} tokens/s'}", flush=True)
    return "bf16" if bf16_rate > f32["tokens_per_s"] else "f32"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small", choices=PRESETS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch", default="python3")
    parser.add_argument("--rodimus", default=str(ROOT / "build/train/rodimus"))
    options = parser.parse_args()
    if min(options.rounds, options.steps, options.threads) < 1:
        parser.error("--rounds, --steps and --threads must be at least 1")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        check_same_loss(options, folder)
        draw = random.Random(0)
        write_tokens(folder / "random", [draw.randrange(PRESETS[options.preset][0]) for _ in range(300_000)])
        dtype = better_type(options)
        ratios = []
        for turn in range(options.rounds):
            output, command = ours(options, folder, options.steps + 2)
            output_of(command)
            lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()][2:]
            mine = statistics.median(line["tokens_per_s"] for line in lines)
            mfu = statistics.median(line["mfu"] for line in lines)
            peer = last_json(output_of(torch(options, "--dtype", dtype, "--steps", options.steps, "--warmup", 2)))
            ratios.append(mine / peer["tokens_per_s"])
            print(f"round {turn + 1}: rodimus {mine:.0f} tokens/s (MFU {100 * mfu:.0f} %), {peer['peer']} {dtype} "
                  f"{peer['tokens_per_s']:.0f} tokens/s, ratio {ratios[-1]:.2f}", flush=True)
        print(f"{options.preset}: ratio {statistics.median(ratios):.2f} (median of {options.rounds})")
        memory = (peak_mib(ours(options, folder, 2)[1]),
                  peak_mib(torch(options, "--dtype", dtype, "--steps", 1, "--warmup", 1)))
        print(f"{options.preset}: peak memory rodimus {memory[0]:.0f} MiB, PyTorch {memory[1]:.0f} MiB, "
              f"ratio {memory[0] / memory[1]:.2f}")


if __name__ == "__main__":
    main()
