"""Errors that a user can act on: each message says what was got, what was expected, what to do."""


class BytelmError(Exception):
    """Base of every error that the command line prints without a traceback."""


class ConfigError(BytelmError):
    """A recipe, a flag or a stored configuration cannot be used."""


class DataError(BytelmError):
    """Input files are missing, unreadable, too short or changed while they were read."""


class CheckpointError(BytelmError):
    """A checkpoint or run directory is truncated, foreign, corrupt or cannot be written."""


class RunError(BytelmError):
    """A run cannot start or go on: locked, other settings, a loss that is not a number."""
