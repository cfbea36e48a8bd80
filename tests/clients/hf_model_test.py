"""What a user of `transformers` does with an exported model: load, score, generate, train, save. Golden folders look
like released checkpoints; the code of interop/hf and the keys that an export adds are put beside them.

    RODIMUS_GOLDEN_HF=DIR python3 hf_model_test.py        (needs torch, transformers 4.4x or 5.x, h5py)

Comparisons of two ways to the same result run in float64, where rounding cannot change the best token.
"""
import json
import os
import pathlib
import shutil
import sys
import tempfile
import unittest
from unittest import mock

WORK = tempfile.TemporaryDirectory(prefix="rodimus_hf_")
# transformers reads these when it is imported.
os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=WORK.name, TRANSFORMERS_VERBOSITY="error")

import torch
import transformers
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from hf_support import CODE, GOLDEN, check_close, hdf5

SOURCE = pathlib.Path(os.environ.get("RODIMUS_GOLDEN_HF", GOLDEN / "hf"))
NAMES = ["rodimus_f32", "rodimus_bf16", "rodimus_plus_f32", "rodimus_plus_bf16", "rodimus_plus_tied_f32",
         "rodimus_plus_tied_bf16"]
PLUS = "rodimus_plus_f32"
DTYPE = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
AUTO_MAP = {"AutoConfig": "configuration_rodimus.RodimusConfig", "AutoModel": "modeling_rodimus.RodimusModel",
            "AutoModelForCausalLM": "modeling_rodimus.RodimusForCausalLM"}
FOLDERS = {}


def setUpModule():
    missing = [name for name in NAMES if not (SOURCE / name / "model.safetensors").is_file()]
    if missing:
        raise FileNotFoundError(f"{SOURCE} lacks {missing}: set RODIMUS_GOLDEN_HF to the folder of the golden models")
    for name in NAMES:
        folder = FOLDERS[name] = pathlib.Path(WORK.name) / name
        folder.mkdir()
        shutil.copyfile(SOURCE / name / "model.safetensors", folder / "model.safetensors")
        for file in CODE.glob("*.py"):
            shutil.copyfile(file, folder / file.name)
        config = json.loads((SOURCE / name / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "auto_map": AUTO_MAP}))
        ids = {key: config[key] for key in ("bos_token_id", "eos_token_id")}
        (folder / "generation_config.json").write_text(json.dumps({**ids, "pad_token_id": config["eos_token_id"]}))


def load(name, dtype=torch.float32, folder=None, **options):
    """The model as a user loads it; float64 is converted after loading, to compare without rounding."""
    options[DTYPE] = torch.float32 if dtype == torch.float64 else dtype
    model = AutoModelForCausalLM.from_pretrained(folder or FOLDERS[name], trust_remote_code=True, **options)
    return model.double() if dtype == torch.float64 else model


def expected(name):
    return hdf5(SOURCE / name / "expected.h5")


def cache_of(output):
    return output["cache" if "cache" in output else "past_key_values"]


def greedy(model, ids, count, **options):
    """`count` new tokens, never stopped by an end of text."""
    model.generation_config.eos_token_id = None
    return model.generate(ids, max_new_tokens=count, do_sample=False, **options)


def random_ids(batch, length, seed=0):
    return torch.randint(1, 97, (batch, length), generator=torch.Generator().manual_seed(seed))


