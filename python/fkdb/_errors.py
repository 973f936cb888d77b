# SPDX-License-Identifier: Apache-2.0
"""What fkdb raises: one class for each error code of the library. The message is one line: file, key, expected, got."""


class Error(Exception):
    """Of all of fkdb's."""

    code = "Error"

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class NotFoundError(Error, KeyError):
    """No such file, image or crop."""

    code = "NotFound"


class AlreadyExistsError(Error):
    """An output that would be overwritten."""

    code = "AlreadyExists"


class CorruptionError(Error):
    """Bytes that are not what they claim to be."""

    code = "Corruption"


class UnsupportedError(Error):
    """Written by a newer version, or a feature this version lacks."""

    code = "Unsupported"


class InvalidArgumentError(Error, ValueError):
    """The caller asked for something that makes no sense."""

    code = "InvalidArgument"


class IoError(Error):
    """The operating system refused a read or a write."""

    code = "IoError"


class ResourceExhaustedError(Error):
    """Disk full, out of memory, over a limit."""

    code = "ResourceExhausted"


class LockedError(Error):
    """Another writer is at work."""

    code = "Locked"


class IncompleteError(Error):
    """A `.partial` where a finished label set is needed."""

    code = "Incomplete"


class MismatchError(Error):
    """Label set and data set do not belong together."""

    code = "Mismatch"


class ModelError(Error):
    """A teacher gave NaN, or outputs that are not what they are said to be."""

    code = "Model"


class CudaError(Error):
    """The CUDA runtime reported an error."""

    code = "Cuda"
