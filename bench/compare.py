#!/usr/bin/python3
"""Training speed of rodimus against PyTorch (bench/torch_rodimus.py), alternately on this machine.

    bench/compare.py --preset small --rounds 3 [--torch PYTHON] [--threads 2]

--torch names a Python that has PyTorch (default: python3). Each round runs both, so that a machine whose speed drifts
treats them alike; every figure is a median over steps, the ratio one over rounds. Both read random tokens, which costs
what text costs. Also prints the peak memory of each process.
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

ROOT = pathlib.Path(__file__).resolve().parent.parent
VOCAB = {"tiny": 4096, "small": 8192, "base": 16384, "125m": 32000}


def write_tokens(prefix, count, vocab):
    draw = random.Random(0)
    with open(f"{prefix}.bin", "wb") as out:
        out.write(struct.pack(f"<{count}H", *(draw.randrange(vocab) for _ in range(count))))
    with open(f"{prefix}.idx", "wb") as out:
        out.write(b"MMIDIDX\0\0" + struct.pack("<QBQQiqqq", 1, 8, 1, 2, count, 0, 0, 1))


def timed(command):
    """Standard output and peak memory of the largest child so far, in MiB."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{result.stderr[-2000:]}")
    return result.stdout


def peak_mib(command):
    probe = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
             "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    return int(timed([sys.executable, "-c", probe, *command])) / 1024


def ours(options, folder, compute, steps):
    output = folder / f"run_{compute}_{random.random()}"
    return output, [options.rodimus, "train", str(ROOT / "configs" / f"{options.preset}.toml"),
                    "--set", f"data.train={folder}/random", "--set", f"run.output={output}",
                    "--set", f"run.steps={steps}", "--set", "checkpoint.every=0", "--set", f"run.compute={compute}",
                    "--set", f"run.threads={options.threads}", "--set", "optimizer.schedule=constant"]


def torch(options, dtype, steps):
    return [options.torch, str(ROOT / "bench/torch_rodimus.py"), "--preset", options.preset, "--dtype", dtype,
            "--steps", str(steps), "--warmup", "2", "--threads", str(options.threads)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small", choices=VOCAB)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch", default="python3")
    parser.add_argument("--torch-dtype", default="f32", help="f32 or bf16: the better one on this machine")
    parser.add_argument("--rodimus", default=str(ROOT / "build/train/rodimus"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_tokens(folder / "random", 300_000, VOCAB[options.preset])
        ratios = []
        for turn in range(options.rounds):
            output, command = ours(options, folder, "auto", options.steps + 2)
            timed(command)
            lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()][2:]
            mine = statistics.median(line["tokens_per_s"] for line in lines)
            mfu = statistics.median(line["mfu"] for line in lines)
            peer = json.loads(timed(torch(options, options.torch_dtype, options.steps)).splitlines()[-1])
            ratios.append(mine / peer["tokens_per_s"])
            print(f"round {turn + 1}: rodimus {mine:.0f} tokens/s (MFU {100 * mfu:.0f} %), {peer['peer']} "
                  f"{peer['tokens_per_s']:.0f} tokens/s, ratio {ratios[-1]:.2f}", flush=True)
        print(f"{options.preset}: ratio {statistics.median(ratios):.2f} (median of {options.rounds})")
        memory = peak_mib(ours(options, folder, "auto", 2)[1]), peak_mib(torch(options, options.torch_dtype, 1))
        print(f"{options.preset}: peak memory rodimus {memory[0]:.0f} MiB, PyTorch {memory[1]:.0f} MiB, "
              f"ratio {memory[0] / memory[1]:.2f}")


if __name__ == "__main__":
    main()
