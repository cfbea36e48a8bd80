"""Rodimus and Rodimus+ language models (arXiv:2410.06577) for `transformers`, in plain PyTorch.

    model = AutoModelForCausalLM.from_pretrained(DIR, trust_remote_code=True)

The blocks are in layers_rodimus.py. Around them:

    x = embedding[ids];  x = block(x) for every block;  logits = norm_f(x) head^T     (head = embedding when tied)

Weights have the names of the released checkpoints. The code runs on transformers 4.4x and 5.x.
"""
import math
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .configuration_rodimus import RodimusConfig
from .layers_rodimus import BlockState, RodimusBlock, RodimusMemory, RodimusNorm, last_of_window, wide

# transformers 5 renamed an output's field, and the argument of `forward`, from past_key_values to cache.
CACHE_FIELD = next(f.name for f in fields(CausalLMOutputWithPast) if f.name in ("cache", "past_key_values"))


class RodimusCache:
    """Decoding state of a batch of sequences: `states` per block, and how many tokens they have `seen`.

    Not a transformers.Cache: that stores keys and values by position, this has a constant size (with a window), cannot
    be cut back to an earlier token, and is created by the model itself.
    """

    is_compileable = is_croppable = False

    def __init__(self, config):
        self.states = [BlockState() for _ in range(config.n_layer)]
        self.is_linear = [True] * config.n_layer
        self.seen = 0
        self.valid = None  # (B,<window): which of the kept keys are tokens; None = all of them

    def get_seq_length(self, layer_idx=0):
        """Tokens that the state has read, padding included."""
        return self.seen

    def reorder_cache(self, beam_idx):
        """Row i becomes a copy of row beam_idx[i]: beam search calls it."""
        for state in self.states:
            for name, value in vars(state).items():
                if value is not None:
                    setattr(state, name, value.index_select(0, beam_idx.to(value.device)))
        if self.valid is not None:
            self.valid = self.valid.index_select(0, beam_idx.to(self.valid.device))


def valid_tokens(attention_mask, ids, cache):
    """The last T columns of attention_mask (B,T or B,seen+T) as booleans, or None if every position is a token.

    A recurrent memory cannot skip tokens that it has read, so padding must stand at one end of a sequence: on the left,
    or on the right if no state is carried on. Raises ValueError for anything else.
    """
    B, T = ids
    seen = cache.seen if cache is not None else 0
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2 or attention_mask.shape[0] != B or attention_mask.shape[1] not in (T, seen + T):
        raise ValueError(f"attention_mask has shape {tuple(attention_mask.shape)}: expected ({B}, {seen + T}), one "
                         "number per token, those in the cache included; packed sequences are not supported")
    mask = attention_mask[:, -T:].bool()
    if mask.all():
        return None
    if seen > 0:
        raise ValueError("attention_mask has zeros after tokens that are in the cache: pad on the left, where the "
                         "sequences start")
    runs = (mask[:, 1:] & ~mask[:, :-1]).sum(1) + mask[:, 0]
    if (runs > 1).any():
        raise ValueError("attention_mask has zeros between tokens: pad at one end of a sequence")
    if cache is not None and not mask[:, -1].all():
        raise ValueError("attention_mask ends with zeros, and generation would go on after padding: set "
                         'tokenizer.padding_side = "left" (or use_cache=False if you only want logits)')
    return mask


class RodimusPreTrainedModel(PreTrainedModel):
    config_class = RodimusConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["RodimusBlock"]
    _is_stateful = True  # the cache cannot return to an earlier token, so no speculative decoding
    _supports_sdpa = True

    @classmethod
    def _supports_default_dynamic_cache(cls):
        return False  # generate() lets the model create its own cache

    def _init_weights(self, module):
        """The authors' initialisation: N(0, 0.02), outputs scaled down with depth, gates that span time scales."""
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Embedding)):
            if getattr(module, "ends_branch", False) and self.config.rescale_prenorm_residual:
                std /= math.sqrt((3 if self.config.has_attention else 1) * self.config.n_layer)
            nn.init.normal_(module.weight, std=std)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d):  # PyTorch's own: uniform within 1 / sqrt(taps)
            bound = 1 / math.sqrt(module.kernel_size[0])
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, RodimusNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, RodimusMemory):
            nn.init.ones_(module.residual_weight)
            for linear in (module.in_proj, module.mem_gate_proj, *module.ch_gate_proj):
                nn.init.xavier_uniform_(linear.weight, gain=2 ** -2.5)
            self._init_memory_gates(module.mem_gate_proj.bias)

    @staticmethod
    @torch.no_grad()
    def _init_memory_gates(bias):
        """softplus(first half) is log-uniform in [1e-3, 1e-1], sigmoid(second half) uniform in [1/16, 0.9]."""
        if getattr(bias, "_is_hf_initialized", False):  # loaded from a file; nn.init functions check this themselves
            return
        u = torch.rand_like(bias.float()).chunk(2)
        sel = torch.exp(math.log(1e-3) + u[0] * (math.log(1e-1) - math.log(1e-3)))
        tau = 1 / 16 + u[1] * (0.9 - 1 / 16)
        bias.copy_(torch.cat([sel + torch.log(-torch.expm1(-sel)), torch.logit(tau)]))


