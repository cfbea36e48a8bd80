"""The operations of interop/hf/layers_rodimus.py against golden values and gradients, and against the plain recurrence.

Golden values were computed in float64 and stored as float32. Compared with a float64 computation from the same inputs
they differ by that one rounding, at most 2^-24 = 6e-8 of each number: STORED.
"""
import math
import unittest
from types import SimpleNamespace
from unittest import mock

import torch

from hf_support import GOLDEN, check_close, hdf5
import layers_rodimus as layers

STORED = 2.0 ** -24


def leaves(golden, *names):
    return [golden[name].clone().requires_grad_() for name in names]


def check_gradients(test, outputs, out_gradients, inputs, want, tolerance=STORED):
    for i, got in enumerate(torch.autograd.grad(outputs, inputs, out_gradients)):
        with test.subTest(gradient=i):
            # Zeros have no relative error. They come out as differences of numbers near 1, which cancel to 1e-16.
            if want[i].abs().max() == 0:
                test.assertLessEqual(float(got.detach().abs().max()), 1e-14)
            else:
                check_close(got, want[i], tolerance, f"gradient {i}")


def recurrence(q, k, v, g, state):
    """The definition, token by token."""
    outputs = []
    for t in range(q.shape[1]):
        state = g[:, t].exp()[..., None] * state + k[:, t][..., None] * v[:, t][:, None]
        outputs.append((q[:, t][..., None] * state).sum(1) / math.sqrt(q.shape[-1]))
    return torch.stack(outputs, 1), state


class Comparison(unittest.TestCase):
    """The helper must fail where it should."""

    def test_rejects(self):
        one = torch.ones(3)
        for bad in (one * float("nan"), -one, one * (1 + 1e-3), torch.tensor([1.0, 1.0, 0.0])):
            with self.assertRaises(AssertionError):
                check_close(bad, one, 1e-4, "bad")
        with self.assertRaises(AssertionError):
            check_close(torch.ones(2), one, 1, "shape")
        check_close(one * (1 + 1e-5), one, 1e-4, "good")


class Ddts(unittest.TestCase):
    def test_golden(self):
        files = sorted(set((GOLDEN / "ops").glob("ddts_*.h5")) - {GOLDEN / "ops" / "ddts_gates.h5"})
        self.assertGreater(len(files), 5, f"golden files in {GOLDEN / 'ops'}")
        for path in files:
            with self.subTest(file=path.name):
                golden = hdf5(path)
                inputs = leaves(golden, "q", "k", "v", "log_alpha", "state_in")
                o, state = layers.ddts(*inputs)
                check_close(o, golden["out"], STORED, "out")
                check_close(state, golden["state_out"], STORED, "state_out")
                check_gradients(self, (o, state), (golden["d_out"], golden["d_state_out"]), inputs,
                                [golden[n] for n in ("d_q", "d_k", "d_v", "d_log_alpha", "d_state_in")])

    def test_float32_keeps_its_accuracy_under_harsh_decays(self):
        # An output is a sum of at most 64 keys x 64 tokens products whose roundings (2^-24 each) add like a random walk
        # over the two nested sums of 64, plus the exponent's own: 2^-24 (8 + 8 + 1) would already be pessimistic.
        golden = hdf5(GOLDEN / "ops" / "ddts_harsh.h5")
        inputs = [x.float().detach().requires_grad_() for x in leaves(golden, "q", "k", "v", "log_alpha", "state_in")]
        self.assertLess(float(inputs[3].detach().sum(1).min()), -1000)  # the file is as harsh as it says
        o, state = layers.ddts(*inputs)
        check_close(o, golden["out"], 17 * STORED, "out")
        check_gradients(self, (o, state), (golden["d_out"].float(), golden["d_state_out"].float()), inputs,
                        [golden[n] for n in ("d_q", "d_k", "d_v", "d_log_alpha", "d_state_in")], 17 * STORED)

    def test_chunks_are_the_recurrence(self):
        # Float64 rounds at 1e-16; a thousand roundings of sums remain below 1e-13.
        for T in (1, 2, 15, 16, 17, 48, 63, 64, 65, 130):
            for segment in (64, 4096):
                with self.subTest(T=T, segment=segment), mock.patch.object(layers, "SEGMENT", segment):
                    torch.manual_seed(T)
                    q, k, v = (torch.randn(2, T, n, dtype=torch.float64) for n in (5, 5, 7))
                    # Decays from none to total, side by side.
                    g = -torch.exp(torch.randn(2, T, 5, dtype=torch.float64) * 4)
                    state = torch.randn(2, 5, 7, dtype=torch.float64)
                    inputs = [x.requires_grad_() for x in (q, k, v, g, state)]
                    want, got = recurrence(*inputs), layers.ddts(*inputs)
                    seeds = [torch.randn_like(x) for x in want]
                    for name, a, b in zip(("o", "state"), got, want):
                        check_close(a, b, 1e-13, name)
                    check_gradients(self, got, seeds, inputs, torch.autograd.grad(want, inputs, seeds), 1e-13)

    def test_gradient_by_finite_differences(self):
        torch.manual_seed(0)
        shapes = ((1, 19, 2), (1, 19, 2), (1, 19, 3), (1, 19, 2), (1, 2, 3))
        q, k, v, g, state = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
        inputs = [x.requires_grad_() for x in (q, k, v, -g.abs(), state)]
        self.assertTrue(torch.autograd.gradcheck(layers.ddts, inputs))

    def test_a_carried_state_continues(self):
        torch.manual_seed(1)
        inputs = [torch.randn(2, 150, 4, dtype=torch.float64) for _ in range(4)]
        inputs[3] = -inputs[3].abs()
        state = torch.randn(2, 4, 4, dtype=torch.float64)
        want = layers.ddts(*inputs, state)
        outputs = []
        for part in zip(*(x.split([1, 70, 1, 78], 1) for x in inputs)):
            o, state = layers.ddts(*part, state)
            outputs.append(o)
        check_close(torch.cat(outputs, 1), want[0], 1e-13, "o")
        check_close(state, want[1], 1e-13, "state")


