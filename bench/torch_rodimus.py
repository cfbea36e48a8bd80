#!/usr/bin/env python3
"""The peer: one training step of Rodimus / Rodimus+ as a PyTorch user would write it.

    bench/torch_rodimus.py --preset small --steps 5 [--dtype bf16] [--compile] [--threads 2]
    bench/torch_rodimus.py --preset small --weights FILE.safetensors --tokens FILE.bin

The same model and the same work as `rodimus train`: chunked DDTS (64 tokens a chunk, sub-chunks of
16 so that no decay overflows), sliding-window attention over one shared key, gradient clipping,
AdamW. Prints one JSON line: tokens per second of the median step, loss, number of parameters. With
--weights only the loss (in f64) of the first T + 1 tokens (uint16) under the weights of a checkpoint,
which have the authors' names; bench/compare.py checks it against `rodimus eval`.
Needs only PyTorch, 1.13 or newer; the wheel from PyPI brings MKL. Debian's
python3-torch is slow until libopenblas0-pthread replaces the reference BLAS it calls.
"""
import argparse
import json
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

# d_model, layers, heads, mem_size, window (keys, self included), vocabulary, T, B
PRESETS = {
    "tiny": (128, 4, 2, 64, 128, 4096, 256, 8),
    "small": (256, 6, 4, 64, 256, 8192, 512, 8),
    "base": (512, 8, 4, 64, 512, 16384, 1024, 4),
    "125m": (768, 12, 6, 64, 1024, 32000, 2048, 1),
}
CHUNK, SUB_CHUNK = 64, 16


def wide(x):
    """f32, even under autocast; f64 when checking a loss."""
    return x.to(torch.get_default_dtype())


class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        s = wide(x)
        y = s * torch.rsqrt(s.pow(2).mean(-1, keepdim=True) + self.eps)
        return y.to(x.dtype) * self.weight.to(x.dtype)


def ddts(q, k, v, g):
    """S_t = diag(exp g_t) S_{t-1} + k_t v_t^T, o_t = q_t S_t / sqrt(K).

    q, k, g (B,T,K), v (B,T,V), T a multiple of CHUNK. Exact: decays between sub-chunks are taken
    relative to the later sub-chunk's first token, those inside one element by element.
    """
    (B, T, K), V, N = q.shape, v.shape[-1], q.shape[1] // CHUNK
    q = wide(q.view(B, N, CHUNK, K)) * K**-0.5
    k = wide(k.view(B, N, CHUNK, K))
    G = wide(g.view(B, N, CHUNK, K)).cumsum(2)
    v = v.view(B, N, CHUNK, V)
    future = torch.ones(SUB_CHUNK, SUB_CHUNK, device=q.device).triu(1).bool()[..., None]
    scores = q.new_zeros(B, N, CHUNK, CHUNK)
    for begin in range(0, CHUNK, SUB_CHUNK):
        sub = slice(begin, begin + SUB_CHUNK)
        Gs, first = G[:, :, sub], G[:, :, begin:begin + 1]
        if begin:
            past = k[:, :, :begin] * (first - G[:, :, :begin]).exp()
            scores[:, :, sub, :begin] = q[:, :, sub] * (Gs - first).exp() @ past.transpose(-1, -2)
        decay = (Gs.unsqueeze(3) - Gs.unsqueeze(2)).masked_fill(future, float("-inf")).exp()
        scores[:, :, sub, sub] = (q[:, :, sub].unsqueeze(3) * decay *
                                  k[:, :, sub].unsqueeze(2)).sum(-1)
    inside = scores.to(v.dtype) @ v
    update = (k * (G[:, :, -1:] - G).exp()).to(v.dtype).transpose(-1, -2) @ v
    whole = G[:, :, -1].exp().unsqueeze(-1)
    S = q.new_zeros(B, K, V)
    states = []
    for n in range(N):
        states.append(S)
        S = whole[:, n] * S + wide(update[:, n])
    before = (q * G.exp()).to(v.dtype) @ torch.stack(states, 1).to(v.dtype)
    return (inside + before).view(B, T, V)