class RodimusModel(RodimusPreTrainedModel):
    """Embedding, blocks and last norm: ids (B,T) -> last_hidden_state (B,T,d)."""

    def __init__(self, config):
        super().__init__(config)
        config.check()
        self.embeddings = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(RodimusBlock(config) for _ in range(config.n_layer))
        self.norm_f = RodimusNorm(config.d_model, config.norm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings

    def set_input_embeddings(self, value):
        self.embeddings = value

    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, inputs_embeds=None, use_cache=None,
                output_hidden_states=None, return_dict=None, cache=None):
        """input_ids (B,T) or inputs_embeds (B,T,d); attention_mask (B,T), or (B,seen+T) with a cache.

        `cache` and `past_key_values` are two names of one argument: the RodimusCache of the tokens before these, which
        is updated in place and returned. use_cache=True without one starts a new one; training has none by default.
        """
        config = self.config
        cache = past_key_values if cache is None else cache
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("RodimusModel: expected either input_ids or inputs_embeds")
        if cache is not None and not isinstance(cache, RodimusCache):
            raise ValueError(f"RodimusModel: the cache is a {type(cache).__name__}: expected a RodimusCache; pass none "
                             "and the model creates it")
        dropouts = [key for key in ("dropout", "attention_dropout", "activation_dropout") if getattr(config, key, 0)]
        if self.training and dropouts:
            raise ValueError(f"RodimusModel: config.{dropouts[0]} = {getattr(config, dropouts[0])}: dropout is not "
                             "implemented; set it to 0 to train")
        if cache is None and (use_cache if use_cache is not None else config.use_cache and not self.training):
            cache = RodimusCache(config)

        x = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        B, T = x.shape[:2]
        valid = valid_tokens(attention_mask, (B, T), cache)
        if cache is not None and (valid is not None or cache.valid is not None):
            valid = x.new_ones(B, T, dtype=torch.bool) if valid is None else valid
            valid = valid if cache.valid is None else torch.cat([cache.valid, valid], 1)
            cache.valid = last_of_window(valid, config.window)
        position = cache.seen if cache is not None else 0
        if config.residual_in_fp32:
            x = wide(x)

        hidden_states = []
        for i, block in enumerate(self.layers):
            hidden_states.append(x)
            if self.gradient_checkpointing and self.training:
                if cache is not None:
                    raise ValueError("RodimusModel: gradient checkpointing would update the cache twice: pass "
                                     "use_cache=False")
                x = self._gradient_checkpointing_func(block.__call__, x, valid)
            else:
                x = block(x, valid, cache.states[i] if cache is not None else None, position)
        x = self.norm_f(x)
        if cache is not None:
            cache.seen += T

        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = BaseModelOutputWithPast(last_hidden_state=x, **{CACHE_FIELD: cache},
                                         hidden_states=(*hidden_states, x) if output_hidden_states else None)
        return output if return_dict is not False else output.to_tuple()


class RodimusForCausalLM(RodimusPreTrainedModel, GenerationMixin):
    """ids (B,T) -> logits (B,T,vocab_size), and the mean loss of the next token if labels are given."""

    _tied_weights_keys = {"lm_head.weight": "model.embeddings.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = RodimusModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embeddings

    def set_input_embeddings(self, value):
        self.model.embeddings = value

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, new_embeddings):
        self.lm_head = new_embeddings

    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, inputs_embeds=None, labels=None,
                use_cache=None, output_hidden_states=None, return_dict=None, logits_to_keep=0, cache=None,
                output_attentions=False):
        """As RodimusModel.forward, and:

        labels (B,T): the input ids themselves, -100 where no loss is wanted; they are shifted here.
        logits_to_keep: compute only the last so many positions' logits (0 = all); generation needs one.
        output_attentions: is there because transformers passes it; the weights are never formed, so True is refused.
        """
        if output_attentions:
            raise ValueError("RodimusForCausalLM: output_attentions=True, but attention weights are never formed")
        output = self.model(input_ids, attention_mask, past_key_values, inputs_embeds, use_cache, output_hidden_states,
                            True, cache)
        x = output.last_hidden_state
        logits = self.lm_head(x[:, -logits_to_keep:])  # 0 keeps all: -0 is the first position
        loss = None
        if labels is not None:
            if logits_to_keep:
                raise ValueError(f"RodimusForCausalLM: labels need all logits, but logits_to_keep = {logits_to_keep}")
            loss = F.cross_entropy(wide(logits[:, :-1]).flatten(0, 1), labels[:, 1:].flatten().to(logits.device))
        result = CausalLMOutputWithPast(loss=loss, logits=logits, hidden_states=output.hidden_states,
                                        **{CACHE_FIELD: output[CACHE_FIELD] if CACHE_FIELD in output else None})
        return result if return_dict is not False else result.to_tuple()

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, past_key_values=None, cache=None,
                                      use_cache=True, **kwargs):
        """Arguments of the next forward pass: of all ids so far (B,T), those that the cache has not seen."""
        cache = past_key_values if cache is None else cache
        seen = cache.get_seq_length() if cache is not None else 0
        if seen >= input_ids.shape[1]:
            raise ValueError(f"generate: {input_ids.shape[1]} ids, but the cache already holds {seen}: pass the whole "
                             "sequence, those in the cache included")
        return {"input_ids": input_ids[:, seen:], "attention_mask": attention_mask, CACHE_FIELD: cache,
                "use_cache": use_cache, "logits_to_keep": 1}

    def _get_initial_cache_position(self, *args):
        """transformers before 4.48 knows only caches of its own here; this model does not use the positions."""
        model_kwargs = args[-1]
        without = super()._get_initial_cache_position(*args[:-1], {**model_kwargs, "past_key_values": None})
        model_kwargs["cache_position"] = without["cache_position"]
        return model_kwargs


# save_pretrained copies the code of registered classes; transformers before 4.48 does not register what it loads.
RodimusConfig.register_for_auto_class()
RodimusModel.register_for_auto_class("AutoModel")
RodimusForCausalLM.register_for_auto_class("AutoModelForCausalLM")
