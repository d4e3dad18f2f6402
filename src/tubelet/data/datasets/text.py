"""Files of text, and the rows of a csv, read with a sentence for all that can be wrong with the file itself."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from tubelet.errors import TubeletError


def read_text(path: str | Path) -> str:
    """Raises TubeletError for what is not there, a folder, or no text."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise TubeletError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise TubeletError(f"{path}: a folder; a file is needed") from None
    except UnicodeDecodeError:
        raise TubeletError(f"{path}: not a file of text in UTF-8") from None
    except OSError as error:
        raise TubeletError(f"{path}: cannot be read ({error.strerror})") from None


def csv_rows(path: str | Path) -> list[tuple[int, list[str]]]:
    """(number of the line, cells without spaces around them) of each row that is not empty.

    Raises TubeletError for a file that `read_text` refuses, or a row that is none of a csv.
    """
    reader = csv.reader(io.StringIO(read_text(path)))
    try:
        return [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except csv.Error as error:
        raise TubeletError(f"{path}: line {reader.line_num} is no row of a csv ({error})") from None