class Golden(unittest.TestCase):
    def test_logits_and_loss(self):
        # Logits are up to 15; a path through two blocks has some 20 roundings of 2^-24 each: 15 * 20 * 2^-24 = 1.8e-5.
        for name in NAMES:
            with self.subTest(name):
                want, model = expected(name), load(name)
                with torch.no_grad():
                    output = model(want["input_ids"], labels=want["input_ids"])
                self.assertEqual(output.logits.dtype, torch.float32)
                self.assertLessEqual(float((output.logits - want["logits"]).abs().max()), 2e-5)
                self.assertLessEqual(abs(float(output.loss) - float(want["loss"])), 2e-6)

    def test_logits_in_bfloat16(self):
        # bf16 rounds at 2^-9. Some 20 roundings on a path that add like a random walk: sqrt(20) 2^-9 = 0.9 %.
        for name in NAMES:
            if name.endswith("bf16"):
                with self.subTest(name), torch.no_grad():
                    want, model = expected(name), load(name, "auto")
                    output = model(want["input_ids"])
                    self.assertEqual(output.logits.dtype, torch.bfloat16)
                    self.assertEqual(cache_of(output).states[0].memory.dtype, torch.float32)
                    check_close(output.logits, want["logits"], 0.009, "logits")

    def test_greedy_continuation(self):
        for name in NAMES:
            with self.subTest(name):
                want = expected(name)
                count = want["greedy"].shape[1] - want["prompt"].shape[1]
                self.assertTrue(greedy(load(name), want["prompt"], count).equal(want["greedy"]))

    def test_every_tensor_is_loaded_and_no_other(self):
        for name in NAMES:
            with self.subTest(name):
                model, report = load(name, output_loading_info=True)
                for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
                    self.assertFalse(report[key], key)
                with safe_open(FOLDERS[name] / "model.safetensors", "pt") as file:
                    names = set(file.keys())
                    for key, value in model.state_dict().items():
                        if key in names:
                            self.assertTrue(value.equal(file.get_tensor(key).float()), key)
                tied = {"lm_head.weight"} if "tied" in name else set()
                self.assertEqual(set(model.state_dict()), names | tied)
                self.assertEqual(model.lm_head.weight is model.model.embeddings.weight, bool(tied))

    def test_gradients_of_every_parameter(self):
        for path in sorted((GOLDEN / "models").glob("*.h5")):
            with self.subTest(path.name):
                want = hdf5(path)
                model = build(want)
                model.load_state_dict({k[7:]: v for k, v in want.items() if k.startswith("params/")},
                                      strict=not want["tie"])
                output = model.train()(want["input_ids"], labels=want["input_ids"])
                # Float64 against values stored as float32.
                check_close(output.logits, want["logits"], 2.0 ** -24, "logits")
                self.assertLessEqual(abs(float(output.loss.detach()) - float(want["loss"])), 1e-12)
                output.loss.backward()
                gradients = {k[6:] for k in want if k.startswith("grads/")}
                self.assertEqual(gradients, {k for k, _ in model.named_parameters()})
                for key, parameter in model.named_parameters():
                    check_close(parameter.grad, want["grads/" + key], 2.0 ** -24, key)


def build(golden):
    """A float64 model of the sizes in a golden file's attributes, freshly initialised."""
    def heads(kind):
        shape = golden.get(f"params/model.layers.0.attn.{kind}_proj.weight", torch.empty(0)).shape
        return shape[0] * int(golden["num_heads"]) // int(golden["d_model"])
    attention = {} if golden["block_type"] == "rodimus" else {
        "num_heads": int(golden["num_heads"]), "num_heads_k": heads("k"), "num_heads_v": heads("v"),
        "window_size": 2 * int(golden["left"]) if golden["left"] >= 0 else None,
        "ffn_expand_ratio": float(golden["ffn_ratio"]), "rotary_emb_base": float(golden["rope_base"])}
    config = AutoConfig.from_pretrained(
        FOLDERS[PLUS], trust_remote_code=True, attn_cfg=attention, block_type=golden["block_type"],
        mixer_cfg={"mem_size": int(golden["mem_size"]), "d_conv": int(golden["d_conv"]),
                   "expand_ratio": int(golden["expand_ratio"])}, norm_epsilon=float(golden["eps"]),
        tie_word_embeddings=bool(golden["tie"]),
        **{key: int(golden[key]) for key in ("d_model", "n_layer", "vocab_size")})
    return AutoModelForCausalLM.from_config(config, trust_remote_code=True).double()


