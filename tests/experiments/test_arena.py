"""The arena: what each entry keeps, by the book; that all see as many keys; and one of your own."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny
from tiny import public

import minisink
from minisink import by_the_book as book
from minisink.commands.parser import main
from minisink.evaluation.difference import paired
from minisink.experiments import arena, policies
from minisink.experiments.arena import ENTRIES
from minisink.hf.fields import CheckpointError

N, SINKS, T = 16, 2, 40
IDS = np.random.default_rng(0).permutation(64)  # no two alike: equal keys would leave it to rounding who goes
PAGE = (Path(__file__).parents[2] / "docs" / "your-own-cache.md").read_text(encoding="utf-8")


def model_of(n_kv_heads=2, **changes):
    """A tiny one in float64 whose positions suffice for the widest heads."""
    return public(tiny.make(n_kv_heads=n_kv_heads, n_layers=2, vocab_size=64, **changes))


class Watched(policies.Counted):
    """Keeps of every layer what came in, and the weights that were given."""

    def __init__(self, model, made, most):
        super().__init__(model, made, most)
        self.came = [[] for _ in range(model.config.n_layers)]
        self.held = [[] for _ in range(model.config.n_layers)]

    def mix(self, layer, q, k, v, rotate, *, normalise, **options):
        patterns = []

        def noting(scores):
            patterns.append(normalise(scores))
            return patterns[-1]

        mixed = super().mix(layer, q, k, v, rotate, normalise=noting, **options)
        self.came[layer].append((q[0], k[0], v[0], rotate, patterns[-1], mixed[0]))
        if layer < len(getattr(self.cache, "layers", ())):
            self.held[layer].append(getattr(self.cache.layers[layer], "index", None))
        return mixed


def watched(name, model, ids):
    """Read a text token by token."""
    path = Watched(model, ENTRIES[name](model, N, SINKS), N)
    for token in ids:
        model.forward([token], cache=path)
    return path


# The least of what an entry lets go, said with lists: of one head `held` are the tokens, oldest first, the newest last;
# `given` are for each query so far the weights of the tokens it saw, by head, in dicts.


def h2o(held, t, given, head, keys):
    sums = {s: sum(query[head].get(s, 0.0) for query in given) for s in held if s <= t - N // 2}
    return min(sums, key=sums.get)


def tova(held, t, given, head, keys):
    last = {s: sum(weights[s] for weights in given[-1]) for s in held[:-1]}
    return min(last, key=last.get)


def snapkv(held, t, given, head, keys):
    votes = [sum(query[head].get(s, 0.0) for query in given[-8:]) for s in held]
    pooled = {s: max(votes[max(0, i - 2) : i + 3]) for i, s in enumerate(held) if s <= t - 8}
    return max(s for s in pooled if pooled[s] == min(pooled.values()))


def keydiff(held, t, given, head, keys):
    unit = [keys[s][head] / np.linalg.norm(keys[s][head]) for s in held]
    mean = sum(unit) / len(unit)
    alike = {s: book.dot(one, mean) for s, one in zip(held, unit, strict=True) if s <= t - N // 2}
    return max(alike, key=alike.get)


BOOK = {"H2O": h2o, "TOVA": tova, "SnapKV-like": snapkv, "KeyDiff": keydiff}


@pytest.mark.parametrize("n_kv_heads", [2, 4])
@pytest.mark.parametrize("name", BOOK)
def test_what_leaves_is_the_papers(name, n_kv_heads):
    """A list for each layer and head: a token comes, and of what is too much the one leaves that the rule names."""
    model = model_of(n_kv_heads)
    path, G = watched(name, model, IDS[:T]), 4 // n_kv_heads
    for came, index in zip(path.came, path.held, strict=True):
        lists, given, keys = [[] for _ in range(n_kv_heads)], [], [k for _, k, *_ in came]
        for t, (*_, pattern, _) in enumerate(came):
            for head, held in enumerate(lists):
                held.append(t)
                if len(held) > N:
                    held.remove(BOOK[name](held, t, given, head, keys))
            assert index[t].T.tolist() == lists, (name, t)
            weights = pattern[:, 0].reshape(n_kv_heads, G, -1).sum(axis=1)
            given.append([dict(zip(held, row.tolist(), strict=True)) for held, row in zip(lists, weights, strict=True)])


def test_every_fourth_stays_as_far_back_as_there_is_room():
    """A list: of what has left the window the oldest goes that is no multiple of four, or the oldest."""
    model, held = model_of(), []
    cache = minisink.new_cache(model, ENTRIES["every fourth"](model, N, SINKS))
    for t, token in enumerate(IDS):
        model.forward([token], cache=cache)
        held.append(t)
        if len(held) > N:
            others = held[SINKS : -N // 2]
            held.remove(next((s for s in others if s % 4), others[0]))
        assert cache.token_index.tolist() == held
    assert held[:SINKS] == [0, 1] and held[SINKS : -N // 2] == [32, 36, 40, 44, 48, 52]


@pytest.mark.parametrize("name", ["random", "per-head"])
def test_what_leaves_a_head_is_one_that_may(name):
    """Sinks and the newest always stay; what has left does not come back."""
    model = model_of(4)
    for index in watched(name, model, IDS[:T]).held:
        for t, now in enumerate(index):
            for head, row in enumerate(now.T):
                kept = [s for s in row if s >= 0]
                assert kept == sorted({*kept}) and set(range(min(t + 1, SINKS))) <= {*kept}
                assert t == 0 or {*kept} <= {*index[t - 1][:, head], t}
                if name == "random":
                    assert set(range(max(0, t + 1 - N // 2), t + 1)) <= {*kept}
                else:  # sinks and a window, each of its own width
                    assert kept[SINKS:] == list(range(t + 1))[SINKS:][-max(1, len(kept) - SINKS) :]


def test_a_quarter_of_the_heads_keeps_all_that_the_others_spare():
    """By hand for four heads and 16 keys: 4 is the least of a narrow one, so 64 - 3 x 4 is the most of the wide one."""
    path = watched("per-head", model_of(4, max_positions=100), IDS[:56])
    widths = np.array([[(now >= 0).sum(axis=0) for now in index] for index in path.held])  # (L, T, K)
    assert np.sort(widths[:, -1], axis=-1).tolist() == [[4, 4, 4, 52]] * 2
    assert widths.max(axis=-1).tolist() == [[min(t + 1, 52) for t in range(56)]] * 2
    short = watched("per-head", model_of(4, max_positions=30), IDS[:T])
    assert max((now >= 0).sum(axis=0).max() for now in short.held[0]) == 30  # positions it has learned


def test_those_keep_all_that_copy_best(monkeypatch):
    monkeypatch.setattr(arena.clinic, "retrieval", lambda trace: [np.array([0.1, 0.2, 0.9, 0]), np.array([0, 1, 0, 0])])
    path = watched("per-head", model_of(2), IDS[:T])
    assert [index[-1].min(axis=0).argmax().item() for index in path.held] == [1, 0]  # the narrow one has empty slots


@pytest.mark.parametrize("name", list(ENTRIES))
def test_every_query_sees_as_many_keys(name):
    """On every step and in every layer: all tokens, or as many as are allowed, a mean over heads."""
    for model in (model_of(2), model_of(4), model_of(2, qkv_bias=True, softmax="softmax1")):
        path = watched(name, model, IDS[:T])
        assert len(path.keys) == 2 * T
        assert [n for seen in path.keys for n in seen] == [min(t + 1, N) for t in range(T) for _ in range(2)]


@pytest.mark.parametrize("name", [name for name, make in ENTRIES.items() if hasattr(make, "take_in")])
def test_its_attention_is_the_books(name):
    """Over what each head holds, at its slots: the values are mixed as loops over lists do it."""
    model, H = model_of(2), 4
    path = watched(name, model, IDS[:24])
    for came, index in zip(path.came, path.held, strict=True):
        for t in range(0, 24, 5):
            q, _, _, rotate, _, mixed = came[t]
            for head in range(2):
                held = [s for s in index[t][:, head] if s >= 0]
                slots = np.arange(len(held))
                keys, values = (np.array([came[s][part][head : head + 1] for s in held]) for part in (1, 2))
                queries = rotate(q[None, head * 2 : head * 2 + 2], slots[-1:])
                want, _ = book.attend(queries, rotate(keys, slots), values, np.ones((1, len(held)), bool))
                np.testing.assert_allclose(mixed.reshape(H, -1)[head * 2 : head * 2 + 2], want[0], atol=1e-12)


@pytest.mark.parametrize("name", list(ENTRIES))
def test_any_chunking_is_the_same(name):
    model, ids = model_of(), IDS[:T]
    got = []
    for cuts in ([7, 8, 30], range(1, T)):
        made = ENTRIES[name](model, N, SINKS)
        cache = policies.Counted(model, made, N)
        got.append(np.concatenate([model.forward(part, cache=cache) for part in np.split(ids, cuts)]))
    np.testing.assert_allclose(*got, rtol=1e-9, atol=1e-9)


class Newest(arena.Evicting):
    """Sinks and a window, as a path."""

    def worth(self, layer):
        return np.where(layer.index < self.n_sinks, arena.SPARED, layer.index)


@pytest.mark.parametrize("arch", [tiny.llama, tiny.gpt2, tiny.mpt, tiny.gpt_neox])
def test_the_path_is_streaming_where_age_is_all_that_counts(arch):
    """The same losses for every family, slots and bias included; and the bytes of as many keys."""
    model, ids = public(tiny.make(arch)), tiny.ids(T)
    path, cache = Newest(model, N, SINKS), minisink.new_cache(model, minisink.Streaming(SINKS, N - SINKS))
    got, want = minisink.token_nll(model, ids, cache=path), minisink.token_nll(model, ids, cache=cache)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    assert path.nbytes == cache.nbytes
    assert arena.H2O(model, N).nbytes == 0


def test_an_entry_is_at_most_thirty_lines():
    lines = Path(arena.__file__).read_text("utf-8")
    for body in re.split(r"^(?=@dataclass|class (?!Evicting|EveryFourth)|ENTRIES)", lines, flags=re.MULTILINE)[2:]:
        assert len(body.strip().splitlines()) <= 30, body.splitlines()[0]


# The experiment ------------------------------------------------------------------------------------

QUICK = {"keys": N, "gaps": (8,), "toy_texts": 2, "steps": 1, "names": 0}


def test_each_row_is_a_loss_on_its_tokens():
    """After the first eviction, paired with streaming; streaming is there, asked for or not."""
    model, ids = model_of(), IDS[:T]
    first, row = policies.run(model, ids, "", entries=("H2O",), **QUICK)
    slots = minisink.token_nll(model, ids, minisink.Streaming(1, N - 1))[N:]
    nll = minisink.token_nll(model, ids, cache=arena.H2O(model, N))[N:]
    np.testing.assert_allclose(row["nll"], nll)
    np.testing.assert_allclose(first["nll"], slots)
    above = paired(nll, slots)
    assert (first["entry"], row["entry"], first["above"]) == ("streaming", "H2O", 0.0)
    assert (row["above"], row["error"]) == pytest.approx((above.mean, above.error))
    assert row["gap 8"] == pytest.approx(np.mean(row["tasks"]["gap 8"])) and np.isnan(row["early"])
    assert row["bytes"] == first["bytes"] + 2 * N * 2 * 8  # a number for each token, layer and head
    assert "not measured (--names 0)" in policies.show([first, row])


def test_without_the_real_model_a_line_says_so(monkeypatch):
    monkeypatch.setattr(policies, "load", lambda name: (_ for _ in ()).throw(CheckpointError(f"{name}: not installed")))
    rows = list(policies.run(model_of(), IDS[:T], "", entries=("TOVA",), **QUICK | {"names": 2}))
    assert policies.show(rows).endswith("Names told and asked for: not measured (smollm2: not installed).")


@dataclass(frozen=True)
class Greedy(minisink.Policy):
    """One key too many, from some token on."""

    def survivors(self, token_index):
        return np.arange(max(0, len(token_index) - self.capacity - 1), len(token_index))


class Uncounted(Newest):
    """A softmax of its own."""

    def mix(self, *args, normalise, **options):
        return super().mix(*args, normalise=lambda scores: np.ones_like(scores) / scores.shape[-1], **options)


def test_who_sees_too_much_is_refused_at_its_token():
    model, measure = model_of(), partial(policies.measure, ids=IDS[:T], n_keys=N, n_sinks=1, jobs=())
    greedy = lambda model, n_keys, n_sinks: Greedy(n_sinks, n_keys - n_sinks)  # noqa: E731
    with pytest.raises(ValueError, match=r"^mine: in layer 0 token 16 sees 17 keys; 16 are allowed$"):
        measure("mine", greedy, model)
    with pytest.raises(ValueError, match="mine: its keys cannot be counted: call `normalise`"):
        measure("mine", Uncounted, model)
    with pytest.raises(ValueError, match="mine: ZeroDivisionError: division by zero"):
        measure("mine", lambda *_: 1 / 0, model)
    with pytest.raises(ValueError, match="mine: a method or a path must be returned"):
        measure("mine", lambda *_: None, model)
    with pytest.raises(ValueError, match="per-head: tiny has one key/value head"):
        measure("per-head", arena.PerHead, model_of(1))


def test_an_entry_of_your_own_is_one_more(tmp_path, capsys, monkeypatch):
    """The page's, as it stands there: a path by a function, and a policy that holds too much, refused by name."""
    monkeypatch.chdir(tmp_path)
    shown = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    parts = re.findall(
        r"^(?:import|from) .*|^(?:@dataclass.*\n)?(?:class|def) .*\n(?:(?: .*)?\n)*", shown, re.MULTILINE
    )
    code = "\n".join(part for part in parts if "sample_text" not in part)
    Path("mine.py").write_text(code, encoding="utf-8")
    options = "reproduce policies --fast --entries streaming --steps 1 --tokens 100 --own"
    assert main([*options.split(), "mine.py:heavy"]) == 0
    assert re.search(r"^heavy +\d", capsys.readouterr().out, re.MULTILINE)
    for own, message in (
        ("mine.py:Strided", "mine.py:Strided: in layer 0 token 35 sees 33 keys; 32 are allowed"),
        ("mine.py:Nothing", "there is no class or function Nothing in mine.py"),
        ("none.py:Mine", "none.py:Mine: FileNotFoundError"),
        ("Mine", "Mine is not an entry"),
    ):
        assert main([*options.split(), own]) == 2
        err = capsys.readouterr().err
        assert message in err and len(err.splitlines()) == 1
    assert main("reproduce policies --fast --keys 8".split()) == 2
    assert "--keys is 8; it must be a whole number of 16 or more" in capsys.readouterr().err


@pytest.mark.real
def test_names_are_told_where_they_are_asked_for(smollm2):
    """Each answer is the name that was told; the last one stands within reach of a small cache, the others do not."""
    from minisink.hf.shipped import sample_text

    asked = policies.tell(smollm2, sample_text().read_text("utf-8"), np.random.default_rng(0))
    names = [smollm2.decode(asked.ids[slice(*place)]).strip() for place in asked.needles]
    assert names == [smollm2.decode(asked.ids[slice(*place)]).strip() for place in asked.answers]
    assert {*names} <= {*policies.NAMES} and len({*names}) == 3
    early, middle, late = asked.back
    assert early > middle > 64 > late
