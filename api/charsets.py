"""Owns which charsets a text may come in: those that files have, by any of their names."""

import codecs
import re
from typing import Final

# Python has more under such names: some are no charsets, and some take their time by design.
_OF_TEXTS: Final = re.compile(
    r"ascii|utf-(8|16|32)(-[bl]e)?|iso8859-\d+|iso2022_\w+|cp\d+|koi8-[rtu]|mac-\w+|tis-620"
    r"|gb2312|gbk|gb18030|hz|big5(hkscs)?|shift_jis(_2004|x0213)?|euc_\w+|johab|ptcp154|kz1048"
)


def text_encoding(charset: str) -> str:
    """Return the name of Python's codec for a charset. Errors: LookupError for an unknown one."""
    try:
        name = codecs.lookup(charset).name
    except ValueError:
        raise LookupError(charset) from None
    if _OF_TEXTS.fullmatch(name) is None:
        raise LookupError(charset)
    return name
