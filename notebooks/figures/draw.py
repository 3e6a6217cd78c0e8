"""The course's drawings: python notebooks/figures/draw.py writes every .svg beside this file.

Each is a picture on a white card, so that it is the same in a light and a dark page and in print.
Letters are 19 of 640 units high: still 11 pixels where a phone shows it 360 pixels wide.
"""

from html import escape
from itertools import pairwise
from pathlib import Path

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#C25400", "#00795A", "#555555"
TINTS = {BLUE: "#DCEBF5", ORANGE: "#FBE6D8", GREEN: "#DBF0E8", GREY: "#EEEEEE"}


class Drawing:
    """Boxes, arrows and words, put together as SVG."""

    def __init__(self, width: int, height: int, title: str):
        self.parts: list[str] = []
        self.head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" font-family="Helvetica, Arial, '
            f'sans-serif" font-size="19">\n<title>{escape(title)}</title>\n'
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
            'markerHeight="7" orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" '
            'fill="context-stroke"/></marker></defs>\n'
            f'<rect width="{width}" height="{height}" rx="8" fill="white"/>\n'
        )

    def box(self, x, y, width, height, text="", colour=GREY, size=19):
        """A box around its middle (x, y); text of several lines is divided by |."""
        self.parts.append(
            f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width}" '
            f'height="{height}" rx="6" fill="{TINTS[colour]}" stroke="{colour}" stroke-width="2"/>'
        )
        lines = text.split("|")
        for number, line in enumerate(lines):
            self.text(x, y + (number - (len(lines) - 1) / 2) * (size + 4), line, size=size)

    def text(self, x, y, text, colour="#111111", size=19, anchor="middle", style=""):
        """Words with their middle at (x, y); _x_ is a lowered x."""
        pieces = text.split("_")
        inner = escape(pieces[0])
        for number, piece in enumerate(pieces[1:]):
            small = number % 2 == 0
            shift = f'dy="{5 if small else -5}" font-size="{size * 0.7 if small else size:g}"'
            inner += f"<tspan {shift}>{escape(piece)}</tspan>"
        self.parts.append(
            f'<text x="{x:g}" y="{y + size * 0.35:g}" text-anchor="{anchor}" fill="{colour}" '
            f'font-size="{size}" {style}>{inner}</text>'
        )

    def arrow(self, *points, colour=GREY, width=2.0, tip=True):
        """A line through these points, with or without a tip at its end."""
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        end = ' marker-end="url(#tip)"' if tip else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{end}/>'
        )

    def frame(self, x, y, width, height, colour=GREY):
        """A dashed frame around its middle (x, y)."""
        self.parts.append(
            f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width}" height="{height}" '
            f'rx="8" fill="none" stroke="{colour}" stroke-width="1.5" stroke-dasharray="6 5"/>'
        )

    def save(self, name: str) -> None:
        path = Path(__file__).with_name(f"{name}.svg")
        path.write_text(self.head + "\n".join(self.parts) + "\n</svg>\n", encoding="utf-8")


