"""The trainer's tokens per second and torch eager's: the same model, batch, optimizer and threads, taking turns.

    python benchmarks/train.py                  the sizes of the shipped models, two threads
    python benchmarks/train.py --threads 1
    python benchmarks/train.py --no-torch       where torch is not installed (it is in the extra "parity")
    python benchmarks/train.py --device cuda    on a GPU, with its matrix-multiply ceiling

Before anything is timed, both have to give the same loss on the same weights and batch. Peak memory is that of a
process that does nothing else.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

WIDTH, LAYERS, HEADS, D_FF, CONTEXT, BATCH, VOCAB = 128, 4, 4, 352, 128, 64, 1024


def parse():
    """Read the options of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--memory-of", choices=("minisink", "torch"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    """Run the benchmark; NumPy is imported only after its number of threads is set."""
    args = parse()
    # minisink's workers are the threads; its matrix library must not start more
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    steps = {"minisink": minisink_step}
    if not args.no_torch:
        steps["torch"] = torch_step
    if args.memory_of:
        step = steps[args.memory_of](args)
        start = peak_kib()
        for _ in range(3):
            step()
        print(start, peak_kib())
        return
    ready = {name: make(args) for name, make in steps.items()}
    losses = {name: step() for name, step in ready.items()}  # also warms up
    print("loss of the first step:", "  ".join(f"{name} {loss:.5f}" for name, loss in losses.items()))
    if max(losses.values()) - min(losses.values()) > 1e-3:
        sys.exit("minisink and torch do not compute the same thing")
    seconds = {name: [] for name in ready}
    for _ in range(args.rounds):
        for name, step in ready.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    rates = {}
    for name, times in seconds.items():
        rates[name] = BATCH * CONTEXT / sorted(times)[len(times) // 2]
        fastest = BATCH * CONTEXT / min(times)
        before, peak = memory(name, args)
        print(
            f"{name:8}  {rates[name]:9,.0f} tokens/s (median; fastest {fastest:,.0f}), {args.threads} threads, "
            f"peak memory {peak:.0f} MiB, {peak - before:.0f} MiB of it for the steps"
        )
    if "torch" in rates:
        print(f"minisink / torch: {rates['minisink'] / rates['torch']:.2f}")
    if args.device != "cpu":
        ceiling(args.device, rates["minisink"])


def peak_kib():
    """Return the largest memory this process has held so far, in KiB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss starts from that of the parent process
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory(name, args):
    """Return MiB before and after three steps in a fresh process."""
    command = [sys.executable, __file__, "--memory-of", name, "--threads", str(args.threads), "--device", args.device]
    before, after = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return int(before) / 1024, int(after) / 1024


def setting():
    """Return the config, initial weights and batch, the same for both."""
    import numpy as np

    from minisink import llama
    from minisink.training.parameters import initial_vector

    heads = {"n_heads": HEADS, "n_kv_heads": HEADS, "head_dim": WIDTH // HEADS}
    sizes = {"d_model": WIDTH, "n_layers": LAYERS, "d_ff": D_FF, "vocab_size": VOCAB, "max_positions": CONTEXT}
    config = llama.Config(**sizes, **heads, norm_eps=1e-5)
    ids = np.random.default_rng(0).integers(0, VOCAB, (BATCH, CONTEXT + 1))
    return config, initial_vector(config, 0), ids


def minisink_step(args):
    """Return a function that does one step and returns its loss."""
    from minisink.system.device import array_module
    from minisink.training.gradients import batch_gradient
    from minisink.training.optimizer import AdamW, clip
    from minisink.training.parameters import decayed

    config, vector, ids = setting()
    xp = array_module(args.device)
    vector, ids = xp.asarray(vector), xp.asarray(ids)
    optimizer = AdamW.for_vector(vector, decayed(config))
    on_cpu = args.device == "cpu"
    options = {"piece": None if on_cpu else BATCH, "workers": args.threads if on_cpu else 1}

    def step():
        loss, gradient = batch_gradient(config, vector, ids[:, :-1], ids[:, 1:], **options)
        clip(gradient, 1.0)
        optimizer.step(vector, gradient, 1e-4)
        float(vector[0])  # waits for a GPU, which is still working on the step
        return loss

    return step


def torch_step(args):
    """Return the same step in eager torch."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(args.threads)
    from minisink.training.parameters import as_weights

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn_norm, self.mlp_norm = nn.RMSNorm(WIDTH, eps=1e-5), nn.RMSNorm(WIDTH, eps=1e-5)
            self.wq, self.wk, self.wv, self.wo = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
            self.w_gate, self.w_up = (nn.Linear(WIDTH, D_FF, bias=False) for _ in range(2))
            self.w_down = nn.Linear(D_FF, WIDTH, bias=False)

        def forward(self, x, cos, sin):
            B, T, _ = x.shape
            h = self.attn_norm(x)
            q, k, v = (w(h).view(B, T, HEADS, -1).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
            mixed = F.scaled_dot_product_attention(turn(q, cos, sin), turn(k, cos, sin), v, is_causal=True)
            x = x + self.wo(mixed.transpose(1, 2).reshape(B, T, WIDTH))
            h = self.mlp_norm(x)
            return x + self.w_down(F.silu(self.w_gate(h)) * self.w_up(h))

    def turn(x, cos, sin):
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(VOCAB, WIDTH)
            self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
            self.norm, self.head = nn.RMSNorm(WIDTH, eps=1e-5), nn.Linear(WIDTH, VOCAB, bias=False)
            angle = torch.arange(CONTEXT)[:, None] * torch.tensor(config.frequencies)
            self.register_buffer("cos", angle.cos().float())
            self.register_buffer("sin", angle.sin().float())

        def forward(self, ids):
            x = self.embed(ids)
            for layer in self.layers:
                x = layer(x, self.cos, self.sin)
            return self.head(self.norm(x))

    config, vector, ids = setting()
    net, weights = Net(), as_weights(config, vector)
    with torch.no_grad():  # ours are (in, out), torch's (out, in)
        net.embed.weight.copy_(torch.tensor(weights.embed))
        net.head.weight.copy_(torch.tensor(weights.head.T.copy()))
        for theirs, ours in zip(net.layers, weights.layers, strict=True):
            for name in ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down"):
                getattr(theirs, name).weight.copy_(torch.tensor(getattr(ours, name).T.copy()))
    net.to(args.device)
    batch = torch.tensor(ids, device=args.device)
    matrices = [p for name, p in net.named_parameters() if p.ndim == 2 and name != "embed.weight"]
    rest = [p for name, p in net.named_parameters() if p.ndim == 1 or name == "embed.weight"]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95))

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(net(batch[:, :-1]).reshape(-1, VOCAB), batch[:, 1:].reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


def ceiling(device, rate):
    """Print tokens/s as a share of what matrix products alone would allow on this device."""
    from minisink.system.device import array_module

    xp = array_module(device)
    a = xp.ones((8192, 8192), xp.float32)
    float((a @ a)[0, 0])
    started = time.perf_counter()
    float((a @ a)[0, 0])
    flops = 2 * 8192**3 / (time.perf_counter() - started)
    matrices = LAYERS * (4 * WIDTH**2 + 3 * WIDTH * D_FF) + WIDTH * VOCAB
    needed = 6 * matrices + LAYERS * 12 * CONTEXT * WIDTH  # forward, twice that for backward, and attention
    print(f"ceiling {flops / 1e12:.1f} TFLOP/s: {rate * needed / flops:.1%} of it is used")


if __name__ == "__main__":
    main()