class Generation(unittest.TestCase):
    def test_cache_equals_no_cache_far_beyond_the_window(self):
        for name in ("rodimus_f32", PLUS, "rodimus_plus_tied_f32"):
            with self.subTest(name):
                model = load(name, torch.float64)
                output = greedy(model, expected(name)["prompt"], 200, return_dict_in_generate=True)
                ids = output.sequences
                self.assertEqual(ids.shape[1], 220)
                self.assertTrue(greedy(model, ids[:, :20], 200, use_cache=False).equal(ids))
                with torch.no_grad():  # every token is the best one after all the tokens before it
                    logits = model(ids, use_cache=False).logits
                self.assertTrue(logits[:, 19:-1].argmax(-1).equal(ids[:, 20:]))
                for state in cache_of(output).states:  # 16 keys a query: 15 of them are kept
                    self.assertEqual(state.memory.shape, (1, 16, 64))
                    self.assertEqual(state.history.shape, (1, 3, 64))
                    if state.keys is not None:
                        self.assertEqual((state.keys.shape[1], state.values.shape[1]), (15, 15))

    def test_pieces_of_any_length_equal_one_pass(self):
        for name in ("rodimus_f32", PLUS):
            model, ids = load(name, torch.float64), random_ids(2, 200)
            for pieces in ([1, 7, 64, 1, 1, 100, 26], [2, 198], [199, 1]):
                with self.subTest(name, pieces=pieces), torch.no_grad():
                    cache, logits = None, []
                    for piece in ids.split(pieces, 1):
                        output = model(piece, past_key_values=cache, use_cache=True)
                        cache = cache_of(output)
                        logits.append(output.logits)
                    check_close(torch.cat(logits, 1), model(ids, use_cache=False).logits, 1e-12, "logits")

    def test_left_padding_equals_each_sequence_alone(self):
        for name in ("rodimus_f32", PLUS):
            with self.subTest(name):
                model = load(name, torch.float64)
                prompts = [random_ids(1, n, n)[0] for n in (5, 40, 23)]
                ids, mask = torch.zeros(3, 40, dtype=torch.long), torch.zeros(3, 40, dtype=torch.long)
                for i, prompt in enumerate(prompts):
                    ids[i, -len(prompt):], mask[i, -len(prompt):] = prompt, 1
                got = greedy(model, ids, 60, attention_mask=mask)
                with torch.no_grad():
                    logits = model(ids, attention_mask=mask).logits
                    for i, prompt in enumerate(prompts):
                        n = len(prompt)
                        # Absolute positions differ by the padding: rotary angles agree to float64's rounding.
                        check_close(logits[i, -n:], model(prompt[None]).logits[0], 1e-11, "logits")
                        self.assertTrue(got[i, 40 - n:].equal(greedy(model, prompt[None], 60)[0]))

    def test_beam_search_equals_no_cache(self):
        model, ids = load(PLUS, torch.float64), random_ids(2, 20)
        beams = [greedy(model, ids, 40, num_beams=3, use_cache=use) for use in (True, False)]
        self.assertTrue(beams[0].equal(beams[1]))
        self.assertFalse(beams[0].equal(greedy(model, ids, 40)))  # the beams did change places

    def test_a_returned_cache_continues(self):
        model, ids = load(PLUS, torch.float64), random_ids(1, 20)
        want = greedy(model, ids, 50)
        first = greedy(model, ids, 20, return_dict_in_generate=True)
        self.assertTrue(greedy(model, first.sequences, 30, past_key_values=cache_of(first)).equal(want))

    def test_sampling_in_bfloat16_and_the_generation_config(self):
        model = load("rodimus_plus_bf16", "auto")
        self.assertEqual((model.generation_config.eos_token_id, model.generation_config.pad_token_id), (0, 0))
        torch.manual_seed(0)
        ids = model.generate(random_ids(2, 5), do_sample=True, temperature=2.0, min_new_tokens=20, max_new_tokens=20)
        self.assertEqual(ids.shape, (2, 25))