def encoder_decoder() -> None:
    drawing = Drawing(640, 384, "An encoder-decoder translating 'the dog sleeps.'")
    source, target = ["the", "dog", "sleeps", "."], ["<sos>", "le", "chien", "dort", "."]
    xs = [62 + 74 * n for n in range(4)]
    for number, (x, word) in enumerate(zip(xs, source, strict=True)):
        drawing.text(x, 332, word)
        drawing.arrow((x, 316), (x, 284), colour=BLUE)
        drawing.box(x, 258, 56, 48, f"h_{number + 1}_", BLUE)
    for one, other in pairwise(xs):
        drawing.arrow((one + 28, 250), (other - 28, 250), colour=BLUE)
        drawing.arrow((other - 28, 266), (one + 28, 266), colour=BLUE)
    drawing.text(173, 364, "encoder: reads both ways", BLUE, 17)
    drawing.box(173, 130, 150, 46, "summary", GREY)
    drawing.arrow((62, 234), (62, 150), (94, 136), colour=GREY)
    drawing.arrow((284, 234), (284, 150), (252, 136), colour=GREY)
    xs = [332 + 68 * n for n in range(5)]
    xs = [x + 4 for x in xs]
    outputs = ["le", "chien", "dort", ".", "<eos>"]
    for number, (x, word, said) in enumerate(zip(xs, target, outputs, strict=True)):
        drawing.text(x, 218, word, size=17)
        drawing.arrow((x, 202), (x, 156), colour=ORANGE)
        drawing.box(x, 130, 50, 46, f"s_{number + 1}_", ORANGE)
        drawing.arrow((x, 106), (x, 66), colour=ORANGE)
        drawing.text(x, 48, said, size=17)
    drawing.arrow((249, 126), (309, 126), colour=GREY)
    for one, other in pairwise(xs):
        drawing.arrow((one + 25, 130), (other - 25, 130), colour=ORANGE)
    drawing.text(472, 20, "predicted tokens", ORANGE, 17)
    drawing.text(472, 250, "decoder: reads the previous token", ORANGE, 17)
    drawing.save("encoder_decoder")


def attention() -> None:
    drawing = Drawing(640, 400, "One step of attention: three encoder states are weighed and added")
    words, weights = ["the", "dog", "sleeps"], [0.1, 0.8, 0.1]
    xs = [90, 230, 370]
    for number, (x, word, weight) in enumerate(zip(xs, words, weights, strict=True)):
        drawing.text(x, 380, word)
        drawing.arrow((x, 364), (x, 342), colour=BLUE)
        drawing.box(x, 318, 64, 44, f"h_{number + 1}_", BLUE)
        drawing.arrow((x, 295), (x, 262), colour=GREY)
        drawing.box(x, 240, 76, 42, f"e_{number + 1}_", GREY)
        drawing.arrow((x, 218), (x, 192), colour=GREY)
        drawing.box(x, 170, 84, 42, f"α = {weight}", GREEN)
        drawing.arrow((x, 148), (220 + (x - 230) * 0.35, 96), colour=GREEN, width=1 + 6 * weight)
    drawing.text(426, 170, "softmax", GREEN, 17, "start")
    drawing.text(426, 282, "scores", GREY, 17, "start")
    drawing.box(220, 70, 130, 50, "context c", GREEN)
    drawing.text(220, 26, "0.1 h_1_ + 0.8 h_2_ + 0.1 h_3_", GREEN, 17)
    drawing.box(540, 70, 130, 50, "decoder", ORANGE)
    drawing.arrow((286, 70), (472, 70), colour=GREEN)
    drawing.arrow((540, 96), (540, 240), (412, 240), colour=ORANGE)
    drawing.text(552, 200, "query s", ORANGE, 17, "start")
    drawing.save("attention")


def transformer() -> None:
    drawing = Drawing(640, 660, "The transformer: encoder layers on the left, decoder layers right")
    left, right = 160, 470

    def layer(x, y, name, colour, half=105):
        drawing.arrow((x, y + 54), (x, y + 24), colour=colour)
        drawing.box(x, y, 2 * half, 44, name, colour)
        drawing.arrow((x, y - 22), (x, y - 30), colour=colour, tip=False)
        # The residual connection goes round the block.
        drawing.arrow((x, y + 40), (x - half - 16, y + 40), (x - half - 16, y - 38),
                      (x - 13, y - 38), colour=GREY)  # fmt: skip
        drawing.text(x, y - 39, "+", GREY, 26)

    for x, colour, name in (left, BLUE, "source"), (right, ORANGE, "target so far"):
        drawing.text(x, 644, name, size=17)
        drawing.box(x, 606, 230, 40, "embedding + position", colour)
        drawing.arrow((x, 586), (x, 554), colour=colour, tip=False)
    layer(left, 500, "self-attention", BLUE)
    layer(left, 392, "feed-forward", BLUE)
    drawing.frame(left - 6, 444, 268, 228, BLUE)
    drawing.text(46, 318, "N layers", BLUE, 17, "start")
    layer(right, 500, "causal self-attention", ORANGE)
    layer(right, 392, "cross-attention", GREEN)
    layer(right, 284, "feed-forward", ORANGE)
    drawing.frame(right - 6, 390, 268, 336, ORANGE)
    drawing.text(356, 210, "N layers", ORANGE, 17, "start")
    drawing.arrow((left, 343), (left, 290), (308, 290), (308, 392), (362, 392), colour=GREEN)
    drawing.text(220, 272, "keys, values", GREEN, 17)
    drawing.arrow((right, 235), (right, 152), colour=ORANGE)
    drawing.box(right, 128, 230, 44, "linear, softmax", ORANGE)
    drawing.arrow((right, 105), (right, 66), colour=ORANGE)
    drawing.text(right, 46, "next token")
    drawing.save("transformer")


