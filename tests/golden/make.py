"""Record what Hugging Face transformers gives for two tiny models with random weights.

    pip install -e ".[parity]"
    python tests/golden/make.py

writes, beside this file, a Hugging Face folder for each model (`llama/`, `gpt2/`), the token ids and the logits
(`llama.npz`, `gpt2.npz`), and the versions it ran with (`versions.json`). No two sizes of a model are alike, and every
parameter is random, so that a swapped axis or a forgotten bias shows in the logits.
"""

import json
import platform
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
SEED = 20240507
N_TOKENS = 37


def llama():
    """Grouped-query, explicit head_dim, biases everywhere, and a Llama 3 rope that keeps, blends and stretches."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=31,
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=20,
            max_position_embeddings=256,
            rms_norm_eps=1e-4,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=False,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 500.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        )
    )


def gpt2():
    """An inner width that is not four times the outer one."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=31,
            n_embd=20,
            n_layer=2,
            n_head=5,
            n_inner=28,
            n_positions=41,
            layer_norm_epsilon=1e-4,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def randomise(model):
    """Give every parameter, the biases and norms too, values that matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.3)
            if "norm" in name or "ln_" in name:
                parameter.add_(1.0)


def main():
    torch.manual_seed(SEED)
    ids = np.random.default_rng(SEED).integers(0, 31, N_TOKENS)
    for name, model in (("llama", llama()), ("gpt2", gpt2())):
        randomise(model)
        model.eval()
        model.save_pretrained(HERE / name)
        (HERE / name / "generation_config.json").unlink(missing_ok=True)
        with torch.no_grad():
            logits = model(torch.tensor(ids)[None]).logits[0].numpy()
        np.savez(HERE / f"{name}.npz", ids=ids, logits=logits)
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    (HERE / "versions.json").write_text(json.dumps(versions, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
