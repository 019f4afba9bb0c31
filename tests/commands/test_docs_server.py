"""The pages are served on this machine, for this machine, and nothing but the pages."""

import importlib.util
import io
import os
import shlex
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minisink.commands import docs
from minisink.commands.parser import main


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A folder of pages, in a folder with a secret; a link leads from one to the other."""
    house = tmp_path_factory.mktemp("house")
    pages = house / "pages"
    (pages / "sub" / "deep").mkdir(parents=True)
    (house / "pages-secret").mkdir()
    for name in ("index.html", "sub/index.html", "a b.html", "site.css"):
        (pages / name).write_text(f"page {name}", encoding="utf-8")
    for name in ("secret.html", "pages-secret/index.html"):
        (house / name).write_text("secret", encoding="utf-8")
    links = {
        "out.html": house / "secret.html",
        "out": house,
        "beside": house / "pages-secret",
        "round.html": "round.html",
    }
    links |= {"device.html": "/dev/zero", "leaking/index.html": house / "secret.html"}
    for folder in ("piped", "leaking"):
        (pages / folder).mkdir()
    for name, target in links.items():
        (pages / name).symlink_to(target)
    os.mkfifo(pages / "pipe.html")
    os.mkfifo(pages / "piped" / "index.html")
    os.mknod(pages / "socket.html", stat.S_IFSOCK | 0o600)
    return house


@contextmanager
def running(folder):
    with docs.server_of(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def port(house):
    with running(house / "pages") as server:
        yield server.server_port


def ask(port, path, method="GET"):
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


PAGES = {"/": "index.html", "/index.html?q=sink#place": "index.html", "/sub/": "sub/index.html"}
PAGES |= {"/a%20b.html": "a b.html", "/sub/../site.css": "site.css"}


@pytest.mark.parametrize(("path", "page"), PAGES.items())
def test_a_page_is_given_as_it_is(port, path, page):
    status, body, headers = ask(port, path)
    kind = f"text/{page.rpartition('.')[2]}"
    assert (status, body.decode(), headers.get_content_type()) == (200, f"page {page}", kind)
    assert ask(port, path, "HEAD")[:2] == (200, b"")


@pytest.mark.parametrize("path", ["/nope.html", "/sub/deep/", "/index.html/", "/%00", "/a%00b", "/" + "x" * 5000])
def test_what_is_no_page_is_not_found(port, path):
    """A folder without an index among them: there are no lists of files."""
    status, body, _ = ask(port, path)
    assert status == 404 and b"secret" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_sent(port, method):
    assert ask(port, "/index.html", method)[0] == 501


STEPS = ["", *"sub out out.html round.html secret.html pages-secret .. %2e%2e . ..%2f %5c.. ~ C:".split()]


@given(steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=6), last=st.sampled_from(["", "/", "/secret.html"]))
def test_no_path_leaves_the_folder(port, steps, last):
    """However a path is put together, by dots, escapes or links, what lies outside is never given."""
    status, body, headers = ask(port, "/" + "/".join(steps) + last)
    assert status in (200, 301, 404) and b"secret" not in body.replace(b"secret.html", b"")
    assert status != 200 or body.startswith(b"page ")
    assert not headers.get("Location", "/").startswith("//")


@pytest.mark.parametrize(
    "path", ["/pipe.html", "/piped/", "/piped/index.html", "/socket.html", "/device.html", "/leaking/"]
)
def test_what_would_wait_or_leak_is_not_found(house, port, path):
    """A pipe, a socket, a device, as a page or as the index of a folder; an index that leads out. Nobody waits."""
    assert ask(port, path)[0] == 404


@pytest.mark.parametrize("path", ["/out.html", "/out/secret.html", "/out/", "/beside/", "/round.html"])
def test_a_link_that_leads_out_is_not_found(port, path):
    assert ask(port, path)[0] == 404


def test_a_browser_that_goes_away_is_no_news(house, capfd):
    """It is reset in the middle of a large answer; the next one is served."""
    large = house / "pages" / "large.html"
    large.write_bytes(bytes(1 << 24))
    with running(house / "pages") as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.server_port)) as gone:
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                gone.sendall(b"GET /large.html HTTP/1.0\r\n\r\n")
                gone.recv(10)
        assert ask(server.server_port, "/")[0] == 200
        for thread in threading.enumerate():
            if "process_request" in thread.name:
                thread.join(10)
    large.unlink()
    assert capfd.readouterr().err == ""


def test_it_listens_on_this_machine_alone(house):
    """The address is the loopback one, so another machine cannot come in by any other."""
    with docs.server_of(house / "pages") as server:
        assert server.socket.getsockname() == ("127.0.0.1", server.server_port)


def test_a_port_that_is_taken_is_said_so(house, capsys, monkeypatch):
    monkeypatch.setattr(docs, "site", lambda: house / "pages")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["docs", "--port", str(port), "--no-browser"]) == 2
    err = capsys.readouterr().err
    assert f"--port {port}" in err and "without --port" in err and err.count("\n") == 1


@pytest.mark.parametrize("number", ["-1", "65536", "99999999999999999999"])
def test_a_port_that_is_none_is_said_so(capsys, number):
    assert main(["docs", "--port", number]) == 2
    err = capsys.readouterr().err
    assert f"--port is {number}" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("in_a_clone", "says"), [(True, "not built yet; this builds them in a minute: cd "), (False, "unlike a release's")]
)
def test_without_pages_it_says_how_to_build_them(tmp_path, monkeypatch, capsys, in_a_clone, says):
    monkeypatch.setattr(docs, "__file__", str(tmp_path / "minisink" / "commands" / "docs.py"))
    if in_a_clone:
        (tmp_path / "docs").mkdir()
        (tmp_path / "docs" / "conf.py").touch()
    assert main(["docs", "--no-browser"]) == 2
    err = capsys.readouterr().err
    assert says in err and docs.BUILD in err and err.count("\n") == 1
    if in_a_clone:  # a line to paste: where, and with which Python
        cd, install, build = err.rstrip().partition("a minute: ")[2].split(" && ")
        assert shlex.split(cd) == ["cd", str(tmp_path)]
        assert shlex.split(install) == [sys.executable, *"-m pip install -e .[docs]".split()]
        assert shlex.split(build) == [sys.executable, *docs.BUILD.split()]


@pytest.mark.parametrize(("in_a_clone", "there"), [(True, "docs/_build/html"), (False, "minisink/site.zip.xz")])
def test_the_pages_are_found_in_a_clone_and_in_a_wheel(tmp_path, monkeypatch, in_a_clone, there):
    """A clone's own pages count there, whatever an older release left in the package."""
    monkeypatch.setattr(docs, "__file__", str(tmp_path / "minisink" / "commands" / "docs.py"))
    (tmp_path / "minisink").mkdir()
    (tmp_path / "minisink" / "site.zip.xz").touch()
    if in_a_clone:
        (tmp_path / there).mkdir(parents=True)
        (tmp_path / there / "index.html").touch()
        (tmp_path / "docs" / "conf.py").touch()
    assert docs.site() == tmp_path / there
    with docs.unpacked(tmp_path) as folder:  # a folder is served where it lies
        assert folder == tmp_path


