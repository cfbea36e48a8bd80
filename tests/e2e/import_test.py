"""rodimus import: released checkpoints, as files of other programs look, score and continue as published."""
import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import unittest

import h5py
import numpy

from support import Case, command, environment, parameters, run, write_data, write_shard

GOLDEN = pathlib.Path(os.environ.get("RODIMUS_GOLDEN_HF",
                                     pathlib.Path(__file__).resolve().parent.parent / "golden" / "hf"))
SIZES = {"F32": 4, "BF16": 2, "F16": 2}


def read_safetensors(path):
    """{name: (type, shape, bytes)}, read from the description of the format."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + length])
    header.pop("__metadata__", None)
    data = content[8 + length:]
    return {name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
            for name, entry in header.items()}


def write_safetensors(path, tensors):
    header, position = {"__metadata__": {"format": "pt"}}, 0
    for name, (kind, shape, content) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [position, position + len(content)]}
        position += len(content)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(content for _, _, content in tensors.values()))


# The authors' modules that fla splits into two of half the rows, and those that it only renames; the first that fits.
FLA_SPLIT = [("mixer.fc.", "mixer.up_proj.", "mixer.gate_proj."),
             ("mixer.inner_mixer.in_proj.", "mixer.q_proj.", "mixer.k_proj."),
             ("mixer.inner_mixer.mem_gate_proj.", "mixer.g_gate_proj.", "mixer.tau_gate_proj."),
             ("ffn.fc.", "mlp.up_proj.", "mlp.gate_proj.")]
FLA_RENAMED = [("mixer.inner_mixer.short_conv.conv1d.", "mixer.short_conv."),
               ("mixer.inner_mixer.ch_gate_proj.", "mixer.i_gate_proj."),
               ("mixer.inner_mixer.residual_weight", "mixer.residual_weight"),
               ("mixer.act_norm.", "mixer.activation_norm."), ("mixer.out_proj.", "mixer.down_proj."),
               (".attn_norm.", ".ska_attn_norm."), (".attn.out_proj.", ".ska_attn.o_proj."), (".attn.", ".ska_attn."),
               (".ffn_norm.", ".mlp_norm."), (".ffn.out_proj.", ".mlp.down_proj."), ("model.norm_f.", "model.norm.")]


def fla_tensors(tensors):
    result = {}
    for name, (kind, shape, content) in tensors.items():
        split = [(name.replace(old, first), name.replace(old, second))
                 for old, first, second in FLA_SPLIT if old in name]
        if split:
            half = [shape[0] // 2, *shape[1:]]
            middle = len(content) // 2
            result[split[0][0]] = (kind, half, content[:middle])
            result[split[0][1]] = (kind, half, content[middle:])
            continue
        for old, new in FLA_RENAMED:
            if old in name:
                name = name.replace(old, new)
                break
        result[name] = (kind, shape, content)
    return result


def fla_config(config):
    mixer, attention = config["mixer_cfg"], config["attn_cfg"]
    result = {"model_type": "rodimus", "block_type": config["block_type"], "hidden_size": config["d_model"],
              "num_hidden_layers": config["n_layer"], "vocab_size": config["vocab_size"],
              "norm_eps": config["norm_epsilon"], "k_norm_eps": None, "expand_ratio": mixer["mem_size"],
              "conv_size": mixer["d_conv"], "attn": None,
              "input_gate_low_rank": mixer["input_gate_low_rank"], "use_short_conv": True, "hidden_act": "swish",
              "max_position_embeddings": config["max_position_embeddings"], "ska_attn": None}
    if attention:
        result["hidden_ratio"] = attention["ffn_expand_ratio"]
        result["ska_attn"] = {"num_heads": attention["num_heads"], "window_size": attention["window_size"] // 2 + 1,
                              "rope_theta": 10000.0, "qkv_bias": False, "qk_norm": False}
    if not config["tie_word_embeddings"]:  # transformers leaves out the value that is its default
        result["tie_word_embeddings"] = False
    return result


class Import(Case):
    def model(self, name, config, tensors):
        folder = self.folder / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        write_safetensors(folder / "model.safetensors", tensors)
        return folder

    def golden(self, name):
        folder = GOLDEN / name
        return json.loads((folder / "config.json").read_text()), read_safetensors(folder / "model.safetensors")

    def imported(self, folder, name):
        run(0, "import", folder, "--out", self.folder / name)
        return self.folder / name

    def expect_published(self, output, expected):
        with h5py.File(expected) as file:
            ids, prompt, greedy = (file[key][()] for key in ("input_ids", "prompt", "greedy"))
            loss = float(file["loss"][()])
        data = self.folder / f"{output.name} ids"
        for i, row in enumerate(ids):  # a window begins at a shard's first token
            write_shard(data / str(i), [[int(token) for token in row]])
        result = json.loads(run(0, "eval", "--checkpoint", output, "--compute", "f32", "--data", data,
                                "--seq-len", ids.shape[1], "--json").stdout)
        self.assertEqual(result["tokens"], ids.shape[0] * (ids.shape[1] - 1))
        self.assertAlmostEqual(result["nats_per_token"], loss, delta=1e-5)
        count = greedy.shape[1] - prompt.shape[1]
        self.assertGreater(count, 0)
        text = run(0, "generate", "--checkpoint", output, "--compute", "f32", "--temperature", 0, "--tokens", count,
                   "--ids", ",".join(map(str, prompt[0]))).stdout
        self.assertEqual([int(word) for word in text.split()], greedy[0, prompt.shape[1]:].tolist())
        return abs(result["nats_per_token"] - loss)

    def test_released_models_score_and_continue_as_published(self):
        folders = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))
        self.assertGreaterEqual(len(folders), 6, f"{GOLDEN}: expected six models")
        for name in folders:
            with self.subTest(name):
                config, tensors = self.golden(name)
                expected = GOLDEN / name / "expected.h5"
                authors = self.imported(GOLDEN / name, f"{name} authors")
                error = self.expect_published(authors, expected)
                copy = self.model(f"{name} in fla", fla_config(config), fla_tensors(tensors))
                fla = self.imported(copy, f"{name} fla")
                self.expect_published(fla, expected)
                self.same_parameters(fla, authors)
                print(f"{name}: loss within {error:.1e}")

    def same_parameters(self, output, wanted):
        got, want = parameters(output, 0), parameters(wanted, 0)
        self.assertEqual(got.keys(), want.keys())
        for name, value in want.items():
            self.assertEqual(got[name].tobytes(), value.tobytes(), name)

    def test_half_precision_and_shards(self):
        config, tensors = self.golden("rodimus_plus_f32")
        halves = {name: (shape, numpy.frombuffer(content, "<f4").astype("<f2"))
                  for name, (_, shape, content) in tensors.items()}
        wide = self.model("wide", config, {name: ("F32", shape, half.astype("<f4").tobytes())
                                           for name, (shape, half) in halves.items()})
        narrow = {name: ("F16", shape, half.tobytes()) for name, (shape, half) in halves.items()}
        wanted = self.imported(wide, "from wide")
        self.same_parameters(self.imported(self.model("narrow", config, narrow), "from narrow"), wanted)

        folder = self.model("sharded", config, {})
        (folder / "model.safetensors").unlink()
        names, weight_map = list(narrow), {}
        for i in range(3):
            shard = f"model-{i + 1:05d}-of-00003.safetensors"
            write_safetensors(folder / shard, {name: narrow[name] for name in names[i::3]})
            weight_map.update({name: shard for name in names[i::3]})
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
        self.same_parameters(self.imported(folder, "from shards"), wanted)

    def test_state_of_generation_and_a_stored_tied_head(self):
        config, tensors = self.golden("rodimus_plus_tied_bf16")
        wanted = self.imported(GOLDEN / "rodimus_plus_tied_bf16", "plain")
        tensors["lm_head.weight"] = tensors["model.embeddings.weight"]
        state = {f"model.layers.{i}.{name}_{i}": ("BF16", [1, 3], bytes(6)) for i in range(2)
                 for name in ("mixer.inner_mixer.conv_state", "mixer.inner_mixer.ssm_state", "attn.key_cache",
                              "attn.value_cache")}
        folder = self.model("used", config, tensors | state)
        result = run(0, "import", folder, "--out", self.folder / "run")
        self.assertEqual(sorted(line.split()[2].rstrip(",") for line in result.stderr.splitlines()), sorted(state))
        self.same_parameters(self.folder / "run", wanted)

    def test_the_checkpoint_serves_inspect_and_training(self):
        output = self.imported(GOLDEN / "rodimus_plus_tied_f32", "start")
        facts = json.loads(run(0, "inspect", output, "--json").stdout)
        self.assertTrue(facts["sound"])
        self.assertEqual((facts["step"], facts["groups"], facts["model"]["block"]), (0, ["params"], "rodimus_plus"))
        f32 = ("--set", "run.threads=1", "--set", 'run.compute="f32"')
        settings = (*f32, "--set", f'data.train=["{self.folder}/data/train"]', "--set",
                    f'data.val=["{self.folder}/data/val"]', "--set", "data.seq_len=32")
        tuned = self.folder / "tuned"
        run(1, "train", output / "config.toml", "--init-from", output, *settings, "--set",
            f'run.output="{tuned}"', "--set", "run.steps=2", "--set", "optimizer.lr=1e-9", "--set",
            "optimizer.min_lr=1e-10")
        for name, value in parameters(output, 0).items():
            self.assertLessEqual(abs(parameters(tuned, 2)[name] - value).max(), 1e-6, name)
        # Its own folder cannot be continued, and its moments cannot be taken: there are none.
        write_data(self.folder / "long", train_tokens=3 * 2048, val_tokens=3000)
        own = (*f32, "--set", f'data.train=["{self.folder}/long/train"]', "--set",
               f'data.val=["{self.folder}/long/val"]')
        moments = (*settings, "--init-from", output, "--init-moments", "--set", f'run.output="{self.folder}/new"')
        for words in (own, moments):
            refused = run(0, "train", output / "config.toml", *words, check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("holds parameters only", refused.stderr)

    def expect_refused(self, folder, text, out="refused"):
        result = run(0, "import", folder, "--out", self.folder / out, check=False)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertIn(text, result.stderr)
        self.assertFalse((self.folder / out).exists(), "a refused import leaves nothing behind")

    def test_refusals_are_one_line(self):
        config, tensors = self.golden("rodimus_plus_tied_f32")
        folder = self.model("model", config, tensors)
        good = (folder / "model.safetensors").read_bytes()
        for section, key, value in ((None, "use_norm_embedding", True), (None, "use_scale_embedding", True),
                                    ("attn_cfg", "softmax_scale", "norm"), ("attn_cfg", "rotary_emb_dim", 4),
                                    ("attn_cfg", "rotary_emb_interleaved", True),
                                    ("attn_cfg", "rotary_emb_scale_base", 512)):
            changed = json.loads(json.dumps(config))
            (changed[section] if section else changed)[key] = value
            (folder / "config.json").write_text(json.dumps(changed))
            self.expect_refused(folder, f"config.json: {section + '.' if section else ''}{key} = ")
        (folder / "config.json").write_text(json.dumps(config | {"n_layer": 0}))
        self.expect_refused(folder, "n_layers = 0")
        (folder / "config.json").write_text(json.dumps(config | {"n_layer": 3}))
        self.expect_refused(folder, "is missing")
        (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
        self.expect_refused(folder, "lm_head.weight is missing")
        (folder / "config.json").write_text(json.dumps(config | {"d_model": 64}))
        self.expect_refused(folder, "has the shape")
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.safetensors").write_bytes(good[:-100])
        self.expect_refused(folder, "truncated")
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + good[8:])
        self.expect_refused(folder, "1152921504606846976 bytes")
        (folder / "model.safetensors").unlink()
        self.expect_refused(folder, "neither model.safetensors nor")
        self.expect_refused(self.folder / "none", "config.json")
        (folder / "model.safetensors").write_bytes(good)
        self.imported(folder, "taken")
        result = run(0, "import", folder, "--out", self.folder / "taken", check=False)
        self.assertIn("already holds checkpoints", result.stderr)
        (self.folder / "a file").touch()
        result = run(0, "import", folder, "--out", self.folder / "a file", check=False)
        self.assertIn("a file is not a folder", result.stderr)

    def test_memory_is_that_of_the_parameters(self):
        """What an import takes beyond the parameters does not grow with the tensors. The files are bf16 and all holes.
        With RODIMUS_TEST_1B6 the model has the sizes of Rodimus-Plus-Coder-1.6B (7 GB of disk and of memory)."""
        config, _ = self.golden("rodimus_plus_tied_bf16")
        before, _ = self.peak("small", config)
        large = config | {"vocab_size": 2 * 2**20}  # an embedding of 256 MiB in f32
        if "RODIMUS_TEST_1B6" in os.environ:
            large = config | {"vocab_size": 126464, "d_model": 2048, "n_layer": 24}
            large["mixer_cfg"] = config["mixer_cfg"] | {"mem_size": 64}
            large["attn_cfg"] = config["attn_cfg"] | {"num_heads": 16, "num_heads_v": 16, "window_size": 4096}
        after, count = self.peak("large", large)
        extra = after - before - 4 * count
        print(f"import of {count} parameters ({4 * count / 2**20:.0f} MiB): peak {after / 2**20:.0f} MiB, "
              f"{extra / 2**20:.1f} MiB more than the parameters and the import of a small model")
        # One piece of the file and one of the checkpoint, with what their libraries keep.
        self.assertLess(extra, 32 * 2**20)

    def shapes(self, config):
        """The tensors of a tied Rodimus+ model, from the description of the format."""
        d, memory, layers = config["d_model"], config["mixer_cfg"]["mem_size"], config["n_layer"]
        e, rank, ffn = 2 * d, max(d // 64, 16), (int(4 / 3 * d) + 7) // 8 * 8
        inner = {"short_conv.conv1d.weight": [e, 1, 4], "short_conv.conv1d.bias": [e], "residual_weight": [e],
                 "in_proj.weight": [2 * memory, e], "ch_gate_proj.0.weight": [rank, e],
                 "ch_gate_proj.1.weight": [e, rank], "ch_gate_proj.1.bias": [e],
                 "mem_gate_proj.weight": [2 * memory, e], "mem_gate_proj.bias": [2 * memory]}
        block = {"mixer_norm.weight": [d], "mixer.fc.weight": [2 * e, d], "mixer.out_proj.weight": [d, e],
                 "mixer.act_norm.weight": [e], "attn_norm.weight": [d], "attn.q_proj.weight": [d, d],
                 "attn.k_proj.weight": [d // config["attn_cfg"]["num_heads"], d], "attn.v_proj.weight": [d, d],
                 "attn.out_proj.weight": [d, d], "ffn_norm.weight": [d], "ffn.fc.weight": [2 * ffn, d],
                 "ffn.out_proj.weight": [d, ffn]}
        block |= {f"mixer.inner_mixer.{name}": shape for name, shape in inner.items()}
        shapes = {"model.embeddings.weight": [config["vocab_size"], d], "model.norm_f.weight": [d]}
        return shapes | {f"model.layers.{i}.{name}": shape for i in range(layers) for name, shape in block.items()}

    def peak(self, name, config):
        """The most memory that the import of a model held at once, in bytes, and the number of its parameters."""
        folder, header, count = self.model(name, config, {}), {}, 0
        for tensor, shape in self.shapes(config).items():
            size = math.prod(shape)
            header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [2 * count, 2 * (count + size)]}
            count += size
        text = json.dumps(header).encode()
        with open(folder / "model.safetensors", "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            out.truncate(8 + len(text) + 2 * count)
        # In a process of its own, so that the kernel's figure is that of this one child.
        script = ("import resource, subprocess, sys; "
                  "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
                  "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
        words = command(0, "import", folder, "--out", self.folder / f"{name} out")
        result = subprocess.run([sys.executable, "-c", script, *words], env=environment(), capture_output=True,
                                text=True, check=True, timeout=600)
        return int(result.stdout) * 1024, count


if __name__ == "__main__":
    unittest.main(verbosity=2)
