"""The golden losses of trained models: four ways agree on them, and a whole engine's are compared with them.

The four: by_the_book, plain loops, on the first tokens of the text; the readable path, which recorded them, in chunks
of any size; the fast path; and the engine of the page, JavaScript.
"""

import itertools
import json
import shutil

import make_losses
import make_sink_logits
import numpy as np
import pytest
from threadpoolctl import threadpool_info

import minisink
from minisink import ByLayer, Dense, Recompute, Retrieval, conformance
from minisink import by_the_book as book
from minisink.conformance import texts
from minisink.evaluation.policies import Blockwise, HalfAtOnce
from minisink.live.page import pack
from minisink.loss import nll_blocks

with pytest.MonkeyPatch.context() as patch:  # its helpers import each other by their bare names
    patch.syspath_prepend(make_losses.Path(__file__).parents[1] / "live")
    from engine import LIVE, ask, needs_node

NATS = 1e-9  # between ways to compute in float64
BOOK = 60  # tokens that are read by the book
EVERY = pytest.mark.parametrize("name", conformance.TEXTS)
MOST = pytest.mark.parametrize("name", ["novels", *(pytest.param(x, marks=pytest.mark.slow) for x in texts.TEXTS[1:])])


def furthest(losses, recorded):
    """The largest difference to what is recorded of the first tokens, in nats."""
    return np.abs(losses - recorded.losses[: len(losses)]).max()


# Four ways ----------------------------------------------------------------------------------------


@MOST
def test_the_fast_path_has_these_losses(name):
    """Off by 7e-14 nats at most, of all methods that have a fast path; of novels the slow ones' first 120 tokens."""
    model = conformance.model(name)
    for recorded in conformance.losses(name):
        if not getattr(recorded.method, "is_plain", True):
            continue
        brief = name == "novels" and isinstance(recorded.method, Recompute | Retrieval)
        ids = recorded.ids[:120] if brief else recorded.ids
        assert furthest(minisink.token_nll(model, ids, recorded.method), recorded) < NATS, str(recorded)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "readable"), [("novels", True), ("novels-gpt2", True), *((name, False) for name in conformance.TEXTS)]
)
def test_they_do_not_depend_on_the_chunks(name, readable):
    """All that a file names on the fast path, where there is one; on the readable one seven. Recompute has none."""
    model = conformance.model(name)
    for recorded in conformance.losses(name):
        if isinstance(recorded.method, Recompute) or not (readable or recorded.method.is_plain):
            continue
        for chunk in (7,) if readable else recorded.chunks:
            blocks = nll_blocks(model, recorded.ids, recorded.method, chunk=chunk, readable=readable)
            assert furthest(np.concatenate(list(blocks)), recorded) < NATS, f"{recorded}, chunks of {chunk}"


def by_the_book(model, method, ids):
    """Losses by plain loops; what leaves is said once more here."""
    if isinstance(method, Recompute):
        return book.losses(book.recompute(ids, model.weights, model.config, method.window), ids)
    options = {} if isinstance(method, ByLayer) else {"positions": method.positions}
    if isinstance(method, Retrieval):
        options["bring_back"] = book.retrieve(method.n_blocks, method.block, method.window)
    if model.config.model_type == "gpt2":
        options["capacity"] = method.capacity
    return book.losses(book.decode(ids, model.weights, model.config, evict(method), **options), ids)


def evict(method):
    """A function that deletes from a list of (token_index, key, value) what leaves, as `book.evict` does."""
    if isinstance(method, ByLayer):
        each = itertools.cycle([evict(policy) for policy in method.policies])  # asked once a layer, in order
        return lambda kept: next(each)(kept)
    if isinstance(method, HalfAtOnce):
        return lambda kept: half_leaves(kept, method)
    if isinstance(method, Blockwise):
        return lambda kept: blocks_leave(kept, method)
    return book.nothing if method.window is None else book.evict(method.n_sinks, method.window)


