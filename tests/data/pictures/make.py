"""Draws the pictures of the tests: shapes on a light ground, 480 x 336 pixels, which is 70 tokens, and a large one that
comes in several scans. Needs Pillow."""

from pathlib import Path

from PIL import Image, ImageDraw

SIZE = (480, 336)
GROUND = (244, 244, 244)


def main() -> None:
    for name, colour, shape in (("red-circle.png", (215, 35, 35), "circle"), ("blue-square.png", (40, 80, 220), "square")):
        image = Image.new("RGB", SIZE, GROUND)
        draw = ImageDraw.Draw(image)
        if shape == "circle":
            draw.ellipse((160, 88, 319, 247), fill=colour)
        else:
            # Not 160 pixels wide and in the very middle: there the tiny model takes any square for something else.
            draw.rectangle((145, 73, 334, 262), fill=colour)
        image.save(Path(__file__).parent / name, optimize=True)
    large = Image.new("RGB", (3000, 2000), (200, 80, 20))
    large.save(Path(__file__).parent / "progressive.jpg", progressive=True, optimize=True, quality=50)


if __name__ == "__main__":
    main()
