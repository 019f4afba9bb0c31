"""The page in a browser, offline, as a visitor has it: it shows what NumPy computes, and nothing breaks it."""

import json
import shutil

import pytest
from engine import DIGITS, differ

from minisink import Dense, Streaming, Window, generate, load
from minisink.live.page import MOST_TEXT, page
from minisink.live.page import sample as beginning
from minisink.live.steps import steps

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives a browser")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs an installed Chromium")]

TEXT = "It was a dark night, and the keeper of the light was old. "
HOSTILE = "<s></s><script>alert(1)</script><img src=x onerror=alert(1)> &amp; \"'` --> ]]>"
HOSTILE += " \U0001f469\u200d\U0001f467 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u202e abc \x00\x07"


@pytest.fixture(scope="module")
def novels():
    return load("novels", dtype="float64")


@pytest.fixture(scope="module")
def sample():
    return beginning(2000)


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, tmp_path):
    """Open a page from a file, without network; whatever goes wrong in it, or is asked of a network, fails the test."""
    wrong, contexts = [], []

    def open_page(html, link="", width=1024, height=768):
        (tmp_path / "page.html").write_text(html, encoding="utf-8", newline="\n")
        contexts.append(chromium.new_context(offline=True, viewport={"width": width, "height": height}))
        tab = contexts[-1].new_page()
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("dialog", lambda dialog: wrong.append(dialog.message))
        address = (tmp_path / "page.html").as_uri()
        tab.on("request", lambda request: wrong.append(request.url) if request.url.split("#")[0] != address else None)
        tab.goto(address + link)
        wait_until(tab, "'minisink' in window")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def wait_until(tab, expression):
    """Playwright's own waiting needs `eval`, which the page's policy forbids."""
    for _ in range(300):
        if tab.evaluate(expression):
            return
        tab.wait_for_timeout(100)
    raise AssertionError(f"not within 30 seconds: {expression}")


def state(tab):
    return tab.evaluate("minisink.state().lanes")


def last(model, ids, method):
    """Our step of the last token, as it would come back from JSON."""
    *_, step = steps(model, ids, method)
    return json.loads(json.dumps(step))


def test_200_steps_are_those_of_numpy(visit, novels, sample):
    """Both the contract and what stands on the page: tokens, places, positions, roles, what was evicted."""
    tab = visit(page(model=novels, text=sample), "#sinks=1&window=11")
    tab.evaluate("minisink.step(200)")
    ids = novels.encode(sample)[:201]
    for theirs, method in zip(state(tab), [Dense(), Window(12), Streaming(1, 11)], strict=True):
        ours = last(novels, ids, method)
        assert differ(ours, theirs, DIGITS) is None
        slots = tab.eval_on_selector_all(
            f"[data-lane={method.name}] .slot:not(.gap)",
            "all => all.map(e => [+e.dataset.slot, +e.dataset.token, +e.dataset.position, e.dataset.role])",
        )
        expected = [[i, s["token"], s["position"], s["role"]] for i, s in enumerate(ours["slots"])]
        assert slots == (expected[:1] + expected[-11:] if method == Dense() else expected)
    evicted = tab.inner_text("[data-lane=streaming] .gone li.just")
    assert evicted == novels.decode(ids[[201 - 12]]).replace(" ", "·").replace("\n", "⏎")


@pytest.mark.parametrize("name", ["novels-gpt2", "novels-softmax1", "novels-vanilla"])
def test_every_other_model_runs(visit, name, sample):
    model = load(name, dtype="float64")
    tab = visit(page(model=model, text=sample), "#sinks=2&window=6&t=300&lanes=dense,streaming")
    theirs = state(tab)[-1]
    assert differ(last(model, model.encode(sample)[:301], Streaming(2, 6)), theirs, DIGITS) is None
    ends = "256 learned positions" in tab.inner_text("[data-lane=dense] h2")
    assert ends == (name == "novels-gpt2")


def test_the_ring_of_an_engine(visit, novels, sample):
    """Window token t stands at s + (t - s) mod 2W."""
    tab = visit(page(model=novels, text=sample), "#sinks=1&window=5&positions=modulo&t=19&lanes=streaming")
    assert [s["position"] for s in state(tab)[0]["slots"]] == [0] + [1 + (t - 1) % 10 for t in range(15, 20)]


