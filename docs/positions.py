"""Draw docs/positions.png: how a key's distance changes its score under each encoding.

``python docs/positions.py`` writes it (to ``docs/positions.png``, or to the path in the first argument). Query and key
are 64 ones, so without positions the score is 8 at every distance.
"""

import sys
from pathlib import Path

import numpy as np

from minisink.attention import score
from minisink.positions import Rotary, Slopes, alibi_slopes, bias_of, rope_frequencies, unrotated
from minisink.system.plots import BLACK, GREY, PALETTE, name_lines, picture

D, H, FAR, CACHE = 64, 8, 128, 64
SLOPES = alibi_slopes(H)
CURVES = {
    "learned, none": unrotated,
    "a quarter rotates": Rotary(rope_frequencies(D // 4)),
    "rotary": Rotary(rope_frequencies(D)),
    "ALiBi, head 8": Slopes(SLOPES[7:]),
    "ALiBi, head 5": Slopes(SLOPES[4:5]),
    "ALiBi, head 3": Slopes(SLOPES[2:3]),
}


def curve(encoding):  # -> (FAR,)
    """Return the score of a key at each distance from its query, whose position is 127."""
    places, ones = np.arange(FAR)[::-1], np.ones((FAR, 1, D))
    scores = score(encoding(ones[:1], places[:1]), encoding(ones, places))[0, 0]
    bias = bias_of(encoding, places[:1], places, like=scores)
    return scores if bias is None else scores + bias[0, 0]


def draw(path):
    """Draw a line for each encoding, with its name at the end of the line."""
    lost = curve(CURVES["ALiBi, head 3"])[0] - curve(CURVES["ALiBi, head 3"])[[CACHE - 1, FAR - 1]]
    title = f"A rotated score oscillates with distance; ALiBi's keeps falling. Head 3 subtracts {lost[0]:.1f} at 63 "
    title += f"and {lost[1]:.1f} at 127, but no key in a 64-key cache is farther away than 63"
    caption = "$ python docs/positions.py: query and key are 64 ones, 8 heads; a 64-key cache ends at the dotted line"
    with picture(path, title, caption) as figure:
        axes = figure.subplots()
        for (name, encoding), colour in zip(CURVES.items(), (BLACK, *PALETTE), strict=False):
            axes.plot(curve(encoding), label=name, color=colour)
        axes.axvline(CACHE - 1, color=GREY, linestyle=":", label="_cache")
        axes.set(xlabel="distance of the key, in positions", ylabel="score (nats)", xlim=(0, FAR - 1))
        name_lines(axes)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("positions.png"))
