"""What an agent sees and does, as plain data: the spaces of Gymnasium without Gymnasium, to be saved and loaded."""

from steepest.spaces.comparison import brief, fits, is_squashed
from steepest.spaces.description import describe
from steepest.spaces.joint import Joint, Masked, MaskedForm, Space
from steepest.spaces.masking import choices, flat_mask, forbids_all, one_for_all, permitted, seen, seen_shape
from steepest.spaces.plain import Box, Discrete, MultiBinary, MultiDiscrete
from steepest.spaces.records import from_record, to_record

__all__ = [
    "Box",
    "Discrete",
    "Joint",
    "Masked",
    "MaskedForm",
    "MultiBinary",
    "MultiDiscrete",
    "Space",
    "brief",
    "choices",
    "describe",
    "fits",
    "flat_mask",
    "forbids_all",
    "from_record",
    "is_squashed",
    "one_for_all",
    "permitted",
    "seen",
    "seen_shape",
    "to_record",
]