class Refusals(unittest.TestCase):
    def test_masks_that_a_memory_cannot_honour(self):
        model, ids, mask = load(PLUS), random_ids(2, 12), torch.ones(2, 12, dtype=torch.long)
        right, hole = mask.clone(), mask.clone()
        right[0, -3:], hole[1, 4] = 0, 0
        for bad, message in ((right, "left"), (hole, "between"), (mask[:, None, None], "packed"),
                             (mask[:, 1:], "shape")):
            with self.assertRaisesRegex(ValueError, message):
                model(ids, attention_mask=bad, use_cache=True)
        cache = cache_of(model(ids, use_cache=True))
        with self.assertRaisesRegex(ValueError, "in the cache"):
            model(ids[:, :2], attention_mask=torch.tensor([[1] * 12 + [0, 1]] * 2), past_key_values=cache)
        with self.assertRaisesRegex(ValueError, "output_attentions"):
            model(ids, output_attentions=True)
        with self.assertRaisesRegex(ValueError, "RodimusCache"):
            model(ids, past_key_values=((),))
        with self.assertRaisesRegex(ValueError, "whole sequence"):
            model.generate(ids[:, :2], past_key_values=cache, max_new_tokens=2)

    def test_configurations(self):
        for changes, message in (({"block_type": "mamba"}, "block_type"), ({"use_norm_embedding": True}, "use_norm"),
                                 ({"attn_cfg": {"num_heads": 3}}, "num_heads"),
                                 ({"attn_cfg": {"num_heads": 2, "rotary_emb_dim": 4}}, "rotary_emb_dim")):
            config = AutoConfig.from_pretrained(FOLDERS[PLUS], trust_remote_code=True)
            for key, value in changes.items():
                setattr(config, key, value)
            with self.subTest(message), self.assertRaisesRegex(ValueError, message):
                AutoModelForCausalLM.from_config(config, trust_remote_code=True)
        model = load(PLUS).train()
        model.config.dropout = 0.1
        with self.assertRaisesRegex(ValueError, "dropout"):
            model(random_ids(1, 4))


