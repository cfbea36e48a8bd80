"""Folders that `rodimus export` writes, opened by safetensors' own library and by transformers.

    RODIMUS=PROGRAM python3 export_test.py        (needs torch, transformers 4.4x or 5.x, safetensors, h5py)
"""
import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

WORK = tempfile.TemporaryDirectory(prefix="rodimus_export_")
# transformers reads these when it is imported.
os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=WORK.name, TRANSFORMERS_VERBOSITY="error")

import h5py
import safetensors.numpy
import torch
import transformers
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hf_support import GOLDEN, ROOT, hdf5

NAMES = sorted(path.parent.name for path in (GOLDEN / "hf").glob("*/config.json"))
DTYPE = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def rodimus(*words):
    result = subprocess.run([os.environ["RODIMUS"], *map(str, words)], capture_output=True, text=True)
    if result.returncode != 0:
        raise AssertionError(f"{words}: exit code {result.returncode}\n{result.stderr[-4000:]}")
    return result.stdout


def exported(checkpoint, *options):
    folder = pathlib.Path(tempfile.mkdtemp(dir=WORK.name)) / "hf"
    rodimus("export", checkpoint, "--out", folder, *options)
    return folder


def imported(name):
    run = pathlib.Path(WORK.name) / name
    if not run.exists():
        rodimus("import", GOLDEN / "hf" / name, "--out", run)
    return run


def trained():
    """A small run with its own tokenizer."""
    run, data = pathlib.Path(WORK.name) / "trained", pathlib.Path(WORK.name) / "data"
    if not run.exists():
        rodimus("tokenize", "--input", ROOT / "README.md", "--vocab-size", 400, "--val-fraction", 0, "--no-progress",
                "--out", data)
        empty = pathlib.Path(WORK.name) / "empty.toml"
        empty.write_text("")
        settings = dict(model__vocab_size=400, model__d_model=32, model__n_layers=2, model__n_heads=2, model__mem_size=16,
                        model__window=9, data__train=data / "train", data__tokenizer=data / "tokenizer.model",
                        data__seq_len=64, optimizer__lr=0.01, optimizer__warmup_steps=2, run__steps=30, run__global_batch=4,
                        run__compute="f32", run__device="cpu", run__peak_gflops=1, run__output=run)
        rodimus("train", empty, *[word for key, value in settings.items()
                                  for word in ("--set", f"{key.replace('__', '.')}={value}")])
    return run


def parameters(run):
    with h5py.File(run / "step_00000000" / "checkpoint.h5") as file:
        return {name: file["params"][name][()] for name in file["params"]}


def load(folder, **options):
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, output_loading_info=True, **options)


class Safetensors(unittest.TestCase):
    def test_its_own_library_reads_every_file(self):
        self.assertGreaterEqual(len(NAMES), 6)
        for name in NAMES:
            want = parameters(imported(name))
            for options in ((), ("--shard-gb", "1e-5")):
                with self.subTest(name, options=options):
                    got, total = {}, 0
                    for path in sorted(exported(imported(name), *options).glob("*.safetensors")):
                        self.assertTrue(got.keys().isdisjoint(held := safetensors.numpy.load_file(path)))
                        got |= held
                        with safe_open(path, "numpy") as file:
                            self.assertEqual(file.metadata(), {"format": "pt"})
                    self.assertEqual(got.keys(), want.keys())
                    for key, value in want.items():
                        self.assertEqual((got[key].shape, got[key].tobytes()), (value.shape, value.tobytes()), key)
            with self.subTest(name, form="fla"):
                folder = exported(imported(name), "--to", "fla")
                values = safetensors.numpy.load_file(folder / "model.safetensors").values()
                self.assertEqual(sum(value.size for value in values), sum(value.size for value in want.values()))

    def test_numbers_are_rounded_as_torch_rounds_them(self):
        for name in ("rodimus_f32", "rodimus_plus_tied_f32"):
            want = parameters(imported(name))
            for dtype in ("bf16", "f16"):
                folder = exported(imported(name), "--dtype", dtype)
                with safe_open(folder / "model.safetensors", "pt") as file:
                    for key, value in want.items():
                        self.assertTrue(file.get_tensor(key).equal(torch.from_numpy(value).to(TYPES[dtype])), key)


