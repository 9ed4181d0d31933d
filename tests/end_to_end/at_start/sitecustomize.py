"""Has every Python that finds this file say what became of its hits, even where nothing is logged."""

import logging

if logging.lastResort is not None:
    logging.lastResort.setLevel(logging.INFO)
logging.getLogger("convert_middleware").setLevel(logging.INFO)
