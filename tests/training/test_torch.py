"""Gradients and AdamW against torch (the extra "parity")."""

import numpy as np
import pytest
import small

from minisink.training.gradients import batch_gradient
from minisink.training.optimizer import AdamW, clip
from minisink.training.parameters import named_shapes, views

torch = pytest.importorskip("torch")
F = torch.nn.functional


def rms(x, w, eps):
    return w * x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)


def turn(x, frequencies):
    angle = torch.arange(x.shape[2])[:, None] * torch.tensor(frequencies)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)


def attend(q, k, v, config, sinks):
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if config.model_type == "mpt":
        T = scores.shape[2]
        slopes = 2.0 ** (-2.0 * torch.arange(1, 5))[[1, 3, 0]]  # of four heads: every other one first
        scores = scores - slopes[:, None, None] * (torch.arange(T)[:, None] - torch.arange(T))
    scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
    if config.softmax == "softmax1":
        sinks = torch.zeros(q.shape[1], dtype=q.dtype)
    if sinks is not None:  # one more column, dropped after softmax
        column = sinks[None, :, None, None].expand(*scores.shape[:-1], 1)
        return torch.cat((scores, column), -1).softmax(-1)[..., :-1] @ v
    return scores.softmax(-1) @ v


def llama_loss(p, inputs, targets, config):
    (B, T), heads = inputs.shape, (config.n_heads, config.n_kv_heads, config.n_kv_heads)
    x = p["embed"][inputs]
    for i in range(config.n_layers):
        w = {name[2:]: value for name, value in p.items() if name.startswith(f"{i}.")}
        h = rms(x, w["attn_norm"], config.norm_eps)
        q, k, v = (
            (h @ w["w" + n] + w.get("b" + n, 0.0)).view(B, T, n_heads, -1).transpose(1, 2)
            for n, n_heads in zip("qkv", heads, strict=True)
        )
        mixed = attend(turn(q, config.frequencies), turn(k, config.frequencies), v, config, w.get("sink_logits"))
        x = x + mixed.transpose(1, 2).reshape(B, T, -1) @ w["wo"] + w.get("bo", 0.0)
        h = rms(x, w["mlp_norm"], config.norm_eps)
        gated = F.silu(h @ w["w_gate"] + w.get("b_gate", 0.0)) * (h @ w["w_up"] + w.get("b_up", 0.0))
        x = x + gated @ w["w_down"] + w.get("b_down", 0.0)
    head = p["embed"].T if config.tied else p["head"]
    return F.cross_entropy((rms(x, p["norm"], config.norm_eps) @ head).flatten(0, 1), targets.flatten())


def gpt2_loss(p, inputs, targets, config):
    (B, T), C = inputs.shape, config.d_model
    x = p["embed"][inputs] + (p["position"][:T] if "position" in p else 0.0)
    for i in range(config.n_layers):
        w = {name[2:]: value for name, value in p.items() if name.startswith(f"{i}.")}
        h = F.layer_norm(x, (C,), w["ln1"], w.get("ln1_b"), config.norm_eps)
        q, k, v = (h @ w["w_qkv"] + w.get("b_qkv", 0.0)).view(B, T, 3, config.n_heads, -1).permute(2, 0, 3, 1, 4)
        if config.model_type == "gpt_neox":
            R, rates = config.rotary_dim, config.encoding.frequencies
            q, k = (torch.cat((turn(x[..., :R], rates), x[..., R:]), -1) for x in (q, k))
        mixed = attend(q, k, v, config, w.get("sink_logits")).transpose(1, 2).reshape(B, T, C)
        attended = x + mixed @ w["wo"] + w.get("bo", 0.0)
        h = F.layer_norm(x if config.parallel else attended, (C,), w["ln2"], w.get("ln2_b"), config.norm_eps)
        kind = "tanh" if config.activation == "gelu_new" else "none"
        x = attended + F.gelu(h @ w["w_up"] + w.get("b_up", 0.0), approximate=kind) @ w["w_down"] + w.get("b_down", 0.0)
    head = p["embed"].T if config.tied else p["head"]
    x = F.layer_norm(x, (C,), p["norm"], p.get("norm_b"), config.norm_eps)
    return F.cross_entropy((x @ head).flatten(0, 1), targets.flatten())


USUAL = [case for case in small.CASES if case not in ("llama relu", "llama attention only")]


@pytest.mark.parametrize("case", USUAL)
def test_loss_and_gradient_equal_autograd(case):
    _, config, vector = small.make(case, 7)
    inputs, targets = small.batch(7)
    loss, gradient = batch_gradient(config, vector, inputs, targets, piece=2)
    shapes = named_shapes(config)
    p = {name: torch.tensor(a, requires_grad=True) for name, a in views(vector, shapes).items()}
    theirs = (llama_loss if "llama" in case else gpt2_loss)(p, torch.tensor(inputs), torch.tensor(targets), config)
    theirs.backward()
    assert np.isclose(loss, theirs.item(), rtol=1e-12)
    for name, ours in views(gradient, shapes).items():
        assert np.allclose(ours, p[name].grad.numpy(), rtol=1e-9, atol=1e-12), name


def test_adamw_and_clipping_equal_torch():
    random = np.random.default_rng(0)
    w = random.standard_normal(9)
    free, decaying = (torch.tensor(part.copy(), requires_grad=True) for part in (w[:4], w[4:]))
    groups = [{"params": [free], "weight_decay": 0.0}, {"params": [decaying], "weight_decay": 0.1}]
    theirs = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.95))
    ours = AdamW(w, slice(4, 9))
    for _ in range(6):
        gradient = random.standard_normal(9) * 2
        free.grad, decaying.grad = torch.tensor(gradient[:4].copy()), torch.tensor(gradient[4:].copy())
        norm = torch.nn.utils.clip_grad_norm_([free, decaying], 1.0)
        theirs.step()
        assert np.isclose(clip(gradient, 1.0), norm.item())
        ours.step(w, gradient, 0.05)
    assert np.allclose(w, np.concatenate((free.detach(), decaying.detach())), rtol=1e-5)
