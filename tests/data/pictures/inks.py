"""Makes inks.jpg, inks-ycck.jpg, inks.tif and fax.tif: pictures that only other programs write. Needs Pillow; prints what
LittleCMS makes of the inks."""

import io
import struct

from PIL import Image, ImageCms

D50 = struct.pack(">iii", round(0.9642 * 65536), 65536, round(0.8249 * 65536))
# How the solid inks look, as L*, a*, b*: cyan, magenta, yellow on and off.
SOLID = {
    (0, 0, 0): (95, 0, 0), (1, 0, 0): (55, -35, -50), (0, 1, 0): (48, 74, -3), (0, 0, 1): (88, -5, 93),
    (1, 1, 0): (24, 22, -46), (1, 0, 1): (50, -65, 27), (0, 1, 1): (47, 68, 48), (1, 1, 1): (23, 0, 0),
}


def profile():
    """The smallest profile of a printer: one table with two points for each ink."""
    table = b""
    for at in range(16):
        light, a, b = SOLID[at >> 3 & 1, at >> 2 & 1, at >> 1 & 1]
        if at & 1:
            light, a, b = max(light * 0.15, 5), a // 8, b // 8
        table += bytes([round(light * 255 / 100), a + 128, b + 128])
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + table + ramp * 3
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"inks\0" + bytes(78)
    tags, data = b"", b""
    parts = [(b"desc", description), (b"wtpt", b"XYZ \0\0\0\0" + D50), (b"A2B0", lut)]
    begin = 128 + 4 + 12 * len(parts)
    for name, part in parts:
        tags += name + struct.pack(">II", begin + len(data), len(part))
        data += part + bytes(-len(part) % 4)
    head = struct.pack(">I4sI4s4s4s", begin + len(data), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + D50
    return head + bytes(128 - len(head)) + struct.pack(">I", len(parts)) + tags + data


def halves(mode, left, right):
    picture = Image.new(mode, (96, 48), right)
    picture.paste(left, (0, 0, 48, 48))
    return picture


icc = profile()
inks = halves("CMYK", (255, 0, 0, 0), (0, 204, 255, 0))
inks.save("inks.jpg", quality=92, icc_profile=icc)
inks.save("inks.tif", compression="tiff_lzw", icc_profile=icc)
# As Photoshop writes them: the first three as YCbCr. Pillow turns all four round when it writes.
planes = halves("RGB", (255, 0, 0), (0, 204, 255)).convert("YCbCr").split()
planes = [plane.point(lambda value: 255 - value) for plane in planes]
written = io.BytesIO()
Image.merge("CMYK", [*planes, Image.new("L", (96, 48))]).save(written, "JPEG", quality=92, icc_profile=icc, subsampling=0)
ycck = bytearray(written.getvalue())
ycck[ycck.index(b"Adobe") + 11] = 2
with open("inks-ycck.jpg", "wb") as file:
    file.write(ycck)
halves("1", 0, 1).save("fax.tif", compression="group4")

seen = ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB"), "CMYK", "RGB")
for name in ("inks.jpg", "inks-ycck.jpg", "inks.tif"):
    shown = ImageCms.applyTransform(Image.open(name), seen)
    print(name, shown.getpixel((10, 10)), shown.getpixel((80, 10)))
