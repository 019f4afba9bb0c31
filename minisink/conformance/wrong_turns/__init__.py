"""Whole caches that take one wrong turn each, most of them seen in public code and reports.

`Cache` is right. Every other class overrides what it gets wrong, and its docstring is what `check` says of a cache that
answers as it does.
"""

from .chunks import EvictsFirst, NumberedOnce, OneLeaves, Overshoots, SeesAhead
from .heads import (
    Neighbours,
    NotRotated,
    OtherTheta,
    RotatesGPT2,
    ScaledTwice,
    Unscaled,
    ValuesToo,
    WrongGroup,
)
from .layers import OneForAll
from .positions import (
    Drift,
    HoledKeys,
    LateKey,
    LateQuery,
    OnePlace,
    QueryTooFar,
    RingOrder,
    RingOrderLast,
    RotatedTwice,
    ShiftedEarly,
    SinksFar,
    TextPositions,
    WrongWay,
)
from .right import Cache
from .tokens import (
    EmptySlots,
    HalfAtOnce,
    MaskedAfter,
    MinusZero,
    NoCopy,
    NoSinks,
    NothingLeaves,
    NotItself,
    OneLess,
    OneMore,
    SinksWithin,
    WindowAlone,
    ZeroSlot,
)

TOKENS: tuple[type[Cache], ...] = (OneMore, OneLess, NothingLeaves, NoSinks, WindowAlone, SinksWithin, HalfAtOnce)
TOKENS += (MinusZero, ZeroSlot, EmptySlots, NoCopy, NotItself, MaskedAfter)
POSITIONS: tuple[type[Cache], ...] = (TextPositions, HoledKeys, SinksFar, QueryTooFar, LateQuery, LateKey, OnePlace)
POSITIONS += (RingOrder, RingOrderLast, ShiftedEarly, WrongWay, RotatedTwice, Drift)
HEADS: tuple[type[Cache], ...] = (Neighbours, NotRotated, ValuesToo, OtherTheta, RotatesGPT2, WrongGroup)
HEADS += (Unscaled, ScaledTwice)
CHUNKS: tuple[type[Cache], ...] = (SeesAhead, Overshoots, OneLeaves, NumberedOnce, EvictsFirst)
WRONG_TURNS = (*TOKENS, *POSITIONS, *HEADS, OneForAll, *CHUNKS)