def half_leaves(kept, method):
    if len(kept) > method.n_sinks + method.window:
        del kept[method.n_sinks : method.n_sinks + method.window // 2]


def blocks_leave(kept, method):
    newest = kept[-1][0]
    for token in list(kept):
        block = range(token[0] // method.block * method.block, (token[0] // method.block + 1) * method.block)
        if not any(t < method.n_sinks or newest - method.window < t for t in block):
            kept.remove(token)


@pytest.mark.slow
@EVERY
def test_the_book_has_these_losses(name):
    """Off by 2e-14 nats at most."""
    model = conformance.model(name)
    for recorded in conformance.losses(name):
        n = BOOK // 3 if isinstance(recorded.method, Recompute) else BOOK
        assert furthest(by_the_book(model, recorded.method, recorded.ids[:n]), recorded) < NATS, str(recorded)


SURVIVORS = "const stay = token_index.map((_, slot) => slot), S = stay.length;\n"
OTHERS = """
    const { n_sinks: s, window: W, block } = this, end = (t) => t - t % block + block;
    if (this.method === "halfatonce") return stay.filter((slot) => S <= s + W || slot < s || slot >= s + (W >> 1));
    const newest = token_index[S - 1], in_block = (t) => t - t % block < s || end(t) > newest - W + 1;
    if (this.method === "blockwise") return stay.filter((slot) => in_block(token_index[slot]));
"""
LAYERS = "() => new LayerCache(policy)"
FIRST_DENSE = '(_, i) => new LayerCache(i === 0 && policy.method === "by layer" ? Dense("slot") : policy)'


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """The scripts of the page, and three methods more that the page has not."""
    folder = shutil.copytree(LIVE, tmp_path_factory.mktemp("engine") / "live")
    script = (folder / "engine.mjs").read_text(encoding="utf-8")
    assert script.count(SURVIVORS) == script.count(LAYERS) == 1
    script = script.replace(SURVIVORS, SURVIVORS + OTHERS).replace(LAYERS, FIRST_DENSE)
    (folder / "engine.mjs").write_text(script, encoding="utf-8")
    return folder


def cases_of(recorded):
    """What the engine is asked: to read the text once, or each window of a text that is recomputed."""
    method, ids = recorded.method, recorded.ids.tolist()
    if isinstance(method, Recompute):
        dense = make_losses.state_of(Dense()) | {"method": "dense", "n_sinks": 0, "window": None}
        return [{"policy": dense, "ids": ids[max(0, t - method.window) : t + 1]} for t in range(1, 120)]
    policy = method.policies[-1] if isinstance(method, ByLayer) else method
    fields = make_losses.state_of(policy) | {"n_sinks": policy.n_sinks, "window": policy.window}
    return [{"policy": fields | {"method": method.name}, "ids": ids[:-1] if len(ids) == 257 else ids}]


@needs_node
@pytest.mark.slow
@EVERY
def test_the_page_s_engine_has_these_losses(name, engine):
    """Off by 7e-14 nats at most; of recomputed windows the first 119, and no more than a GPT-2 has positions."""
    model, every = conformance.model(name), conformance.losses(name)
    asked = [cases_of(recorded) for recorded in every]
    answers = iter(ask(pack(model), engine, cases=sum(asked, []))["cases"])
    for recorded, cases in zip(every, asked, strict=True):
        steps = [next(answers)["steps"] for _ in cases]
        losses = [each[-1] for each in steps] if isinstance(recorded.method, Recompute) else steps[0][1:]
        assert furthest(np.array(losses), recorded) < NATS, str(recorded)


# The files ----------------------------------------------------------------------------------------


@pytest.mark.slow
@EVERY
def test_the_script_makes_them_anew(name):
    """Integers and what a file says of itself to the letter, losses to 1e-10 nats."""
    (said, recorded), (about, made) = texts.read(name), make_losses.build(name)
    assert said == json.loads(json.dumps(about)) and set(recorded) == set(made)
    for each, array in made.items():
        assert (recorded[each].dtype, recorded[each].shape) == (array.dtype, array.shape)
        np.testing.assert_allclose(recorded[each], array, rtol=0, atol=0 if each == "ids" else 1e-10)


def test_they_are_plain_and_small():
    """At least twelve methods of each Llama, ids and losses only, 700 kB in all; theta is stated."""
    files = sorted(texts.FOLDER.glob("*.safetensors"))
    assert {file.stem for file in files} == {*texts.TEXTS, "gate"}
    assert sum(file.stat().st_size for file in files) < 700_000
    for name in texts.TEXTS:
        (about, arrays), every = texts.read(name), conformance.losses(name)
        assert about["config"]["vocab_size"] == 1024 and about["chunks"] == [1, 7, 64, 600]
        assert about["rope_theta"] == (None if name == "novels-gpt2" else 10000.0)
        assert set(arrays) == {"ids", *(f"{setting}.losses" for setting in about["settings"])}
        assert [recorded.setting for recorded in every] == list(about["settings"])
        assert len({str(recorded.method) for recorded in every}) == len(every) >= (11 if name == "novels-gpt2" else 20)
        for recorded in every:
            n = 257 if name == "novels-gpt2" and recorded.method == Dense() else 600
            assert len(recorded.ids) == n == len(recorded.losses) + 1 and recorded.losses.dtype == np.float64


# A layer with a gate ------------------------------------------------------------------------------


def test_the_gated_layer_is_what_the_book_says():
    """Attention by plain loops over what is left, and each channel of it times a sigmoid; learned, and drawn."""
    about, arrays = texts.read("gate")
    for size, theta in about["rope_theta"].items():
        n_sinks, window = map(int, size.split("+"))
        q, k, v, gate, out = (arrays[f"{size}.{name}"] for name in ("q", "k", "v", "gate", "out"))
        leave, kept = book.evict(n_sinks, window), []
        for t in range(len(q)):
            kept.append(t)
            leave(kept)
            places = range(len(kept)) if theta else [0] * len(kept)
            rates = book.frequencies(q.shape[-1], theta or 1.0)
            query = np.array([book.rotate(head, places[-1], rates) for head in q[t]])
            keys = np.array(
                [[book.rotate(head, place, rates) for head in k[i]] for i, place in zip(kept, places, strict=True)]
            )
            mixed, _ = book.attend(query[None], keys, v[kept], np.ones((1, len(kept)), bool))
            for head, channel in np.ndindex(out.shape[1:]):
                wanted = mixed[0, head, channel] / (1.0 + book.math.exp(-gate[t, head, channel]))
                assert abs(wanted - out[t, head, channel]) < 1e-12


def test_the_gated_head_has_learned_its_task():
    """Nothing comes home but at the trigger, token 12 of the text."""
    arrays = texts.read("gate")[1]
    size = np.abs(arrays["0+16.out"]).max(axis=(1, 2))
    assert size[12] > 0.5 and (np.delete(size, 12) < 1e-3).all()


AVX512 = {"SkylakeX", "Cooperlake", "SapphireRapids"}  # OpenBLAS's names


@pytest.mark.slow
def test_the_script_makes_the_gated_layer_anew():
    """A training multiplies what a matrix kernel rounds: to 1e-6 by those of AVX-512, as recorded, else to 1e-3."""
    atol = 1e-6 if {info.get("architecture") for info in threadpool_info()} & AVX512 else 1e-3
    (said, recorded), (about, made) = texts.read("gate"), make_losses.build_gate()
    assert said == json.loads(json.dumps(about)) and set(recorded) == set(made)
    for each, array in made.items():
        np.testing.assert_allclose(recorded[each], array, rtol=0, atol=atol, err_msg=each)


# Sink logits --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_sink_logits_are_those_that_their_script_trains():
    """To 1/64, the grid they are rounded to; the losses of the training fall."""
    found, losses = make_sink_logits.train()
    assert np.abs(found - make_losses.SINK_LOGITS).max() <= 1 / 64
    assert np.mean(losses[-50:]) < np.mean(losses[:50])


def test_sink_logits_matter():
    """They are another model than softmax1, from the second token on; all else of it is the same."""
    found, softmax1 = conformance.model("novels-sink-logit"), conformance.model("novels-softmax1")
    logits = [layer.sink_logits.tolist() for layer in found.weights.layers]
    assert logits == make_losses.SINK_LOGITS == texts.read("novels-sink-logit")[0]["sink_logits"]
    for name, array in softmax1.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], array)
    recorded = conformance.losses("novels-sink-logit")
    for ours, theirs in zip(recorded, conformance.losses("novels-softmax1"), strict=True):
        assert conformance.check_losses(theirs.losses, ours) == 1