class Golden(unittest.TestCase):
    def test_selection_gates(self):
        golden = hdf5(GOLDEN / "ops" / "ddts_gates.h5")
        inputs = leaves(golden, "k_raw", "select", "tau")
        k, g = layers.selection_gates(*inputs, golden.get("key_norm_eps", 1e-12))
        # softplus(x) is cut to x above 20, an error of exp(-20) = 2e-9 below STORED.
        check_close(k, golden["k"], STORED, "k")
        check_close(g, golden["log_alpha"], STORED, "log_alpha")
        check_gradients(self, (k, g), (golden["d_k"], golden["d_log_alpha"]), inputs,
                        [golden[n] for n in ("d_k_raw", "d_select", "d_tau")])

    def test_gates_stay_finite_where_softplus_underflows(self):
        sel = torch.tensor([[[-200.0, -90.0, 0.0, 200.0]]], requires_grad=True)
        k, g = layers.selection_gates(torch.ones(1, 1, 4), sel, torch.zeros(1, 1, 4), 1e-12)
        gradient, = torch.autograd.grad(k.sum() + g.sum(), sel)
        self.assertTrue(all(x.isfinite().all() for x in (k, g, gradient)))

    def test_attention(self):
        files = sorted((GOLDEN / "ops").glob("ska_*.h5"))
        self.assertGreater(len(files), 5)
        for path in files:
            for block in (16, 1024):  # several blocks of queries, and one
                with self.subTest(file=path.name, block=block), mock.patch.object(layers, "QUERY_BLOCK", block):
                    golden = hdf5(path)
                    left = int(golden["keys_to_the_left"])
                    inputs = leaves(golden, "q", "k", "v")
                    o = layers.attend(*inputs, None if left < 0 else left + 1, None)
                    check_close(o, golden["out"], STORED, "out")
                    check_gradients(self, o, golden["d_out"], inputs, [golden[n] for n in ("d_q", "d_k", "d_v")])

    def test_rotary(self):
        golden = hdf5(GOLDEN / "ops" / "rotary.h5")
        x, = leaves(golden, "x")
        y = layers.rotate(x, int(golden["offset"]), float(golden["base"]))
        check_close(y, golden["y"], STORED, "y")
        check_gradients(self, y, golden["d_y"], [x], [golden["d_x"]])

    def test_short_convolution(self):
        golden = hdf5(GOLDEN / "ops" / "short_conv.h5")
        channels, _, taps = golden["weight"].shape
        conv = layers.RodimusShortConv(SimpleNamespace(d_inner=channels, d_conv=taps)).double()
        with torch.no_grad():
            conv.conv1d.weight.copy_(golden["weight"])
            conv.conv1d.bias.copy_(golden["bias"])
        x, history = leaves(golden, "x", "history")
        y = conv(x, history)
        check_close(y, golden["y"], STORED, "y")
        check_gradients(self, y, golden["d_y"], [x, history, conv.conv1d.weight, conv.conv1d.bias],
                        [golden[n] for n in ("d_x", "d_history", "d_weight", "d_bias")])

    def test_gated_norm(self):
        golden = hdf5(GOLDEN / "ops" / "gated_rms_norm.h5")
        norm = layers.RodimusNorm(len(golden["weight"]), float(golden["eps"])).double()
        with torch.no_grad():
            norm.weight.copy_(golden["weight"])
        x, gate = leaves(golden, "x", "gate")
        y = norm(x * torch.nn.functional.silu(gate))
        check_close(y, golden["y"], STORED, "y")
        check_gradients(self, y, golden["d_y"], [x, gate, norm.weight],
                        [golden[n] for n in ("d_x", "d_gate", "d_weight")])


if __name__ == "__main__":
    unittest.main()
