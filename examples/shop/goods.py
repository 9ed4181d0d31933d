"""What the shop sells, with a drawing of each."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Product:
    """Something to buy.

    Attributes:
        slug: Its name in URLs.
        name: Its name on pages.
        price: What one costs.
        words: One sentence about it.
        colour: Background of its drawing.
        drawing: SVG shapes on a canvas of 100 by 100.
    """

    slug: str
    name: str
    price: Decimal
    words: str
    colour: str
    drawing: str


def _product(slug: str, name: str, price: str, words: str, colour: str, drawing: str) -> Product:
    return Product(slug, name, Decimal(price), words, colour, drawing)


PRODUCTS = {
    product.slug: product
    for product in (
        _product(
            "lamp", "Desk lamp", "89.00", "A warm cone of light that stays where you put it.", "#f4e3c1",
            '<path d="M38 82h28M52 82V58L36 40" stroke="#3b3a36" stroke-width="4" fill="none"'
            ' stroke-linecap="round"/><path d="M24 44 44 26l12 14-20 14z" fill="#d9822b"/>',
        ),
        _product(
            "mug", "Stoneware mug", "18.50", "Thick walls, and a handle for two fingers.", "#dbe7e4",
            '<path d="M32 30h34v36a10 10 0 0 1-10 10H42a10 10 0 0 1-10-10z" fill="#3f7d78"/>'
            '<path d="M66 38h6a8 8 0 0 1 0 20h-6" stroke="#3f7d78" stroke-width="5" fill="none"/>',
        ),
        _product(
            "chair", "Ash chair", "249.00", "Steam-bent, glued once, sat on for decades.", "#eadfd4",
            '<path d="M36 20v40h28V20M36 60l-4 24M64 60l4 24M36 36h28" stroke="#8a5a34"'
            ' stroke-width="5" fill="none" stroke-linecap="round" stroke-linejoin="round"/>',
        ),
        _product(
            "notebook", "Notebook", "12.90", "Opens flat, takes ink, survives a rucksack.", "#e3e0ef",
            '<rect x="30" y="20" width="42" height="60" rx="4" fill="#5b4b8a"/>'
            '<path d="M38 20v60M48 36h16M48 46h12" stroke="#e3e0ef" stroke-width="3"/>',
        ),
        _product(
            "clock", "Wall clock", "64.00", "Tells the time and keeps quiet about it.", "#d8e4f0",
            '<circle cx="50" cy="50" r="30" fill="#fff" stroke="#2c4a6e" stroke-width="5"/>'
            '<path d="M50 32v18l12 8" stroke="#2c4a6e" stroke-width="4" fill="none" stroke-linecap="round"/>',
        ),
        _product(
            "kettle", "Kettle", "74.50", "Pours where you aim.", "#f0dcd8",
            '<path d="M34 44h32l4 34H30z" fill="#a23b2f"/>'
            '<path d="M67 70q10-4 11-26l7-4" stroke="#a23b2f" stroke-width="5" fill="none"'
            ' stroke-linecap="round"/>'
            '<path d="M34 44a16 18 0 0 1 32 0" stroke="#3b3a36" stroke-width="4" fill="none"/>'
            '<path d="M44 44a6 5 0 0 1 12 0z" fill="#3b3a36"/>',
        ),
        _product(
            "scarf", "Wool scarf", "45.00", "Two metres of quiet warmth.", "#e6ecd8",
            '<path d="M40 22h20v44H40z" fill="#6b8a3a"/><path d="M40 66v14M47 66v14M54 66v14M60 66v14'
            'M40 34h20M40 48h20" stroke="#40541f" stroke-width="3"/>',
        ),
        _product(
            "knife", "Kitchen knife", "119.00", "Carbon steel; it wants to be dried.", "#e2e5e8",
            '<g transform="rotate(-35 50 50)"><path d="M38 42h50q-4 16-26 16H38z" fill="#9aa5b1"/>'
            '<path d="M38 42h50q-1 4-3 6H38z" fill="#c3ccd5"/>'
            '<rect x="10" y="42" width="28" height="11" rx="4" fill="#5a3d28"/>'
            '<circle cx="18" cy="47.5" r="1.6" fill="#e2e5e8"/>'
            '<circle cx="29" cy="47.5" r="1.6" fill="#e2e5e8"/></g>',
        ),
    )
}  # fmt: skip