def bahdanau_and_luong() -> None:
    drawing = Drawing(640, 470, "Where attention stands in Bahdanau's decoder and in Luong's")
    for x, name, year in (160, "Bahdanau", "look, then step"), (480, "Luong", "step, then look"):
        drawing.text(x, 26, name, size=21)
        drawing.text(x, 52, year, GREY, 17)
    drawing.arrow((320, 16), (320, 456), colour="#CCCCCC", width=1.5, tip=False)
    drawing.box(160, 350, 190, 46, "attention", GREEN)
    drawing.box(160, 240, 190, 46, "RNN", ORANGE)
    drawing.box(160, 130, 190, 46, "readout", GREY)
    drawing.text(160, 436, "query s_i-1_", ORANGE, 17)
    drawing.arrow((160, 420), (160, 375), colour=ORANGE)
    drawing.arrow((160, 326), (160, 265), colour=GREEN)
    drawing.text(172, 296, "context c_i_", GREEN, 17, "start")
    drawing.text(20, 190, "y_i-1_", size=17, anchor="start")
    drawing.arrow((38, 206), (38, 240), (62, 240), colour=GREY)
    drawing.arrow((38, 174), (38, 130), (62, 130), colour=GREY)
    drawing.arrow((160, 216), (160, 155), colour=ORANGE)
    drawing.text(172, 186, "s_i_", ORANGE, 17, "start")
    drawing.arrow((258, 350), (284, 350), (284, 130), (258, 130), colour=GREEN)
    drawing.arrow((160, 106), (160, 84), colour=GREY)
    drawing.box(480, 350, 190, 46, "RNN", ORANGE)
    drawing.box(480, 240, 190, 46, "attention", GREEN)
    drawing.box(480, 130, 190, 46, "readout", GREY)
    drawing.text(480, 436, "y_t-1_ and h_t-1_", size=17)
    drawing.arrow((480, 420), (480, 375), colour=GREY)
    drawing.arrow((480, 326), (480, 265), colour=ORANGE)
    drawing.text(492, 296, "query h_t_", ORANGE, 17, "start")
    drawing.arrow((480, 216), (480, 155), colour=GREEN)
    drawing.text(492, 186, "context c_t_", GREEN, 17, "start")
    drawing.arrow((578, 350), (604, 350), (604, 130), (578, 130), colour=ORANGE)
    drawing.arrow((480, 106), (480, 84), colour=GREY)
    drawing.arrow((382, 118), (350, 118), (350, 362), (382, 362), colour=GREY)
    drawing.text(344, 404, "input feeding", GREY, 17, "start")
    drawing.save("bahdanau_and_luong")


