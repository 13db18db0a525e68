"""Models that the reference library builds and saves itself, read by ours."""

import jax
import numpy as np
import pytest
import tiny
from reference_models import reference_logits

from llm import registry
from llm.interop import hf
from llm.nn.contract import plain_inputs

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SMALL = {"vocab_size": 61, "hidden_size": 24, "intermediate_size": 40,
         "num_hidden_layers": 2, "num_attention_heads": 4}  # fmt: skip
GROUPED = SMALL | {"num_key_value_heads": 2}
THEIRS = {
    "Llama": GROUPED,
    "Mistral": GROUPED | {"sliding_window": 4},
    "Qwen2": GROUPED,
    "Qwen3": GROUPED | {"head_dim": 8},
    "Gemma2": GROUPED | {"head_dim": 8, "sliding_window": 4},
    "Gemma3Text": GROUPED | {"head_dim": 8, "sliding_window": 4},
    "Olmo2": GROUPED,
    "Mixtral": GROUPED | {"num_local_experts": 4},
    "Qwen3Moe": GROUPED | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2,
                           "moe_intermediate_size": 16, "norm_topk_prob": True},
    "GPT2": {"vocab_size": 61, "n_embd": 24, "n_layer": 2, "n_head": 4},
    "Bert": SMALL,
}  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("family", THEIRS)
def test_what_the_reference_builds_itself_is_read(tmp_path, family):
    """Its own configuration with all that it fills in, and its own weights."""
    transformers = pytest.importorskip("transformers")
    import torch

    config = getattr(transformers, f"{family}Config")(**THEIRS[family])
    torch.manual_seed(0)
    auto = "MaskedLM" if family == "Bert" else "CausalLM"
    theirs = getattr(transformers, f"AutoModelFor{auto}").from_config(
        config, attn_implementation="eager"
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in theirs.parameters():  # norms and biases are ones and zeros
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 0.1 * noise
    theirs = theirs.float().eval()
    theirs.save_pretrained(tmp_path)
    found = hf.read(tmp_path)
    of = registry.build("models", {"name": found.name, **found.knobs}, vocab_size=61)
    params = hf.load_params(found, jax.eval_shape(lambda: tiny.params(of)))
    inputs = plain_inputs(np.random.default_rng(2).integers(3, 61, (2, 9)))
    want = reference_logits(theirs, jax.tree.map(np.asarray, inputs)).detach().numpy()
    np.testing.assert_allclose(tiny.logits(of, params, inputs), want, **CLOSE)


@pytest.mark.oracle
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_t5_as_its_own_class_saves_it(tmp_path, kind, tied):
    """Built by the reference, not by us: what newer versions write of ties."""
    transformers = pytest.importorskip("transformers")
    import torch

    config = transformers.T5Config(
        vocab_size=61, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=3,
        feed_forward_proj=kind, tie_word_embeddings=tied,
        relative_attention_num_buckets=8, relative_attention_max_distance=10,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.T5ForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path)
    found = hf.read(tmp_path)
    of = registry.build("models", {"name": found.name, **found.knobs}, vocab_size=61)
    params = hf.load_params(found, jax.eval_shape(lambda: tiny.params(of)))
    source, target = np.array([[5, 6, 7, 1]]), np.array([[0, 9, 8]])
    with torch.no_grad():
        want = theirs(
            input_ids=torch.tensor(source), decoder_input_ids=torch.tensor(target)
        ).logits.numpy()
    inputs = plain_inputs(target)._replace(source=plain_inputs(source))
    np.testing.assert_allclose(tiny.logits(of, params, inputs), want, **CLOSE)
