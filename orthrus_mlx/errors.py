"""The package's own exceptions: every message is one line that names the culprit and the way out."""


class OrthrusError(Exception):
    """Base of everything this package raises on purpose; the CLI prints it as one line."""


class CheckpointError(OrthrusError):
    """A checkpoint folder, its config, its tensors or its tokenizer cannot be used as they are."""


class ConfigError(CheckpointError):
    """A model setting is missing, contradictory or cannot be honoured."""


class RequestError(OrthrusError, ValueError):
    """A generation request asks for something impossible (a bad parameter, a prompt too long)."""


class TrainingError(OrthrusError):
    """A training run cannot start or continue (bad data, a foreign resume file, a diverged loss)."""


class BenchmarkError(OrthrusError):
    """A benchmark cannot start or continue, or its lanes emitted different tokens."""


class RanksError(OrthrusError):
    """The ranks of a job over several machines cannot start or work together."""
