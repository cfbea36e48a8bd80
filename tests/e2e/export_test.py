"""rodimus export: what it writes is what other programs store, and importing it gives back the same model."""
import json
import pathlib
import re
import resource
import shlex
import signal
import struct
import subprocess
import sys
import unittest

import numpy

from import_test import GOLDEN, fla_tensors, read_safetensors, write_safetensors
from support import Case, command, environment, metrics, parameters, run, start, wait_until

SOURCE = pathlib.Path(__file__).resolve().parents[2]
CODE = sorted((SOURCE / "interop" / "hf").glob("*.py"))
NAMES = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))


def tensors_of(folder):
    return {name: tensor for path in sorted(folder.glob("*.safetensors"))
            for name, tensor in read_safetensors(path).items()}


class Export(Case):
    def imported(self, folder, name):
        run(0, "import", folder, "--out", self.folder / name)
        return self.folder / name

    def exported(self, checkpoint, name, *options):
        run(0, "export", checkpoint, "--out", self.folder / name, *options)
        self.assertFalse((self.folder / f"{name}.tmp").exists())
        return self.folder / name

    def same_parameters(self, output, wanted, step=0):
        got, want = parameters(output, 0), parameters(wanted, step)
        self.assertEqual(got.keys(), want.keys())
        for name, value in want.items():
            self.assertEqual(got[name].tobytes(), value.tobytes(), name)

    def model_table(self, output):
        """The [model] section of a run's configuration."""
        text = (output / "config.toml").read_text()
        return text[text.index("[model]"):text.index("[data]")]

    def test_a_released_model_comes_out_as_it_went_in(self):
        self.assertGreaterEqual(len(NAMES), 6, f"{GOLDEN}: expected six models")
        for name in NAMES:
            with self.subTest(name):
                released = tensors_of(GOLDEN / name)
                there = self.imported(GOLDEN / name, f"{name} there")
                dtype = name.rsplit("_", 1)[1]
                for form, wanted in (("authors", released), ("fla", fla_tensors(released))):
                    folder = self.exported(there, f"{name} {form}", "--to", form, "--dtype", dtype)
                    self.assertEqual(tensors_of(folder), wanted)
                    back = self.imported(folder, f"{name} {form} back")
                    self.same_parameters(back, there)
                    self.assertEqual(self.model_table(back), self.model_table(there))
                config = json.loads((GOLDEN / name / "config.json").read_text())
                ours = json.loads((self.folder / f"{name} authors" / "config.json").read_text())
                # The ids belong to a tokenizer, which the released folder does not have.
                for key in set(config) - {"mixer_cfg", "attn_cfg", "bos_token_id", "eos_token_id"}:
                    self.assertEqual(ours[key], config[key], key)
                for section in ("mixer_cfg", "attn_cfg"):
                    for key, value in config[section].items():
                        self.assertEqual(ours[section][key], value, key)

    def evaluate(self, checkpoint):
        result = json.loads(run(0, "eval", "--checkpoint", checkpoint, "--data", self.folder / "data" / "val",
                                "--compute", "f32", "--threads", 1, "--seq-len", 32, "--micro-batch", 4,
                                "--json").stdout)
        return result["nats_per_token"]

    def test_a_trained_model_keeps_its_loss_to_the_last_digit(self):
        for block in ("rodimus", "rodimus_plus"):
            trained = self.train(block, ranks=2, block=block, model__tied=str(block == "rodimus").lower())
            loss = self.evaluate(trained)
            for form in ("authors", "fla"):
                with self.subTest(block=block, form=form):
                    folder = self.exported(trained, f"{block} {form}", "--to", form)
                    back = self.imported(folder, f"{block} {form} back")
                    self.same_parameters(back, trained, step=20)
                    self.assertEqual(self.evaluate(back), loss)
        # A step folder is taken as well as a run, and is another model.
        early = self.exported(trained / "step_00000012", "early")
        self.same_parameters(self.imported(early, "early back"), trained, step=12)
        self.assertIn("| steps | 12 |", (early / "README.md").read_text())

    def test_half_types_round_to_nearest_even(self):
        trained = self.train("run", ranks=0, run__steps=4)
        want = parameters(trained, 4)
        halves = tensors_of(self.exported(trained, "f16", "--dtype", "f16"))
        brains = tensors_of(self.exported(trained, "bf16", "--dtype", "bf16"))
        for name, value in want.items():
            self.assertEqual(halves[name], ("F16", list(value.shape), value.astype("<f2").tobytes()), name)
            bits = value.view("<u4").astype("<u8")
            rounded = ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype("<u2")
            self.assertEqual(brains[name], ("BF16", list(value.shape), rounded.tobytes()), name)
        for dtype, torch in (("f16", "float16"), ("bf16", "bfloat16")):
            self.assertEqual(json.loads((self.folder / dtype / "config.json").read_text())["torch_dtype"], torch)

    def test_shards(self):
        trained = self.train("run", ranks=0, run__steps=4)
        whole = self.exported(trained, "whole")
        self.assertFalse((whole / "model.safetensors.index.json").exists())
        cut = self.exported(trained, "cut", "--shard-gb", "2e-5")
        files = sorted(cut.glob("*.safetensors"))
        self.assertGreater(len(files), 3)
        self.assertEqual([f.name for f in files],
                         [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))])
        index = json.loads((cut / "model.safetensors.index.json").read_text())
        self.assertEqual(index["metadata"]["total_size"], sum(len(t[2]) for t in tensors_of(whole).values()))
        before = 20_000
        for file in files:
            held = read_safetensors(file)
            sizes = [len(content) for _, _, content in held.values()]
            self.assertTrue(sum(sizes) <= 20_000 or len(held) == 1, file.name)
            self.assertGreater(before + sizes[0], 20_000, f"{file.name}: the file before it was not full")
            before = sum(sizes)
            self.assertEqual({index["weight_map"][name] for name in held}, {file.name})
        self.assertEqual(tensors_of(cut), tensors_of(whole))
        self.same_parameters(self.imported(cut, "back"), trained, step=4)

    def header(self, folder):
        content = (folder / "model.safetensors").read_bytes()
        return json.loads(content[8:8 + struct.unpack("<Q", content[:8])[0]])

    def tokenized(self):
        text = self.folder / "text"
        text.mkdir()
        for i in range(30):
            (text / f"{i}.txt").write_text(f"document {i}: " + "some words again and again. " * 40)
        for name, vocab in (("own", 320), ("other", 310)):
            run(0, "tokenize", "--input", text, "--vocab-size", vocab, "--val-fraction", 0.1, "--out",
                self.folder / name)
        own = self.folder / "own"
        return self.train("run", ranks=0, model__vocab_size=320, data__train=f'["{own}/train"]', run__steps=8,
                          data__val=f'["{own}/val"]', data__tokenizer=f'"{own}/tokenizer.model"')

    def test_the_folder_of_a_run_with_a_tokenizer(self):
        trained = self.tokenized()
        folder = self.exported(trained, "hf", "--dtype", "bf16")
        self.assertEqual({path.name for path in folder.iterdir()},
                         {"config.json", "generation_config.json", "model.safetensors", "tokenizer.model", "tokenizer.json",
                          "tokenizer_config.json", "README.md", *(path.name for path in CODE)})
        for path in CODE:
            self.assertEqual((folder / path.name).read_bytes(), path.read_bytes())
        self.assertEqual((folder / "tokenizer.model").read_bytes(), (trained / "tokenizer.model").read_bytes())
        self.assertEqual(self.header(folder)["__metadata__"], {"format": "pt"})
        # EOS, token 1, precedes a document in training.
        self.assertEqual(json.loads((folder / "generation_config.json").read_text()),
                         {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1})
        config = json.loads((folder / "config.json").read_text())
        self.assertEqual((config["bos_token_id"], config["eos_token_id"]), (1, 1))
        self.assertEqual(config["max_position_embeddings"], 32)
        fla = self.exported(trained, "fla", "--to", "fla")
        self.assertEqual({path.name for path in fla.iterdir()},
                         {"config.json", "generation_config.json", "model.safetensors", "tokenizer.model", "tokenizer.json",
                          "tokenizer_config.json", "README.md"})
        self.assertNotIn("auto_map", json.loads((fla / "config.json").read_text()))

        card = (folder / "README.md").read_text()
        front, text = re.fullmatch("---\n(.*?)\n---\n(.*)", card, re.S).groups()
        self.assertEqual(front.split("\n"), ["library_name: transformers", "pipeline_tag: text-generation", "tags:",
                                             "- rodimus_plus", "- custom_code"])
        last, = [line for line in metrics(trained) if line["step"] == 8]
        validation, = metrics(trained, "eval")
        count = sum(value.size for value in parameters(trained, 8).values())
        for line in (f"of {count} parameters, stored in bfloat16.", "| steps | 8 |", f"| tokens | {8 * 6 * 32} |",
                     f"| training loss of the last step, nats per token | {last['loss']:.4f} |",
                     f"| validation loss, nats per token | {validation['loss']:.4f} |",
                     f"| validation perplexity | {validation['perplexity']:.2f} |",
                     f"| validation, bits per byte | {validation['bits_per_byte']:.4f} |",
                     "| attention: keys that a query sees, its own included | 9 |", "trust_remote_code=True",
                     "AutoTokenizer.from_pretrained", "Token 1 stood before every document", "    rodimus export run --out hf --to authors --dtype bf16\n"):
            self.assertIn(line, text)
        self.assertIn("import fla", (fla / "README.md").read_text())

        # An imported model has no history: its card claims none.
        bare = (self.exported(self.imported(folder, "back"), "again") / "README.md").read_text()
        for word in ("training", "steps", "tokens |", "loss", "tokenizer.model"):
            self.assertNotIn(word, bare)
        self.assertEqual(json.loads((self.folder / "again" / "generation_config.json").read_text()), {})

        self.refuse(("other/tokenizer.model is not the tokenizer",), trained, "x", "--tokenizer",
                    self.folder / "other" / "tokenizer.model")
        small = self.train("small", ranks=0, run__steps=1)
        self.refuse(("has 310 tokens, the model only 61",), small, "x", "--tokenizer",
                    self.folder / "other" / "tokenizer.model")

    def test_the_commands_of_the_readme(self):
        self.train("first", ranks=0, run__steps=2)
        (self.folder / "runs").mkdir()
        (self.folder / "first").rename(self.folder / "runs" / "first")
        (self.folder / "data").rename(self.folder / "my_data")
        (self.folder / "Rodimus-Plus-Coder-1.6B-Chat").symlink_to(GOLDEN / "rodimus_plus_tied_bf16")
        readme, commands = (SOURCE / "README.md").read_text(), []
        for title in ("Start from a published checkpoint", "Use it elsewhere"):
            section = readme.split(f"\n## {title}\n")[1].split("\n## ")[0]
            commands += re.search("```sh\n(.*?)```", section, re.S)[1].replace("\\\n", "").splitlines()
        self.assertEqual([line.split()[:2] for line in commands],
                         [["rodimus", "import"], ["rodimus", "train"], ["rodimus", "export"]])
        for line in commands:
            _, *words = shlex.split(line, comments=True)
            if words[0] == "train":  # made fast
                words += ["--set", "run.steps=1", "--set", "run.global_batch=2", "--set", "data.seq_len=32"]
            run(0, *words, cwd=self.folder)
        self.assertTrue((self.folder / "runs" / "tuned" / "step_00000001").is_dir())
        self.assertTrue((self.folder / "first-hf" / "model.safetensors").is_file())

    # --- what is refused

    def refuse(self, wanted, checkpoint, name, *options, code=1, **kwargs):
        """One error line with every word of `wanted`; nothing is left of the folder."""
        result = run(0, "export", checkpoint, "--out", self.folder / name, *options, check=False, **kwargs)
        errors = [line for line in result.stderr.splitlines() if "rodimus: error:" in line]
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        self.assertEqual(len(errors), 1, result.stderr)
        self.assertEqual(result.stdout, "")
        for word in wanted:
            self.assertIn(word, errors[0])
        self.assertFalse((self.folder / f"{name}.tmp").exists(), "a refused export leaves nothing behind")

    def test_bad_input_is_one_line(self):
        trained = self.train("run", ranks=0, run__steps=4)
        self.refuse(("no checkpoint at", "nowhere"), self.folder / "nowhere", "x")
        self.refuse(("no checkpoint at", "data"), self.folder / "data", "x")
        self.refuse(("--to", '"gguf" is not authors or fla'), trained, "x", "--to", "gguf", code=2)
        self.refuse(("--dtype", '"fp8" is not f32, bf16 or f16'), trained, "x", "--dtype", "fp8", code=2)
        self.refuse(("--shard-gb", "not a number in (0,"), trained, "x", "--shard-gb", 0, code=2)
        self.refuse(("missing.model",), trained, "x", "--tokenizer", "missing.model")
        self.refuse(("run is there and not empty", "another folder"), trained, "run")
        (self.folder / "a file").write_text("mine")
        self.refuse(("a file is not a folder",), trained, "a file")
        self.assertEqual((self.folder / "a file").read_text(), "mine")
        narrow = self.train("narrow", ranks=0, run__steps=2, model__window=1)
        self.refuse(("model.window = 1", "--to fla"), narrow, "x")
        self.exported(narrow, "narrow fla", "--to", "fla")
        shared = self.train("shared", ranks=0, run__steps=2, model__n_heads_k=2)
        self.refuse(("model.n_heads_k = 2", "--to authors"), shared, "x", "--to", "fla")
        wide = self.train("wide", ranks=0, run__steps=2, model__expand=3)
        self.refuse(("model.expand = 3", "--to authors"), wide, "x", "--to", "fla")
        result = run(2, "export", trained, "--out", self.folder / "x", check=False)
        self.assertIn("2 processes", result.stdout + result.stderr)
        weight = parameters(trained, 4)["model.embeddings.weight"].tobytes()
        file = trained / "step_00000004" / "rank_0000.h5"
        content = bytearray(file.read_bytes())
        content[content.index(weight[:64]) + 10] ^= 1
        file.write_bytes(bytes(content))
        self.refuse(("rank_0000.h5", "model.embeddings.weight"), trained / "step_00000004", "x")
        self.assertFalse((self.folder / "x").exists())

    def test_numbers_that_do_not_fit(self):
        config = json.loads((GOLDEN / "rodimus_plus_f32" / "config.json").read_text())
        tensors = read_safetensors(GOLDEN / "rodimus_plus_f32" / "model.safetensors")
        name = "model.layers.1.ffn.fc.weight"
        kind, shape, content = tensors[name]
        values = numpy.frombuffer(content, "<f4").copy()
        values[77] = 65505
        folder = self.folder / "large"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        write_safetensors(folder / "model.safetensors", tensors | {name: (kind, shape, values.tobytes())})
        large = self.imported(folder, "run")
        self.refuse((f"element 77 of {name} is 65505", "65504", "--dtype bf16 or f32"), large, "x", "--dtype", "f16")
        self.assertFalse((self.folder / "x").exists())
        self.exported(large, "x", "--dtype", "bf16")

    def test_a_full_disk(self):
        trained = self.train("run", ranks=0, run__steps=4)
        no_room = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        self.refuse(("cannot", "model.safetensors", "free some space"), trained, "x", preexec_fn=no_room)
        self.assertFalse((self.folder / "x").exists())

    def test_an_interrupted_export_leaves_nothing(self):
        # An embedding of 200 MB, so that the signal comes while it is written.
        large = self.train("large", ranks=0, run__steps=1, model__vocab_size=1_600_000)
        for number, left in ((signal.SIGTERM, False), (signal.SIGKILL, True)):
            process = start(0, "export", large, "--out", self.folder / "x")
            partial = self.folder / "x.tmp" / "model.safetensors.tmp"
            self.assertTrue(wait_until(lambda: partial.exists() and partial.stat().st_size > 0, pause=0.001))
            process.send_signal(number)
            text, _ = process.communicate(timeout=60)
            self.assertNotEqual(process.returncode, 0, text)
            self.assertFalse((self.folder / "x").exists())
            self.assertEqual((self.folder / "x.tmp").exists(), left)
            if not left:
                self.assertIn("stopped by a signal", text)
        result = run(0, "export", large, "--out", self.folder / "x", check=False)
        self.assertIn("x.tmp is there", result.stderr)

    def test_memory_does_not_grow_with_the_model(self):
        peaks = []
        for vocabulary in (100, 800_000):
            trained = self.train(f"v{vocabulary}", ranks=0, run__steps=1, model__vocab_size=vocabulary)
            words = command(0, "export", trained, "--out", self.folder / f"hf{vocabulary}")
            script = ("import resource, subprocess, sys; "
                      "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
                      "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
            result = subprocess.run([sys.executable, "-c", script, *words], env=environment(), capture_output=True,
                                    text=True, check=True)
            peaks.append(int(result.stdout) * 1024)
        print(f"peak {peaks[0] / 2**20:.0f} MiB, with 98 MiB more parameters {peaks[1] / 2**20:.0f} MiB")
        self.assertLess(peaks[1] - peaks[0], 16 * 2**20)


if __name__ == "__main__":
    unittest.main(verbosity=2)
