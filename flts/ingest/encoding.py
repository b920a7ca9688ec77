"""Guess the encoding of a file by its first bytes, and convert the file to UTF-8 block by block."""

from __future__ import annotations

import codecs

from flts.errors import RejectedError

BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
WINDOWS = "windows-1252"


def utf16_of(start: bytes) -> str | None:
    """Return the byte order of UTF-16, if the first two bytes show it: by a mark, or by the NUL of an ASCII letter."""
    for mark, encoding in BYTE_ORDER_MARKS[1:]:
        if start.startswith(mark):
            return encoding
    if len(start) < 2 or (start[0] == 0) == (start[1] == 0):  # noqa: PLR2004 - one unit of UTF-16
        return None
    return "utf-16-be" if start[0] == 0 else "utf-16-le"


def guess_encoding(head: bytes) -> str:
    """Return the encoding of the first bytes of a file: UTF-8, UTF-16 or Windows-1252."""
    if encoding := utf16_of(head):
        return encoding
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return WINDOWS
    return "utf-8"


class ToUtf8:
    """Converts the blocks of a file to UTF-8.

    Parameters
    ----------
    encoding : str
        Of `guess_encoding` or of the setting ENCODING.
    guessed : bool
        Whether the encoding may still become Windows-1252: at the first byte that is not UTF-8, if no byte before it
        was outside of ASCII.
    """

    def __init__(self, encoding: str, *, guessed: bool, name: str) -> None:
        self.encoding = encoding
        self._name = name
        self._may_change = guessed and encoding == "utf-8"
        self._plain = codecs.lookup(encoding).name in {"utf-8", "ascii"}
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._at_start = True

    def convert(self, block: bytes, *, final: bool = False) -> bytes:
        """Return the next block in UTF-8, without a byte order mark.

        Raises
        ------
        RejectedError
            ``wrong_encoding`` if the bytes do not belong to the encoding.
        """
        if self._at_start:
            for mark, encoding in BYTE_ORDER_MARKS:
                if codecs.lookup(encoding).name == codecs.lookup(self.encoding).name:
                    block = block.removeprefix(mark)
            self._at_start = False
        pending = self._decoder.getstate()[0]
        if self._plain and not pending and block.isascii():
            return block
        try:
            return self._decoded(pending, block, final=final).encode()
        except UnicodeDecodeError as error:
            found = f"byte 0x{error.object[error.start]:02x} is not valid in {self.encoding}"
        except UnicodeError:
            found = f"the file is not text in {self.encoding}"
        msg = f"{found}; ENCODING names the encoding of the file (utf-8, utf-16, windows-1252, ...)"
        raise RejectedError(msg, code="wrong_encoding", field=self._name)

    def _decoded(self, pending: bytes, block: bytes, *, final: bool) -> str:
        try:
            text = self._decoder.decode(block, final)
        except UnicodeDecodeError:
            if not self._may_change:
                raise
            self.encoding, self._plain, self._may_change = WINDOWS, False, False
            self._decoder = codecs.getincrementaldecoder(WINDOWS)()
            return self._decoder.decode(pending + block, final)
        self._may_change = self._may_change and text.isascii()
        return text
