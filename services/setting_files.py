"""Settings in files: `DATABASE_URL_FILE` names the file that holds DATABASE_URL, and so for all.

SettingFileError    a file can't be read, or its setting is also set directly
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from services.setup_errors import SetupError

_SUFFIX: Final = "_file"


class SettingFileError(SetupError):
    """A setting's file can't be read, or the setting is also set directly."""


def with_files(variables: Mapping[str, str | None], names: Iterable[str]) -> dict[str, str | None]:
    """Return the variables, in lower case, with those that a file holds filled in.

    A file's last line break does not count: editors and `echo` add one.
    Errors: SettingFileError.
    """
    filled = dict(variables)
    for name in map(str.lower, names):
        file = variables.get(name + _SUFFIX)
        if not file:
            continue
        if variables.get(name):
            raise SettingFileError(
                f"{name.upper()} and {name.upper()}{_SUFFIX.upper()} are both set. Set one of them."
            )
        filled[name] = _content(Path(file), f"{name.upper()}{_SUFFIX.upper()}")
    return filled


def _content(file: Path, variable: str) -> str:
    try:
        return file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    raise SettingFileError(f"The file {file} of {variable} can't be read: {reason}.")
