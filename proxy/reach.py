"""The word for how far a call may reach: which addresses may be dialled for its destination."""

from __future__ import annotations

from enum import Enum


class Reach(Enum):
    """Which addresses may be dialled for a destination (see network.py).

    `REGISTERED`: the admin wrote exactly this destination, so it may be private or loopback.
    """

    PUBLIC = "public"
    REGISTERED = "registered"
