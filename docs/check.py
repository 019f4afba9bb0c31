"""Reads built pages: nothing is asked of another machine, and every link inside leads somewhere.

``python docs/check.py docs/_build/html`` prints what is wrong, a line each, and exits with 1 if there is anything. A
link that a reader may click leads where it likes; a script, style sheet, picture, font or frame that a page needs lies
beside it.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

NEEDED = {  # what a browser asks for by itself
    "script": ["src"], "link": ["href"], "img": ["src", "srcset"], "source": ["src", "srcset"], "iframe": ["src"],
    "video": ["src", "poster"], "audio": ["src"], "track": ["src"], "embed": ["src"], "object": ["data"],
    "input": ["src"], "image": ["href", "xlink:href"], "use": ["href", "xlink:href"], "body": ["background"],
    "base": ["href"],
}  # fmt: skip
CSS = re.compile(r"""url\(\s*["']?([^"')]+)["']?\s*\)|@import\s+["']([^"']+)["']""")
SCRIPT = re.compile(
    r"""(?:\bimport\b|\bfrom\b|\bfetch\b|\bimportScripts\b|\.src\s*=)\s*\(?\s*["'`]((?:https?:)?//[^"'`]+)"""
)


class Page(HTMLParser):
    """What one page needs (`assets`), where its links lead (`links`), and where links may lead to (`places`)."""

    def __init__(self, html):
        super().__init__()
        self.assets, self.links, self.places, self._inside = [], [], set(), None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Note what the tag asks for."""
        attrs = {name: value or "" for name, value in attrs}
        self.places |= {attrs[name] for name in ("id", "name") if name in attrs}
        for name in NEEDED.get(tag, ()):
            if name in attrs:
                parts = (
                    attrs[name].split(",")
                    if name == "srcset" and not attrs[name].startswith("data:")
                    else [attrs[name]]
                )
                self.assets += [part.split()[0] if name == "srcset" else part for part in parts if part.strip()]
        if tag in ("a", "area") and "href" in attrs:
            self.links.append(attrs["href"])
        if tag == "meta" and attrs.get("http-equiv", "").lower() == "refresh":
            self.links += re.findall(r"url=(\S+)", attrs.get("content", ""), re.IGNORECASE)
        self.assets += in_css(attrs.get("style", ""))
        self._inside = tag

    def handle_endtag(self, tag):
        """Leave what the text was in."""
        self._inside = None

    def handle_data(self, data):
        """Style sheets and scripts within the page."""
        if self._inside == "style":
            self.assets += in_css(data)
        elif self._inside == "script":
            self.assets += SCRIPT.findall(data)


def in_css(text):
    """What a style sheet asks for."""
    return [one or other for one, other in CSS.findall(text)]


def complaints(folder):
    """What is wrong with the pages of a folder, a line each."""
    folder = Path(folder).resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    asked = [(path, target, "asks for") for path, page in pages.items() for target in page.assets]
    asked += [(path, target, "links to") for path, page in pages.items() for target in page.links]
    for path in sorted(folder.rglob("*.css")):
        asked += [(path, target, "asks for") for target in in_css(path.read_text(encoding="utf-8"))]
    for path in sorted(folder.rglob("*.js")):
        asked += [(path, target, "asks for") for target in SCRIPT.findall(path.read_text(encoding="utf-8"))]
    if not pages:
        return [f"{folder}: no pages here"]
    found = [_complaint(folder, pages, *one) for one in asked]
    return sorted({line for line in found if line})


def _complaint(folder, pages, path, target, verb):
    where = f"{path.relative_to(folder).as_posix()} {verb} {target}"
    url = urlsplit(target)
    if url.scheme == "data" or (verb == "links to" and (url.scheme or url.netloc)):
        return None
    if url.scheme or url.netloc:
        return f"{where}, which is not here"
    bare, place = urldefrag(target)
    file = (path.parent / unquote(urlsplit(bare).path)).resolve() if bare.split("?")[0] else path
    if not file.is_relative_to(folder) or not file.is_file():
        return f"{where}, and there is no such file"
    if place and file in pages and unquote(place) not in pages[file].places:
        return f"{where}, and there is no such place on that page"
    return None


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/check.py FOLDER")
    lines = complaints(sys.argv[1])
    print("\n".join(lines) or "every link leads somewhere, and nothing is asked of another machine")
    sys.exit(bool(lines))
