"""The program with the CUDA backend. RODIMUS is what a user has: without a GPU it must say so. EMULATED is the same program
with its kernels on the emulator and its host code on the fake runtime and the fake NCCL."""
import json
import os
import unittest

import support
from support import Case, metrics, parameters, run

EMULATED = os.environ["EMULATED"]


def on_emulator(ranks, *arguments, streams="lazy", **kwargs):
    real, support.RODIMUS = support.RODIMUS, EMULATED
    os.environ["RODIMUS_FAKE_STREAMS"] = streams
    try:
        return run(ranks, *arguments, timeout=600, **kwargs)
    finally:
        support.RODIMUS = real
        del os.environ["RODIMUS_FAKE_STREAMS"]


class Gpu(Case):
    def train_on(self, device, name, ranks=0, streams="lazy", **settings):
        path = self.config(name, run__device=f'"{device}"', run__steps=12, data__seq_len=24, **settings)
        if device == "cpu":
            run(ranks, "train", path, *self.overrides)
        else:
            on_emulator(ranks, "train", path, *self.overrides, streams=streams)
        return self.folder / name

    def assert_close(self, mine, other, bound):
        lines, others = metrics(mine), metrics(other)
        self.assertEqual(len(lines), 12)
        for line, reference in zip(lines, others, strict=True):
            for key in ("loss", "grad_norm"):
                self.assertLess(abs(line[key] / reference[key] - 1), bound, f"{key}, step {line['step']}")
        return max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(lines, others, strict=True))

    # f32: sums have another order, and twelve updates amplify the differences: the bound of the golden
    # trajectories. bf16: roundings of 2^-9 differ between the two programs.
    def test_twelve_steps_equal_those_on_the_cpu(self):
        for block in ("rodimus", "rodimus_plus"):
            for compute, bound in (("f32", 1e-4), ("bf16", 2e-2)):
                with self.subTest(block=block, compute=compute):
                    settings = dict(block=block, run__compute=f'"{compute}"')
                    cpu = self.train_on("cpu", f"cpu_{block}_{compute}", **settings)
                    gpu = self.train_on("cuda", f"gpu_{block}_{compute}", **settings)
                    self.assert_close(gpu, cpu, bound)

    def test_two_ranks_under_every_policy(self):
        cpu = self.train_on("cpu", "cpu", ranks=2)
        for streams in ("lazy", "random", "eager"):
            with self.subTest(streams=streams):
                gpu = self.train_on("cuda", f"gpu_{streams}", ranks=2, streams=streams, run__micro_batch=1)
                self.assert_close(gpu, cpu, 1e-4)

    def test_checkpoints_and_scores_cross_devices(self):
        self.train_on("cuda", "run", checkpoint__keep_last=0)
        path = self.folder / "run.toml"
        # The GPU's checkpoint of step 4 is resumed there and on the CPU; both end where the uninterrupted run
        # did.
        for device, bound in (("cuda", 0), ("cpu", 1e-4)):
            output = self.folder / f"resumed_{device}"
            arguments = ("train", path, *self.overrides, "--set", f"run.output={output}", "--set", f'run.device="{device}"',
                         "--resume", self.folder / "run" / "step_00000004")
            run(0, *arguments) if device == "cpu" else on_emulator(0, *arguments)
            for name, value in parameters(output, 12).items():
                straight = parameters(self.folder / "run", 12)[name]
                self.assertLessEqual(abs(value - straight).max(), bound * max(1.0, abs(straight).max()), name)
        scores = []
        for device in ("cpu", "cuda"):
            for mode in ("windows", "documents"):
                arguments = ("eval", "--checkpoint", self.folder / "run", "--device", device, "--compute", "f32",
                             "--mode", mode, "--limit", 5, "--json")
                result = run(0, *arguments) if device == "cpu" else on_emulator(0, *arguments)
                scores.append(json.loads(result.stdout)["nats_per_token"])
        self.assertAlmostEqual(scores[0], scores[2], delta=1e-5)
        self.assertAlmostEqual(scores[1], scores[3], delta=1e-5)
        texts = [(run if device == "cpu" else on_emulator)(0, "generate", "--checkpoint", self.folder / "run", "--ids", "7,1",
                                                           "--tokens", 12, "--temperature", 0, "--device", device).stdout
                 for device in ("cpu", "cuda")]
        self.assertEqual(*texts)

    @unittest.skipIf(os.path.exists("/dev/nvidia0"), "this machine has a GPU")
    def test_without_a_gpu(self):
        path = self.config("none", run__steps=1)
        result = run(0, "train", path, *self.overrides)
        self.assertRegex(result.stdout, r"thread on the CPU \(auto: no GPU: ")
        result = run(0, "train", path, *self.overrides, "--set", 'run.device="cuda"', check=False)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r'run.device = "cuda", but there is no GPU: .*; use "cpu"')
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)


if __name__ == "__main__":
    unittest.main()