class Training(unittest.TestCase):
    def test_right_padding_changes_no_token(self):
        model, ids = load(PLUS, torch.float64).train(), random_ids(2, 70)
        mask, labels = torch.ones_like(ids), ids.clone()
        mask[0, 50:], labels[0, 50:] = 0, -100
        padded = model(ids, attention_mask=mask, labels=labels)
        alone = [model(ids[:1, :50], labels=ids[:1, :50]), model(ids[1:], labels=ids[1:])]
        check_close(padded.logits[0, :50], alone[0].logits[0], 1e-12, "logits")
        want = (alone[0].loss * 49 + alone[1].loss * 69) / (49 + 69)
        self.assertLessEqual(abs(float((padded.loss - want).detach())), 1e-12)

    def test_gradient_checkpointing_changes_nothing(self):
        gradients = []
        for checkpointing in (False, True):
            model = load(PLUS).train()
            if checkpointing:
                model.gradient_checkpointing_enable({"use_reentrant": False})
            # The model is dropped after the test, its patched blocks with it.
            calls = [mock.patch.object(block, "forward", wraps=block.forward).start() for block in model.model.layers]
            ids = random_ids(2, 90)
            model(ids, labels=ids).loss.backward()
            self.assertEqual([call.call_count for call in calls], [1 + checkpointing] * 2)
            gradients.append([parameter.grad for parameter in model.parameters()])
        self.assertTrue(all(a.equal(b) for a, b in zip(*gradients)))

    def test_autocast_keeps_the_memory_in_float32(self):
        model, ids = load(PLUS).train(), random_ids(2, 90)
        loss = float(model(ids, labels=ids).loss.detach())
        layers, results = sys.modules[type(model.model.layers[0]).__module__], []
        recorded = lambda *inputs, ddts=layers.ddts: results.append(ddts(*inputs)) or results[-1]
        with torch.autocast("cpu", torch.bfloat16), mock.patch.object(layers, "ddts", recorded):
            output = model(ids, labels=ids)
        self.assertEqual([x.dtype for result in results for x in result], [torch.float32] * 4)
        # A mean over 178 tokens of errors of 1 % of logits of size 1: 0.01 / sqrt(178) = 7e-4, three times that.
        self.assertLessEqual(abs(float(output.loss.detach()) - loss), 2.3e-3)
        output.loss.backward()
        self.assertTrue(all(parameter.grad.isfinite().all() for parameter in model.parameters()))

    def test_a_fresh_model_learns(self):
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(FOLDERS[PLUS], trust_remote_code=True)
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=True).train()
        for block in model.model.layers:
            self.assertAlmostEqual(float(block.ffn.out_proj.weight.detach().std()), 0.02 / 6 ** 0.5, delta=5e-4)
            sel, tau = block.mixer.inner_mixer.mem_gate_proj.bias.detach().chunk(2)
            sel, tau = torch.nn.functional.softplus(sel), torch.sigmoid(tau)
            self.assertTrue(1e-3 <= sel.min() * (1 + 1e-5) and sel.max() <= 0.1 * (1 + 1e-5) and sel.std() > 1e-3)
            self.assertTrue(1 / 16 <= tau.min() * (1 + 1e-5) and tau.max() <= 0.9 * (1 + 1e-5) and tau.std() > 1e-2)
        ids, losses = random_ids(2, 90), []
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(20):
            loss = model(ids, labels=ids).loss
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        # It starts at chance, log 97 = 4.57 with weights of 0.02, and learns two texts by heart.
        self.assertAlmostEqual(losses[0], 4.57, delta=0.1)
        self.assertLess(losses[-1], 3.5)


class Saving(unittest.TestCase):
    def test_round_trip(self):
        for name in (PLUS, "rodimus_plus_tied_bf16", "rodimus_bf16"):
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                model, ids = load(name, "auto"), random_ids(1, 40)
                greedy(model, ids, 3)  # a decoding state must not enter the files
                model.generation_config.eos_token_id = 0
                model.save_pretrained(folder)
                for file in CODE.glob("*.py"):
                    self.assertEqual((pathlib.Path(folder) / file.name).read_text(), file.read_text())
                again = load(name, "auto", folder)
                with torch.no_grad():
                    self.assertTrue(model(ids).logits.equal(again(ids).logits))
                paths = [FOLDERS[name] / "model.safetensors", pathlib.Path(folder) / "model.safetensors"]
                first, second = ({k: f.get_tensor(k) for k in f.keys()} for f in (safe_open(p, "pt") for p in paths))
                self.assertEqual(set(first), set(second))
                self.assertTrue(all(first[k].equal(second[k]) and first[k].dtype == second[k].dtype for k in first))
                config = json.loads((FOLDERS[name] / "config.json").read_text())
                for key in set(config) - {"torch_dtype", "auto_map"}:  # these two just served to load the model
                    self.assertEqual(getattr(again.config, key), config[key], key)

    def test_base_model(self):
        base = AutoModel.from_pretrained(FOLDERS[PLUS], trust_remote_code=True, **{DTYPE: torch.float32})
        model, ids = load(PLUS), random_ids(1, 30)
        with torch.no_grad():
            output = base(ids, output_hidden_states=True)
            self.assertTrue(model.lm_head(output.last_hidden_state).equal(model(ids).logits))
        self.assertEqual(len(output.hidden_states), 3)


if __name__ == "__main__":
    print(f"transformers {transformers.__version__}, torch {torch.__version__}", file=sys.stderr)
    unittest.main()