def test_by_keyboard_alone(visit, novels):
    tab = visit(page(model=novels, text=TEXT))
    t = lambda: state(tab)[0]["t"]  # noqa: E731
    assert t() == 0
    for _ in range(14):
        tab.keyboard.press("ArrowRight")
    assert t() == 14
    said = tab.inner_text("#say")
    before = state(tab)
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#say") != said
    tab.keyboard.press("ArrowLeft")
    assert (state(tab), tab.inner_text("#say")) == (before, said)
    tab.keyboard.press("Space")
    wait_until(tab, "minisink.state().lanes[0].t >= 16")
    tab.keyboard.press("Space")
    stopped = t()
    tab.wait_for_timeout(400)
    assert t() == stopped
    tab.keyboard.press("Home")
    assert t() == 0
    reached = set()
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.id"))
    assert reached >= {"text", "home", "step", "run", "write", "sinks", "window", "positions", "layer", "head", "quiz"}


def test_the_way_back_is_exact(visit, novels, sample):
    """From token 70 to token 62, past a copy of the lanes at 64."""
    tab = visit(page(model=novels, text=sample), "#t=62&lanes=streaming,retrieval&window=8")
    there = state(tab)
    tab.evaluate("minisink.step(8)")
    for _ in range(8):
        tab.keyboard.press("ArrowLeft")
    assert state(tab) == there


@pytest.mark.parametrize("width", [390, 1024, 1920])
def test_it_fits_a_telephone_and_a_projector(visit, novels, sample, width):
    """Nothing reaches beyond the width; on a projector all three lanes stand above the fold."""
    tab = visit(page(model=novels, text=sample), "#t=40", width=width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1024:
        assert tab.evaluate("document.querySelector('[data-lane=streaming]').getBoundingClientRect().bottom") <= 768


def test_typing_begins_anew_and_no_text_breaks_the_page(visit, novels):
    tab = visit(page(model=novels, text=HOSTILE))
    ids = novels.encode(HOSTILE)
    tab.evaluate("minisink.step(1000)")
    assert state(tab)[0]["t"] == len(ids) - 1
    assert tab.locator("main img, main s, main script, main style").count() == 0
    assert tab.inner_text("[data-lane=streaming] .slot >> nth=0").split("\n")[1] == "<s>"
    tab.fill("#text", "<s>" + TEXT)
    assert state(tab)[0]["t"] == 0
    tab.evaluate("minisink.step(2)")
    assert [tab.evaluate("minisink.state().lanes[0].slots.length"), state(tab)[0]["text"]] == [
        3,
        novels.decode(novels.encode("<s>", bos=False)[1:2]),
    ]
    tab.fill("#text", "x" * 100_000)
    assert f"100000 characters; the page reads the first {MOST_TEXT}" in tab.inner_text("#problem")
    said = tab.inner_text("#problem")
    tab.evaluate("for (const n of [2, 3]) { sinks.value = n; sinks.dispatchEvent(new Event('input')); }")
    assert tab.inner_text("#problem") == said  # once
    for lane in ("dense", "window", "streaming"):
        tab.uncheck(f"#lane-{lane}")
    assert state(tab) == [] and "Type a text" in tab.inner_text("#say")
    tab.check("#lane-streaming")
    tab.fill("#text", "")
    assert state(tab)[0]["text"] == "<s>"  # what begins a text


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("#window=abc", "window=abc"),
        ("#sinks=-1&t=3", "sinks=-1"),
        ("#layer=99", "layer=99"),
        ("#lanes=nobody", "lanes=nobody"),
        ("#<script>=1&__proto__=2&constructor=3", "<script>=1"),
        ("#t=99999999999", "t=99999999999"),
    ],
)
def test_a_link_with_nonsense_is_answered(visit, novels, link, said):
    tab = visit(page(model=novels, text=TEXT), link)
    assert said in tab.inner_text("#problem") and state(tab)[0]["window"] is None


def test_a_link_leads_to_the_same_moment(visit, novels, sample):
    html = page(model=novels, text=sample)
    tab = visit(html, "#sinks=2&window=7&t=33&head=all&positions=original")
    link = tab.get_attribute("#link", "href")
    assert state(visit(html, link)) == state(tab)


def test_the_quiz_asks_before_the_first_eviction(visit, novels, sample):
    tab = visit(page(model=novels, text=sample), "#sinks=1&window=5&quiz=1&t=4")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert state(tab)[0]["t"] == 5 and tab.is_visible("#ask")
    for field, value in (("slot", "1"), ("position", "6")):
        tab.fill(f"#ask-{field}", value)
    tab.select_option("#ask-lane", "window")
    tab.click("#ask button")
    lines = tab.inner_text("#answer").split("\n")
    assert lines[0] == "Right: slot 1 is evicted, the first after the sinks."
    assert lines[1] == "No, you said 6: the newest key gets position 5."
    assert state(tab)[0]["t"] == 6


