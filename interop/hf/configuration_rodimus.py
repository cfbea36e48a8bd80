"""Configuration of Rodimus and Rodimus+ language models for `transformers`.

Keys and their meaning are those of the released checkpoints (codefuse-ai/Rodimus-*). Sizes that the file does not hold
but that follow from it (`d_inner`, `gate_rank`, `d_ff`, `window`, ...) are properties, so that they are computed in one
place. Values that the model code does not implement are refused here: a model that silently ignored them would compute
something else than what the file describes.
"""
from transformers import PretrainedConfig


def _round_up(value):
    """The next multiple of 8: the sizes of the released weights."""
    return (int(value) + 7) // 8 * 8


class RodimusConfig(PretrainedConfig):
    """Sizes and options of a model.

    block_type      "rodimus" (mixer only) or "rodimus_plus" (mixer, sliding-window attention, FFN)
    d_model         width of the residual stream
    n_layer         number of blocks
    mixer_cfg       mem_size (64), d_conv (4), expand_ratio (2), input_gate_low_rank ("auto" or a number),
                    normalize_epsilon (1e-12; 1e-5 in the Coder checkpoints). `mode` chose a kernel and is ignored.
    attn_cfg        num_heads, num_heads_k (1), num_heads_v (num_heads), window_size, ffn_expand_ratio (4/3),
                    rotary_emb_base (10000). Read by "rodimus_plus" only.
    residual_in_fp32  keep the residual stream in float32 whatever the type of the weights

    attn_cfg.window_size W counts as the authors' code does: a query sees W // 2 keys before its own, W // 2 + 1 in all.
    """

    model_type = "rodimus"
    attribute_map = {"hidden_size": "d_model", "num_hidden_layers": "n_layer"}
    keys_to_ignore_at_inference = ["past_key_values", "cache"]

    def __init__(self, vocab_size=126464, d_model=2048, n_layer=24, block_type="rodimus_plus", norm_epsilon=1e-5,
                 residual_in_fp32=True, mixer_cfg=None, attn_cfg=None, initializer_range=0.02,
                 rescale_prenorm_residual=True, use_cache=True, tie_word_embeddings=True, bos_token_id=None,
                 eos_token_id=None, pad_token_id=None, **kwargs):
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.n_layer = n_layer
        self.block_type = block_type
        self.norm_epsilon = norm_epsilon
        self.residual_in_fp32 = residual_in_fp32
        self.mixer_cfg = dict(mixer_cfg or {})
        self.attn_cfg = dict(attn_cfg or {})
        self.initializer_range = initializer_range
        self.rescale_prenorm_residual = rescale_prenorm_residual
        self.use_cache = use_cache
        super().__init__(tie_word_embeddings=tie_word_embeddings, bos_token_id=bos_token_id,
                         eos_token_id=eos_token_id, pad_token_id=pad_token_id, **kwargs)

    @property
    def has_attention(self):
        return self.block_type == "rodimus_plus"

    @property
    def d_inner(self):
        """Channels of the mixer (e)."""
        return _round_up(self.mixer_cfg.get("expand_ratio", 2) * self.d_model)

    @property
    def mem_size(self):
        """Rows of the mixer's state (m)."""
        return self.mixer_cfg.get("mem_size", 64)

    @property
    def d_conv(self):
        """Taps of the short convolution."""
        return self.mixer_cfg.get("d_conv", 4)

    @property
    def gate_rank(self):
        """Rank of the value gate (r)."""
        rank = self.mixer_cfg.get("input_gate_low_rank", "auto")
        return max(self.d_model // 64, 16) if rank == "auto" else rank

    @property
    def key_epsilon(self):
        """Smallest norm that a key is divided by."""
        return self.mixer_cfg.get("normalize_epsilon", 1e-12)

    @property
    def heads(self):
        """Numbers of query, key and value heads."""
        heads = self.attn_cfg.get("num_heads", 1)
        return heads, self.attn_cfg.get("num_heads_k", 1), self.attn_cfg.get("num_heads_v", heads)

    @property
    def head_dim(self):
        return self.d_model // self.heads[0]

    @property
    def window(self):
        """Keys that a query sees, its own included; None = all earlier ones."""
        window_size = self.attn_cfg.get("window_size")
        return None if window_size is None or window_size <= 0 else window_size // 2 + 1

    @property
    def rotary_base(self):
        return self.attn_cfg.get("rotary_emb_base", 10000.0)

    @property
    def d_ff(self):
        """Channels of the FFN (f)."""
        return _round_up(self.attn_cfg.get("ffn_expand_ratio", 4 / 3) * self.d_model)

    def check(self):
        """Raises ValueError for a value that the model cannot honour; the model calls it, after all changes."""
        def need(good, key, got, expected):
            if not good:
                raise ValueError(f"config.json: {key} = {got!r}: expected {expected}")

        need(self.block_type in ("rodimus", "rodimus_plus"), "block_type", self.block_type,
             '"rodimus" or "rodimus_plus"')
        for key in ("use_norm_embedding", "use_scale_embedding"):
            value = getattr(self, key, False)
            need(not value, key, value, "false; this code has no such option, and no released model uses it")
        if not self.has_attention:
            return
        heads, heads_k, heads_v = self.heads
        need(self.d_model % heads == 0 and self.head_dim % 2 == 0, "attn_cfg.num_heads", heads,
             f"a number that divides d_model = {self.d_model} into heads of even size")
        need(heads % heads_k == 0, "attn_cfg.num_heads_k", heads_k, f"a divisor of num_heads = {heads}")
        need(heads % heads_v == 0, "attn_cfg.num_heads_v", heads_v, f"a divisor of num_heads = {heads}")
        rotary_dim = self.attn_cfg.get("rotary_emb_dim", -1)
        need(rotary_dim in (-1, self.head_dim), "attn_cfg.rotary_emb_dim", rotary_dim,
             f"-1 or {self.head_dim}: whole heads are rotated")
        scale_base = self.attn_cfg.get("rotary_emb_scale_base")
        need(scale_base is None, "attn_cfg.rotary_emb_scale_base", scale_base,
             "null: rotary scaling is not implemented")
