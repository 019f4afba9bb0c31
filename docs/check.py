"""Find what built pages ask of another machine, and the links inside them that lead nowhere.

``python docs/check.py docs/_build/html`` prints what is wrong, a line each, and exits with 1 if there is anything. A
link that a reader may click leads where it likes; a script, style sheet, picture, font or frame that a page needs lies
beside it. (Sphinx's linkcheck and the package linkchecker follow links, and let a page need what is elsewhere.)
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

NEEDS = {"src", "srcset", "href", "xlink:href", "data", "poster", "background"}  # what a browser fetches by itself
CSS = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')]+)""")
SCRIPT = re.compile(r"""(?:\bimport|\bfrom|\bfetch|\bimportScripts|\.src\s*=)\s*\(?\s*["'`]((?:https?:)?//[^"'`]+)""")


class Page(HTMLParser):
    """What one page needs (`assets`), where its links lead (`links`), and where links may lead to (`anchors`)."""

    def __init__(self, html):
        super().__init__()
        self.assets, self.links, self.anchors, self.tag = [], [], set(), None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Note what the tag asks for."""
        self.tag = tag
        for name, value in ((name, value or "") for name, value in attrs):
            if name in ("id", "name"):
                self.anchors.add(value)
            elif tag in ("a", "area") and name == "href":
                self.links.append(value)
            elif name == "srcset" and not value.startswith("data:"):
                self.assets += [part.split()[0] for part in value.split(",")]
            elif name in NEEDS:
                self.assets.append(value)
            elif name == "style":
                self.assets += CSS.findall(value)
            elif tag == "meta" and name == "content":
                self.links += re.findall(r"^\d+; *url=(\S+)", value, re.IGNORECASE)

    def handle_data(self, data):
        """Read style sheets and scripts within the page."""
        if self.tag in ("style", "script"):
            self.assets += (CSS if self.tag == "style" else SCRIPT).findall(data)

    def handle_endtag(self, tag):
        """Leave a style sheet or script."""
        self.tag = None


def complaints(folder):
    """Return what is wrong with the pages of a folder, a line each."""
    folder = Path(folder).resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    if not pages:
        return [f"{folder}: no pages here"]
    targets = [(path, target, "asks for") for path, page in pages.items() for target in page.assets]
    targets += [(path, target, "links to") for path, page in pages.items() for target in page.links]
    for ending, pattern in ((".css", CSS), (".js", SCRIPT)):
        for path in folder.rglob(f"*{ending}"):
            targets += [(path, target, "asks for") for target in pattern.findall(path.read_text(encoding="utf-8"))]
    lines = set()
    for path, target, verb in targets:
        if wrong := complaint(folder, pages, path, target, verb):
            lines.add(f"{path.relative_to(folder).as_posix()} {verb} {target}, {wrong}")
    return sorted(lines)


def complaint(folder, pages, path, target, verb):
    """Return what is wrong with one target of a file, or None."""
    url = urlsplit(target)
    if url.scheme == "data" or (verb == "links to" and (url.scheme or url.netloc)):
        return None
    if url.scheme or url.netloc:
        return "which is not here"
    file = (path.parent / unquote(url.path)).resolve() if url.path else path
    if not file.is_relative_to(folder) or not file.is_file():
        return "and there is no such file"
    if url.fragment and file in pages and unquote(url.fragment) not in pages[file].anchors:
        return "and there is no such place on that page"
    return None


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/check.py FOLDER")
    lines = complaints(sys.argv[1])
    print("\n".join(lines) or "every link leads somewhere, and nothing is asked of another machine")
    sys.exit(bool(lines))