def gru() -> None:
    drawing = Drawing(640, 330, "A GRU cell: two gates decide what the new state keeps of the old")
    drawing.arrow((20, 60), (596, 60), colour=ORANGE, width=3)
    drawing.text(40, 38, "h_t-1_", ORANGE)
    drawing.text(612, 38, "h_t_", ORANGE)
    for x, sign in (300, "×"), (500, "+"):
        drawing.parts.append(f'<circle cx="{x}" cy="60" r="17" fill="white" stroke="{ORANGE}" '
                             'stroke-width="2"/>')  # fmt: skip
        drawing.text(x, 59, sign, ORANGE, 24)
    drawing.box(120, 220, 120, 56, "reset r|0 to 1", BLUE, 17)
    drawing.box(300, 150, 120, 56, "update z|0 to 1", BLUE, 17)
    drawing.box(500, 220, 150, 56, "candidate|tanh(…)", GREEN, 17)
    drawing.arrow((300, 121), (300, 80), colour=BLUE)
    drawing.text(312, 100, "keep z", BLUE, 17, "start")
    drawing.arrow((500, 191), (500, 80), colour=GREEN)
    drawing.text(512, 120, "add (1 − z)", GREEN, 17, "start")
    drawing.arrow((182, 220), (422, 220), colour=BLUE)
    drawing.text(300, 242, "r × the old state", BLUE, 17)
    drawing.text(300, 312, "the token x_t_ and the old state h_t-1_ go into all three", GREY, 17)
    for x in 120, 500:
        drawing.arrow((x, 292), (x, 251), colour=GREY)
    drawing.arrow((222, 292), (222, 160), (238, 160), colour=GREY)
    drawing.save("gru")


def multi_head() -> None:
    drawing = Drawing(640, 420, "Multi-head attention: four small attentions side by side")
    drawing.box(320, 380, 300, 44, "x: width 128", GREY)
    xs = [95, 245, 395, 545]
    for number, x in enumerate(xs):
        drawing.arrow((320, 357), (x, 322), colour=GREY)
        drawing.box(x, 298, 130, 46, "q, k, v: 32", BLUE, 17)
        drawing.arrow((x, 274), (x, 242), colour=BLUE)
        drawing.box(x, 206, 130, 70, f"attention|head {number + 1}", GREEN, 17)
        drawing.arrow((x, 170), (320 + (x - 320) * 0.45, 135), colour=GREEN)
    drawing.box(320, 112, 360, 44, "side by side: 4 × 32 = 128", GREEN)
    drawing.arrow((320, 89), (320, 68), colour=GREY)
    drawing.box(320, 44, 300, 44, "output projection", GREY)
    drawing.save("multi_head")


def cache() -> None:
    drawing = Drawing(640, 330, "Decoding step 4 with a cache: one new query, four keys and values")
    xs = [150, 260, 370, 480]
    words = ["<sos>", "le", "chien", "dort"]
    for number, (x, word) in enumerate(zip(xs, words, strict=True)):
        new = number == 3
        drawing.text(x, 306, word, size=17)
        colour = ORANGE if new else GREY
        drawing.arrow((x, 290), (x, 262), colour=colour)
        drawing.box(x, 240, 96, 42, f"k_{number + 1}_, v_{number + 1}_", colour)
    drawing.frame(260, 240, 340, 66, BLUE)
    drawing.text(40, 96, "cache: computed at earlier steps", BLUE, 17, "start")
    drawing.box(480, 120, 96, 42, "q_4_", ORANGE)
    drawing.arrow((528, 232), (570, 232), (570, 120), (530, 120), colour=ORANGE)
    for x in xs:
        drawing.arrow((480 - (480 - x) * 0.06, 142), (x, 217), colour=GREEN)
    drawing.arrow((480, 98), (480, 66), colour=GREEN)
    drawing.text(480, 44, "next token")
    drawing.text(40, 56, "only the new token is computed", ORANGE, 17, "start")
    drawing.save("cache")


