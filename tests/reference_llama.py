"""Logits of transformers' Llama and Qwen3 on our tiny weights.

    python tests/reference_llama.py     # writes tests/golden/llama.npz

The weights come from a numpy generator (`tiny.params`), so the golden file holds only
what the reference made of them: the light suite compares with the file, the oracle
suite with the library itself.
"""

import pathlib

import jax
import numpy as np
import tiny
from tiny import V

GOLDEN = pathlib.Path(__file__).parent / "golden" / "llama.npz"
# {name: (qk_norm, tied)}
CASES = {
    "llama": (False, False),
    "llama tied": (False, True),
    "qwen3": (True, False),
    "qwen3 tied": (True, True),
}
TOKENS_BT = np.random.default_rng(7).integers(1, V, (2, 12))


def model_and_params(case):
    """Our model of a case, and its parameters."""
    qk_norm, tied = CASES[case]
    of = tiny.model(qk_norm=qk_norm, tied=tied, rope_base=500.0)
    return of, tiny.params(of, seed=5)


def reference_logits(case):
    """[B, T, V] of `transformers`, in float32."""
    import torch
    import transformers

    qk_norm, tied = CASES[case]
    held = model_and_params(case)[1]
    k = tiny.KNOBS
    name = "Qwen3" if qk_norm else "Llama"
    settings = getattr(transformers, f"{name}Config")(
        vocab_size=V,
        hidden_size=k["width"],
        intermediate_size=k["mlp"],
        num_hidden_layers=k["layers"],
        num_attention_heads=k["heads"],
        num_key_value_heads=k["kv_heads"],
        head_dim=k["head_dim"],
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        tie_word_embeddings=tied,
        attention_bias=False,
    )
    theirs = getattr(transformers, f"{name}ForCausalLM")(settings).eval()
    weights = {
        "model.embed_tokens.weight": held["embed"]["embedding"],
        "model.norm.weight": held["final_norm"]["scale"],
        "lm_head.weight": held["embed"]["embedding"]
        if tied
        else held["head"]["kernel"].T,
    }
    for i in range(k["layers"]):
        layer = jax.tree.map(lambda x, i=i: x[i], held["stack"]["layer"])
        prefix, attention = f"model.layers.{i}", layer["attention"]
        weights[f"{prefix}.input_layernorm.weight"] = layer["attention_norm"]["scale"]
        weights[f"{prefix}.post_attention_layernorm.weight"] = layer["mlp_norm"][
            "scale"
        ]
        for short, ours in (("q", "query"), ("k", "key"), ("v", "value")):
            kernel = attention[ours]["kernel"]
            matrix = kernel.reshape(k["width"], -1).T
            weights[f"{prefix}.self_attn.{short}_proj.weight"] = matrix
        out = attention["out"]["kernel"].reshape(-1, k["width"]).T
        weights[f"{prefix}.self_attn.o_proj.weight"] = out
        for ours in ("gate", "up", "down"):
            kernel = layer["mlp"][ours]["kernel"]
            weights[f"{prefix}.mlp.{ours}_proj.weight"] = kernel.T
        if qk_norm:
            for short, ours in (("q", "query_norm"), ("k", "key_norm")):
                weights[f"{prefix}.self_attn.{short}_norm.weight"] = attention[ours][
                    "scale"
                ]
    state = {n: torch.tensor(np.array(w)) for n, w in weights.items()}
    assert set(state) == set(theirs.state_dict())
    theirs.load_state_dict(state)
    with torch.no_grad():
        return theirs(torch.tensor(TOKENS_BT)).logits.numpy()


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, **{case: reference_logits(case) for case in CASES})
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes")
