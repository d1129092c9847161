"""The errors of summit-graph: few, and each says what was wrong, where, and what to do.

`UsageError` is for what the caller asked for (the command line exits with 2), every other
`SummitGraphError` is for what happened on the way (exit code 1).
"""

from __future__ import annotations


class SummitGraphError(Exception):
    """Something went wrong that the message explains."""

    exit_code = 1


class UsageError(SummitGraphError):
    """The request cannot be carried out as it was made."""

    exit_code = 2


class UnknownLayer(UsageError):
    """A layer name or pattern matches nothing in the network."""


class UnknownClass(UsageError):
    """A class name matches no class of the atlas, or several."""


class UnknownNeuron(UsageError):
    """A neuron's name is malformed or names no neuron of the atlas."""


class ModelError(SummitGraphError):
    """A model, its weights or its preprocessing could not be loaded."""


class UnsupportedNetwork(SummitGraphError):
    """The network has an operation that the tracer has no rule for."""


class ImageError(SummitGraphError):
    """An image, or a source of images, could not be read."""


class AtlasError(SummitGraphError):
    """An atlas is missing, damaged, in use, or does not fit what was asked."""


class DatabaseError(SummitGraphError):
    """Neo4j cannot be reached, refuses, or does not hold what was asked for."""


class ServerError(SummitGraphError):
    """The local Neo4j server cannot be installed, started or stopped."""
