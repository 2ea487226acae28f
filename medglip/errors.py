"""The exception tree of medglip; each message says who, what was found, what is allowed and what to do.

MedglipError            anything that medglip itself refuses; the command line prints it without a traceback
├── SourceError         a source's TOML, its layout or its label map is wrong (exit code 2)
├── InputError          a file or argument given by the user cannot be used (exit code 2)
├── RecordError         a record or region would not be valid (a converter's fault, or a broken dataset)
├── DatasetError        a dataset on disk is missing, broken or of another version (exit code 2)
└── ModelError          a checkpoint or configuration does not fit the model (exit code 2)
"""


class MedglipError(Exception):
    """Anything that medglip itself refuses."""

    exit_code = 2


class SourceError(MedglipError):
    """A source description (``datasets/*.toml``) is wrong, or a raw label has no place in the label tree."""


class InputError(MedglipError):
    """A file, folder or argument given by the user cannot be used."""


class RecordError(MedglipError):
    """A record would not be valid."""


class DatasetError(MedglipError):
    """A dataset on disk is missing, broken, or of another schema version."""


class ModelError(MedglipError):
    """A checkpoint, configuration or prompt does not fit the model."""