@pytest.fixture(scope="module")
def pack():
    """The script of a release that packs the pages."""
    pytest.importorskip("PIL", reason="comes with matplotlib")
    spec = importlib.util.spec_from_file_location("pack", Path(__file__).parents[2] / ".ci" / "pack.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_of_a_release_come_out_as_they_went_in(pack, tmp_path):
    """With the page of minisink live, which they went without; and nothing is left behind."""
    pages = {"index.html": "<p>é", "sub/a b.html": "there", "live.html": "old", "a.map": "{}", ".doctrees/a": "x"}
    for name, text in pages.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    pack.pack(tmp_path, tmp_path / "site.zip.xz")
    with docs.unpacked(tmp_path / "site.zip.xz") as folder:
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert there == {"index.html", "sub/a b.html", "live.html"}
        assert (folder / "index.html").read_text(encoding="utf-8") == "<p>é"
        assert (folder / "live.html").stat().st_size > 2_000_000
    assert not folder.exists()


def test_a_picture_is_packed_in_fewer_colours_and_looks_the_same(pack, tmp_path):
    """Each channel of each dot within 16 of 255; one that would grow stays as it is."""
    shade = np.random.default_rng(0).random((99, 99, 1))
    dots = np.round(shade * [31, 119, 180] + (1 - shade) * [255, 255, 255]).astype(np.uint8)
    Image.fromarray(dots).save(tmp_path / "soft.png")
    packed = pack.picture(tmp_path / "soft.png")
    off = np.abs(np.asarray(Image.open(io.BytesIO(packed)).convert("RGB")).astype(int) - dots)
    assert off.max() <= 16 and len(packed) < (tmp_path / "soft.png").stat().st_size
    (tmp_path / "small.png").write_bytes(packed)
    assert pack.picture(tmp_path / "small.png") == packed


@pytest.mark.slow
@pytest.mark.usefixtures("interrupts_arrive")
@pytest.mark.parametrize("browser", [True, False])
def test_it_prints_its_address_opens_a_browser_and_ends_at_ctrl_c(house, tmp_path, browser):
    """A whole program: one line, pages, and status 0 with nothing left behind."""
    opened = tmp_path / "opened"
    code = (
        "import sys, webbrowser; from minisink.commands import docs, parser; from pathlib import Path\n"
        "docs.site = lambda: Path(sys.argv[1]); webbrowser.open = Path(sys.argv[2]).write_text\n"
        "sys.exit(parser.main(['docs', *sys.argv[3:]]))"
    )
    argv = [sys.executable, "-c", code, str(house / "pages"), str(opened), *([] if browser else ["--no-browser"])]
    run = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    try:
        line = run.stdout.readline()
        address = line.split()[0]
        assert ask(int(address.rstrip("/").rpartition(":")[2]), "/")[0] == 200
        until = time.monotonic() + 30
        while browser and not (opened.is_file() and opened.read_text(encoding="utf-8")):
            assert run.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=30)
    finally:
        run.kill()
        run.communicate()
    assert (run.returncode, out, err.strip()) == (0, "", "")
    assert address.startswith("http://127.0.0.1:") and line.count("\n") == 1
    assert opened.exists() == browser and (not browser or opened.read_text(encoding="utf-8") == address)
