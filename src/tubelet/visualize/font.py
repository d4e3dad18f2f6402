"""A bitmap font, so that captions need no drawing library: printable ASCII, at most 5 x 8 dots."""

from __future__ import annotations

import torch
from torch import Tensor

HEIGHT = 8  # dots; the last row is for the tails of g j p q y
SPACE = 3  # dots between words

# Each character and its rows from top to bottom, two hexadecimal digits a row: five dots, the highest bit on the left.
# Empty rows at the end are left out.
_GLYPHS = r"""
! 04040404040004   " 0A0A0A           # 0A0A1F0A1F0A0A   $ 040F140E051E04   % 18190204081303   & 0C12140815120D
' 040404           ( 02040808080402   ) 08040202020408   * 0004150E1504     + 0004041F0404     , 000000000C0C0408
- 0000001F         . 00000000000C0C   / 000102040810     0 06090909090906   1 040C040404040E   2 0E11010204081F
3 1F02040201110E   4 02060A121F0202   5 1F101E0101110E   6 0608101E11110E   7 1F010204080808   8 0E11110E11110E
9 0E11110F01020C   : 000C0C000C0C     ; 000C0C000C0408   < 02040810080402   = 00001F001F       > 08040201020408
? 0E110102040004   @ 0E11010D15150E   A 0E11111F111111   B 1E11111E11111E   C 0E11101010110E   D 1C12111111121C
E 1F10101E10101F   F 1F10101E101010   G 0E11101711110F   H 1111111F111111   I 0E04040404040E   J 0702020202120C
K 11121418141211   L 1010101010101F   M 111B1515111111   N 11111915131111   O 0E11111111110E   P 1E11111E101010
Q 0E11111115120D   R 1E11111E141211   S 0F10100E01011E   T 1F040404040404   U 1111111111110E   V 11111111110A04
W 1111111515150A   X 11110A040A1111   Y 1111110A040404   Z 1F01020408101F   [ 0E08080808080E   \ 001008040201
] 0E02020202020E   ^ 040A11           _ 0000000000001F   ` 0804             a 00000E010F110F   b 1010161911111E
c 00000E1010110E   d 01010D1311110F   e 00000E111F100E   f 0609081C080808   g 00000F11110F010E h 10101619111111
i 04000C0404040E   j 020006020202120C k 10101214181412   l 0C04040404040E   m 00001A15151111   n 00001619111111
o 00000E1111110E   p 00001E11111E1010 q 00000F11110F0101 r 00001619101010   s 00000E100E011E   t 08081C08080906
u 0000111111130D   v 00001111110A04   w 0000111115150A   x 0000110A040A11   y 00001111110F010E z 00001F0204081F
{ 02040408040402   | 04040404040404   } 08040402040408   ~ 00000815020000
"""


def text(line: str, scale: int = 2) -> Tensor:
    """The dots of a line: bool (8 scale, width). Other than printable ASCII becomes "?"."""
    columns = [part for character in line for part in (_glyph(character), _gap(1))]
    dots = torch.cat(columns[:-1] or [_gap(1)], dim=1)
    return dots.repeat_interleave(scale, 0).repeat_interleave(scale, 1)


def _glyph(character: str) -> Tensor:
    """bool (8, width): without the empty columns at its sides."""
    if character == " ":
        return _gap(SPACE - 1)
    dots = _FONT.get(character, _FONT["?"])
    used = dots.any(dim=0).nonzero()
    return dots[:, int(used[0]) : int(used[-1]) + 1]


def _gap(width: int) -> Tensor:
    return torch.zeros(HEIGHT, width, dtype=torch.bool)


def _font() -> dict[str, Tensor]:
    words = _GLYPHS.split()
    font = {}
    for character, rows in zip(words[0::2], words[1::2], strict=True):
        values = torch.tensor(list(bytes.fromhex(rows.ljust(2 * HEIGHT, "0"))))  # (8)
        font[character] = (values[:, None] >> torch.arange(4, -1, -1)) % 2 == 1  # (8, 5)
    return font


_FONT = _font()
