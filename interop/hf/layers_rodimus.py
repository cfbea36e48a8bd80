"""The layers of Rodimus and Rodimus+ (arXiv:2410.06577) in plain PyTorch: an executable statement of the model.

Every docstring gives the equation and the shapes. B batch, T time, d = d_model, e = d_inner, m = mem_size,
r = gate_rank, H heads of D = d / H, f = d_ff.

Norms, gates, decays, the memory and rotary angles are computed in float32 at least; the rest in the type of the
weights. A block's state between calls has a constant size: memory, convolution history, keys and values of one window.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

CHUNK = 64  # tokens between two states of the memory that are kept
SUB_CHUNK = 16  # tokens whose decays are formed pair by pair
SEGMENT = 4096  # tokens of a sequence that the memory reads at a time: bounds the temporary storage of long inputs
QUERY_BLOCK = 1024  # queries that the attention handles at a time, for the same reason


def wide(x):
    """x in float32, or as it is if it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class RodimusNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * weight over the last dimension, in the type of the weight."""

    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        x = wide(x)
        y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        return (y * self.weight).to(self.weight.dtype)


def selection_gates(k, sel, tau, key_epsilon):
    """The scaled key and the log decay of `ddts`: k, sel, tau (B,T,m), the last two before their functions -> k, g.

        sel = softplus(sel);  tau = sigmoid(tau);  k = k / max(|k|, key_epsilon) * sel^tau;  g = -sel * tau
    """
    tau = torch.sigmoid(tau)
    # Far below zero softplus(x) is exp(x), which underflows: its logarithm is x itself.
    log_sel = torch.where(sel < -20, sel, F.softplus(sel.clamp(min=-20)).log())
    return F.normalize(k, dim=-1, eps=key_epsilon) * (tau * log_sel).exp(), -F.softplus(sel) * tau


def ddts(q, k, v, g, state):
    """Data-dependent tempered selection: a linear memory with a decay for each of its m rows (one head).

        S_t = diag(exp g_t) S_{t-1} + k_t^T v_t        o_t = q_t S_t / sqrt(m)

    q, k, g (B,T,m), v (B,T,e), state = S before the first token (B,m,e) -> o (B,T,e), S after the last token.
    g <= 0 is the natural logarithm of the decay. All of one type, float32 at least.
    """
    q = q / math.sqrt(q.shape[-1])
    if q.shape[1] == 1:
        state = g.exp().mT * state + k.mT * v
        return q @ state, state
    outputs = []
    for part in zip(*(x.split(SEGMENT, dim=1) for x in (q, k, v, g))):
        o, state = _ddts_chunks(*part, state)
        outputs.append(o)
    return torch.cat(outputs, 1), state


def _ddts_chunks(q, k, v, g, state):
    """The recurrence of `ddts` in chunks of C tokens, N chunks at once; q is already scaled.

    With G_t the sum of g from the chunk's first token to t, unrolling the recurrence inside a chunk gives

        o_t = (q_t exp G_t) S_0 + sum_{j <= t} A_tj v_j        A_tj = sum_m q_tm k_jm exp(g_{j+1,m} + ... + g_tm)
        S_C = diag(exp G_C) S_0 + sum_j (k_j exp(G_C - G_j))^T v_j

    Each exponent is formed as a sum of g's, never as a difference of two long sums: nothing overflows, and nothing
    cancels when a strong decay stands before a weak one.
    """
    B, T, m = q.shape
    c = SUB_CHUNK
    C = min(CHUNK, -(-T // c) * c)
    # A token with k = 0 and g = 0 leaves the state as it is.
    q, k, v, g = (F.pad(x, (0, 0, 0, -T % C)).unflatten(1, (-1, C)) for x in (q, k, v, g))  # (B,N,C,.)
    N = q.shape[1]
    qs, ks, gs = (x.unflatten(2, (-1, c)) for x in (q, k, g))  # (B,N,C/c,c,m)

    # Pairs within a sub-chunk: from[t, j] = g_{j+1} + ... + g_t by a running sum over t that starts after j.
    later = torch.ones(c, c, dtype=torch.bool, device=q.device).tril(-1)[..., None]  # t > j
    reached = (gs.unsqueeze(4) * later).cumsum(3)  # (B,N,C/c,c,c,m): [t, j]
    unseen = ~later & ~torch.eye(c, dtype=torch.bool, device=q.device)[..., None]  # t < j
    pairs = qs.unsqueeze(4) * ks.unsqueeze(3) * reached.masked_fill(unseen, -math.inf).exp()
    diagonal = pairs.sum(-1)  # (B,N,C/c,c,c)

    # Pairs across sub-chunks factor at the border before the query's: exp(key to border) exp(border to query).
    to_query = gs.cumsum(3)  # from the start of the sub-chunk, the token included
    to_border = F.pad(gs[..., 1:, :], (0, 0, 0, 1)).flip(3).cumsum(3).flip(3)  # to the end of the sub-chunk, excluded
    border = to_border[:, :, 0]  # (B,N,c i,m): all earlier tokens of the chunk, decay up to the end of sub-chunk i - 1
    rows = [F.pad(diagonal[:, :, 0], (0, C - c))]
    for i in range(1, C // c):
        keys = k[:, :, : i * c] * border.exp()
        left = (qs[:, :, i] * to_query[:, :, i].exp()) @ keys.mT  # (B,N,c,c i)
        rows.append(F.pad(torch.cat([left, diagonal[:, :, i]], -1), (0, C - (i + 1) * c)))
        border = torch.cat([border + to_query[:, :, i, -1:], to_border[:, :, i]], 2)
    o = torch.cat(rows, 2) @ v  # (B,N,C,e)

    # `border` now reaches to the end of the chunk.
    added = (k * border.exp()).mT @ v  # (B,N,m,e)
    to_token = g.cumsum(2)
    kept = to_token[:, :, -1].exp().unsqueeze(-1)  # (B,N,m,1)
    states = []
    for n in range(N):
        states.append(state)
        state = kept[:, n] * state + added[:, n]
    o = o + (q * to_token.exp()) @ torch.stack(states, 1)
    return o.flatten(1, 2)[:, :T], state


def branch_output(linear):
    """Marks the last projection of a branch, which adds to the stream: its initial weights are scaled with depth."""
    linear.ends_branch = True
    return linear


class RodimusShortConv(nn.Module):
    """c = silu(causal depthwise convolution of h, plus bias): h (B,T,e) -> (B,T,e).

    `history` (B,d_conv-1,e) holds the inputs before h: zeros at the start of a sequence.
    """

    def __init__(self, config):
        super().__init__()
        self.conv1d = nn.Conv1d(config.d_inner, config.d_inner, config.d_conv, groups=config.d_inner)

    def forward(self, h, history):
        return F.silu(self.conv1d(torch.cat([history, h], 1).mT).mT)


class RodimusMemory(nn.Module):
    """Gates and memory of the mixer: h (B,T,e) -> o + residual_weight * c (B,T,e).

        c        = silu(conv(h))
        q, k     = split(W_qk c)                                       (B,T,m) each
        sel, tau = split(W_g c + b_g)                                  (B,T,m) each
        v        = sigmoid(W_b1 (W_b0 h) + b_b1) * h                   reads h, not c
        k, g     = selection_gates(k, sel, tau)
        o        = ddts(q, k, v, g)
    """

    def __init__(self, config):
        super().__init__()
        e, m, r = config.d_inner, config.mem_size, config.gate_rank
        self.config = config
        self.short_conv = RodimusShortConv(config)
        self.residual_weight = nn.Parameter(torch.ones(e))
        self.in_proj = nn.Linear(e, 2 * m, bias=False)
        self.mem_gate_proj = nn.Linear(e, 2 * m)
        self.ch_gate_proj = nn.Sequential(nn.Linear(e, r, bias=False), nn.Linear(r, e))

    def forward(self, h, state=None):
        B, _, e = h.shape
        if state is None:
            state = BlockState()
        if state.memory is None:
            state.history = h.new_zeros(B, self.config.d_conv - 1, e)
            state.memory = wide(h.new_zeros(B, self.config.mem_size, e))
        c = self.short_conv(h, state.history)
        state.history = torch.cat([state.history, h], 1)[:, h.shape[1]:]

        q, k = wide(self.in_proj(c)).chunk(2, -1)
        sel, tau = wide(self.mem_gate_proj(c)).chunk(2, -1)
        k, g = selection_gates(k, sel, tau, self.config.key_epsilon)
        v = torch.sigmoid(wide(self.ch_gate_proj(h))) * wide(h)
        with torch.autocast(h.device.type, enabled=False):  # the products that build the memory stay in float32
            o, state.memory = ddts(q, k, v, g, state.memory)
        return o + wide(self.residual_weight) * wide(c)


class RodimusMixer(nn.Module):
    """x (B,T,d) -> W_out norm(memory(h) * silu(gate)),  h, gate = split(W_fc x)  (B,T,e) each.

    The last T columns of `valid` mark tokens. Padding enters as h = 0, which is what the convolution sees before a
    sequence, and adds v = 0 to the memory.
    """

    def __init__(self, config):
        super().__init__()
        self.fc = nn.Linear(config.d_model, 2 * config.d_inner, bias=False)
        self.inner_mixer = RodimusMemory(config)
        self.act_norm = RodimusNorm(config.d_inner, config.norm_epsilon)
        self.out_proj = branch_output(nn.Linear(config.d_inner, config.d_model, bias=False))

    def forward(self, x, valid=None, state=None):
        h, gate = self.fc(x).chunk(2, -1)
        if valid is not None:
            h = h * valid[:, -h.shape[1]:, None]
        y = self.inner_mixer(h, state)
        return self.out_proj(self.act_norm(y * F.silu(wide(gate))))


def rotate(x, position, base):
    """Rotary embedding of x (B,T,heads,D): the pair (x_i, x_{i + D/2}) turns by (position + t) base^(-2i/D)."""
    half = x.shape[-1] // 2
    kind = torch.promote_types(x.dtype, torch.float32)
    frequency = base ** (-torch.arange(half, device=x.device, dtype=kind) / half)
    time = torch.arange(position, position + x.shape[1], device=x.device, dtype=kind)
    angle = (time[:, None] * frequency)[:, None]  # (T,1,D/2)
    a, b = x.to(kind).chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1).to(x.dtype)


def attend(q, k, v, window, valid):
    """softmax(q k^T / sqrt(D)) v: q (B,T,H,D), k (B,S,H_k,D), v (B,S,H_v,D) -> (B,T,H,D).

    The last T keys are the queries' own. Query head j reads key head j mod H_k and value head j mod H_v. A query sees
    its own key and the window - 1 before it (all before it if window is None), without the keys that `valid` (B,S)
    excludes; its own always, so that no row of padding is empty (which would give NaN).
    """
    T, S, heads = q.shape[1], k.shape[1], q.shape[2]
    k, v = (x.repeat(1, 1, heads // x.shape[2], 1) for x in (k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    outputs = []
    for begin in range(S - T, S, QUERY_BLOCK):
        end = min(begin + QUERY_BLOCK, S)
        first = 0 if window is None else max(0, begin - window + 1)
        i = torch.arange(begin, end, device=q.device)[:, None]
        j = torch.arange(first, end, device=q.device)
        visible = j <= i
        if window is not None:
            visible = visible & (j > i - window)
        if valid is not None:
            visible = (visible & valid[:, None, None, first:end]) | (i == j)
        queries = q[:, :, begin - (S - T):end - (S - T)]
        outputs.append(F.scaled_dot_product_attention(queries, k[:, :, first:end], v[:, :, first:end], visible))
    return torch.cat(outputs, 2).transpose(1, 2)


class RodimusAttention(nn.Module):
    """Sliding-window attention with shared keys: x (B,T,d) -> W_o attend(rotate(W_q x), rotate(W_k x), W_v x)."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        heads, heads_k, heads_v = config.heads
        d, D = config.d_model, config.head_dim
        self.q_proj = nn.Linear(d, heads * D, bias=False)
        self.k_proj = nn.Linear(d, heads_k * D, bias=False)
        self.v_proj = nn.Linear(d, heads_v * D, bias=False)
        self.out_proj = branch_output(nn.Linear(heads * D, d, bias=False))

    def forward(self, x, valid=None, state=None, position=0):
        heads, heads_k, heads_v = self.config.heads
        D, window = self.config.head_dim, self.config.window
        q = rotate(self.q_proj(x).unflatten(-1, (heads, D)), position, self.config.rotary_base)
        k = rotate(self.k_proj(x).unflatten(-1, (heads_k, D)), position, self.config.rotary_base)
        v = self.v_proj(x).unflatten(-1, (heads_v, D))
        if state is not None:
            if state.keys is not None:
                k, v = torch.cat([state.keys, k], 1), torch.cat([state.values, v], 1)
            state.keys, state.values = last_of_window(k, window), last_of_window(v, window)
        return self.out_proj(attend(q, k, v, window, valid).flatten(2))