def test_a_quiz_that_comes_too_late_says_so_and_its_box_takes_no_keys(visit, novels, sample):
    tab = visit(page(model=novels, text=sample), "#sinks=1&window=5&t=9")
    tab.click("#quiz")
    assert "start again" in tab.inner_text("#answer")
    tab.keyboard.press("ArrowRight")
    assert state(tab)[0]["t"] == 10


def test_what_streaming_has_lost_is_told_from_what_it_has_found(visit, novels, sample):
    """A head that puts nothing on the sink looks at something; dense shows whether streaming still holds it."""
    tab = visit(page(model=novels, text=sample), "#t=350&positions=original")
    seen = set()
    for _ in range(60):
        dense, _, streaming = state(tab)
        kept = {slot["token"] for slot in streaming["slots"]}
        lost = sum(w for t, w in enumerate(dense["pattern"][1][3]) if t not in kept)
        if streaming["pattern"][1][3][0] < 0.09 and abs(lost - 0.1) > 0.01:
            said = "on tokens that streaming has lost" in tab.inner_text("#say")
            assert said == (lost > 0.1)
            seen.add(said)
        tab.evaluate("minisink.step(1)")
    assert seen == {True, False}


def test_it_writes(visit, novels):
    """What is written are the greedy tokens of the lane, by NumPy too."""
    tab = visit(page(model=novels, text=TEXT), "#t=9&window=7&lanes=streaming")
    tab.select_option("#speed", "60")
    tab.click("#write")
    wait_until(tab, "minisink.state().lanes[0].t >= 30")
    tab.click("#run")  # which stops it
    written = state(tab)[0]
    expected = list(generate(novels, novels.encode(TEXT)[:10], Streaming(1, 7), max_new_tokens=written["t"] - 9))
    assert (written["id"], written["slots"][0]["token"]) == (expected[-1], 0)
    said = tab.inner_text("#say")
    assert "was written" in said and novels.decode(expected)[-20:].replace(" ", "·").replace("\n", "⏎") in said
    before = visit(page(model=novels, text=TEXT), "#t=9&window=7&lanes=streaming")
    assert tab.inner_text("#perplexity") == before.inner_text("#perplexity")  # what it writes is no text to judge it by


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda html: html.replace('minisink-step/1"', 'minisink-step/2"'), "do not have the schema"),
        (lambda html: html.replace('"steps": [{', '"steps": [{"slots": 3}, {'), "do not have the schema"),
    ],
)
def test_a_recorded_run_of_another_kind_is_answered(visit, novels, change, said):
    html = page(steps=[json.loads(json.dumps(step)) for step in steps(novels, [0, 5, 6], Window(2))])
    script = html.index('id="data"')  # the schema is named in the scripts too
    end = html.index("</script>", script)
    tab = visit(html[:script] + change(html[script:end]) + html[end:])
    assert said in tab.inner_text("#problem") and tab.is_visible("#problem")


def test_words_of_a_recorded_run_are_text(visit, novels):
    """The model's name and every token's text may hold anything."""
    runs = [json.loads(json.dumps(step)) for step in steps(novels, range(5, 12), Window(3))]
    word = "<img src=x onerror=alert(1)></script><s>{{data}}"
    for step in runs:
        step["text"] = step["model"] = step["top"][0]["text"] = word
    tab = visit(page(steps=runs), "#t=5")
    assert tab.locator("img, main s").count() == 0 and f"of {word}" in tab.inner_text("#model")
    assert tab.inner_text(".gone li.just") == tab.inner_text(".slot b >> nth=0") == word.replace(" ", "·")


def test_a_recorded_run_is_shown(visit, novels):
    """Without a model in the page; each file a lane."""
    ids = novels.encode(TEXT)
    runs = [json.loads(json.dumps(list(steps(novels, ids, method)))) for method in (Window(6), Streaming(2, 4))]
    html = page(steps=runs[0] + runs[1])
    assert len(html) < 2_000_000
    tab = visit(html, "#t=9")
    assert state(tab) == [runs[0][9], runs[1][9]]
    tab.keyboard.press("ArrowLeft")
    assert state(tab) == [runs[0][8], runs[1][8]] and tab.is_disabled("#text")