# A whole engine -----------------------------------------------------------------------------------


@EVERY
def test_a_wrong_engine_is_found_at_the_token(name):
    for recorded in conformance.losses(name):
        for t in (1, 200, len(recorded.losses)):
            wrong = recorded.losses.copy()
            wrong[t - 1 :] += 1e-3
            assert conformance.check_losses(wrong, recorded) == t
    with pytest.raises(ValueError, match=r"losses have shape \(9,\); novels.* has \(599,\)"):
        conformance.check_losses(np.zeros(9), recorded)


@pytest.mark.slow
@EVERY
def test_single_precision_passes(name):
    """Off by 6.3e-6 of the largest loss at most, 1.5e-6 but for GPT-2, where 1e-5 is allowed."""
    model = texts.model(name, dtype="float32")
    for recorded in conformance.losses(name):
        losses = minisink.token_nll(model, recorded.ids, recorded.method)
        assert losses.dtype == np.float32 and conformance.check_losses(losses, recorded) is None, str(recorded)


def test_a_window_is_not_taken_for_sinks():
    """Where a method differs from another, so do its losses: no two of a model's settings pass for each other."""
    every = conformance.losses("novels")
    for ours, theirs in itertools.permutations(every, 2):
        token = conformance.check_losses(ours.losses, theirs)
        assert token is not None and token > 1, f"{ours.setting}, {theirs.setting}"


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'mistral'; there are golden losses of novels, novels-vanilla"):
        conformance.losses("mistral")