class RodimusFfn(nn.Module):
    """x (B,T,d) -> W_out (silu(z) * u),  u, z = split(W_fc x)  (B,T,f) each."""

    def __init__(self, config):
        super().__init__()
        self.fc = nn.Linear(config.d_model, 2 * config.d_ff, bias=False)
        self.out_proj = branch_output(nn.Linear(config.d_ff, config.d_model, bias=False))

    def forward(self, x):
        u, z = self.fc(x).chunk(2, -1)
        return self.out_proj(F.silu(z) * u)


class RodimusBlock(nn.Module):
    """x (B,T,d) -> x + mixer(norm(x)). Rodimus+ adds attention, which reaches the stream only through the FFN:

        s = x + mixer(norm(x));  x = s + ffn(norm(s + attention(norm(s))))
    """

    def __init__(self, config):
        super().__init__()
        self.mixer_norm = RodimusNorm(config.d_model, config.norm_epsilon)
        self.mixer = RodimusMixer(config)
        self.has_attention = config.has_attention
        if self.has_attention:
            self.attn_norm = RodimusNorm(config.d_model, config.norm_epsilon)
            self.attn = RodimusAttention(config)
            self.ffn_norm = RodimusNorm(config.d_model, config.norm_epsilon)
            self.ffn = RodimusFfn(config)

    def forward(self, x, valid=None, state=None, position=0):
        x = x + self.mixer(self.mixer_norm(x), valid, state)
        if not self.has_attention:
            return x
        attended = x + self.attn(self.attn_norm(x), valid, state, position)
        return x + self.ffn(self.ffn_norm(attended))


class BlockState:
    """What one block carries from token to token; None before the first."""

    def __init__(self):
        self.memory = None  # (B,m,e)
        self.history = None  # (B,d_conv-1,e): last inputs of the convolution
        self.keys = self.values = None  # (B,<window,heads,D): rotated keys and values of the window


def last_of_window(x, window):
    """Of x (B,S,...), the window - 1 last positions, which the next token still sees; all of them without a window."""
    return x if window is None else x[:, max(0, x.shape[1] - (window - 1)):]