class Transformers(unittest.TestCase):
    def test_logits_and_continuation(self):
        # Tolerances as in hf_model_test.py: some 20 roundings of 2^-24 of logits up to 15.
        for name in NAMES:
            for options in ((), ("--shard-gb", "1e-5")):
                with self.subTest(name, options=options):
                    want = hdf5(GOLDEN / "hf" / name / "expected.h5")
                    model, report = load(exported(imported(name), *options), **{DTYPE: torch.float32})
                    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
                        self.assertFalse(report[key], key)
                    with torch.no_grad():
                        output = model(want["input_ids"], labels=want["input_ids"])
                    self.assertLessEqual(float((output.logits - want["logits"]).abs().max()), 2e-5)
                    self.assertLessEqual(abs(float(output.loss) - float(want["loss"])), 2e-6)
                    count = want["greedy"].shape[1] - want["prompt"].shape[1]
                    ids = model.generate(want["prompt"], max_new_tokens=count, do_sample=False)
                    self.assertTrue(ids.equal(want["greedy"]))

    def test_the_lines_of_the_readme_and_of_the_model_card(self):
        folder = exported(trained())
        readme = (ROOT / "README.md").read_text().split("\n## Use it elsewhere\n")[1]
        for text, name in ((readme, "first-hf"), ((folder / "README.md").read_text(), "PATH_OF_THIS_FOLDER")):
            lines = re.search("```python\n(.*?)```", text, re.S)[1]
            self.assertIn(f'"{name}"', lines)
            found = {}
            exec(lines.replace(name, str(folder)), found)
            self.assertEqual(found["model"].config.d_model, 32)

    def test_a_text_continues_as_in_the_program(self):
        folder = exported(trained())
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        model, _ = load(folder, **{DTYPE: torch.float32})
        for text in ("The program", "names of tokens: </s> <unk> <0x41>\n and  spaces"):
            ids = tokenizer(text, return_tensors="pt").input_ids
            self.assertEqual(ids[0].eq(1).nonzero().tolist(), [[0]])  # EOS before the text, and nowhere else
            self.assertEqual(tokenizer.decode(ids[0], skip_special_tokens=True), text)
            out = model.generate(ids, max_new_tokens=40, do_sample=False)
            ours = rodimus("generate", "--checkpoint", trained(), "--prompt", text, "--tokens", 40, "--temperature", 0)
            self.assertEqual(ours.rstrip("\n"), tokenizer.decode(out[0], skip_special_tokens=True).rstrip("\n"))

    def test_types_are_those_of_the_files(self):
        for dtype, type_ in TYPES.items():
            folder = exported(imported("rodimus_plus_tied_f32"), "--dtype", dtype)
            model, _ = load(folder, **{DTYPE: "auto"})
            self.assertEqual({value.dtype for value in model.state_dict().values()}, {type_})
            self.assertIs(model.lm_head.weight, model.model.embeddings.weight)

    def test_what_transformers_saves_is_imported_again(self):
        for name in ("rodimus_plus_tied_bf16", "rodimus_bf16"):
            folder = exported(imported(name), "--dtype", "bf16")
            model, _ = load(folder, **{DTYPE: "auto"})
            saved, run = folder.parent / "saved", folder.parent / "run"
            model.save_pretrained(saved)
            rodimus("import", saved, "--out", run)
            got, want = parameters(run), parameters(imported(name))
            self.assertEqual({k: v.tobytes() for k, v in got.items()}, {k: v.tobytes() for k, v in want.items()})

    def test_the_configuration_is_that_of_the_released_model(self):
        for name in NAMES:
            ours = AutoConfig.from_pretrained(exported(imported(name)), trust_remote_code=True)
            released = json.loads((GOLDEN / "hf" / name / "config.json").read_text())
            theirs = type(ours)(**released)
            for key in ("d_inner", "mem_size", "d_conv", "gate_rank", "key_epsilon", "has_attention"):
                self.assertEqual(getattr(ours, key), getattr(theirs, key), key)
            if ours.has_attention:
                for key in ("heads", "head_dim", "window", "rotary_base", "d_ff"):
                    self.assertEqual(getattr(ours, key), getattr(theirs, key), key)


if __name__ == "__main__":
    unittest.main()
