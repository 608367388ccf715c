"""Draw the pictures of docs/kernels.md: python docs/pictures/kernels.py"""

from __future__ import annotations

from html import escape
from pathlib import Path

HERE = Path(__file__).parent
BLUE, ORANGE, GREEN, GREY = "#9fa8da", "#ffb74d", "#81c784", "#eceff1"
INK = "#263238"


class Drawing:
    """An SVG of boxes, arrows and words; units are pixels at full width."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.parts: list[str] = []

    def box(self, x: float, y: float, w: float, h: float, fill: str = "none", line: float = 1):
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" fill="{fill}" '
            f'stroke="{INK}" stroke-width="{line:g}"/>'
        )

    def grid(self, x: float, y: float, cols: int, rows: int, w: float, h: float, fill: str = GREY):
        for row in range(rows):
            for col in range(cols):
                self.box(x + col * w, y + row * h, w, h, fill, 0.6)

    def text(self, x: float, y: float, words: str, size: int = 14, middle: bool = False):
        anchor = ' text-anchor="middle"' if middle else ""
        for i, line in enumerate(words.split("\n")):
            self.parts.append(
                f'<text x="{x:g}" y="{y + i * size * 1.3:g}" font-size="{size}"{anchor}>'
                f"{escape(line)}</text>"
            )

    def arrow(self, x1: float, y1: float, x2: float, y2: float, dashed: bool = False):
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<path d="M{x1:g} {y1:g} L{x2:g} {y2:g}" stroke="{INK}" stroke-width="1.4" '
            f'fill="none" marker-end="url(#tip)"{dash}/>'
        )

    def save(self, name: str, title: str) -> None:
        tip = (
            '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="{INK}"/></marker>'
        )
        body = "\n".join(self.parts)
        (HERE / f"{name}.svg").write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" fill="{INK}" '
            f'font-family="system-ui, DejaVu Sans, sans-serif">\n<title>{escape(title)}</title>\n'
            f"<defs>{tip}</defs>\n{body}\n</svg>\n",
            encoding="utf-8",
        )


def walk() -> None:
    d = Drawing(720, 330)
    d.text(285, 20, "labels K (M, d)", middle=True)
    d.grid(120, 30, 12, 1, 27.5, 24, BLUE)
    d.text(8, 180, "queries\nQ (B, d)")
    d.grid(82, 70, 1, 6, 26, 36, BLUE)
    d.grid(120, 70, 12, 6, 27.5, 36)
    d.box(120, 142, 165, 36, ORANGE, 1.6)
    d.box(285, 142, 165, 36, GREEN, 1.6)
    d.box(202.5, 142, 27.5, 36, "#fff", 2.2)
    d.arrow(232, 160, 280, 160)
    d.arrow(397, 160, 445, 160)
    d.text(285, 306, "S: one tile at a time, forgotten at once", middle=True)
    d.arrow(216, 215, 216, 181)
    d.box(128, 216, 178, 62, "#fff")
    d.text(
        136, 234, "tile = Q_i K_jᵀ in registers\nrow maxima, then only\nwhere they say so: more", 12
    )
    d.text(490, 76, "one program:\na block of queries,\na range of labels (split)")
    d.arrow(452, 160, 486, 160)
    d.box(490, 142, 60, 36, ORANGE)
    d.box(550, 142, 60, 36, GREEN)
    d.text(490, 198, "a few numbers per row\nand split", 13)
    d.arrow(550, 224, 550, 252)
    d.box(490, 256, 120, 30, "#fff")
    d.text(550, 276, "merge splits", 13, True)
    d.save("walk", "A program walks over the tiles of its rows and keeps a few numbers per row")


def hardest() -> None:
    d = Drawing(720, 300)
    d.text(14, 22, "1  the walk stores one maximum per row and group of columns")
    values = [
        [".31", ".72", ".10", ".44", ".68", ".05"],
        [".12", ".20", ".81", ".33", ".15", ".79"],
    ]
    best = [(1, 4), (2, 5)]
    for row in range(2):
        for col in range(6):
            d.box(40 + col * 62, 36 + row * 30, 62, 30, ORANGE if col in best[row] else GREY)
            d.text(71 + col * 62, 56 + row * 30, values[row][col], 13, True)
    d.text(14, 56, "a", 13)
    d.text(14, 86, "b", 13)
    d.text(
        440, 56, "2  k = 2: the two best groups of each row\n   hold its two hardest negatives", 13
    )
    for col, row in ((1, "a"), (2, "b"), (4, "a"), (5, "b")):
        x = 40 + col * 62
        d.arrow(x + 31, 98, x + 31, 118)
        d.box(x, 122, 62, 30, ORANGE)
        d.text(x + 31, 142, f"row {row}", 13, True)
    d.text(440, 134, "at most k candidates\nfrom each of the k groups", 13)
    d.text(14, 178, "3  each group lists the rows that want it, and multiplies those again")
    d.text(14, 228, "4  a row's k × k candidates in order: score, then smaller label")
    for i, words in enumerate(("a: .72  .68", "b: .81  .79")):
        d.box(40 + i * 150, 242, 130, 30, GREEN)
        d.text(105 + i * 150, 262, words, 13, True)
    d.save("hardest", "The k hardest negatives from maxima of groups of columns")


def one_pass() -> None:
    d = Drawing(720, 300)
    d.text(20, 24, "a chunk of rows, all labels")
    d.grid(20, 36, 1, 3, 34, 30, BLUE)
    d.text(37, 150, "Q", 14, True)
    d.text(64, 86, "×", 18)
    d.grid(84, 66, 6, 1, 26, 30, BLUE)
    d.text(162, 118, "Kᵀ", 14, True)
    d.arrow(246, 81, 286, 81)
    d.grid(292, 36, 7, 3, 30, 30, ORANGE)
    d.text(397, 150, "E = exp(z − reference)\nin the workspace (bf16)", 13, True)
    d.arrow(506, 81, 540, 81)
    d.grid(546, 36, 1, 3, 40, 30, GREEN)
    d.text(596, 60, "row sums A,\nknown when the\nrow is complete", 13)
    d.text(20, 214, "then, from the same E:", 14)
    d.box(20, 228, 300, 50, "#fff")
    d.text(32, 250, "dQ += f · (E K)\nf = 1/(τ A) scales the rows of the result", 13)
    d.box(340, 228, 360, 50, "#fff")
    d.text(352, 250, "dK += Eᵀ · (f Q)\nf scales the small operand before the product", 13)
    d.arrow(360, 178, 200, 226)
    d.arrow(430, 178, 500, 226)
    d.save(
        "one-pass",
        "Softmax forward and backward from exponentials that are kept for a chunk of rows",
    )


def active() -> None:
    d = Drawing(720, 300)
    d.text(20, 22, "1  the walk packs s ≥ m⁻ into bits")
    bits = {(0, 2), (1, 9), (2, 2), (3, 9), (3, 10)}
    for row in range(4):
        for col in range(12):
            on = (row, col) in bits
            d.box(20 + col * 22, 34 + row * 22, 22, 22, ORANGE if on else GREY, 0.6)
    d.text(152, 142, "B × M bits, zeros included", 13, True)
    d.arrow(290, 78, 326, 78)
    d.text(334, 22, "2  labels that a block of rows needs")
    d.box(334, 34, 120, 30, GREEN)
    d.text(394, 54, "2, 9, 10", 14, True)
    d.text(
        334,
        90,
        "read off the bits: no sort, no atomics;\na list of more than half of its part\nis not used: the whole part is taken",
        13,
    )
    d.text(20, 186, "3  a product over the listed rows only")
    d.grid(20, 200, 3, 4, 22, 16, ORANGE)
    d.text(96, 238, "×", 18)
    d.grid(118, 208, 7, 3, 22, 16, BLUE)
    d.text(282, 238, "=", 18)
    d.grid(306, 200, 7, 4, 22, 16, GREEN)
    d.text(53, 284, "bits → 0/1", 13, True)
    d.text(195, 284, "K[2, 9, 10]", 13, True)
    d.text(383, 284, "dQ of the block, times one scalar", 13, True)
    d.text(510, 224, "dK likewise, with lists\nof rows; exact at\nevery density", 13)
    d.save(
        "active", "Active pairs as bits, lists of labels per block of rows, and a product over them"
    )


def dense() -> None:
    d = Drawing(720, 270)
    d.grid(20, 40, 8, 8, 24, 20)
    for row in (2, 3):
        d.grid(20, 40 + row * 20, 8, 1, 24, 20, ORANGE)
    d.text(116, 26, "S, never whole", 13, True)
    d.arrow(216, 100, 262, 100)
    d.text(268, 60, "a chunk: the tile again, and the\nformula of dL/ds in registers", 13)
    d.grid(268, 84, 8, 2, 24, 20, ORANGE)
    d.text(364, 146, "G in the workspace (256 MiB at most)", 13, True)
    d.arrow(350, 156, 340, 196)
    d.arrow(400, 156, 500, 196)
    d.box(234, 200, 190, 46, "#fff")
    d.text(329, 220, "dQ += G K\nlibrary's matrix product", 13, True)
    d.box(444, 200, 190, 46, "#fff")
    d.text(539, 220, "dK += Gᵀ Q\nlibrary's matrix product", 13, True)
    d.text(520, 80, "next chunk: the same\nworkspace again", 13)
    d.save("dense", "The dense gradient: coefficients of a chunk, then two library products")


def both_sides() -> None:
    d = Drawing(720, 240)
    d.grid(60, 40, 6, 5, 36, 30)
    d.box(132, 100, 36, 30, ORANGE, 2)
    d.arrow(170, 115, 300, 115)
    d.arrow(150, 132, 150, 204)
    d.box(304, 100, 120, 30, GREEN)
    d.text(364, 120, "row: base, sum", 13, True)
    d.box(80, 206, 140, 26, GREEN)
    d.text(150, 224, "column: base, sum", 13, True)
    d.text(
        450,
        60,
        "One tile, one exponential per\nelement, with the tile's maximum as\nbase: it serves its rows and columns.",
        13,
    )
    d.text(
        450,
        136,
        "Each tile writes its own slot;\nadded up in order, they are the\nlog-sum-exps of both directions.",
        13,
    )
    d.save("both-sides", "Row and column sums of a symmetric softmax from one walk")


def ring() -> None:
    d = Drawing(720, 300)
    spots = ((110, 40), (290, 40), (290, 190), (110, 190))
    for i, (x, y) in enumerate(spots):
        d.box(x, y, 110, 70, "#fff", 1.4)
        d.text(x + 8, y + 20, f"process {i}", 13)
        d.box(x + 8, y + 30, 44, 30, BLUE)
        d.text(x + 30, y + 50, f"Q{i}", 13, True)
        d.box(x + 58, y + 30, 44, 30, ORANGE)
        d.text(x + 80, y + 50, f"K{(i - 1) % 4}", 13, True)
    d.arrow(222, 66, 286, 66)
    d.arrow(345, 112, 345, 186)
    d.arrow(286, 226, 224, 226)
    d.arrow(165, 186, 165, 114)
    d.arrow(222, 90, 286, 90, True)
    d.arrow(375, 112, 375, 186, True)
    d.arrow(286, 246, 224, 246, True)
    d.arrow(135, 186, 135, 114, True)
    d.text(
        440,
        60,
        "second of 4 steps: each process computes\non the block of labels that it holds,",
        13,
    )
    d.arrow(442, 108, 480, 108)
    d.text(490, 112, "while the next block comes in", 13)
    d.arrow(442, 140, 480, 140, True)
    d.text(490, 144, "and the gradient of the block\nbefore follows one step behind.", 13)
    d.text(
        440,
        200,
        "After the last step each gradient is\nat home. Nobody ever holds all\nlabels, or all similarities.",
        13,
    )
    d.save("ring", "Labels travel round a ring of processes")


def screening() -> None:
    d = Drawing(720, 300)
    d.text(14, 22, "1  one row: where each score must lie, from products of 8-bit integers")
    d.arrow(40, 190, 40, 36)
    d.text(20, 32, "s", 13)
    bounds = [(96, 12), (70, 12), (140, 14), (58, 12), (118, 12), (84, 12), (150, 12), (66, 14)]
    for i, (middle, reach) in enumerate(bounds):
        x = 66 + i * 44
        kept = middle - reach <= 80
        d.box(x, middle - reach, 20, 2 * reach, ORANGE if kept else GREY)
        d.box(x, middle - 1, 20, 2, INK)
        d.text(x + 10, 206, f"{i + 1}", 12, True)
    d.arrow(44, 80, 424, 80, True)
    d.text(
        432,
        78,
        "2  k = 2: the second largest lower end (τ);\n   what does not reach above it is out",
        12,
    )
    d.text(432, 130, "U = ŝ + ε + δ   upper end\nL = ŝ − ε − δ   lower end", 12)
    d.text(14, 240, "3  what is left is scored in full precision; ties go to the smaller label")
    for i, words in enumerate(("label 4: .83", "label 8: .79")):
        d.box(66 + i * 150, 254, 130, 30, GREEN)
        d.text(131 + i * 150, 274, words, 13, True)
    d.save("screening", "Bounds of 8-bit products leave few labels to score")


if __name__ == "__main__":
    for draw in (walk, hardest, one_pass, active, dense, both_sides, ring, screening):
        draw()