def beam_search() -> None:
    drawing = Drawing(640, 380, "Beam search with a beam of 2: the two best prefixes go on")
    drawing.box(70, 190, 90, 42, "<sos>", GREY, 17)
    first = [("un", 0.5, 90, True), ("le", 0.4, 230, True), ("<eos>", 0.1, 330, False)]
    for word, p, y, kept in first:
        drawing.arrow((116, 190), (176, y), colour=GREEN if kept else GREY)
        drawing.box(230, y, 104, 42, f"{word} {p}", GREEN if kept else GREY, 17)
    second = [
        ("un chat", 0.18, 60, 90, True), ("un chien", 0.17, 120, 90, False),
        ("le chat", 0.36, 200, 230, True), ("le chien", 0.04, 260, 230, False),
    ]  # fmt: skip
    for words, p, y, parent, kept in second:
        drawing.arrow((283, parent), (374, y), colour=GREEN if kept else GREY)
        drawing.box(455, y, 160, 42, f"{words} {p}", GREEN if kept else GREY, 17)
    for y in 60, 200:
        drawing.arrow((536, y), (600, y), colour=GREEN)
    drawing.text(230, 36, "greedy keeps only this", GREY, 17)
    drawing.text(455, 304, "0.4 × 0.9 = 0.36: the best", GREEN, 17)
    drawing.text(455, 330, "two words begin with “le”", GREEN, 17)
    drawing.save("beam_search")


def label_smoothing() -> None:
    drawing = Drawing(640, 300, "The target distribution without label smoothing, and with it")
    tokens = ["chat", "chien", "le", "un", "."]
    for left, name, high, low in (40, "without", 1.0, 0.0), (350, "with ε = 0.1", 0.92, 0.02):
        drawing.text(left + 125, 28, name, size=19)
        for number, token in enumerate(tokens):
            x, p = left + 25 + 50 * number, high if number == 1 else low
            height = 170 * p
            drawing.parts.append(
                f'<rect x="{x - 17}" y="{236 - height:g}" width="34" height="{height:g}" '
                f'fill="{GREEN if number == 1 else ORANGE}"/>'
            )
            drawing.text(x, 224 - height, f"{p:g}", size=17)
            drawing.text(x, 258, token, size=17)
        drawing.arrow((left, 237), (left + 250, 237), tip=False)
    drawing.text(165, 286, "the correct token: chien", GREEN, 17)
    drawing.text(475, 286, "0.1 / 5 for every token", ORANGE, 17)
    drawing.save("label_smoothing")


def teacher_forcing() -> None:
    drawing = Drawing(640, 420, "Teacher forcing reads the reference; in use a model reads itself")
    rows = [
        (110, "training: reads the reference", ["<sos>", "le", "chien", "dort"],
         ["le", "chat", "dort", "."], BLUE),
        (320, "in use: reads its own words", ["<sos>", "le", "chat", "mange"],
         ["le", "chat", "mange", "."], ORANGE),
    ]  # fmt: skip
    for y, name, read, said, colour in rows:
        drawing.text(24, y - 90, name, colour, 19, "start")
        xs = [100 + 145 * number for number in range(4)]
        for number, (x, one, other) in enumerate(zip(xs, read, said, strict=True)):
            drawing.text(x, y + 72, one, size=17)
            drawing.arrow((x, y + 56), (x, y + 26), colour=colour)
            drawing.box(x, y, 66, 46, f"s_{number + 1}_", colour)
            drawing.arrow((x, y - 24), (x, y - 42), colour=colour)
            drawing.text(x, y - 58, other, "#B00020" if other in ("chat", "mange") else "#111111",
                         17)  # fmt: skip
        for one, other in pairwise(xs):
            drawing.arrow((one + 34, y), (other - 34, y), colour=colour)
            if colour == ORANGE:
                drawing.arrow((one + 36, y - 56), (one + 80, y - 56), (one + 80, y + 72),
                              (other - 32, y + 72), colour=GREY, width=1.5)  # fmt: skip
    drawing.save("teacher_forcing")


if __name__ == "__main__":
    for draw in (
        *(encoder_decoder, attention, transformer, bahdanau_and_luong, gru, multi_head, cache),
        *(beam_search, label_smoothing, teacher_forcing),
    ):
        draw()
