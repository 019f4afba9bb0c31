"""Pack what a release carries: ``python .ci/pack.py pages FOLDER FILE``, ``python .ci/pack.py data CLONE``.

Pages are much alike, so that one xz of all of them takes a quarter of what a wheel would make of each. Pictures of more
than 256 colours, which are few and have them from soft edges, are given the 256 nearest. What `minisink docs` makes
again, and what only a debugger needs, is left out. Of the data of a clone, weights become an xz each, a sixth smaller,
and golden vectors leave out what `minisink.conformance.golden` makes again from the rest.
"""

import io
import lzma
import sys
import zipfile
from pathlib import Path

import numpy as np
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


def pack_data(clone):
    """Pack the weights and golden vectors of a clone in their places."""
    in_pairs = {"id": lzma.FILTER_LZMA2, "preset": 9, "lp": 1, "pb": 1}  # numbers of two bytes
    for path in sorted((clone / "weights").glob("*/model.safetensors")):
        path.with_name("model.safetensors.xz").write_bytes(lzma.compress(path.read_bytes(), filters=[in_pairs]))
        path.unlink()
    for path in sorted((clone / "minisink" / "conformance" / "vectors").glob("*.npz")):
        with np.load(path) as file:
            kept = {name: file[name] for name in file if "+" not in name or name.endswith(".losses")}
        np.savez_compressed(path, **kept)


if __name__ == "__main__":
    {"pages": pack, "data": pack_data}[sys.argv[1]](*map(Path, sys.argv[2:]))
