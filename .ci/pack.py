"""Pack the built pages for a release: ``python .ci/pack.py FOLDER FILE``.

Pages are much alike, so that one xz of all of them takes a quarter of what a wheel would make of each. Pictures of more
than 256 colours, which are few and have them from soft edges, are given the 256 nearest. What `minisink docs` makes
anew, and what only a debugger asks for, stays out.
"""

import io
import lzma
import sys
import zipfile
from pathlib import Path

from PIL import Image

LEFT_OUT = ("live.html", ".map", ".buildinfo")  # endings of names


def pack(folder, file):
    """Write all files of a folder to one, those that are alike beside each other."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as pages:
        for path in sorted(folder.rglob("*"), key=lambda path: (path.suffix, path)):
            if path.is_file() and not path.name.endswith(LEFT_OUT) and ".doctrees" not in path.parts:
                name = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # of a fixed date
                pages.writestr(name, picture(path) if path.suffix == ".png" else path.read_bytes())
    file.write_bytes(lzma.compress(packed.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def picture(path):
    """Return the bytes of a PNG with a palette, if they are fewer."""
    made = io.BytesIO()
    way = {"method": Image.Quantize.MAXCOVERAGE, "dither": Image.Dither.NONE}  # no dot is far from what it was
    Image.open(path).convert("RGB").quantize(256, **way).save(made, "PNG", optimize=True)
    return min(made.getvalue(), path.read_bytes(), key=len)


if __name__ == "__main__":
    pack(*map(Path, sys.argv[1:]))
