"""What an agent sees and does, as plain data: the spaces of Gymnasium without Gymnasium, to be saved and loaded."""

from steepest.spaces.comparison import brief, fits
from steepest.spaces.description import describe
from steepest.spaces.joint import Joint, Space
from steepest.spaces.plain import Box, Discrete, MultiBinary, MultiDiscrete
from steepest.spaces.records import from_record, to_record

__all__ = [
    "Box",
    "Discrete",
    "Joint",
    "MultiBinary",
    "MultiDiscrete",
    "Space",
    "brief",
    "describe",
    "fits",
    "from_record",
    "to_record",
]
