"""Errors that a user can act on: each message says what was got, what was expected, what to do."""


class BytelmError(Exception):
    """Base of every error that the command line prints without a traceback."""

    exit_status = 1
    """What the command line exits with."""


class ConfigError(BytelmError):
    """A recipe, a flag or a stored configuration cannot be used."""


class DataError(BytelmError):
    """Input files are missing, unreadable, too short or changed while they were read."""


class CheckpointError(BytelmError):
    """A checkpoint or run directory is truncated, foreign, corrupt or cannot be written."""


class RunError(BytelmError):
    """A run cannot start or go on: locked, other settings, a loss that is not a number."""


class CompressionError(BytelmError):
    """Something cannot be compressed or decompressed."""


class NotAContainerError(CompressionError):
    """What should be decompressed is no `.blm` container."""

    exit_status = 3


class VersionError(CompressionError):
    """A container of a later version of the format."""

    exit_status = 4


class WrongModelError(CompressionError):
    """A container that another model made, or one that needs a model and none was given."""

    exit_status = 5


class EnvironmentMismatchError(CompressionError):
    """A container of the float profile that was made where the same model computes otherwise."""

    exit_status = 6


class DamagedError(CompressionError):
    """A container that is truncated, changed, or followed by bytes that are not its own."""

    exit_status = 7


class LimitError(CompressionError):
    """A container that claims more than the limits allow."""

    exit_status = 8
