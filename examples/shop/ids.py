"""What the shop's experiments and goals are called at Convert.

``python -m examples.shop.ids`` prints the names as JSON, for the collector's ``--catalogue``.
"""

from __future__ import annotations

import json

PROJECT, CUSTOMER = 100411, 1004

HEADLINE = 1004110  # experiment: what the landing page says first
HEADLINES = {1004111: "Things that last", 1004112: "Made once, made well"}
BUTTON = 1004120  # experiment: the words on the button that fills the cart
BUTTONS = {1004121: "Add to cart", 1004122: "I'll take it"}

SIGNED_UP = 1004131
VIEWED = 1004132
FILLED_CART = 1004133
AT_CHECKOUT = 1004134
BOUGHT = 1004135

NAMES = {
    "experiments": {str(HEADLINE): "Landing headline", str(BUTTON): "Cart button"},
    "variations": {str(key): text for key, text in (HEADLINES | BUTTONS).items()},
    "goals": {
        str(SIGNED_UP): "Newsletter",
        str(VIEWED): "Viewed product",
        str(FILLED_CART): "Filled cart",
        str(AT_CHECKOUT): "At checkout",
        str(BOUGHT): "Bought",
    },
}

if __name__ == "__main__":
    print(json.dumps(NAMES, indent=2))
