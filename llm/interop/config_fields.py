"""Fields of a config.json that no table reads: refused if they change the model.

Files of other programs have fields that a dialect of ours has no place for. One that
changes what a model computes is refused by its name unless its value changes nothing;
what we do not know is named once on the console; the rest is of a training, of a head
that is not imported, or of the program that wrote it.

    watched = Watched(config)
    knobs = dialect.knobs(watched)
    check(watched, knobs, path)
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

from llm.errors import InputError

# What changes the numbers of a model, and with which values it does not.
_CHANGE: dict[str, tuple] = {
    "attention_bias": (), "attention_chunk_size": (0,), "attention_multiplier": (),
    "attention_out_bias": (), "attention_sinks": (), "attn_logit_softcapping": (0,),
    "attn_temperature_tuning": (), "clip_qkv": (), "compression_config": (),
    "dual_chunk_attention_config": (), "embedding_multiplier": (1,),
    "embedding_scale": (1,), "final_logit_softcapping": (0,), "hidden_act": (),
    "hidden_activation": (), "is_causal": (True,), "logit_scale": (1,),
    "logits_scaling": (1,), "mlp_bias": (), "mup_multiplier": (1,),
    "no_rope_layer_interval": (0,), "parallel_attn": (), "partial_rotary_factor": (1,),
    "position_embedding_type": ("absolute", "rope"), "qk_layernorm": (), "qk_norm": (),
    "quantization_config": (), "query_pre_attn_scalar": (), "residual_multiplier": (1,),
    "rope_interleave": (), "rope_interleaved": (), "rotary_pct": (1,),
    "scale_depth": (), "scale_emb": (1,), "scale_embedding": (), "softcap": (0,),
    "tie_encoder_decoder": (), "use_bias": (), "use_bidirectional_attention": (),
    "use_parallel_residual": (), "use_qk_norm": (), "use_qkv_bias": (),
}  # fmt: skip
_HARMLESS = re.compile(
    r"model_type|architectures|auto_map|_\w+|\w*token_ids?|\w*version|torch_dtype|dtype"
    r"|\w*drop|\w*dropout\w*|dropout_rate|use_cache|cache_implementation|initializer_\w+"
    r"|pretraining_tp|output_\w+|return_dict\w*|id2label|label2id|num_labels"
    r"|problem_type|finetuning_task|task_specific_params|summary_\w+|classifier_\w+"
    r"|chunk_size_feed_forward|gradient_checkpointing|attn_implementation|n_ctx"
    r"|reorder_and_upcast_attn|router_aux_loss_coef|router_z_loss_coef|dense_act_fn"
    r"|is_gated_act|unsloth_\w+|torchscript|pruned_heads|max_position_embeddings"
    r"|rope_theta|rope_scaling|rope_parameters|rope_local_base_freq|tokenizer_class"
    r"|prefix|use_return_dict|vocab_size|tie_word_embeddings|remove_invalid_values"
)
# What is read of a rope, refused there, or of the program that made it.
_ROPE = frozenset(
    {
        "rope_theta", "rope_type", "type", "factor", "low_freq_factor",
        "high_freq_factor", "original_max_position_embeddings", "beta_fast",
        "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate",
        "partial_rotary_factor", "finetuned",
    }
)  # fmt: skip
# What generation_config.json says of old files.
_GENERATION = re.compile(
    r"(max|min)_(new_tokens|length)|do_sample|early_stopping|num_(beams|beam_groups)"
    r"|num_return_sequences|diversity_penalty|temperature|top_[kp]|typical_p"
    r"|\w*repetition_penalty|length_penalty|no_repeat_ngram_size|bad_words_ids"
    r"|encoder_no_repeat_ngram_size|exponential_decay_length_penalty|suppress_tokens"
    r"|begin_suppress_tokens|tf_legacy_loss|use_bfloat16"
)


class Watched(dict):
    """A config that remembers which of its fields were asked for."""

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        self.read: set[str] = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        """As of a dict."""
        self.read.add(name)
        return super().get(name, default)

    def __contains__(self, name):
        self.read.add(name)
        return super().__contains__(name)


def check(config: Watched, knobs: Mapping[str, Any], path: Any) -> None:
    """Refuses fields that nobody read and that change the model; names unknown ones.

    Raises:
      InputError: the first that changes what the model computes.
    """
    unknown = []
    unread = {name: value for name, value in config.items() if name not in config.read}
    for name, value in unread.items():
        unset = _unset(value) and not (name == "is_causal" and value is False)
        if unset or name == "tensors":
            continue
        if not _neutral(name, value, dict(config), knobs):
            raise InputError(
                got=f"{path} with {name} {str(value)[:60]}, which changes what a "
                f"{dict.get(config, 'model_type')} computes",
                want="a model without it: this form of the architecture is not "
                "supported",
            )
        known = name in _CHANGE or name in _BY_OTHERS
        if not known and not any(p.fullmatch(name) for p in (_HARMLESS, _GENERATION)):
            unknown.append(name)
    unknown += _of_ropes(config)
    if unknown:
        say_once(f"{path}: not read: {', '.join(sorted(unknown))}")


def _of_ropes(config: Mapping[str, Any]) -> list[str]:
    """Fields within the dicts of positions that we do not know."""
    found = []
    for name in ("rope_parameters", "rope_scaling"):
        for key, value in (dict.get(config, name) or {}).items():
            if not _unset(value) and key not in _ROPE and type(value) is not dict:
                found.append(f"{name}.{key}")
    return found


def _unset(value: Any) -> bool:
    return value is None or value is False or value in ([], {}, "")


# Fields whose meaning hangs on others.
_BY_OTHERS = ("layer_types", "sliding_window", "use_sliding_window", "no_rope_layers",
              "max_window_layers", "sliding_window_pattern", "_sliding_window_pattern",
              "is_encoder_decoder", "is_decoder", "add_cross_attention",
              "qkv_bias", "intermediate_size", "head_dim")  # fmt: skip


def _neutral(name, value, config, knobs) -> bool:
    """Whether a field that is set leaves the model as its knobs say."""
    windows = tuple(knobs.get("windows") or ())
    if name == "layer_types":
        kinds = [f"{'sliding' if w else 'full'}_attention" for w in windows]
        return set(value) == set(kinds or ["full_attention"])
    if name == "sliding_window":
        return not value or config.get("use_sliding_window") is False
    if name == "use_sliding_window":
        return bool(windows) or not config.get("sliding_window")
    if name in ("sliding_window_pattern", "_sliding_window_pattern"):
        # Where the kinds of layers are listed, these only repeat it.
        return "layer_types" in config or not windows
    if name == "max_window_layers":
        return not windows
    if name == "no_rope_layers":  # 1 for a layer that rotates
        return all(value)
    if name in ("is_decoder", "is_encoder_decoder", "add_cross_attention"):
        return name == "is_decoder" and "heads" in knobs
    if name == "qkv_bias":
        return bool(knobs.get("qkv_bias"))
    if name == "attention_multiplier" and knobs.get("head_dim"):
        return abs(value - knobs["head_dim"] ** -0.5) < 1e-6
    if name in ("hidden_act", "hidden_activation"):
        other = "hidden_activation" if name == "hidden_act" else "hidden_act"
        return other in config  # the one that this model type reads
    return name not in _CHANGE or value in _CHANGE[name]


@functools.cache
def say_once(line: str) -> None:
    """Prints a line, the first time that it is said."""
    print(line, flush=True)
