"""The words of the generated catalogue. Brands and series are invented."""

from __future__ import annotations

from dataclasses import dataclass

BRANDS = (
    "Velmora", "Nordkraal", "Hisuno", "Teknaro", "Brannix", "Osakura", "Lumetrix", "Kelvanta",
    "Arvenno", "Quorrado", "Dexotra", "Miravolt", "Zanetti & Fels", "Pelikanto", "Grunwaldt",
    "Soltera", "Ibexon", "Fjordlyn", "Castovel", "Wexmore", "Ravello Home", "Tuvalux", "Ondara",
    "Jinhai", "Krellmann", "Aurivox", "Bellavida", "Novaterm", "Stromberg-Lind", "Yotari",
)  # fmt: skip

# Colour, and how merchants shorten it.
COLOURS = {
    "Black": ("black", "blk", "jet black"),
    "White": ("white", "wht", "polar white"),
    "Silver": ("silver", "slv", "silver metallic"),
    "Grey": ("grey", "gray", "graphite", "space grey"),
    "Stainless Steel": ("stainless steel", "inox", "s/steel", "st. steel"),
    "Blue": ("blue", "blu", "midnight blue"),
    "Red": ("red", "cherry red"),
    "Gold": ("gold", "rose gold", "champagne"),
}

PROMOTION = (
    "new", "brand new", "sale", "free delivery", "uk stock", "sealed", "best price",
    "2 year warranty", "clearance", "in stock", "next day delivery", "official", "refurbished",
    "bundle", "limited offer", "ex display", "genuine",
)  # fmt: skip


@dataclass(frozen=True)
class Category:
    """How products of one kind are named, and what merchants add.

    Attributes:
        nouns: what merchants call it; the first is the plain word.
        series: series names, or empty when products go by model number alone.
        trims: variants of a series ("Plus"), the empty one included.
        model: pattern of model numbers: ``A`` a letter, ``9`` a digit, ``{size}`` the size.
        sizes: (value, unit) of the attribute that tells look-alikes apart.
        colours: colours that have products of their own; empty: colour is not in the name.
        extras: properties that merchants mention and names do not.
    """

    nouns: tuple[str, ...]
    series: tuple[str, ...]
    trims: tuple[str, ...]
    model: str
    sizes: tuple[tuple[str, str], ...]
    colours: tuple[str, ...]
    extras: tuple[str, ...]


def _sizes(values: str, unit: str) -> tuple[tuple[str, str], ...]:
    return tuple((value, unit) for value in values.split())


CATEGORIES = (
    Category(
        ("smartphone", "mobile phone", "phone", "handset"),
        ("Nova", "Pulse", "Aero", "Vertex", "Lyra"),
        ("", "Plus", "Pro", "Lite", "Max"),
        "AA-A999",
        _sizes("32 64 128 256 512", "GB"),
        (),
        (
            "sim free", "unlocked", "5g", "4g lte", "dual sim",
            "6.1 inch", "5.8 inch", "12mp", "android",
        ),
    ),
    Category(
        ("tablet", "tab", "android tablet"),
        ("Slate", "Folio", "Canvas"),
        ("", "Mini", "Pro", "S"),
        "A-A999",
        _sizes("16 32 64 128 256", "GB"),
        ("Black", "Silver", "Gold"),
        ("wifi", "wi-fi + cellular", "10.1 inch", "8 inch", "4gb ram", "quad core"),
    ),
    Category(
        ("tv", "led tv", "smart tv", "television"),
        (),
        ("",),
        "{size}AA99A",
        _sizes("32 40 43 49 50 55 65 75", '"'),
        (),
        (
            "4k", "ultra hd", "hdr", "smart", "1080p", "full hd",
            "freeview", "wifi", "uhd", "oled", "led",
        ),
    ),
    Category(
        ("fridge freezer", "fridge", "combi fridge", "refrigerator"),
        (),
        ("",),
        "AAA-99A{size}",
        _sizes("50 54 55 60 70 90", "cm"),
        ("White", "Silver", "Black", "Stainless Steel"),
        ("a+", "a++", "a+++", "frost free", "70/30", "50/50", "freestanding", "tall", "integrated"),
    ),
    Category(
        ("washing machine", "washer", "front loader"),
        (),
        ("",),
        "AA{size}A99",
        _sizes("6 7 8 9 10 12", "kg"),
        ("White", "Black", "Grey"),
        ("1200 rpm", "1400 rpm", "1400 spin", "1600 spin", "a+++", "freestanding", "quick wash"),
    ),
    Category(
        ("dishwasher", "built in dishwasher", "slimline dishwasher"),
        (),
        ("",),
        "AAA99A",
        _sizes("9 10 12 13 14 15", "place settings"),
        ("White", "Silver", "Black"),
        ("a++", "a+", "freestanding", "fully integrated", "60cm", "45cm"),
    ),
    Category(
        ("microwave", "microwave oven", "solo microwave", "combi microwave"),
        (),
        ("",),
        "AAA-999A",
        _sizes("17 20 23 25 28 32", "L"),
        ("White", "Black", "Silver", "Red"),
        ("700w", "800w", "900w", "1000w", "touch control", "with grill", "digital"),
    ),
    Category(
        ("digital camera", "camera", "dslr camera", "compact camera"),
        ("Optix", "Lumen", "Focal"),
        ("", "II", "III", "S", "X"),
        "A-A99",
        _sizes("18-55 18-105 24-70 55-200", "mm"),
        (),
        ("20.1mp", "24mp", "16mp", "4k video", "wifi", "lens kit", "vr lens", "30x zoom"),
    ),
    Category(
        ("laptop", "notebook", "ultrabook"),
        ("Swiftline", "Terra", "Edge", "Flexbook"),
        ("", "13", "14", "15", "Pro 15"),
        "AA999-A9",
        _sizes("128 256 512 1000", "GB SSD"),
        (),
        (
            "8gb ram", "16gb ram", "windows 10", "core i5", "core i7",
            "full hd", "touchscreen", "4gb ram",
        ),
    ),
    Category(
        ("headphones", "wireless headphones", "headset", "over ear headphones"),
        ("Echoform", "Tonal", "Reso"),
        ("", "II", "NC", "Sport", "Lite"),
        "AA-9A9",
        (),
        ("Black", "White", "Blue", "Red", "Gold"),
        ("bluetooth", "noise cancelling", "with mic", "foldable", "on ear", "30h battery"),
    ),
    Category(
        ("processor", "cpu", "desktop processor"),
        ("Kern", "Zephyr"),
        ("", "K", "X", "F"),
        "9999",
        _sizes("3.2 3.4 3.6 3.8 4.0 4.2", "GHz"),
        (),
        ("socket 1151", "socket am4", "quad core", "6 core", "8mb cache", "box", "tray", "65w"),
    ),
    Category(
        ("vacuum cleaner", "vacuum", "cordless vacuum", "hoover"),
        ("Cyclon", "Whirl", "Airo"),
        ("", "Pet", "Animal", "Turbo"),
        "AA99-9",
        _sizes("0.8 1.2 1.5 2 3", "L"),
        ("Red", "Blue", "Grey"),
        ("bagless", "upright", "cylinder", "700w", "900w", "hepa filter"),
    ),
)  # fmt: skip