class Mixer(nn.Module):
    def __init__(self, d, m):
        super().__init__()
        e, r = 2 * d, max(d // 64, 16)
        self.fc = nn.Linear(d, 2 * e, bias=False)
        self.conv = nn.Conv1d(e, e, 4, groups=e, padding=3)
        self.qk = nn.Linear(e, 2 * m, bias=False)
        self.gates = nn.Linear(e, 2 * m)
        self.b0 = nn.Linear(e, r, bias=False)
        self.b1 = nn.Linear(r, e)
        self.residual_weight = nn.Parameter(torch.ones(e))
        self.norm = RMSNorm(e)
        self.out = nn.Linear(e, d, bias=False)

    def forward(self, x):
        h, gate = self.fc(x).chunk(2, -1)
        c = F.silu(self.conv(h.transpose(1, 2))[..., :h.shape[1]]).transpose(1, 2)
        q, k = self.qk(c).chunk(2, -1)
        v = torch.sigmoid(self.b1(self.b0(h))) * h
        sel, tau = wide(self.gates(c)).chunk(2, -1)
        sel, tau = F.softplus(sel), torch.sigmoid(tau)
        k = F.normalize(wide(k), dim=-1) * sel**tau
        o = ddts(q, k, v, -sel * tau).to(x.dtype) + c * self.residual_weight.to(x.dtype)
        return self.out(self.norm(o * F.silu(gate)))


class SharedKeyAttention(nn.Module):
    def __init__(self, d, heads, window, T):
        super().__init__()
        self.heads, self.dim = heads, d // heads
        self.q = nn.Linear(d, d, bias=False)
        self.k = nn.Linear(d, self.dim, bias=False)
        self.v = nn.Linear(d, d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        t = torch.arange(T)
        self.register_buffer("mask", (t <= t[:, None]) & (t > t[:, None] - window))
        angle = t[:, None] * 10000.0**(-torch.arange(0, self.dim, 2) / self.dim)
        self.register_buffer("cos", angle.cos()[None, :, None])
        self.register_buffer("sin", angle.sin()[None, :, None])

    def rotate(self, x):
        a, b = x.chunk(2, -1)
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def forward(self, x):
        B, T, d = x.shape
        q = self.rotate(self.q(x).view(B, T, self.heads, self.dim)).transpose(1, 2)
        k = self.rotate(self.k(x).view(B, T, 1, self.dim)).transpose(1, 2).expand_as(q)
        v = self.v(x).view(B, T, self.heads, self.dim).transpose(1, 2)
        if hasattr(F, "scaled_dot_product_attention"):
            o = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        else:
            scores = wide(q @ k.transpose(-1, -2)) * self.dim**-0.5
            o = scores.masked_fill(~self.mask, float("-inf")).softmax(-1).to(v.dtype) @ v
        return self.out(o.transpose(1, 2).reshape(B, T, d))


class Block(nn.Module):
    def __init__(self, d, heads, m, window, T, plus):
        super().__init__()
        self.norm1, self.mixer, self.plus = RMSNorm(d), Mixer(d, m), plus
        if plus:
            f = -(-(d * 4 // 3) // 8) * 8
            self.norm2, self.attention = RMSNorm(d), SharedKeyAttention(d, heads, window, T)
            self.norm3 = RMSNorm(d)
            self.fc = nn.Linear(d, 2 * f, bias=False)
            self.out = nn.Linear(f, d, bias=False)

    def forward(self, x):
        x = x + self.mixer(self.norm1(x))
        if not self.plus:
            return x
        u, z = self.fc(self.norm3(x + self.attention(self.norm2(x)))).chunk(2, -1)
        return x + self.out(F.silu(z) * u)


class Model(nn.Module):
    def __init__(self, preset, plus):
        super().__init__()
        d, layers, heads, m, window, vocab, T, _ = preset
        self.embedding = nn.Embedding(vocab, d)
        self.blocks = nn.ModuleList(Block(d, heads, m, window, T, plus) for _ in range(layers))
        self.norm = RMSNorm(d)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, inputs, targets):
        x = self.embedding(inputs)
        for block in self.blocks:
            x = block(x)
        logits = wide(F.linear(self.norm(x), self.embedding.weight))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


# Our names and the authors', in a block and in the model.
BLOCK_NAMES = {
    "norm1": "mixer_norm", "mixer.fc": "mixer.fc", "mixer.conv": "mixer.inner_mixer.short_conv.conv1d",
    "mixer.qk": "mixer.inner_mixer.in_proj", "mixer.gates": "mixer.inner_mixer.mem_gate_proj",
    "mixer.b0": "mixer.inner_mixer.ch_gate_proj.0", "mixer.b1": "mixer.inner_mixer.ch_gate_proj.1",
    "mixer.residual_weight": "mixer.inner_mixer.residual_weight", "mixer.norm": "mixer.act_norm",
    "mixer.out": "mixer.out_proj", "norm2": "attn_norm", "attention.q": "attn.q_proj",
    "attention.k": "attn.k_proj", "attention.v": "attn.v_proj", "attention.out": "attn.out_proj",
    "norm3": "ffn_norm", "fc": "ffn.fc", "out": "ffn.out_proj",
}


def authors_name(name):
    """blocks.3.mixer.fc.weight -> model.layers.3.mixer.fc.weight"""
    if name.startswith("blocks."):
        _, block, rest = name.split(".", 2)
        stem, _, kind = rest.rpartition(".") if rest not in BLOCK_NAMES else (rest, "", "")
        return f"model.layers.{block}.{BLOCK_NAMES[stem]}" + (f".{kind}" if kind else "")
    return {"embedding.weight": "model.embeddings.weight", "norm.weight": "model.norm_f.weight"}[name]


def load_weights(model, path):
    """Loads every parameter from an f32 safetensors file; both must have the same names and shapes."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = bytearray(file.read())
    for name, p in model.named_parameters():
        entry = header.pop(authors_name(name))
        begin, end = entry["data_offsets"]
        values = torch.frombuffer(data, dtype=torch.float32, offset=begin, count=(end - begin) // 4)
        p.data.copy_(values.view(p.shape))
    if header:
        raise SystemExit(f"torch_rodimus.py: {path} holds what this model lacks: {sorted(header)}")


def evaluate(model, path, T):
    with open(path, "rb") as file:
        tokens = torch.frombuffer(bytearray(file.read(2 * (T + 1))), dtype=torch.int16).long() & 0xFFFF
    with torch.no_grad():
        return model(tokens[None, :-1], tokens[None, 1:]).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="small", choices=PRESETS)
    parser.add_argument("--block", default="rodimus_plus", choices=["rodimus", "rodimus_plus"])
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--compile", action="store_true", help="torch.compile (PyTorch 2)")
    parser.add_argument("--weights", help="safetensors file: print the loss of --tokens")
    parser.add_argument("--tokens", help="uint16 token ids")
    options = parser.parse_args()
    if bool(options.weights) != bool(options.tokens):
        parser.error("--weights and --tokens go together")
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.weights:
        torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    preset = PRESETS[options.preset]
    vocab, T, B = preset[5:]
    model = Model(preset, options.block == "rodimus_plus")
    if options.weights:
        load_weights(model, options.weights)
        print(json.dumps({"peer": f"torch {torch.__version__}",
                          "loss": evaluate(model, options.tokens, T)}))
        return
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)
    forward = torch.compile(model) if options.compile else model
    seconds = []
    for step in range(options.warmup + options.steps):
        tokens = torch.randint(0, vocab, (B, T + 1))
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bf16"):
            loss = forward(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step >= options.warmup:
            seconds.append(time.perf_counter() - begin)
    median = sorted(seconds)[len(seconds) // 2]
    print(json.dumps({
        "peer": f"torch {torch.__version__}", "preset": options.preset, "block": options.block,
        "dtype": options.dtype, "compile": options.compile, "threads": torch.get_num_threads(),
        "params": sum(p.numel() for p in model.parameters()), "loss": round(loss.item(), 4),
        "step_s": round(median, 4), "tokens_per_s": round(B * T / median, 1),
    }))


if __name__ == "__main__":
    main()
